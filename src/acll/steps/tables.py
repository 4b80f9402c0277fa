"""Collect the scores of all nodes into tables."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation.comparison import Run, by_node, matrix_table, paired_table, runs_table, summary_table
from acll.evaluation.console import for_papers, readable, remarks_of
from acll.evaluation.tables import (
    amiss,
    curves_table,
    data_table,
    final_table,
    metrics_of,
    plot_table,
    scores_table,
    trials_table,
)
from acll.files import write_json, write_text
from acll.settings import Settings
from acll.steps._run import StepSettings, run


class NodeName(Settings):
    """The place of a node in the tree; its scores come in the same order."""

    network: str
    method: str
    seed: int
    prefix: list[str]


class RunName(Settings):
    """A run, as `acll.evaluation.comparison.Run`."""

    sequence: str
    network: str
    method: str
    type: str
    seed: int
    tasks: list[str]
    stages: list[list[str]]


class Parameters(StepSettings):
    """What the tables depend on, beside the scores."""

    nodes: list[NodeName]
    runs: list[RunName]
    searches: list[str]  # network/method/seed/prefix of each search, in the order of its files
    budgets: dict[str, float]  # of each method that searches


def main(
    *, node_scores: list[Path], summaries: list[Path], trials: list[Path], folder: Path, params: Parameters
) -> None:
    """Write all tables into the folder."""
    nodes = {
        (node.network, node.method, node.seed, tuple(node.prefix)): json.loads(path.read_text(encoding="utf-8"))
        for node, path in zip(params.nodes, node_scores, strict=True)
    }
    scores, curves = scores_table(nodes), curves_table(nodes)
    lookup, runs = by_node(scores), [_run(name) for name in params.runs]
    final, each = final_table(lookup, runs), runs_table(lookup, runs, curves)
    summary = summary_table(each)
    tasks = [json.loads(path.read_text(encoding="utf-8")) for path in summaries]
    searches = {name: pd.read_csv(path) for name, path in zip(params.searches, trials, strict=True)}
    frames = {
        "scores": scores,
        "curves": curves,
        "final": final,
        "matrix": matrix_table(lookup, runs),
        "runs": each,
        "summary": summary,
        "paired": paired_table(each),
        "data": data_table(tasks),
        "plot": plot_table(final),
        "trials": trials_table(searches),
    }
    for name, frame in frames.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_json(folder / "metrics.json", metrics_of(summary))
    for name, form in (("summary.md", "github"), ("summary.tex", "latex_booktabs")):
        write_text(folder / name, for_papers(summary, form))
    remarks = [*remarks_of(final, params.budgets), *amiss(tasks)]
    write_text(folder / "tables.txt", readable(final, summary, remarks))


def _run(name: RunName) -> Run:
    stages = tuple(map(tuple, name.stages))
    return Run(name.sequence, name.network, name.method, name.type, name.seed, tuple(name.tasks), stages)


if __name__ == "__main__":
    run(main)
