"""The report: what it says, and that a browser shows it without asking anybody else."""

import json
import re
import shutil
from contextlib import contextmanager
from html import unescape

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from acll.errors import UserError
from acll.evaluation import figures, run_figures
from acll.evaluation.class_tables import (
    classes_table,
    confusion_table,
    measures_table,
    mistakes_table,
)
from acll.evaluation.comparison import by_node, matrix_table, paired_table, summary_table
from acll.evaluation.console import notes_of
from acll.evaluation.drawings import for_page
from acll.evaluation.findings import findings
from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.fronts import against_fixed_table, front_table
from acll.evaluation.mistakes import MethodMistakes, mistakes
from acll.evaluation.report import CAPTIONS, REPORT_TABLES, report_page
from acll.evaluation.report_tasks import MOST_CLASSES, scoreboards, task_parts
from acll.evaluation.style import save_figure
from acll.evaluation.tables import (
    curves_table,
    data_table,
    final_table,
    read_table,
    scores_table,
)
from acll.node import Node, Run
from acll.training.metrics import mean_iou
from test_fronts import runs_of as fixed_runs
from test_tables import (
    FOUND,
    SUMMARY,
    counted,
    each_of,
    final_of,
    mixed,
    node,
    row,
    runs_of,
    scores_of,
    with_seed,
)

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
CONFIGURATION = "name: both  # <script>alert(1)</script>\n"


TITLE = "Test score of each task after each stage"


