"""The tables as text: what a run says at its end, and what goes into a paper."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from tabulate import tabulate

from acll.evaluation.class_tables import (
    MISSED,
    OF_TASK,
    class_means,
    forgotten_tasks,
    guessed_tasks,
    marked,
    missed_classes,
)
from acll.evaluation.comparison import MIXED
from acll.evaluation.learned_tasks import learned_here, with_ratios
from acll.evaluation.words import METRIC_WORDS, WIDTH, grown_words, listed, shortened
from acll.settings import FEWEST_SAMPLES

LITTLE_ROOM = 0.03  # share of the shared weights; with less, a task that comes can learn little
_NAMED = 3  # classes that a warning names one by one
_LEAST = 8  # characters that a name keeps, however many columns there are

_ABOUT_TASKS = (
    "score: of the test images. forgotten: the score when the task was learned, less that at the "
    "end. owns: the share of the network's weights that only this task may change. lowest class: "
    "the class with the lowest recall (of segmentation: IoU)."
)
_ABOUT_METHODS = (
    "mean, worst: over the tasks. exact: whether the weights of every task are, bit for bit, those "
    "with which it was learned. free: the share of weights that is left for more tasks. size: "
    "of the file, where a network for each task would take 100%."
)
_ABOUT_MIXED = (
    "mixed: the mean of scores by several metrics. It compares methods on these tasks and means "
    "nothing else."
)


def readable(
    final: pd.DataFrame, summary: pd.DataFrame, classes: pd.DataFrame, remarks: Sequence[str]
) -> str:
    """Return the tables as text for a console, and remarks below them.

    final, summary, classes: the tables of these names. A line has at most `WIDTH` columns; names
    are cut where they are too long for that.
    """
    about = [_ABOUT_METHODS]
    if (summary["metric"] == MIXED).any():
        about.append(_ABOUT_MIXED)
    if summary["runs"].max() > 1:
        about.append(
            "Scores are means over runs (seeds, orders), ± half of the 95% interval; "
            "tables/paired.csv compares methods run by run."
        )
    parts = [
        _narrow(_by_task(final, class_means(classes))),
        fill(_ABOUT_TASKS, WIDTH),
        _narrow(_by_method(summary)),
        *(fill(text, WIDTH) for text in about),
        *("\n".join(fill(line, WIDTH) for line in remark.splitlines()) for remark in remarks),
    ]
    return "\n\n".join(parts) + "\n"


def for_papers(summary: pd.DataFrame, form: str) -> str:
    """Return the summary as a table in text.

    form: one that tabulate knows, such as `github` (Markdown) or `latex_booktabs`.
    """
    rows = [
        {
            "sequence": row["sequence"],
            "method": row["method"],
            "runs": row["runs"],
            "metric": METRIC_WORDS[row["metric"]],
            "mean score": _with_half(row, "mean_score", 4),
            "worst score": _with_half(row, "worst_score", 4),
            "forgetting": _with_half(row, "mean_forgetting", 4),
            "bit exact": _yes(row["bit_exact"]),
            "free share": "" if pd.isna(row["free_share"]) else f"{row['free_share']:.3f}",
            "bytes": f"{row['bytes']:,.0f}",
            "of separate networks": f"{row['size']:.2f}",
        }
        for row in summary.to_dict("records")
    ]
    return f"{_text(rows, form)}\n"


def _by_task(final: pd.DataFrame, means: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row for each sequence, method and task; means over runs.

    means: the scores of classes, of `class_means`.
    """
    lowest = _lowest_classes(means)
    rows = []
    for (sequence, method), own in final.groupby(["sequence", "method"], sort=False):
        first = final[final["sequence"] == sequence].iloc[: own["position"].max()]
        for task in first["task"]:
            runs = own[own["task"] == task]
            forgetting = runs["forgetting"].dropna()  # empty where no task is learned in turn
            metric, score = METRIC_WORDS[runs["metric"].iloc[0]], runs["score"].mean()
            rows.append(
                {
                    "sequence": sequence,
                    "method": method,
                    "task": task,
                    "score": "" if pd.isna(score) else f"{metric} {score:.3f}",
                    "forgotten": f"{forgetting.mean():.3f}" if len(forgetting) else "",
                    "owns": _percent(runs["owned_share"].mean()),
                    "lowest class": lowest.get((sequence, method, task), ""),
                }
            )
    return rows


