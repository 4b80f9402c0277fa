"""Tables of the answers in each task at the end of runs: measures, classes and mistakes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from acll.node import Node, Run
from acll.settings import METRICS, Kind, MetricName
from acll.training.metrics import value_of

OF_TASK = ["sequence", "method", "task"]
MISSED = 0.05  # of a class that is scored lower, the network knows next to nothing
_FORGOTTEN = 0.05  # a task that lost more than this has been forgotten
# a mean is no better than guessing where it is above it by no more than this share of what guessing
# leaves to be gained, or by no more standard errors: one in twenty who guess come to that
_GUESSED, _GUESSED_ERRORS = 0.03, 1.645
# the score of a class: for segmentation the terms of the mean IoU; for classification the recall,
# whose mean over samples is the accuracy
CLASS_SCORE: dict[Kind, str] = {"classification": "recall", "segmentation": "iou"}

Nodes = Mapping[Node, Mapping[str, Any]]  # what the evaluation of each node wrote


def _at_end(nodes: Nodes, run: Run) -> Iterator[tuple[dict[str, object], Mapping[str, Any]]]:
    """Yield for each task, in the order of learning, the columns that name it and its row."""
    rows = {row["task"]: row for node in run.nodes(len(run.tasks)) for row in nodes[node]["rows"]}
    for task in run.tasks:
        names = {
            "sequence": run.sequence,
            "order": run.order,
            "method": run.method,
            "seed": run.seed,
            "task": task,
        }
        yield names, rows[task]


def classes_table(nodes: Nodes, runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each run, task and class, at the end: its counts and its scores.

    docs/metrics.md defines them. Empty where nothing is known: recall and IoU of a class that is
    not in the test split, precision of one that is never predicted.
    """
    columns = ["sequence", "order", "method", "seed", "task", "kind", "class"]
    columns += ["present", "predicted", "correct", "recall", "precision", "iou", "score"]
    found = []
    for run in runs:
        for names, row in _at_end(nodes, run):
            for counts in row["classes"]:
                one = {key: counts[key] for key in ("present", "predicted", "correct")}
                scores = _class_scores(**one)
                kind = {"kind": row["kind"], "score": scores[CLASS_SCORE[row["kind"]]]}
                found.append(names | {"class": counts["name"]} | one | scores | kind)
    return pd.DataFrame(found, columns=columns)