def tables_of(found, seeds):
    """The tables of a run, by name."""
    lookup, runs = by_node(scores_of(found)), runs_of(seeds)
    each = each_of(found, seeds)
    front = front_table(each, {"half": "global"})
    return {
        "scores": scores_of(found),
        "final": final_of(found, seeds),
        "runs": each,
        "summary": summary_table(each),
        "paired": paired_table(each),
        "front": front,
        "against_fixed": against_fixed_table(front),
        "curves": curves_table(found),
        "data": data_table([SUMMARY]),
        "matrix": matrix_table(lookup, runs),
        "classes": classes_table(found, runs),
        "measures": measures_table(found, runs),
        "confusion": confusion_table(found, runs),
        "mistakes": mistakes_table(found, runs),
        "trials": pd.DataFrame(columns=["network"]),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The tables and figures of a run of four methods with two seeds, and what it took."""
    folder = tmp_path_factory.mktemp("report") / "both"
    tables = tables_of(FOUND | with_seed(1, 0.9), (0, 1))
    (folder / "tables").mkdir(parents=True)
    for name, table in tables.items():
        table.to_csv(folder / f"tables/{name}.csv", index=False)
    final = tables["final"]
    owned = {"both: half": (["a", "b"], [("encoder.0.weight", [5, 3, 2]), ("x.weight", [0, 9, 1])])}
    half = final[final["method"] == "half"].assign(ratio=0.5)
    made = {
        "scores.svg": figures.scores(tables["matrix"], final),
        "shares.svg": figures.shares(half),
        "matrix.svg": run_figures.matrices(tables["matrix"]),
        "sizes.svg": run_figures.sizes(tables["summary"]),
        "curves.svg": run_figures.curves(tables["curves"], final),
        "difficulty.svg": run_figures.difficulty(final),
        "layers.svg": run_figures.layers(owned),
        "mistakes/both.a.png": mistakes("both: a", [MethodMistakes("half", None, ())]),
    }
    for name, figure in made.items():
        save_figure(figure, folder / "figures" / name)
    for rule, seconds in (("train/a", 2.0), ("train/b", 4.0), ("tables", 2.0)):
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


def found_in(found=FOUND, seeds=(0,), guessed=(), **changes):
    """The findings. guessed: tasks in which every method gives all images one class."""
    tables = tables_of(found, seeds) | changes
    classes = tables["classes"]
    learned = classes.assign(score=classes["score"].where(classes["task"].isin(guessed), 0.9))
    given = (tables[name] for name in ("final", "runs", "summary", "paired"))
    return findings(*given, learned)


def test_the_findings_say_what_was_learned_and_how_much_better_it_is_than_what():
    (line,) = found_in()
    assert line == (
        "both: the network small learned 2 tasks, one after the other (a and b). half forgets "
        "nothing, bit for bit, in 75% of the bytes of a network for each task; 50% of the network "
        "is still free. It reaches a mean accuracy of 0.700, its lowest task 0.500. That is 0.200 "
        "more than fine, which forgets; 0.150 less than joint, which learns all tasks at once; "
        "0.125 less than alone, a network for each task. With one run of each method no difference "
        "has an interval."
    )
    (line,) = found_in(FOUND | with_seed(1, 0.9), (0, 1))
    assert line.endswith("pairs of methods differ in mean score by more than their 95% interval.")


def test_the_findings_name_the_highest_where_every_method_forgets():
    summary = tables_of(FOUND, (0,))["summary"].assign(bit_exact=False)
    (line,) = found_in(summary=summary)
    assert "The highest mean accuracy of 0.850 is that of joint." in line
    assert "forgets nothing" not in line


def test_the_findings_say_first_what_no_method_has_learned():
    (line,) = found_in(guessed=["b"])
    no_better = "In b no method is better than guessing, as far as the test images tell."
    assert f"(a and b). {no_better} half forgets" in line
    assert line == found_in(guessed=["a", "b"])[0]  # fine had learned a, and forgot it
    final = tables_of(FOUND, (0,))["final"].assign(forgetting=0.0)
    (line,) = found_in(guessed=["a", "b"], final=final)
    assert line == (
        "both: the network small is not known to have learned anything of its tasks, one after the "
        "other (a and b): no method is better than guessing, as far as the test images tell. The "
        "warnings say what may help."
    )


def test_a_mean_of_both_metrics_says_so_in_the_findings_and_the_scoreboard():
    final, summary, classes = mixed()
    runs = pd.DataFrame({"method": ["half"], "type": ["packing"]})
    none = pd.DataFrame(columns=["sequence", "figure", "low", "high"])
    (line,) = findings(final, runs, summary, none, classes)
    assert "It reaches a mean of scores by several metrics of 0.685" in line
    (board,) = scoreboards(final, summary, classes)
    assert [name for name, _ in board.rows[:3]] == [
        "a (accuracy)", "b (mean IoU)", "mean over tasks, of different metrics",
    ]  # fmt: skip


def test_the_scoreboard_has_tasks_by_methods_with_what_was_forgotten():
    tables = tables_of(FOUND, (0,))
    (board,) = scoreboards(tables["final"], tables["summary"], tables["classes"])
    assert board.columns == ["half", "fine", "alone", "joint", "guess"]
    rows = dict(board.rows)
    told = ["0.900", "0.250", "0.950", "0.800", "0.800"]  # of 10 images 8 are of p
    assert [cell.text for cell in rows["a (accuracy)"]] == told
    assert rows["a (accuracy)"][1].tip == "accuracy 0.2500; 0.9500 when learned, 0.7000 forgotten"
    assert rows["a (accuracy)"][3].tip == "accuracy 0.8000"  # nothing was learned in turn
    means = ["0.700", "0.500", "0.825", "0.850", ""]
    assert [cell.text for cell in rows["mean over tasks"]] == means
    assert [cell.text for cell in rows["weights still free"]] == ["50%", "", "", "", ""]


@pytest.mark.parametrize(
    ("kind", "metric"), [("classification", "accuracy"), ("segmentation", "mean_iou")]
)
def test_the_score_of_guessing_is_that_of_the_most_frequent_class(kind, metric):
    tables = tables_of(FOUND, (0,))
    final = tables["final"].assign(metric=metric)
    truth = np.repeat([0, 1], [6, 2])  # the third class is not in the test split
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (truth, 0), 1)  # always class p
    want = mean_iou(confusion) if kind == "segmentation" else 6 / 8
    present = {"p": 6, "q": 2, "r": 0}
    classes = pd.DataFrame(
        [
            {"sequence": "both", "task": task, "kind": kind, "class": name, "present": count}
            for task in ("a", "b")
            for name, count in present.items()
        ]
    )
    (board,) = scoreboards(final, tables["summary"], classes)
    cell = board.rows[0][1][-1]
    assert cell.value == pytest.approx(want)
    assert cell.tip.startswith("always p: ")


def test_a_task_has_the_scores_of_its_classes_and_the_confusion_of_each_method():
    tables = tables_of(FOUND, (0,))
    part = task_parts(tables["final"], tables["classes"], tables["confusion"])[0]
    assert (part.sequence, part.task, part.missed, part.note) == ("both", "a", True, "")
    assert part.classes.title == "recall of each class"
    assert [(name, cells[0].text, cells[0].bad) for name, cells in part.classes.rows] == [
        ("p", "1.000", False),
        ("q", "0.000", True),
    ]
    confusion = part.confusions[0]
    assert confusion.title == "half"
    (p, q) = (cells for _, cells in confusion.rows)
    assert [(cell.text, cell.bad) for cell in p] == [("100", False), ("", False)]
    assert [(cell.text, cell.bad) for cell in q] == [("100", True), ("", False)]
    assert q[0].tip == "q taken for p: 2 of 2 (100.0%)"


def test_of_many_classes_the_lowest_are_shown_in_their_order():
    names = [f"c{number:03}" for number in range(100)]
    counts = [counted(name, 10, 10, number % 10) for number, name in enumerate(names)]
    confused = [[number, (number + 1) % 100, 1] for number in range(100)]
    one = row("a", 1, 0.5) | {"classes": counts, "confused": confused}
    found = {Node("small", "half", 0, ("a",)): node(one)}
    run = Run("both", "small", "half", "packing", 0, ("a",), ((("a",),),))
    final = final_table(by_node(scores_table(found)), [run])
    classes, confusion = classes_table(found, [run]), confusion_table(found, [run])
    (part,) = task_parts(final, classes, confusion)
    shown = [name for name, _ in part.classes.rows]
    assert len(shown) == MOST_CLASSES
    assert shown == sorted(shown)
    assert {f"c{number:03}" for number in range(0, 100, 10)} <= set(shown)  # those of score 0
    assert part.note.startswith("The 16 classes with the lowest scores, of 100;")


def test_the_page_has_each_picture_once_and_no_large_one_as_png(results, tmp_path):
    shutil.copytree(results, tmp_path / "both")
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    (tmp_path / "both/figures/data").mkdir()
    Image.fromarray(noise).save(tmp_path / "both/figures/data/a.png")
    text = report_page(tmp_path / "both", CONFIGURATION)
    assert '<a href="#data">Data</a>' in text
    assert '<a href="#data">' not in report_page(results, CONFIGURATION)  # which has no sheets
    assert text.count("data:image/") == 2  # the sheet and the mistakes of a
    assert text.count(TITLE) == 1
    assert "data:image/webp" in text
    size = (tmp_path / "both/figures/data/a.png").stat().st_size
    assert len(text) - len(report_page(results, CONFIGURATION)) < size


FORGED = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
     width="100pt" onload="alert(1)">
<script>alert(1)</script><style>@import "http://x.example/a.css";</style>
<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">text</p></foreignObject>
<image xlink:href="http://x.example/a.png"/><a xlink:href="javascript:alert(1)"><path d="M0"/></a>
<g clip-path="url(#p1)" style="fill: url(http://x.example/b)"><use xlink:href="#m1" ONCLICK="f()"/>
<use xlink:href="http://x.example/c.svg#m"/><text>a &lt;b&gt;</text><title>told</title></g></svg>"""


def test_a_drawing_from_elsewhere_brings_nothing_that_runs_or_asks_others(tmp_path):
    (tmp_path / "x.svg").write_text(FORGED)
    text = for_page(tmp_path / "x.svg")
    assert "x.example" not in text
    assert "alert" not in text
    assert not re.search(r"script|style|foreign|image|onload|onclick|<a", text, re.IGNORECASE)
    assert 'clip-path="url(#p1)"' in text
    assert '<use xlink:href="#m1" />' in text
    assert "<text>a &lt;b&gt;</text><title>told</title>" in text


@pytest.mark.parametrize("content", ["", "<html/>", "<svg", "\0\0"])
def test_a_figure_that_is_no_drawing_is_told(tmp_path, content):
    (tmp_path / "x.svg").write_text(content)
    with pytest.raises(UserError, match=r"x\.svg: not a drawing; `make run` makes it anew"):
        for_page(tmp_path / "x.svg")


def test_what_matplotlib_draws_is_all_there(results):
    path = results / "figures/scores.svg"
    before, after = path.read_text(), for_page(path)
    for mark in ("<path", "<use", "<text", "<title", "clip-path", "style="):
        assert before.count(mark) == after.count(mark) > 0


def test_the_page_compares_with_fixed_ratios_where_a_front_has_two(page, results, tmp_path):
    assert 'id="fixed"' not in page.read_text()  # one fixed ratio makes no front
    shutil.copytree(results, tmp_path / "both")
    ends = {"f90": (100, 0.6), "f50": (400, 0.7), "ours": (200, 0.68)}
    front = front_table(fixed_runs(ends), {"f90": "global", "f50": "global"})
    against = against_fixed_table(front)
    front.to_csv(tmp_path / "both/tables/front.csv", index=False)
    against.to_csv(tmp_path / "both/tables/against_fixed.csv", index=False)
    save_figure(fronts_figure(front), tmp_path / "both/figures/front.svg")
    text = report_page(tmp_path / "both", CONFIGURATION)
    assert '<a href="#fixed">' in text
    section = text.partition('<h2 id="fixed">')[2].partition("<h2")[0]
    assert "(global) is +0.030, above 0 in 1 of 1 runs; it needs 0.66 times the bytes" in section
    assert "<svg" in section


def test_the_page_says_how_long_each_part_took(page):
    text = page.read_text()
    assert "took 0.1 minutes together" in text
    found = re.search(r'<table class="grid" id="times">.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", found[0])
    assert rows == [("training", "2", "0.1", "4.0"), ("tables", "1", "0.0", "2.0")]
    assert "75%" in found[0]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("paired", ["method", "other", "figure"]),
        ("measures of classification", ["method", "task", "accuracy"]),
    ],
)
def test_a_table_begins_with_what_its_rows_are_of(results, tmp_path, name, first):
    shutil.copytree(results, tmp_path / "both")
    for table in ("paired", "measures"):  # of one method, which is the first of each pair
        path = tmp_path / f"both/tables/{table}.csv"
        frame = pd.read_csv(path)
        kept = frame["method"] == "half" if table == "paired" else frame["method"].notna()
        frame[kept].to_csv(path, index=False)
    text = report_page(tmp_path / "both", CONFIGURATION)
    assert heads_of(text)[name][:3] == first


