"""Runs compared: what each came to, means with intervals over runs, and differences between
methods."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from acll.evaluation.statistics import (
    Matrix,
    backward_transfer,
    forgetting,
    forward_transfer,
    interval,
    intransigence,
)
from acll.node import TOGETHER, Run

RUN_FIGURES = (
    "mean_score", "worst_score", "mean_forgetting", "backward_transfer", "forward_transfer", "intransigence",
    "owned_share", "free_share", "bytes", "size",
)  # fmt: skip
COMPARED = ("mean_score", "worst_score")
WITHOUT_ORDER = ("individual", "joint")

Lookup = Mapping[tuple[str, str, int, str], pd.DataFrame]


def by_node(scores: pd.DataFrame) -> Lookup:
    """Return the rows of each node: by network, method, seed, and the tasks of its prefix in one
    word."""
    return dict(iter(scores.groupby(["network", "method", "seed", "prefix"])))  # type: ignore[arg-type]


def _at(nodes: Lookup, run: Run, stage: int) -> list[pd.DataFrame]:
    """Return the rows of each node whose network serves the first tasks of a run. stage: how many
    tasks."""
    return [nodes[(node.network, node.method, node.seed, node.word)] for node in run.nodes(stage)]


def rows_at(nodes: Lookup, run: Run, stage: int) -> pd.DataFrame:
    """The rows of `scores` for a run after so many tasks, in the order of learning; empty where it
    has no network."""
    found = _at(nodes, run, stage)
    if not found:
        return pd.DataFrame()
    rows = (
        pd.concat(found, ignore_index=True)
        .set_index("task", drop=False)
        .loc[list(run.tasks[:stage])]
    )
    return rows.assign(
        sequence=run.sequence, order=run.order, position=range(1, stage + 1)
    ).reset_index(drop=True)


def matrix_of(nodes: Lookup, run: Run) -> Matrix:
    """[T, T] the score of each task (column) after each stage (row); see
    `acll.evaluation.statistics`."""
    scores = np.full((len(run.tasks), len(run.tasks)), np.nan)
    for stage in range(len(run.tasks)):
        found = _at(nodes, run, stage + 1)
        known = {
            task: score
            for rows in found
            for task, score in zip(rows["task"], rows["score"], strict=True)
        }
        if known:
            scores[stage, : stage + 1] = [known[task] for task in run.tasks[: stage + 1]]
    return scores


def matrix_table(nodes: Lookup, runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each run, stage and task that is known by then."""
    rows = []
    for run in runs:
        scores = matrix_of(nodes, run)
        for stage, task in zip(*np.nonzero(~np.isnan(scores)), strict=True):
            names = (
                run.sequence,
                run.order,
                run.method,
                run.seed,
                stage + 1,
                run.tasks[task],
                scores[stage, task],
            )
            rows.append(names)
    return pd.DataFrame(
        rows, columns=["sequence", "order", "method", "seed", "stage", "task", "score"]
    )


def runs_table(nodes: Lookup, runs: Sequence[Run], curves: pd.DataFrame) -> pd.DataFrame:
    """A row for each run: its figures, as docs/metrics.md defines them. curves: of `curves_table`."""
    learned = _listed(curves, ["network", "method", "seed", "prefix"])
    # the training of a first task is the same for all methods
    alone_curves = _listed(
        curves.drop_duplicates(["network", "seed", "prefix", "epoch"]),
        ["network", "seed", "prefix"],
    )
    alone = {
        (run.network, run.seed, run.sequence, run.order): rows_at(nodes, run, len(run.tasks))[
            "score"
        ].to_numpy()
        for run in runs
        if run.type == "individual"
    }
    return pd.DataFrame([_figures(nodes, run, learned, alone_curves, alone) for run in runs])


def _listed(curves: pd.DataFrame, by: list[str]) -> dict[Any, list[float]]:
    return {key: rows["score"].tolist() for key, rows in curves.groupby(by)}


def _figures(
    nodes: Lookup,
    run: Run,
    learned: Mapping[Any, list[float]],
    alone_curves: Mapping[Any, list[float]],
    alone: Mapping[tuple[str, int, str, str], Matrix],
) -> dict[str, object]:
    end, scores = rows_at(nodes, run, len(run.tasks)), matrix_of(nodes, run)
    known = not np.isnan(np.diag(scores)).any()
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
        "mean_score": end["score"].mean(),
        "worst_score": end["score"].min(),
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
    }


def summary_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each sequence and method: means over seeds and orders, with the bounds of their 95%
    intervals."""
    rows = []
    for (sequence, method), own in runs.groupby(["sequence", "method"], sort=False):
        if own["type"].iloc[0] in WITHOUT_ORDER:  # runs in other orders are the same networks
            own = own.drop_duplicates("seed")
        row = {
            "sequence": sequence,
            "method": method,
            "runs": len(own),
            "bit_exact": bool(own["bit_exact"].all()),
        }
        for figure in RUN_FIGURES:
            row |= dict(
                zip(
                    (figure, f"{figure}_low", f"{figure}_high"),
                    interval(own[figure].tolist()),
                    strict=True,
                )
            )
        rows.append(row)
    return pd.DataFrame(rows)


def paired_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Differences between two methods over runs of the same sequence, order and seed, with 95%
    intervals.

    A row for each pair and figure; better: in how many of the runs the first is above the second.
    """
    rows = []
    for sequence, own in runs.groupby("sequence", sort=False):
        wide = own.set_index(["order", "seed", "method"])[list(COMPARED)].unstack("method")
        types = dict(zip(own["method"], own["type"], strict=True))
        for method, other in combinations(types, 2):
            # without an order there is one run a seed, whatever the number of orders
            once = types[method] in WITHOUT_ORDER and types[other] in WITHOUT_ORDER
            for figure in COMPARED:
                differences = wide[figure][method] - wide[figure][other]
                difference = (
                    differences.groupby("seed").first() if once else differences
                ).to_numpy()
                names = (
                    sequence,
                    method,
                    other,
                    figure,
                    len(difference),
                    int((difference > 0).sum()),
                )
                rows.append((*names, *interval(difference.tolist())))
    return pd.DataFrame(
        rows,
        columns=[
            "sequence",
            "method",
            "other",
            "figure",
            "runs",
            "better",
            "difference",
            "low",
            "high",
        ],
    )
