"""Draw the scores of docs/comparison.md after each stage, from its committed rows.

    python benchmarks/comparison_figures.py

Writes docs/comparison_scores.png, with the methods of SHOWN.
"""

import pandas as pd
from docs_tables import ROOT, rows

from acll.config.checks import load_configuration
from acll.config.tree import runs as runs_of
from acll.evaluation.comparison import by_node, matrix_table
from acll.evaluation.figures import scores

SHOWN = ("adaptive", "packnet75", "wsn10", "frozen", "ewc", "finetune")


def main() -> None:
    table = rows("comparison")
    runs = [
        run
        for run in runs_of(load_configuration(ROOT / "config/comparison.yaml"))
        if run.method in SHOWN
    ]
    matrix = matrix_table(by_node(table), runs)
    metrics = pd.DataFrame({"sequence": matrix["sequence"], "task": matrix["task"]}).assign(
        metric=table["metric"].iloc[0]
    )
    figure = scores(matrix, metrics.drop_duplicates())
    figure.savefig(ROOT / "docs/comparison_scores.png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
