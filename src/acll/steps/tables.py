"""Collect the scores of all nodes into tables."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation.class_tables import (
    classes_table,
    confusion_table,
    measures_table,
    mistakes_table,
)
from acll.evaluation.comparison import (
    by_node,
    matrix_table,
    paired_table,
    runs_table,
    summary_table,
)
from acll.evaluation.console import data_warnings, for_papers, readable, remarks_of
from acll.evaluation.fronts import against_fixed_table, front_table
from acll.evaluation.tables import (
    curves_table,
    data_table,
    final_table,
    metrics_of,
    plot_table,
    scores_table,
    trials_table,
)
from acll.files import write_json, write_text
from acll.node import Node
from acll.parameters.report import TablesParams
from acll.steps._run import run_step


def main(
    *,
    scores: list[Path],
    summaries: list[Path],
    trials: list[Path],
    tables: list[Path],
    params: TablesParams,
) -> None:
    """Write all tables."""
    folder = tables[0].parent
    nodes = {
        Node.of(name): json.loads(path.read_text(encoding="utf-8"))
        for name, path in zip(params.nodes, scores, strict=True)
    }
    all_scores, curves = scores_table(nodes), curves_table(nodes)
    lookup, runs = by_node(all_scores), params.runs
    final, each = final_table(lookup, runs), runs_table(lookup, runs, curves)
    front = front_table(each, params.fixed)
    summary, classes = summary_table(each), classes_table(nodes, runs)
    tasks = [json.loads(path.read_text(encoding="utf-8")) for path in summaries]
    searches = {name: pd.read_csv(path) for name, path in zip(params.searches, trials, strict=True)}
    frames = {
        "scores": all_scores,
        "curves": curves,
        "final": final,
        "matrix": matrix_table(lookup, runs),
        "runs": each,
        "summary": summary,
        "paired": paired_table(each),
        "front": front,
        "against_fixed": against_fixed_table(front),
        "measures": measures_table(nodes, runs),
        "classes": classes,
        "confusion": confusion_table(nodes, runs),
        "mistakes": mistakes_table(nodes, runs),
        "data": data_table(tasks),
        "plot": plot_table(final),
        "trials": trials_table(searches),
    }
    for name, frame in frames.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_json(folder / "metrics.json", metrics_of(summary))
    for name, form in (("summary.md", "github"), ("summary.tex", "latex_booktabs")):
        write_text(folder / name, for_papers(summary, form))
    remarks = [*data_warnings(frames["data"]), *remarks_of(final, classes, params.budgets)]
    write_text(folder / "tables.txt", readable(final, summary, classes, remarks))


if __name__ == "__main__":
    run_step(main)
