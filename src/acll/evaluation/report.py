"""The report of a run: figures, tables that sort and filter, and what was run, in one HTML file.

The file needs no other. Jinja2 fills the page (`report.html`), itables (DataTables) makes the
tables. Everything comes from the tables, figures and times that the run has left, so a report can
be made wherever these have been pulled to.
"""

import base64
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pandas as pd

from acll.errors import UserError
from acll.evaluation.tables import read_table
from acll.libraries import OF_NETWORKS, versions

SHOWN_VERSIONS = (*OF_NETWORKS, "hyperopt", "snakemake", "dvc", "pandas", "numpy")
CAPTIONS = {
    "sizes": "Mean test score against size. Up and to the left is better. Bars are 95% "
    "intervals over runs.",
    "scores": "Test score of each task after each stage. Flat lines are tasks that are not "
    "forgotten.",
    "matrix": "The same as numbers: each task (column) after each stage (row). Down a column: "
    "what is forgotten.",
    "shares": "What each task owns of the shared weights at the end of each sequence, and what "
    "is left free for more.",
    "layers": "Who owns which share of each layer, from the input on: for the first seed and "
    "order.",
    "difficulty": "Kept share that the searches ask for against the error of the task.",
    "search": "Each search: validation score against kept share, for short trials and full "
    "retraining, fit, tolerance, cap, choice and its interval.",
    "curves": "How fast each task is learned in its turn: validation score after each epoch, "
    "before pruning.",
}
MASKS = (
    "{}: some test images of {}, the truth, and what each method's network makes of them when "
    "the task is learned and after all tasks. Where nothing is forgotten both are the same; one "
    "picture where there is one network alone."
)
REPORT_TABLES = {
    "runs": "Each run: a method, an order, a seed. docs/metrics.md defines the columns.",
    "paired": "Methods compared run by run: the first less the other, 95% interval, runs in "
    "which the first is better.",
    "final": "Each task at the end of each run.",
    "summary": "Means over runs with the bounds of their 95% intervals.",
    "trials": "All trials of all searches.",
    "data": "The tasks.",
}
# figures in the first table of the page, and whether with half of their interval
FIRST = {
    "mean_score": True,
    "worst_score": True,
    "mean_forgetting": False,
    "free_share": False,
    "size": False,
}


@dataclass(frozen=True)
class Shown:
    """A figure or a table on the page."""

    name: str
    caption: str
    content: str  # HTML, or a data URI


