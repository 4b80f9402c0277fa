"""The report: what it says, and that a browser shows it without asking anybody else."""

import json
import shutil

import pandas as pd
import pytest

from acll.errors import UserError
from acll.evaluation import figures, run_figures
from acll.evaluation.comparison import by_node, matrix_table, paired_table, summary_table
from acll.evaluation.report import CAPTIONS, findings, report_page
from acll.evaluation.style import save_figure
from acll.evaluation.tables import curves_table, data_table
from test_tables import FOUND, SUMMARY, each_of, final_of, runs_of, scores_of, with_seed

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
CONFIGURATION = "name: both  # <script>alert(1)</script>\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The tables and figures of a run of four methods with two seeds, and what it took."""
    folder = tmp_path_factory.mktemp("report") / "both"
    found, seeds = FOUND | with_seed(1, 0.9), (0, 1)
    each, final = each_of(found, seeds), final_of(found, seeds)
    tables = {
        "scores": scores_of(found),
        "final": final,
        "runs": each,
        "summary": summary_table(each),
        "paired": paired_table(each),
        "curves": curves_table(found),
        "data": data_table([SUMMARY]),
        "matrix": matrix_table(by_node(scores_of(found)), runs_of(seeds)),
        "trials": pd.DataFrame(columns=["network"]),
    }
    (folder / "tables").mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"tables/{name}.csv", index=False)
    save_figure(figures.scores(tables["matrix"], final), folder / "figures/scores.svg")
    save_figure(
        figures.shares(final[final["method"] == "half"].assign(ratio=0.5)),
        folder / "figures/shares.png",
    )
    save_figure(run_figures.matrices(tables["matrix"]), folder / "figures/matrix.png")
    save_figure(run_figures.sizes(tables["summary"]), folder / "figures/sizes.png")
    save_figure(run_figures.curves(tables["curves"], final), folder / "figures/curves.png")
    save_figure(run_figures.difficulty(final), folder / "figures/difficulty.png")
    owned = {
        "both: half": (["a", "b"], {"encoder.0.weight": [5, 3, 2], "encoder.1.weight": [0, 9, 1]})
    }
    save_figure(run_figures.layers(owned), folder / "figures/layers.png")
    for rule, seconds in (("train/a", 2.0), ("train/b", 4.0), ("tables", 1.0)):
        path = folder / f"benchmarks/{rule}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:02\t{100 * seconds}\n")
    return folder


@pytest.fixture(scope="module")
def page(results):
    path = results / "report.html"
    path.write_text(report_page(results, CONFIGURATION), encoding="utf-8")
    return path


def test_a_run_that_has_not_ended_has_no_report(tmp_path):
    with pytest.raises(UserError, match="has the run ended"):
        report_page(tmp_path, "")


def test_results_of_an_older_version_have_no_report_and_say_why(results, tmp_path):
    shutil.copytree(results, tmp_path / "old")
    (tmp_path / "old/tables/paired.csv").unlink()
    with pytest.raises(
        UserError, match=r"made by another version of this: paired missing; `make run`"
    ):
        report_page(tmp_path / "old", "")


def test_the_findings_name_the_best_and_what_it_takes(results):
    summary, paired = (
        pd.read_csv(results / f"tables/{name}.csv") for name in ("summary", "paired")
    )
    (line,) = findings(summary, paired)
    assert line.startswith("both: the highest mean score is that of joint, 0.808. ")
    assert "to the bit, in less than a network for each task, it is half" in line
    assert "of 6 pairs of methods differ in mean score by more than their 95% interval." in line
    (alone,) = findings(summary, paired.assign(low=float("nan"), high=float("nan")))
    assert alone.endswith("With one run of each method no difference has an interval.")


def test_what_was_run_is_told_and_names_of_the_user_are_only_text(page):
    text = page.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)" not in text
    assert "torch 2." in text
    assert "Evaluated on cpu" in text


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with its driver")
@pytest.mark.parametrize(("width", "dark"), [(1300, False), (420, True)])
def test_a_browser_shows_all_of_it_and_asks_nobody_else(page, tmp_path, width, dark):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        f"user-data-dir={tmp_path / 'profile'}",
        f"window-size={width},900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(DRIVER))
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get(page.as_uri())
        wait = WebDriverWait(browser, 20)
        wait.until(
            lambda one: one.find_elements(By.CSS_SELECTOR, "#table_first tbody tr td:nth-child(2)")
        )

        drawn = browser.execute_script(
            "return [...document.images].map(i => [i.complete, i.naturalWidth])"
        )
        assert len(drawn) == len(CAPTIONS) - 1  # no search was run
        assert all(complete and size > 200 for complete, size in drawn)

        def cells(table, column):
            found = browser.find_elements(
                By.CSS_SELECTOR, f"#table_{table} tbody td:nth-child({column})"
            )
            return [cell.get_attribute("textContent").strip() for cell in found]

        def within(table, what):
            container = f"document.querySelector('#table_{table}').closest('.dt-container')"
            return f"{container}.querySelector('{what}')"

        assert cells("first", 2) == ["half", "fine", "alone", "joint"]
        button = within("first", "thead th:nth-child(5) .dtcc-button_order")
        browser.execute_script(f"{button}.click()")
        wait.until(lambda _: cells("first", 2) == ["fine", "half", "alone", "joint"])
        scores = [float(score) for score in cells("first", 5)]
        assert scores == sorted(scores)

        assert set(cells("final", 4)) == {"half", "fine", "alone", "joint"}
        field = browser.execute_script(f"return {within('final', 'input[type=search]')}")
        field.send_keys("joint")
        wait.until(lambda _: set(cells("final", 4)) == {"joint"})

        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= window.innerWidth"
        )
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
        assert browser.get_log("browser") == []
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = {
            one["params"]["request"]["url"].split(":")[0]
            for one in sent
            if one["method"] == "Network.requestWillBeSent"
        }
        assert asked <= {"file", "data", "blob", "chrome"}  # the last: pages of the browser itself
    finally:
        browser.quit()