def _lowest_classes(means: pd.DataFrame) -> dict[Any, str]:
    """Return the name and score of the lowest class by (sequence, method, task)."""
    if not len(means):
        return {}
    lowest = means.loc[means.groupby(["sequence", "method", "task"])["score"].idxmin()]
    return {
        (row["sequence"], row["method"], row["task"]): (
            f"{shortened(row['class'], 10)} {row['score']:.2f}"
        )
        for row in lowest.to_dict("records")
    }


def _by_method(summary: pd.DataFrame) -> list[dict[str, str]]:
    """Return a row for each sequence and method; means over runs with half of their intervals."""
    return [
        {
            "sequence": row["sequence"],
            "method": row["method"],
            "metric": METRIC_WORDS[row["metric"]],
            "mean": _with_half(row, "mean_score", 3),
            "worst": _with_half(row, "worst_score", 3),
            "forgotten": _with_half(row, "mean_forgetting", 3),
            "exact": _yes(row["bit_exact"]),
            "free": _percent(row["free_share"]),
            "size": _percent(row["size"]),
        }
        for row in summary.to_dict("records")
    ]


def _with_half(row: Mapping[Any, Any], figure: str, digits: int) -> str:
    if pd.isna(row[figure]):
        return ""
    half = row[f"{figure}_high"] - row[figure]
    text = f"{row[figure]:.{digits}f}"
    return text if pd.isna(half) else f"{text} ± {half:.{digits}f}"


