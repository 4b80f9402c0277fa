"""Collect the scores of all nodes into tables."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation.tables import (
    amiss,
    data_table,
    final_table,
    metrics_of,
    plot_table,
    readable,
    scores_table,
    summary_table,
    trials_table,
)
from acll.files import write_json, write_text
from acll.settings import Sequence, Settings
from acll.steps._run import StepSettings, run


class NodeName(Settings):
    """The place of a node in the tree; its scores come in the same order."""

    network: str
    method: str
    seed: int
    prefix: list[str]


class Parameters(StepSettings):
    """What the tables depend on, beside the scores."""

    nodes: list[NodeName]
    sequences: dict[str, Sequence]
    searches: list[str]  # network/method/seed/prefix of each search, in the order of its files


def main(
    *,
    node_scores: list[Path],
    summaries: list[Path],
    trials: list[Path],
    scores: Path,
    final: Path,
    summary: Path,
    data: Path,
    plot: Path,
    metrics: Path,
    text: Path,
    all_trials: Path,
    params: Parameters,
) -> None:
    """Write scores.csv (every node), what is made from the ends of the sequences, data.csv, and a text of them."""
    nodes = {
        (node.network, node.method, node.seed, tuple(node.prefix)): json.loads(path.read_text(encoding="utf-8"))
        for node, path in zip(params.nodes, node_scores)
    }
    table = scores_table(nodes)
    ends = final_table(table, {name: (line.network, line.tasks) for name, line in params.sequences.items()})
    short = summary_table(ends)
    tasks = [json.loads(path.read_text(encoding="utf-8")) for path in summaries]
    frames = ((scores, table), (final, ends), (summary, short), (data, data_table(tasks)), (plot, plot_table(ends)))
    for path, frame in frames:
        write_text(path, frame.to_csv(index=False))
    searches = {name: pd.read_csv(path) for name, path in zip(params.searches, trials, strict=True)}
    write_text(all_trials, trials_table(searches).to_csv(index=False))
    write_json(metrics, metrics_of(short))
    write_text(text, readable(ends, short, amiss(tasks)))


if __name__ == "__main__":
    run(main)