def measures_table(nodes: Nodes, runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each run, task and measure, at the end."""
    columns = ["sequence", "order", "method", "seed", "task", "kind", "measure", "value"]
    found = [
        names | {"kind": row["kind"], "measure": measure, "value": value}
        for run in runs
        for names, row in _at_end(nodes, run)
        for measure, value in row["measures"].items()
    ]
    return pd.DataFrame(found, columns=columns)


def _class_scores(present: int, predicted: int, correct: int) -> dict[str, float | None]:
    return {
        "recall": correct / present if present else None,
        "precision": correct / predicted if predicted else None,
        "iou": correct / (present + predicted - correct) if present else None,
    }


def _first_of_each(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each sequence and method."""
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        first.setdefault((run.sequence, run.method), run)
    return list(first.values())


def confusion_table(nodes: Nodes, runs: Sequence[Run]) -> pd.DataFrame:
    """Return how often each class is taken for each other one, at the end of the first runs.

    Of each sequence and method that of the first order and seed. Pairs of classes that are never
    confused have no row; of a task with many classes the most frequent pairs have one.
    """
    columns = ["sequence", "order", "method", "seed", "task", "truth", "predicted", "count"]
    found = []
    for run in _first_of_each(runs):
        for names, row in _at_end(nodes, run):
            classes = [counts["name"] for counts in row["classes"]]
            for truth, predicted, count in row["confused"]:
                pair = {"truth": classes[truth], "predicted": classes[predicted], "count": count}
                found.append(names | pair)
    return pd.DataFrame(found, columns=columns)


def mistakes_table(nodes: Nodes, runs: Sequence[Run]) -> pd.DataFrame:
    """Return the worst mistakes of each task at the end of the first runs, the worst first.

    Of classification the truth, the answer and its probability, of segmentation the mean IoU.
    """
    columns = ["sequence", "order", "method", "seed", "task", "rank", "image"]
    columns += ["truth", "predicted", "probability", "mean_iou"]
    found = []
    for run in _first_of_each(runs):
        for names, row in _at_end(nodes, run):
            for rank, mistake in enumerate(row["mistakes"], 1):
                told = {key: mistake[key] for key in ("image", "truth", "predicted")}
                value = (
                    {"probability": mistake["badness"]}
                    if row["kind"] == "classification"
                    else {"mean_iou": 1 - mistake["badness"]}
                )
                found.append(names | {"rank": rank} | told | value)
    return pd.DataFrame(found, columns=columns)


def class_means(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the mean score over runs of each class: sequence, method, task, kind, class, score.

    classes: the table of that name. Classes that are not in the test split are left out.
    """
    names = ["sequence", "method", "task", "kind", "class"]
    means = classes.groupby(names, sort=False)["score"].mean().dropna()
    return means.reset_index()


def missed_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `class_means` of the classes that are (nearly) never found."""
    means = class_means(classes)
    return means[means["score"] < MISSED]


def forgotten_tasks(final: pd.DataFrame) -> "pd.Series[bool]":
    """Return whether a task has been forgotten, by sequence, method and task.

    final: the table of that name.
    """
    return final.groupby(OF_TASK)["forgetting"].mean() > _FORGOTTEN


def marked(rows: pd.DataFrame, marks: "pd.Series[bool]") -> NDArray[np.bool_]:
    """Return of each row whether its sequence, method and task is marked."""
    names = pd.MultiIndex.from_frame(rows[OF_TASK])
    return marks.reindex(names, fill_value=False).to_numpy(bool)


@dataclass(frozen=True)
class Guess:
    """Always answering the class that the test split has most often.

    score: of the task. mean: over the classes that the split has, of their scores. error: the
    standard error of that mean in one run where each image is given any of the classes, by chance;
    0 for masks, whose pixels are not independent.
    """

    name: str
    score: float
    mean: float
    error: float


def guess_of(classes: pd.DataFrame, metric: MetricName) -> Guess | None:
    """Return what guessing is worth.

    The recall of the class is 1, and its IoU its share of all pixels; those of all others are 0.
    None where the split has no class, as masks may ignore all pixels. classes: the rows of a task
    in the table of that name. metric: of the task.
    """
    present = classes.drop_duplicates("class").set_index("class")["present"]
    present = present[present > 0]
    if not len(present):
        return None
    name, share = str(present.idxmax()), float(present.max() / present.sum())
    score = _value_of_guess(metric, present.to_numpy())
    mean = 1 / len(present)
    if (classes["kind"] == "segmentation").any():
        return Guess(name, score, share * mean, 0.0)
    # of each recall p(1 - p) / n, of their mean the root of the sum over the number of classes
    error = mean * float((mean * (1 - mean) / present).sum()) ** 0.5
    return Guess(name, score, mean, error)


def _value_of_guess(metric: MetricName, present: NDArray[np.int64]) -> float:
    """Return the score of the most frequent class alone. present: how often each one is there."""
    if metric == "boundary_f1":  # one class alone has no boundary
        return 0.0
    confusion = np.zeros((len(present), len(present)), np.int64)
    confusion[:, present.argmax()] = present
    return value_of(metric, confusion)


def guessed_tasks(final: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each sequence, method and task that is not known to be better than guessing.

    What counts is the mean over classes, since a rare class may be found at the price of others.
    Tasks that a method has forgotten are left out: they were learned. guess: the class that is
    guessed; mean, chance: that of the method, and of guessing. final, classes: the tables of these
    names.
    """
    names = ["sequence", "task", "method"]
    means = class_means(classes).groupby(names)["score"].mean().to_dict()
    each = classes.groupby(names)["class"]
    runs = (each.size() / each.nunique()).to_dict()
    rows = []
    for (sequence, task), own in classes.groupby(["sequence", "task"], sort=False):
        guess = guess_of(own, METRICS[own["kind"].iloc[0]][0])  # what counts here is its mean
        if guess is None:
            continue
        for method in own["method"].unique():
            mean, count = (found[sequence, task, method] for found in (means, runs))
            error = guess.error / count**0.5
            enough = guess.mean + max(_GUESSED * (1 - guess.mean), _GUESSED_ERRORS * error)
            if mean <= enough:
                rows.append((sequence, method, task, guess.name, mean, guess.mean))
    guessed = pd.DataFrame(rows, columns=[*OF_TASK, "guess", "mean", "chance"])
    return guessed[~marked(guessed, forgotten_tasks(final))]
