"""The report of a run: what came out, figures, tables and what was run, in one HTML file.

The file needs no other. Jinja2 fills the page (`report.html`), itables (DataTables) makes the
tables that sort and filter. Everything comes from the tables, figures and times that the run has
left, so a report can be made wherever these have been pulled to.
"""

import base64
import io
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from acll.errors import UserError
from acll.evaluation.class_tables import class_means
from acll.evaluation.comparison import MIXED
from acll.evaluation.console import data_warnings, few_samples, notes_of, warnings_of
from acll.evaluation.drawings import FIGURE_DPI, for_page
from acll.evaluation.findings import findings, fixed_ratio_findings
from acll.evaluation.measures import MEASURES
from acll.evaluation.report_tasks import scoreboards, task_parts
from acll.evaluation.tables import read_table
from acll.libraries import OF_NETWORKS, versions

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN_VERSIONS = (*OF_NETWORKS, "hyperopt", "snakemake", "dvc", "pandas", "numpy")
CAPTIONS = {
    "scores": "Flat lines are tasks that are not forgotten. The mouse over a point shows its "
    "value.",
    "sizes": "Bars are 95% intervals over runs. Size: bytes of all that is needed to use every "
    "task, in those of a network for each.",
    "shares": "What is free has room for more tasks.",
    "matrix": "The same as the first figure, as numbers. Down a column: what is forgotten.",
    "layers": "For the first seed and order.",
    "difficulty": "Harder tasks tend to need more of the network, unless they are hardly learned "
    "at all.",
    "search": "Trials, tolerance, cap, choice and its interval.",
    "curves": "Each task in its turn, before pruning.",
}
MASKS = (
    "Some test images, the truth, and what each method's network makes of them when the task is "
    "learned and after all tasks. Where nothing is forgotten both are the same."
)
MISTAKES = (
    "The test images that each network does worst on, after all tasks. tables/mistakes.csv has "
    "their names: a look at them often finds wrong labels."
)
# of each table, what it is, and the columns that are shown; the files have all. One that is `of` a
# kind of task has the rows of this kind alone
REPORT_TABLES = {
    "summary": (
        "Means over runs with the bounds of their 95% intervals.",
        "sequence method runs metric mean_score mean_score_low mean_score_high worst_score "
        "mean_forgetting free_share size",
    ),
    "runs": (
        "Each run: a method, an order, a seed. docs/metrics.md defines the columns.",
        "sequence order method seed metric mean_score worst_score mean_forgetting "
        "backward_transfer forward_transfer intransigence free_share size",
    ),
    "paired": (
        "Methods compared run by run: the first less the other, 95% interval, runs in which the "
        "first is better.",
        "sequence method other figure runs better difference low high",
    ),
    "against_fixed": (
        "Methods less the front of fixed ratios at equal bytes, 95% interval; runs between the "
        "ends of the front (compared) and above it (better); bytes at equal score in those of the "
        "front; below the best fixed ratio in hindsight (regret).",
        "front sequence method compared better difference low high bytes_ratio best regret "
        "worst_regret",
    ),
    "final": (
        "Each task at the end of each run.",
        "sequence order method seed task metric score score_when_learned forgetting owned_share "
        "ratio width samples",
    ),
    "measures of classification": (
        "What else each task is measured by at the end, means over runs. docs/metrics.md defines "
        "it; higher is better, but for the calibration error.",
        "sequence method task " + " ".join(MEASURES["classification"]),
    ),
    "measures of segmentation": (
        "What else each task is measured by at the end, means over runs. docs/metrics.md defines "
        "it; higher is better.",
        "sequence method task " + " ".join(MEASURES["segmentation"]),
    ),
    "classes": (
        "Each class at the end, means over runs, the lowest scores first: IoU of segmentation, "
        "recall of classification.",
        "sequence method task class score",
    ),
    "mistakes": (
        "The worst mistakes of the first run of each method.",
        "sequence method task rank image truth predicted probability mean_iou",
    ),
    "trials": (
        "All trials of all searches.",
        "network method seed prefix role kept_share epochs score threshold cost diverged",
    ),
    "data": (
        "The tasks.",
        "task source kind classes channels height width train val test left_out warnings",
    ),
}
NEEDED = ("summary", "paired", "front", "final", "runs", "classes", "confusion", "mistakes")
_MOST_ROWS = 2000  # of a table
_SCREEN_DPI = 96  # of CSS: a picture of this many pixels an inch has letters of the size it says
_WIDEST = 1150  # pixels of a screen that a picture needs at most: a desktop shows it whole
_NAMES = ("front", "sequence", "order", "network", "method", "seed", "metric", "kind")
RULES = {
    "prepare": "reading and checking the data",
    "vary": "making variants of tasks",
    "adopt": "checking packed networks that were given",
    "sheets": "contact sheets of the data",
    "train": "training",
    "search": "searching how much to release",
    "grow": "making networks wider",
    "prune": "releasing weights, while training on",
    "retrain": "retraining what is kept",
    "commit": "putting tasks into the network",
    "remember": "what methods take along",
    "evaluate": "scoring test images",
    "trace": "figures of searches",
    "masks": "pictures of masks",
    "mistakes": "pictures of mistakes",
    "tables": "tables",
    "figures": "figures",
}