def heads_of(text: str) -> dict[str, list[str]]:
    """The names of the columns of each table of a page that sorts, by its title."""
    section = text.partition('<section id="tables">')[2].partition("</section>")[0]
    parts = re.findall(r"<summary>(.*?)</summary>(.*?)</thead>", section, re.DOTALL)
    head = r"<th[ >][^>]*>(?:<sup>.*?</sup>)?([^<]+)</th>"
    return {title: re.findall(head, part) for title, part in parts}


def test_measures_have_a_table_for_each_kind_of_task_that_there_is(page, results, tmp_path):
    (alone,) = (title for title in heads_of(page.read_text()) if title.startswith("measures"))
    assert alone == "measures of classification"
    shutil.copytree(results, tmp_path / "both")
    path = tmp_path / "both/tables/measures.csv"
    measures = read_table(path)
    masks = measures["task"] == "b"
    named = {"accuracy": "mean_iou", "macro_f1": "boundary_f1"}
    measures.loc[masks, "kind"] = "segmentation"
    measures.loc[masks, "measure"] = measures["measure"].map(named)
    measures.to_csv(path, index=False)
    text = report_page(tmp_path / "both", CONFIGURATION)
    found = {title: own for title, own in heads_of(text).items() if title.startswith("measures")}
    assert found == {
        "measures of classification": ["method", "task", "accuracy", "macro f1"],
        "measures of segmentation": ["method", "task", "mean iou", "boundary f1"],
    }
    for title, own, other in (("classification", "a", "b"), ("segmentation", "b", "a")):
        table = text.partition(f"<summary>measures of {title}")[2].partition("</details>")[0]
        assert f'"{own}"' in table.replace("\\", "")
        assert f'"{other}"' not in table.replace("\\", "")


