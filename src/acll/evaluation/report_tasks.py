"""The parts of the report about tasks: scores by method, scores of classes, confusions."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from acll.evaluation.class_tables import MISSED, class_means, guess_of
from acll.evaluation.comparison import MIXED
from acll.evaluation.learned_tasks import learned_here
from acll.evaluation.words import METRIC_WORDS
from acll.settings import MetricName

MOST_CLASSES = 16  # that are shown of a task


@dataclass(frozen=True)
class Cell:
    """A cell of a table of shares. value: 0 … 1, for its shade; None: empty. tip: when hovered."""

    text: str = ""
    value: float | None = None
    tip: str = ""
    bad: bool = False  # wrong, or next to nothing


@dataclass(frozen=True)
class Grid:
    """A small table: a name and cells for each row."""

    title: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class TaskPart:
    """What the report says of a task of a sequence."""

    sequence: str
    task: str
    metric: str
    classes: Grid
    confusions: list[Grid]
    note: str
    missed: bool


def scoreboards(final: pd.DataFrame, summary: pd.DataFrame, classes: pd.DataFrame) -> list[Grid]:
    """Return a grid of tasks by methods for each sequence: test scores at the end, means over runs.

    The last column has the score of guessing. final, summary, classes: the tables of these names.
    """
    boards = []
    for sequence, own in final.groupby("sequence", sort=False):
        methods = list(dict.fromkeys(own["method"]))
        means = own.groupby(["task", "method"], sort=False)[
            ["score", "score_when_learned", "forgetting"]
        ].mean()
        rows = []
        for task in dict.fromkeys(own["task"]):
            name = own.loc[own["task"] == task, "metric"].iloc[0]
            metric = METRIC_WORDS[name]
            cells = [_score_cell(means.loc[(task, method)], metric) for method in methods]
            cells.append(_guess_cell(_at(classes, {"sequence": sequence, "task": task}), name))
            rows.append((f"{task} ({metric})", cells))
        of_method = summary[summary["sequence"] == sequence].set_index("method")
        mixed = of_method["metric"].iloc[0] == MIXED
        label = "mean over tasks" + (", of different metrics" if mixed else "")
        rows.append((label, [_mean_cell(of_method.loc[name]) for name in methods]))
        for label, column, form in (
            ("forgotten, on average", "mean_forgetting", "{:.3f}"),
            ("weights still free", "free_share", "{:.0%}"),
            ("size, of a network for each task", "size", "{:.0%}"),
        ):
            values = [of_method.loc[name, column] for name in methods]
            rows.append((label, [Cell("" if pd.isna(x) else form.format(x)) for x in values]))
        exact = [Cell("yes" if of_method.loc[name, "bit_exact"] else "no") for name in methods]
        rows.append(("nothing forgotten, bit for bit", exact))
        rows = [(label, [*cells, Cell()][: len(methods) + 1]) for label, cells in rows]
        boards.append(Grid(str(sequence), "task", [*methods, "guess"], rows))
    return boards


def _guess_cell(classes: pd.DataFrame, metric: MetricName) -> Cell:
    """Return the score of `guess_of`. classes: its rows of a task."""
    guess = guess_of(classes, metric)
    if guess is None:
        return Cell()
    told = f"always {guess.name}: {METRIC_WORDS[metric]} {guess.score:.4f}"
    return Cell(f"{guess.score:.3f}", guess.score, told)


def _score_cell(means: "pd.Series[float]", metric: str) -> Cell:
    score, learned, lost = (
        float(means[name]) for name in ("score", "score_when_learned", "forgetting")
    )
    if pd.isna(score):
        return Cell()
    told = f"{metric} {score:.4f}"
    if not pd.isna(learned):
        told += f"; {learned:.4f} when learned, {lost:.4f} forgotten"
    return Cell(f"{score:.3f}", score, told)


def _mean_cell(row: "pd.Series[float]") -> Cell:
    half = row["mean_score_high"] - row["mean_score"]
    text = f"{row['mean_score']:.3f}"
    return Cell(text if pd.isna(half) else f"{text} ± {half:.3f}")


def task_parts(
    final: pd.DataFrame, classes: pd.DataFrame, confusion: pd.DataFrame
) -> list[TaskPart]:
    """Return a part for each sequence and task that was scored.

    final, classes, confusion: the tables of these names.
    """
    means = class_means(classes)
    parts = []
    for (sequence, task), own in learned_here(final).groupby(["sequence", "task"], sort=False):
        where = {"sequence": sequence, "task": task}
        metric = METRIC_WORDS[own["metric"].iloc[0]]
        here = _at(means, where)
        lowest = here.groupby("class", sort=False)["score"].mean().sort_values(kind="stable")
        shown = list(lowest.index[:MOST_CLASSES])
        in_order = [name for name in dict.fromkeys(here["class"]) if name in shown]
        methods = list(dict.fromkeys(here["method"]))
        counts, pairs = _at(classes, where), _at(confusion, where)
        note = ""
        if len(shown) < len(lowest):
            note = (
                f"The {len(shown)} classes with the lowest scores, of {len(lowest)}; "
                "tables/classes.csv has all."
            )
        parts.append(
            TaskPart(
                str(sequence),
                str(task),
                metric,
                _class_grid(here, in_order, methods, counts),
                [
                    _confusion_grid(
                        method,
                        in_order,
                        counts[counts["method"] == method],
                        pairs[pairs["method"] == method],
                    )
                    for method in methods
                ],
                note,
                bool((here["score"] < MISSED).any()),
            )
        )
    return parts


def _at(table: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
    """Return the rows of a table that have these values."""
    chosen = pd.Series(True, index=table.index)
    for column, value in where.items():
        chosen &= table[column] == value
    return table[chosen]


def _class_grid(
    means: pd.DataFrame, shown: Sequence[str], methods: list[str], counts: pd.DataFrame
) -> Grid:
    """Return the scores of classes by method."""
    word = "IoU" if (means["kind"] == "segmentation").any() else "recall"
    of_class = means.set_index(["class", "method"])["score"]
    unit = "pixels" if word == "IoU" else "images"
    present = counts.drop_duplicates("class").set_index("class")["present"]
    rows = []
    for name in shown:
        cells = []
        for method in methods:
            score = float(of_class.loc[(name, method)])
            tip = f"{method}: {word} of {name} {score:.4f}; {present[name]:,} test {unit}"
            cells.append(Cell(f"{score:.3f}", score, tip, bad=score < MISSED))
        rows.append((name, cells))
    return Grid(f"{word} of each class", "class", methods, rows)


def _confusion_grid(
    method: str, shown: Sequence[str], counts: pd.DataFrame, pairs: pd.DataFrame
) -> Grid:
    """Return the confusion of classes under a method, in percent of each true class.

    Of its first run. Classes are rows (truth) and columns (answers).
    """
    first = counts.drop_duplicates("class").set_index("class")
    present_of, correct_of = first["present"].to_dict(), first["correct"].to_dict()
    confused = pairs.set_index(["truth", "predicted"])["count"].to_dict()
    rows = []
    for truth in shown:
        present = int(present_of[truth])
        cells = []
        for answer in shown:
            right = answer == truth
            count = int(correct_of[truth] if right else confused.get((truth, answer), 0))
            if not count or not present:
                cells.append(Cell())
                continue
            share = count / present
            tip = f"{truth} taken for {answer}" if not right else f"{truth} found"
            tip = f"{tip}: {count:,} of {present:,} ({share:.1%})"
            text = f"{share:.0%}".removesuffix("%") if share >= 0.005 else "·"
            cells.append(Cell(text, share, tip, bad=not right))
        rows.append((truth, cells))
    return Grid(method, "truth ↓ answer →", list(shown), rows)
