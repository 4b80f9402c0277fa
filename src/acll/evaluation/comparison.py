"""Runs compared: figures of each, means with intervals over runs, differences of methods."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from acll.evaluation.statistics import (
    Matrix,
    backward_transfer,
    capacity,
    forgetting,
    forward_transfer,
    interval,
    intransigence,
)
from acll.node import TOGETHER, Run

RUN_FIGURES = (
    "mean_score",
    "worst_score",
    "last_score",
    "mean_forgetting",
    "backward_transfer",
    "forward_transfer",
    "intransigence",
    "owned_share",
    "free_share",
    "bytes",
    "size",
    "capacity",
)
COMPARED = ("mean_score", "worst_score")  # figures in which methods are compared run by run
MIXED = "mixed"  # metric of a mean over tasks that have several
# types of methods whose networks do not depend on the order of tasks
WITHOUT_ORDER = ("individual", "joint")

# rows of the table `scores`, by (network, method, seed, prefix in one word)
Lookup = Mapping[tuple[str, str, int, str], pd.DataFrame]


def by_node(scores: pd.DataFrame) -> Lookup:
    """Return the rows of each node. scores: the table of that name."""
    groups = scores.groupby(["network", "method", "seed", "prefix"])
    return dict(iter(groups))  # type: ignore[arg-type]


def _at(nodes: Lookup, run: Run, stage: int) -> list[pd.DataFrame]:
    """Return the rows of each node that serves the first tasks of a run. stage: how many tasks."""
    return [nodes[(node.network, node.method, node.seed, node.word)] for node in run.nodes(stage)]


def rows_at(nodes: Lookup, run: Run, stage: int) -> pd.DataFrame:
    """Return the rows of a run after its first tasks, in the order of learning.

    stage: how many tasks. Empty where the run has no network for so few.
    """
    found = _at(nodes, run, stage)
    if not found:
        return pd.DataFrame()
    by_task = pd.concat(found, ignore_index=True).set_index("task", drop=False)
    rows = by_task.loc[list(run.tasks[:stage])].reset_index(drop=True)
    return rows.assign(sequence=run.sequence, order=run.order, position=range(1, stage + 1))


def matrix_of(nodes: Lookup, run: Run) -> Matrix:
    """Return the score of each task (column) after each stage (row) of a run: [T, T].

    `acll.evaluation.statistics` says what is NaN. So are rows and columns of tasks that the network
    had learned elsewhere.
    """
    scores = np.full((len(run.tasks), len(run.tasks)), np.nan)
    for stage in range(len(run.tasks)):
        known: dict[str, float] = {}
        for rows in _at(nodes, run, stage + 1):
            known |= dict(zip(rows["task"], rows["score"], strict=True))
        if known:
            scores[stage, : stage + 1] = [known[task] for task in run.tasks[: stage + 1]]
    return scores


def matrix_table(nodes: Lookup, runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each run, stage and task that is known by then."""
    rows = []
    for run in runs:
        scores = matrix_of(nodes, run)
        for stage, task in zip(*np.nonzero(~np.isnan(scores)), strict=True):
            names = (run.sequence, run.order, run.method, run.seed)
            rows.append((*names, stage + 1, run.tasks[task], scores[stage, task]))
    columns = ["sequence", "order", "method", "seed", "stage", "task", "score"]
    return pd.DataFrame(rows, columns=columns)