def test_the_page_warns_of_classes_that_are_never_found(page):
    text = page.read_text()
    assert "both, a: (nearly) never found: q (recall 0.000 with half" in text
    assert '<a href="#warnings">' in text
    assert "balanced <code>class_weights</code>, more epochs" in text


def test_the_page_says_what_is_amiss_with_the_data(results, tmp_path):
    shutil.copytree(results, tmp_path / "torn")
    path = tmp_path / "torn/tables/data.csv"
    data = read_table(path)
    data.assign(noticed="odd labels: 3 (first: <a>.png: holds 9)").to_csv(path, index=False)
    text = report_page(tmp_path / "torn", CONFIGURATION)
    assert "Warning: clean: odd labels: 3 (first: &lt;a&gt;.png: holds 9). Where" in text
    data.drop(columns="noticed").to_csv(path, index=False)
    with pytest.raises(UserError, match="made by another version of this: noticed missing"):
        report_page(tmp_path / "torn", CONFIGURATION)


def test_the_page_warns_of_validation_splits_that_tell_little(page, results, tmp_path):
    shutil.copytree(results, tmp_path / "few")
    data = read_table(results / "tables/data.csv")
    few = data["task"][0]
    others = [data.assign(task="fewer", val=7), data.assign(task="enough", val=50)]
    both = pd.concat([data.assign(val=49), *others])
    both.to_csv(tmp_path / "few/tables/data.csv", index=False)
    text = report_page(tmp_path / "few", CONFIGURATION)
    assert f"Warning: few validation samples: {few} (49)" in text
    assert "fewer (7). Below 50" in text
    assert "enough (50)" not in text