def report_page(results: Path, configuration: str) -> str:
    """Return the page of a run. configuration: the text of its file.

    Raises UserError where the run has not ended, or where another version made its tables.
    """
    from itables.javascript import generate_init_offline_itables_html
    from itables.options import dt_bundle
    from jinja2 import Environment

    if not (results / "tables/summary.csv").is_file():
        raise UserError(f"{results}/tables/summary.csv: there is no such file; has the run ended?")
    tables = {path.stem: read_table(path) for path in sorted(results.glob("tables/*.csv"))}
    missing = {"summary", "paired", "final", *REPORT_TABLES} - set(tables)
    if not missing:
        missing = {"size", "runs"} - set(tables["summary"])
    if missing:
        raise UserError(
            f"{results}/tables: made by another version of this: {', '.join(sorted(missing))} "
            "missing; `make run` makes them anew"
        )
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(
        files("acll.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    )
    times = _times(results)
    return page.render(
        name=results.name,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=_table("first", _first(tables["summary"])),
        findings=findings(tables["summary"], tables["paired"]),
        figures=[
            Shown(name, caption, _data_uri(results / f"figures/{name}.png"))
            for name, caption in CAPTIONS.items()
            if (results / f"figures/{name}.png").is_file()
        ]
        + [
            Shown(f"masks_{path.stem}", MASKS.format(*path.stem.split(".")), _data_uri(path))
            for path in sorted(results.glob("figures/masks/*.png"))
        ],
        tables=[
            Shown(name, caption, _table(name, tables[name]))
            for name, caption in REPORT_TABLES.items()
            if len(tables[name])
        ],
        sheets=[
            Shown(path.stem, f"images of {path.stem}", _data_uri(path))
            for path in sorted(results.glob("figures/data/*.png"))
        ],
        times=_table("times", times) if len(times) else "",
        hours=times["seconds"].sum() / 3600,
        configuration=configuration,
        devices=sorted(map(str, tables["final"]["device"].unique())),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        versions=versions(SHOWN_VERSIONS),
        script=generate_init_offline_itables_html(dt_bundle),
    )


def findings(summary: pd.DataFrame, paired: pd.DataFrame) -> list[str]:
    """Return what the tables say, in a few sentences for each sequence."""
    return [
        " ".join(_found(str(sequence), own, paired[paired["sequence"] == sequence]))
        for sequence, own in summary.groupby("sequence", sort=False)
    ]


def _found(sequence: str, summary: pd.DataFrame, paired: pd.DataFrame) -> list[str]:
    ranked = summary.sort_values("mean_score", ascending=False).to_dict("records")
    lines = [
        f"{sequence}: the highest mean score is that of {ranked[0]['method']}, "
        f"{ranked[0]['mean_score']:.3f}."
    ]
    learned_in_turn = [row for row in ranked if pd.notna(row["mean_forgetting"])]
    kept = [row for row in learned_in_turn if row["bit_exact"] and row["size"] < 1]
    if kept:
        lines.append(
            "Of the methods that forget nothing, to the bit, in less than a network for each "
            f"task, it is {kept[0]['method']}, {kept[0]['mean_score']:.3f}, worst task "
            f"{kept[0]['worst_score']:.3f}, in {kept[0]['size']:.0%} of the bytes of separate "
            "networks."
        )
    pairs = paired[(paired["figure"] == "mean_score") & paired["low"].notna()]
    clear = int(((pairs["low"] > 0) | (pairs["high"] < 0)).sum())
    if len(pairs):
        lines.append(
            f"{clear} of {len(pairs)} pairs of methods differ in mean score by more than their "
            "95% interval."
        )
    elif len(paired):
        lines.append("With one run of each method no difference has an interval.")
    return lines


def _first(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table that comes first: few columns, with half of the intervals of some."""
    shown = summary[["sequence", "method", "runs"]].copy()
    for figure, with_interval in FIRST.items():
        shown[figure.replace("_", " ")] = summary[figure]
        half = summary[f"{figure}_high"] - summary[figure]
        if with_interval and half.notna().any():
            shown[f"± {figure.split('_')[0]}"] = half
    shown.insert(3, "bit exact", summary["bit_exact"].map({True: "yes", False: "no"}))
    return shown


def _table(name: str, frame: pd.DataFrame) -> str:
    from itables import to_html_datatable

    html: str = to_html_datatable(
        frame.round(4),
        table_id=f"table_{name}",
        connected=False,
        showIndex=False,
        display_logo_when_loading=False,
        maxBytes=0,
        columnControl=["order", "searchDropdown"],
        ordering={"indicators": False, "handler": False},
        pageLength=25,
        scrollX=True,
        classes="display nowrap compact",
    )
    # cells that mean nothing are empty; they still sort as numbers
    return html.replace('\\"NaN\\"', '\\"\\"')


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _times(results: Path) -> pd.DataFrame:
    """Return for each rule the number of jobs that ran here, their seconds and largest memory."""
    rows = []
    for path in sorted(results.glob("benchmarks/**/*.tsv")):
        measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        rule = path.relative_to(results / "benchmarks").parts[0].removesuffix(".tsv")
        rows.append((rule, measured["s"], measured["max_rss"]))
    by_rule = pd.DataFrame(rows, columns=["rule", "seconds", "megabytes"]).groupby("rule")
    times = pd.DataFrame(
        {
            "jobs": by_rule.size(),
            "seconds": by_rule["seconds"].sum(),
            "megabytes": by_rule["megabytes"].max(),
        }
    )
    return times.reset_index()
