"""The tables that people read and tools parse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from acll.evaluation.comparison import Lookup, rows_at
from acll.node import Node, Run

COLUMNS = (
    "network", "method", "seed", "prefix", "task", "position", "kind", "metric", "score", "score_when_learned",
    "forgetting", "bit_exact", "ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "search_cost",
    "owned_share", "free_share", "bytes", "alone_bytes", "samples", "device",
)  # fmt: skip
CHOSEN = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped")
NAMES = (
    "sequence", "order", "network", "method", "other", "type", "prefix", "task", "figure", "kind", "metric", "device",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """A table as it was written: names are text, whatever they look like."""
    columns = pd.read_csv(path, nrows=0).columns
    names = {name: str for name in NAMES if name in columns}
    return pd.read_csv(
        path, dtype=names, na_values={name: [""] for name in columns}, keep_default_na=False
    )


def scores_table(nodes: Mapping[Node, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each (network, method, seed, prefix, task).

    nodes: what the evaluation of each node wrote, for every prefix of every sequence, so that the
    score of a task when it was learned is found at the node where it is last. forgetting =
    score_when_learned − score, exactly 0 where the bits are the same and so is the device.
    """
    rows = []
    for node, evaluated in nodes.items():
        for entry in evaluated["rows"]:
            learned = replace(node, prefix=node.prefix[: entry["position"]])
            when = _when_learned(nodes, learned, entry["task"])
            rows.append(
                {key: value for key, value in entry.items() if key not in ("choice", "curve")}
                | {key: entry["choice"].get(key) for key in CHOSEN}
                | {"search_cost": entry["choice"].get("cost")}
                | {
                    "network": node.network,
                    "method": node.method,
                    "seed": node.seed,
                    "prefix": node.word,
                }
                | {
                    "score_when_learned": when,
                    "forgetting": None if when is None else when - entry["score"],
                }
                | {key: evaluated[key] for key in ("free_share", "bytes", "device")}
            )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["network", "method", "seed", "prefix", "position"], ignore_index=True)


def _when_learned(
    nodes: Mapping[Node, Mapping[str, Any]], learned: Node, task: str
) -> float | None:
    """The score of a task at the node where it was learned; None where several were learned
    together, before which there is nothing."""
    rows = nodes[learned]["rows"]
    return (
        None
        if len(rows) > learned.position
        else float(next(row["score"] for row in rows if row["task"] == task))
    )


def curves_table(nodes: Mapping[Node, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each node and epoch of the training in which its task was learned: the score on
    the validation split.

    Nodes whose tasks were learned together have none.
    """
    rows = [
        (node.network, node.method, node.seed, node.word, epoch, score)
        for node, evaluated in nodes.items()
        for epoch, score in enumerate(evaluated["rows"][-1]["curve"], 1)
    ]
    return pd.DataFrame(rows, columns=["network", "method", "seed", "prefix", "epoch", "score"])


def final_table(nodes: Lookup, runs: Sequence[Run]) -> pd.DataFrame:
    """The rows of `scores` at the end of each run, with the columns `sequence` and `order` in
    front."""
    frame = pd.concat([rows_at(nodes, run, len(run.tasks)) for run in runs], ignore_index=True)
    return frame[["sequence", "order", *COLUMNS]]


def data_table(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each prepared task. summaries: what preparation wrote of each."""
    rows = []
    for summary in summaries:
        height, width = summary["image_size"]
        rows.append(
            {"task": summary["name"], "source": summary["source"], "kind": summary["kind"]}
            | {
                "classes": len(summary["classes"]),
                "channels": summary["channels"],
                "height": height,
                "width": width,
            }
            | {split: summary["samples"][split] for split in ("train", "val", "test")}
            | {key: sum(summary[key].values()) for key in ("left_out", "warnings")}
        )
    return pd.DataFrame(rows)


def plot_table(final: pd.DataFrame) -> pd.DataFrame:
    """A row for each task at the end of each sequence and method, under one name; means over seeds.

    For dvc plots.
    """
    means = final.groupby(["sequence", "method", "task"], sort=False)["score"].mean().reset_index()
    return pd.DataFrame(
        {
            "result": means["sequence"] + " " + means["method"] + " " + means["task"],
            "score": means["score"],
        }
    )


def metrics_of(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The summary as nested plain data, sequence → method → figure, for `dvc metrics`."""
    figures = ["mean_score", "worst_score", "mean_forgetting", "free_share", "size"]
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for row in summary.to_dict("records"):
        nested.setdefault(row["sequence"], {})[row["method"]] = {
            name: float(row[name]) for name in figures if pd.notna(row[name])
        }
    return nested


def trials_table(searches: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All trials of all searches, in order. searches: by network/method/seed/prefix, what each
    search wrote."""
    if not searches:
        return pd.DataFrame(columns=["network", "method", "seed", "prefix"])
    frames = []
    for name, trials in searches.items():
        node = Node.of(name)
        names = {
            "network": node.network,
            "method": node.method,
            "seed": node.seed,
            "prefix": node.word,
        }
        frames.append(
            pd.DataFrame([names] * len(trials), index=trials.index, columns=list(names)).join(
                trials
            )
        )
    return pd.concat(frames, ignore_index=True)


def amiss(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each task of whose data something was left out, or is to be looked at."""
    lines = []
    for summary in summaries:
        found = [
            f"{words} {', '.join(f'{count} {kind}' for kind, count in summary[key].items())}"
            for key, words in (("left_out", "left out:"), ("warnings", "warnings:"))
            if summary[key]
        ]
        if found:
            lines.append(
                f"{summary['name']}: {'; '.join(found)} (data/{summary['name']}.json has the files)"
            )
    return lines
