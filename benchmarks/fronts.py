"""Is a searched ratio worth more than fixed ones, at equal bytes and in hindsight?

    python benchmarks/fronts.py results/ten_easy_first results/ten_hard_first ...

Reads the tables of finished runs, each in the folder of its results. Rows of all runs go to
docs/benchmarks/fronts.csv; means over the runs of each sequence, against the front of fixed ratios,
to fronts_by_sequence.csv; what holds over all sequences to fronts_overall.csv. The figure is
docs/fronts.svg. docs/metrics.md defines the columns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.fronts import REFERENCE_FRONT, against_fixed_table, over_sequences
from acll.evaluation.style import save_figure
from acll.evaluation.tables import read_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS = [
    *("sequence", "order", "seed", "method", "mean_score", "worst_score", "last_score"),
    *("bytes", "capacity", "bit_exact"),
]
SHOWN = ["front", "method", "compared", "difference", "low", "high", "worst_regret", "worst_in"]


def gathered(folders: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `runs` and `front` of all results, in the order of the folders."""
    runs, fronts = [], []
    where: dict[str, Path] = {}
    for folder in folders:
        own = read_table(folder / "tables/runs.csv")
        for sequence in own["sequence"].unique():
            if sequence in where:
                raise SystemExit(
                    f"error: sequence {sequence} is in {where[sequence]} and in {folder}: "
                    "give one of them another name"
                )
            where[sequence] = folder
        runs.append(own)
        fronts.append(read_table(folder / "tables/front.csv"))
    filled = [front for front in fronts if len(front)]
    return pd.concat(runs, ignore_index=True), pd.concat(filled or fronts, ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", help="folders of results")
    runs, front = gathered(parser.parse_args(arguments).results)
    against, overall = against_fixed_table(front), over_sequences(front)
    rows = DOCS / "benchmarks"
    runs[COLUMNS].to_csv(rows / "fronts.csv", index=False)
    against.to_csv(rows / "fronts_by_sequence.csv", index=False)
    overall.to_csv(rows / "fronts_overall.csv", index=False)
    if not len(front):
        print("No method has a fixed ratio: there is no front, and no figure.")
        return
    save_figure(fronts_figure(front, across=3), DOCS / "fronts.svg")
    own = overall[overall["front"] == REFERENCE_FRONT]
    print((own if len(own) else overall)[SHOWN].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