def _percent(share: float) -> str:
    return "" if pd.isna(share) else f"{share:.1%}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _narrow(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table of at most `WIDTH` columns; long names are cut as far as that takes.

    Where even short names leave it wider, it is wider.
    """
    names = ("sequence", "method", "task")
    longest = max(len(str(row[name])) for row in rows for name in names if name in row)
    for length in range(max(longest, _LEAST), _LEAST - 1, -1):
        cut = [
            {key: shortened(value, length) if key in names else value for key, value in row.items()}
            for row in rows
        ]
        text = _text(cut)
        if max(map(len, text.splitlines())) <= WIDTH:
            break
    return text


def _text(rows: Sequence[Mapping[str, Any]], form: str = "simple") -> str:
    """Return rows as a table in text; a sequence or method that stands above is not repeated."""
    shown, above = [], ("", "")
    for row in rows:
        here = (row["sequence"], row["method"])
        shown.append(
            {
                **row,
                "sequence": here[0] if here[0] != above[0] else "",
                "method": here[1] if here != above else "",
            }
        )
        above = here
    text = ("sequence", "method", "task", "metric", "bit exact", "exact", "lowest class")
    align = ["left" if name in text else "right" for name in rows[0]]
    cells = [list(row.values()) for row in shown]
    table: str = tabulate(
        cells, headers=list(rows[0]), colalign=align, disable_numparse=True, tablefmt=form
    )
    return table


def remarks_of(
    final: pd.DataFrame, classes: pd.DataFrame, budgets: Mapping[str, float]
) -> list[str]:
    """Return what a person should know beside the tables, warnings first.

    final, classes: the tables of these names. budgets: of each method that searches, by its name.
    """
    overdrawn = _overdrawn(learned_here(final), budgets)
    return [*warnings_of(final, classes), *notes_of(final), *overdrawn]


def notes_of(final: pd.DataFrame) -> list[str]:
    """Return what a person should know of tasks without a score, and of the room that tasks had.

    final: the table of that name.
    """
    here = learned_here(final)
    return [*_learned_before(final), *_capped(here), *_grown(here), *_short_of_room(final)]


def warnings_of(final: pd.DataFrame, classes: pd.DataFrame) -> list[str]:
    """Return warnings of tasks that are no better than guessing, and of classes that are (nearly)
    never found, with what to try.

    final, classes: the tables of these names. Tasks that a method has forgotten are one warning a
    method: there the remedy is another one.
    """
    of_tasks = final.groupby(OF_TASK)
    missed, guessed = missed_classes(classes), guessed_tasks(final, classes)
    forgotten = marked(missed, forgotten_tasks(final))
    searched = of_tasks["ratio_searched"].count() > 0
    count = classes.drop_duplicates(["task", "class"])["task"].value_counts().to_dict()
    warnings = _told_guessed(guessed, searched)
    for (sequence, task), own in missed[~forgotten].groupby(["sequence", "task"], sort=False):
        told = _told(own, count[task])
        remedy = _REMEDIES[own["kind"].iloc[0]]
        warnings.append(f"Warning: {sequence}, {task}: (nearly) never found: {told}.\n{remedy}")
    for (sequence, method), own in missed[forgotten].groupby(["sequence", "method"], sort=False):
        tasks = [
            f"{task} ({len(rows)} of {count[task]} classes)"
            for task, rows in own.groupby("task", sort=False)
        ]
        warnings.append(
            f"{sequence}: {method} forgets; at the end it (nearly) never finds classes of "
            f"{listed(tasks)}."
        )
    return warnings


_REMEDIES = {
    "segmentation": "The score of the task may hide this. What may help, where it is not set yet: "
    "balanced `class_weights`, the loss `cross_entropy_dice`, more epochs, a larger image_size, "
    "more images with the class.",
    "classification": "The score of the task may hide this. What may help, where it is not set "
    "yet: balanced `class_weights`, more epochs, a larger image_size, more images of the class.",
}


def _told_guessed(guessed: pd.DataFrame, searched: "pd.Series[bool]") -> list[str]:
    """Return a warning for each task. guessed: of `guessed_tasks`; searched: whether a ratio was
    searched, by sequence, method and task."""
    warnings = []
    for (sequence, task), own in guessed.groupby(["sequence", "task"], sort=False):
        guess, chance = own["guess"].iloc[0], own["chance"].iloc[0]
        told = listed([f"{row.mean:.3f} with {row.method}" for row in own.itertuples()])
        searched_for = marked(own, searched).any()
        ratio = " A ratio that was searched for it may mean nothing." if searched_for else ""
        warnings.append(
            f"Warning: {sequence}, {task}: no better than always answering {guess}, as far as the "
            f"test images tell: mean over classes {told}, of guessing {chance:.3f}.{ratio}\n"
            "What may help: more epochs, another `learning_rate`, a larger image_size, more images."
        )
    return warnings


def data_warnings(data: pd.DataFrame) -> list[str]:
    """Return a warning for each task of whose data something was left out or looks wrong.

    data: the table of that name.
    """
    return [
        f"Warning: {row.task}: {row.noticed}. Where the results are whole, data/{row.task}.json "
        "has them all."
        for row in data[data["noticed"].fillna("") != ""].itertuples()
    ]


def few_samples(data: pd.DataFrame) -> list[str]:
    """Return a warning that names the tasks whose validation split is too small to tell much.

    data: the table of that name. The list is empty where there is none.
    """
    few = data[data["val"] < FEWEST_SAMPLES]
    if not len(few):
        return []
    tasks = listed([f"{row.task} ({row.val})" for row in few.itertuples()])
    return [
        f"Warning: few validation samples: {tasks}. Below {FEWEST_SAMPLES} a score of them says "
        "little, and a searched ratio is coarse.\nWhat may help: more images, or a larger "
        "`validation_share`."
    ]


def _told(missed: pd.DataFrame, count: int) -> str:
    """Return in words which classes of a task are missed under which methods; of many, how many.

    missed: of `missed_classes`, its rows of a task. count: how many classes the task has.
    """
    word = "IoU" if missed["kind"].iloc[0] == "segmentation" else "recall"
    if missed["class"].nunique() > _NAMED:
        by_method = missed["method"].value_counts(sort=False).to_dict()
        told = [f"{missing} of {count} with {method}" for method, missing in by_method.items()]
        return f"classes whose {word} is below {MISSED:g}, {listed(told)}"
    told = []
    for name, own in missed.groupby("class", sort=False):
        scores = [
            f"{score:.3f} with {method}"
            for score, method in zip(own["score"], own["method"], strict=True)
        ]
        told.append(f"{name} ({word} {', '.join(scores)})")
    return listed(told)


def _learned_before(final: pd.DataFrame) -> list[str]:
    """Return a line for each sequence whose network had learned tasks elsewhere.

    An evaluation in which one of these has changed fails.
    """
    lines = []
    for sequence, own in final[final["score"].isna()].groupby("sequence", sort=False):
        tasks = list(dict.fromkeys(own["task"]))
        have = "has no score: its" if len(tasks) == 1 else "have no score: their"
        lines.append(
            f"{sequence}: {listed(tasks)}, which the network {own['network'].iloc[0]} had learned "
            f"before, {have} images are not here. The weights that they read are, bit for bit, "
            "those with which they were learned."
        )
    return lines


def _capped(final: pd.DataFrame) -> list[str]:
    """Return a line that names the tasks which the cap left less than they asked for."""
    rows = final[final["capped"].isin([True]) & final["ratio_searched"].notna()]
    if not len(rows):
        return []
    tasks = ", ".join(dict.fromkeys(f"{row.task} ({row.method})" for row in rows.itertuples()))
    return [
        f"The cap left these tasks less than they asked for: {tasks}.\n"
        "A larger network, or another cap (expected_tasks, tail_share), would give them more."
    ]


def _grown(final: pd.DataFrame) -> list[str]:
    """Return a line for each sequence and method whose network grew: for which task, how wide.

    Where it did so in several runs, the first of these counts.
    """
    lines = []
    for (sequence, method), own in final.groupby(["sequence", "method"], sort=False):
        grew = own[own["grew"].isin([True])].drop_duplicates("task")
        if len(grew):
            widths = grown_words(dict(zip(grew["task"], grew["width"], strict=True)))
            lines.append(
                f"{sequence}, {method}: the network grew {widths}: the goal was missed within the "
                "cap, or no weight was free."
            )
    return lines


def _overdrawn(final: pd.DataFrame, budgets: Mapping[str, float]) -> list[str]:
    """Return a line for each method of which searches cost more than their budget."""
    lines = []
    for method, budget in budgets.items():
        # networks of several sequences and orders share their searches
        searches = final[(final["method"] == method) & final["search_cost"].notna()]
        orders, positions = searches["order"].astype(str), searches["position"].astype(int)
        prefixes = [
            "+".join(order.split("+")[:position])
            for order, position in zip(orders, positions, strict=True)
        ]
        searches = searches.assign(learned=prefixes).drop_duplicates(["network", "seed", "learned"])
        over = searches[searches["search_cost"] > budget]
        if len(over):
            lines.append(
                f"{method}: {len(over)} of {len(searches)} searches cost more than their "
                f"budget of {budget:g}, at most {over['search_cost'].max():.2f} trainings: trials "
                "go on until a share holds. Nothing needs to be done (docs/search.md)."
            )
    return lines


def _short_of_room(final: pd.DataFrame) -> list[str]:
    """Return a line for each method at whose end little is free.

    It says how much is free, what each task took, and what to change.
    """
    packed = with_ratios(final)
    packed = packed[packed["free_share"] < LITTLE_ROOM]
    lines = []
    for (sequence, method), own in packed.groupby(["sequence", "method"], sort=False):
        first = own.iloc[: own["position"].max()]
        took = ", ".join(f"{row.task} {row.owned_share:.1%}" for row in first.itertuples())
        lines.append(
            f"{sequence}, {method}: {first['free_share'].iloc[0]:.1%} of the weights are left "
            f"free for more tasks ({took}). A larger network, larger ratios or a lower cap "
            "(expected_tasks, tail_share) leave more; what was learned stays."
        )
    return lines