@dataclass(frozen=True)
class Shown:
    """A figure or a table on the page."""

    name: str
    caption: str
    content: str  # HTML, or a data URI
    least: int = 0  # of a picture: pixels of a screen that it needs for its letters to be read


def report_page(results: Path, configuration: str) -> str:
    """Return the page of a run. configuration: the text of its file.

    Raises UserError where the run has not ended, or where another version made its tables.
    """
    from itables.javascript import generate_init_offline_itables_html
    from itables.options import dt_bundle
    from jinja2 import Environment

    tables = _tables(results)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _with_code
    page = environment.from_string(
        files("acll.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    )
    final, summary, classes = (tables[name] for name in ("final", "summary", "classes"))
    times, fronts = _times(results), results / "figures/front.svg"
    return page.render(
        name=results.name,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        findings=findings(final, tables["runs"], summary, tables["paired"], classes),
        against_fixed=fixed_ratio_findings(tables["front"], tables["against_fixed"]),
        fronts=for_page(fronts) if fronts.is_file() else "",
        warnings=[
            *data_warnings(tables["data"]),
            *few_samples(tables["data"]),
            *warnings_of(final, classes),
        ],
        notes=notes_of(final),
        boards=scoreboards(final, summary, classes),
        mixed=(summary["metric"] == MIXED).any(),
        figures=[
            Shown(name, caption, for_page(results / f"figures/{name}.svg"))
            for name, caption in CAPTIONS.items()
            if (results / f"figures/{name}.svg").is_file()
        ],
        tasks=[
            (part, _pictures(results, f"{part.sequence}.{part.task}"))
            for part in task_parts(final, classes, tables["confusion"])
        ],
        tables=[
            Shown(title, caption, _table(title, _narrowed(rows, columns.split())))
            for title, (caption, columns) in REPORT_TABLES.items()
            if len(rows := _rows_of(title, tables))
        ],
        sheets=[
            _picture(path.stem, f"images of {path.stem}", path)
            for path in sorted(results.glob("figures/data/*.png"))
        ],
        times=times,
        configuration=configuration,
        devices=sorted(map(str, final["device"].unique())),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        versions=versions(SHOWN_VERSIONS),
        script=generate_init_offline_itables_html(dt_bundle),
    )


def _tables(results: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a run by name. Raises as `report_page` does."""
    if not (results / "tables/summary.csv").is_file():
        raise UserError(f"{results}/tables/summary.csv: there is no such file; has the run ended?")
    tables = {path.stem: read_table(path) for path in sorted(results.glob("tables/*.csv"))}
    missing = {*NEEDED, *(_file_and_kind(title)[0] for title in REPORT_TABLES)} - set(tables)
    if not missing:
        missing = {"size", "runs", "metric"} - set(tables["summary"])
        missing |= {"noticed"} - set(tables["data"])
    if missing:
        raise UserError(
            f"{results}/tables: made by another version of this: {', '.join(sorted(missing))} "
            "missing; `make run` makes them anew"
        )
    return tables


def _file_and_kind(title: str) -> tuple[str, str]:
    """Return the file that a table on the page is from, and the kind of task that it is of, or an
    empty text."""
    file, _, kind = title.partition(" of ")
    return file, kind


def _rows_of(title: str, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of a table on the page, with all columns of its file."""
    file, kind = _file_and_kind(title)
    return tables[file][tables[file]["kind"] == kind] if kind else tables[file]


def _narrowed(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return what the page shows of a table.

    That is these columns, less names that are the same in every row (but those of two methods that
    are compared) and what is empty in all, so that the score is on the screen. Of classes the means
    over runs, the lowest first; of measures a column each.
    """
    if "class" in columns:
        table = class_means(table).sort_values("score", kind="stable")
    elif "measure" in table:
        names = ["sequence", "method", "task"]
        means = table.groupby([*names, "measure"], sort=False)["value"].mean()
        table = means.unstack().reset_index().rename_axis(columns=None)
    left_out = {*_NAMES} - ({"method"} if "other" in columns else set())
    shown = [
        name
        for name in columns
        if name in table
        and table[name].notna().any()
        and (name not in left_out or table[name].nunique() > 1)
    ]
    narrow = table[shown].head(_MOST_ROWS)
    for name in ("order", "prefix"):
        if name in shown:  # with spaces, so that it can be broken into lines
            narrow = narrow.assign(**{name: narrow[name].str.replace("+", " + ")})
    return narrow.rename(columns=lambda name: name.replace("_", " "))


def _table(title: str, frame: pd.DataFrame) -> str:
    from itables import to_html_datatable

    html: str = to_html_datatable(
        frame.round(4),
        table_id=f"table_{title.replace(' ', '_')}",
        connected=False,
        showIndex=False,
        display_logo_when_loading=False,
        maxBytes=0,
        columnControl=["order", "searchDropdown"],
        ordering={"indicators": False, "handler": False},
        pageLength=20,
        classes="display compact",
    )
    # cells that mean nothing are empty; they still sort as numbers
    return html.replace('\\"NaN\\"', '\\"\\"')


def _pictures(results: Path, name: str) -> list[Shown]:
    """Return the pictures of a task of a sequence."""
    found = []
    for folder, caption in (("mistakes", MISTAKES), ("masks", MASKS)):
        path = results / f"figures/{folder}/{name}.png"
        if path.is_file():
            found.append(_picture(f"{folder}_{name}", caption, path))
    return found


def _picture(name: str, caption: str, path: Path) -> Shown:
    """Return a picture to stand in a page: as WebP where that is smaller."""
    content, kind = path.read_bytes(), "png"
    with Image.open(path) as picture:
        packed = io.BytesIO()
        picture.convert("RGB").save(packed, "WEBP", quality=80, method=2)
        least = min(_WIDEST, round(picture.width * _SCREEN_DPI / FIGURE_DPI))
    if packed.tell() < len(content):
        content, kind = packed.getvalue(), "webp"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Shown(name, caption, uri, least)


def _with_code(text: str) -> "Markup":
    """Return a text as HTML in which words in backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


@dataclass(frozen=True)
class Time:
    """How long the jobs of a rule took that ran here. seconds: together."""

    what: str
    jobs: int
    seconds: float
    longest: float
    share: float  # of all seconds


def _times(results: Path) -> list[Time]:
    """Return the time of each rule, the longest first."""
    rows = []
    for path in sorted(results.glob("benchmarks/**/*.tsv")):
        measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        rule = path.relative_to(results / "benchmarks").parts[0].removesuffix(".tsv")
        rows.append((rule, measured["s"]))
    table = pd.DataFrame(rows, columns=["rule", "seconds"])
    total = table["seconds"].sum()
    found = [
        Time(
            RULES.get(str(rule), str(rule)),
            len(own),
            own["seconds"].sum(),
            own["seconds"].max(),
            own["seconds"].sum() / total,
        )
        for rule, own in table.groupby("rule")
    ]
    return sorted(found, key=lambda one: -one.seconds)