def test_the_page_says_which_room_tasks_had(page, results):
    notes = notes_of(read_table(results / "tables/final.csv"))
    assert notes
    text = unescape(page.read_text())
    assert all(f"<p>{note}</p>" in text for note in notes)


def test_what_was_run_is_told_and_names_of_the_user_are_only_text(page):
    text = page.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)" not in text
    assert "torch 2." in text
    assert "Evaluated on cpu" in text


@contextmanager
def browser_on(page, folder, width, dark=False):
    """A headless browser that shows a page; the test fails where it complains."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

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
        f"user-data-dir={folder / 'profile'}",
        f"window-size={width},900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(DRIVER))
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        yield browser
        assert browser.get_log("browser") == []
    finally:
        browser.quit()


IN_A_BROWSER = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no chromium with its driver"
)
OPENED = "document.querySelectorAll('details').forEach(one => one.open = true)"


@IN_A_BROWSER
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), pytest.param(400, True, marks=pytest.mark.slow)]
)
def test_a_browser_shows_all_of_it_and_asks_nobody_else(page, tmp_path, width, dark):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with browser_on(page, tmp_path, width, dark) as browser:
        wait = WebDriverWait(browser, 20)
        browser.execute_script(OPENED)
        wait.until(
            lambda one: one.find_elements(By.CSS_SELECTOR, "#table_final tbody tr td:nth-child(2)")
        )
        drawings = browser.execute_script(
            "return [...document.querySelectorAll('.drawing svg')]"
            ".map(one => one.getBoundingClientRect().width)"
        )
        assert len(drawings) == len(CAPTIONS) - 1  # no search was run
        # at their own size, whatever the window: their letters are as large as those of the page
        assert all(300 < wide < 1200 for wide in drawings)
        assert browser.execute_script(
            "return [...document.images].every(i => i.complete && i.naturalWidth > 200)"
        )

        def cells(table, column):
            found = browser.find_elements(
                By.CSS_SELECTOR, f"#table_{table} tbody td:nth-child({column})"
            )
            return [cell.get_attribute("textContent").strip() for cell in found]

        def within(table, what):
            container = f"document.querySelector('#table_{table}').closest('.dt-container')"
            return f"{container}.querySelector('{what}')"

        # names that are the same in every row have no column: sequence, order, metric
        assert cells("runs", 1)[::2] == ["half", "fine", "alone", "joint"]
        button = within("runs", "thead th:nth-child(3) .dtcc-button_order")
        browser.execute_script(f"{button}.click()")
        wait.until(lambda _: cells("runs", 1)[0] == "fine")
        scores = [float(score) for score in cells("runs", 3)]
        assert scores == sorted(scores)

        assert set(cells("final", 1)) == {"half", "fine", "alone", "joint"}
        field = browser.execute_script(f"return {within('final', 'input[type=search]')}")
        field.send_keys("joint")
        wait.until(lambda _: set(cells("final", 1)) == {"joint"})

        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= window.innerWidth"
        )
        # what is wider than the screen says so, and nothing else does
        silent = browser.execute_script(
            "return [...document.querySelectorAll('.drawing, .wide, .picture, .dt-layout-full')]"
            ".filter(e => (e.scrollWidth > e.clientWidth) !== e.classList.contains('scrolls'))"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert silent == []
        count = len(browser.find_elements(By.CSS_SELECTOR, ".scrolls"))
        assert count > len(drawings) if width == 400 else count == 0
        # letters of pictures stay about as large as they were drawn
        scales = browser.execute_script(
            "return [...document.images].map(i => i.getBoundingClientRect().width / i.naturalWidth)"
        )
        assert min(scales) > 0.58
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = {
            one["params"]["request"]["url"].split(":")[0]
            for one in sent
            if one["method"] == "Network.requestWillBeSent"
        }
        assert asked <= {"file", "data", "blob", "chrome"}  # the last: pages of the browser itself


@IN_A_BROWSER
def test_on_a_wide_screen_every_table_shows_its_score_and_the_mouse_shows_values(page, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    with browser_on(page, tmp_path, 1280) as browser:
        browser.execute_script(OPENED)
        widths = browser.execute_script(
            "return [...document.querySelectorAll('.table table, table.grid')]"
            ".map(t => [t.id, t.getBoundingClientRect().right])"
        )
        assert len(widths) > len(REPORT_TABLES)
        assert {name: right for name, right in widths if right > 1280} == {}

        def told_at(selector):
            element = browser.find_element(By.CSS_SELECTOR, selector)
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            ActionChains(browser).move_to_element(element).perform()
            tip = browser.find_element(By.ID, "tip")
            return tip.text if tip.is_displayed() else None

        assert (
            told_at("#board_both tbody td")
            == "accuracy 0.8550; 0.8550 when learned, 0.0000 forgotten"
        )
        assert told_at("#figure_scores use[data-tip]") == "a after a: accuracy 0.855"
        assert told_at("h1") is None


@pytest.mark.slow
@IN_A_BROWSER
def test_in_print_all_parts_are_open_without_the_tables_to_search_in(page, tmp_path):
    with browser_on(page, tmp_path, 1280, dark=True) as browser:
        browser.execute_script("dispatchEvent(new Event('beforeprint'))")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert browser.execute_script(
            "return [...document.querySelectorAll('details')].every(one => one.open)"
        )
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert browser.execute_script(f"return {style.format('#tables', 'display')}") == "none"
        assert (
            browser.execute_script(f"return {style.format('body', 'backgroundColor')}")
            == "rgb(255, 255, 255)"
        )
        pages = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
        assert len(pages) > 10_000
