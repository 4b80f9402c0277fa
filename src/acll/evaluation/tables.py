"""The tables that people read and tools parse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from acll.data.faults import noticed
from acll.evaluation.comparison import Lookup, rows_at
from acll.evaluation.learned_tasks import learned_here
from acll.node import Node, Run

# of the table `scores`
COLUMNS = (
    *("network", "method", "seed", "prefix", "task", "position", "kind", "metric"),
    *("score", "score_when_learned", "forgetting", "bit_exact"),
    *("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "search_cost"),
    *("owned_share", "unread_share", "free_share", "width", "grew", "bytes", "alone_bytes"),
    *("samples", "device"),
)
# of these, what comes from a task's choice.json
CHOSEN = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped")
# columns of any table that hold text, whatever it looks like
NAMES = (
    *("sequence", "order", "network", "method", "other", "type", "prefix", "task"),
    *("front", "best", "worst_in"),
    *("figure", "kind", "metric", "device", "class", "image", "truth", "noticed"),
)


def read_table(path: Path) -> pd.DataFrame:
    """Return a table from its file. Names are text, also `1` or `nan`."""
    columns = pd.read_csv(path, nrows=0).columns
    names = {name: str for name in NAMES if name in columns}
    if "truth" in columns:  # elsewhere a count
        names["predicted"] = str
    return pd.read_csv(
        path, dtype=names, na_values={name: [""] for name in columns}, keep_default_na=False
    )


def scores_table(nodes: Mapping[Node, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the table `scores`: a row for each (network, method, seed, prefix, task).

    nodes: what the evaluation of each node wrote. There must be a node for every prefix, but for
    what the network had learned elsewhere, whose tasks have no scores: the score of a task when it
    was learned is that at the node where it is the last task. forgetting = score_when_learned −
    score, exactly 0 where bits and device are the same.
    """
    rows = []
    for node, evaluated in nodes.items():
        for entry in evaluated["rows"]:
            learned = replace(node, prefix=node.prefix[: entry["position"]])
            when = _when_learned(nodes, learned, entry["task"])
            row = {key: value for key, value in entry.items() if key not in ("choice", "curve")}
            row |= {key: entry["choice"].get(key) for key in CHOSEN}
            row |= {"search_cost": entry["choice"].get("cost")} | _names_of(node)
            row["score_when_learned"] = when
            row["forgetting"] = None if when is None else when - entry["score"]
            row |= {key: evaluated[key] for key in ("free_share", "bytes", "device")}
            rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["network", "method", "seed", "prefix", "position"], ignore_index=True)


def _names_of(node: Node) -> dict[str, object]:
    """Return the columns that name a node."""
    return {
        "network": node.network,
        "method": node.method,
        "seed": node.seed,
        "prefix": node.word,
    }


def _when_learned(
    nodes: Mapping[Node, Mapping[str, Any]], learned: Node, task: str
) -> float | None:
    """Return the score of a task at the node where it was learned.

    None where several tasks were learned at once: then nothing was learned in turn. None, too,
    where that was elsewhere.
    """
    if learned not in nodes:
        return None
    rows = nodes[learned]["rows"]
    if len(rows) > learned.position:
        return None
    return float(next(row["score"] for row in rows if row["task"] == task))


def curves_table(nodes: Mapping[Node, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the validation score after each epoch of the training of each node's task.

    nodes: what the evaluation of each node wrote. Nodes whose tasks were learned at once have none.
    """
    rows = [
        (node.network, node.method, node.seed, node.word, epoch, score)
        for node, evaluated in nodes.items()
        for epoch, score in enumerate(evaluated["rows"][-1]["curve"], 1)
    ]
    return pd.DataFrame(rows, columns=["network", "method", "seed", "prefix", "epoch", "score"])


def final_table(nodes: Lookup, runs: Sequence[Run]) -> pd.DataFrame:
    """Return the rows of `scores` at the end of each run, after columns `sequence` and `order`."""
    frame = pd.concat([rows_at(nodes, run, len(run.tasks)) for run in runs], ignore_index=True)
    return frame[["sequence", "order", *COLUMNS]]


def data_table(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each prepared task. summaries: what preparation wrote of each.

    noticed: what was left out or looks wrong, in words.
    """
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
            | {"noticed": "; ".join(noticed(summary))}
        )
    return pd.DataFrame(rows)


def plot_table(final: pd.DataFrame) -> pd.DataFrame:
    """Return the score of each task at the end of each sequence and method, for `dvc plots`.

    Scores are means over runs; the three names are one column, since DVC plots against one.
    """
    by_task = learned_here(final).groupby(["sequence", "method", "task"], sort=False)
    means = by_task["score"].mean().reset_index()
    return pd.DataFrame(
        {
            "result": means["sequence"] + " " + means["method"] + " " + means["task"],
            "score": means["score"],
        }
    )


def metrics_of(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the summary as nested plain data, sequence → method → figure, for `dvc metrics`."""
    figures = ["mean_score", "worst_score", "mean_forgetting", "free_share", "size"]
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for row in summary.to_dict("records"):
        nested.setdefault(row["sequence"], {})[row["method"]] = {
            name: float(row[name]) for name in figures if pd.notna(row[name])
        }
    return nested


def trials_table(searches: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return all trials of all searches, in order.

    searches: the table of trials of each node, by its name.
    """
    if not searches:
        return pd.DataFrame(columns=["network", "method", "seed", "prefix"])
    frames = []
    for name, trials in searches.items():
        names = _names_of(Node.of(name))
        columns = pd.DataFrame([names] * len(trials), index=trials.index, columns=list(names))
        frames.append(columns.join(trials))
    return pd.concat(frames, ignore_index=True)