def runs_table(nodes: Lookup, runs: Sequence[Run], curves: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run: its figures, as docs/metrics.md defines them.

    curves: the table of `curves_table`.
    """
    learned = _listed(curves, ["network", "method", "seed", "prefix"])
    # the training of a first task is the same for all methods
    alone_curves = _listed(
        curves.drop_duplicates(["network", "seed", "prefix", "epoch"]),
        ["network", "seed", "prefix"],
    )
    alone = {}
    for run in runs:
        if run.type == "individual":
            end = rows_at(nodes, run, len(run.tasks))
            alone[run.network, run.seed, run.sequence, run.order] = end["score"].to_numpy()
    return pd.DataFrame([_figures(nodes, run, learned, alone_curves, alone) for run in runs])


def _listed(curves: pd.DataFrame, by: list[str]) -> dict[Any, list[float]]:
    """Return the learning curves by the values of some columns."""
    return {key: rows["score"].tolist() for key, rows in curves.groupby(by)}


def _figures(
    nodes: Lookup,
    run: Run,
    learned: Mapping[Any, list[float]],
    alone_curves: Mapping[Any, list[float]],
    alone: Mapping[tuple[str, int, str, str], Matrix],
) -> dict[str, object]:
    """Return the row of a run.

    learned: curves by network, method, seed, prefix. alone_curves: curves of first tasks by
    network, seed, task. alone: scores [T] of individual networks by network, seed, sequence, order.
    """
    end, scores = rows_at(nodes, run, len(run.tasks)), matrix_of(nodes, run)
    scored = end[end["score"].notna()]  # less what the network had learned elsewhere
    scores = scores[-len(scored) :, -len(scored) :]
    known = not np.isnan(np.diag(scores)).any()  # a method that learns all at once has no stages
    reference = alone.get((run.network, run.seed, run.sequence, run.order))
    # where each task was learned
    last = [TOGETHER.join(prefixes[-1]) if prefixes else "" for prefixes in run.stages]
    in_turn = [learned.get((run.network, run.method, run.seed, prefix), []) for prefix in last]
    own_curves = [alone_curves.get((run.network, run.seed, task), []) for task in run.tasks]
    size = int(end.drop_duplicates("prefix")["bytes"].sum())
    return {
        "sequence": run.sequence,
        "order": run.order,
        "network": run.network,
        "method": run.method,
        "type": run.type,
        "seed": run.seed,
        "metric": _metric_of(scored["metric"]),
        "mean_score": end["score"].mean(),
        "worst_score": end["score"].min(),
        "last_score": end["score"].iloc[-1],
        "mean_forgetting": forgetting(scores) if known else np.nan,
        "backward_transfer": backward_transfer(scores) if known else np.nan,
        "forward_transfer": forward_transfer(in_turn, own_curves),
        "intransigence": intransigence(scores, reference)
        if known and reference is not None
        else np.nan,
        "bit_exact": bool(end["bit_exact"].all()),
        "owned_share": end["owned_share"].sum(min_count=len(end)),
        "free_share": end["free_share"].iloc[0],
        "bytes": size,
        "size": size / end["alone_bytes"].sum(),
        "capacity": sum(_capacity(own) for _, own in end.groupby("prefix")),
    }


def _capacity(end: pd.DataFrame) -> float:
    """Return the capacity of one network, as docs/metrics.md defines it. end: the rows of its tasks
    in the table `scores`."""
    shares = end["owned_share"]
    if shares.isna().any():  # its tasks own nothing, and use all of it
        return 1.0
    # tasks that read the same weights need no masks
    different = (shares > 0).sum() > 1 or (end["unread_share"] > 0).any()
    return capacity(shares.sum(), len(end) if different else 0)


def _metric_of(metrics: "pd.Series[str]") -> str:
    """Return the metric of a mean over tasks; `mixed` where it is one of several metrics."""
    different = metrics.unique()
    return str(different[0]) if len(different) == 1 else MIXED


def summary_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each sequence and method: means over runs with their 95% intervals.

    runs: the table of `runs_table`. Intervals are in `<figure>_low` and `<figure>_high`.
    """
    rows = []
    for (sequence, method), own in runs.groupby(["sequence", "method"], sort=False):
        if own["type"].iloc[0] in WITHOUT_ORDER:  # runs in other orders are the same networks
            own = own.drop_duplicates("seed")
        row = {
            "sequence": sequence,
            "method": method,
            "runs": len(own),
            "metric": own["metric"].iloc[0],
            "bit_exact": bool(own["bit_exact"].all()),
        }
        for figure in RUN_FIGURES:
            mean, low, high = interval(own[figure].tolist())
            row |= {figure: mean, f"{figure}_low": low, f"{figure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def paired_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each pair of methods and figure: mean difference with its 95% interval.

    Runs of the same sequence, order and seed are compared. runs: the table of `runs_table`. Column
    `better`: in how many of the runs the first method is above the second.
    """
    columns = ["sequence", "method", "other", "figure", "runs", "better"]
    columns += ["difference", "low", "high"]
    rows = []
    for sequence, own in runs.groupby("sequence", sort=False):
        wide = own.set_index(["order", "seed", "method"])[list(COMPARED)].unstack("method")
        types = dict(zip(own["method"], own["type"], strict=True))
        for method, other in combinations(types, 2):
            # without an order there is one run a seed, whatever the number of orders
            once = types[method] in WITHOUT_ORDER and types[other] in WITHOUT_ORDER
            for figure in COMPARED:
                by_run = wide[figure][method] - wide[figure][other]
                if once:
                    by_run = by_run.groupby("seed").first()
                difference = by_run.to_numpy()
                better = int((difference > 0).sum())
                names = (sequence, method, other, figure, len(difference), better)
                rows.append((*names, *interval(difference.tolist())))
    return pd.DataFrame(rows, columns=columns)
