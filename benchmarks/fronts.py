"""Is a searched ratio worth more than fixed ones, at equal bytes and in hindsight?

    python benchmarks/fronts.py results/ten_easy_first results/ten_hard_first ...

Reads the tables of finished runs, each in the folder of its results. Their rows take the place of
those of the same sequences, seeds and methods in docs/benchmarks/fronts.csv, which keeps all
others: a long configuration can be run seed by seed. Rows of seeds that some methods of a sequence
lack wait in fronts_waiting.csv until those have been run, too. From all other rows come means over
the runs of each sequence, against the front of fixed ratios, in fronts_by_sequence.csv; what holds
over all sequences, in fronts_overall.csv; and the figure, docs/fronts.svg. docs/metrics.md defines
the columns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.fronts import (
    REFERENCE_FRONT,
    against_fixed_table,
    front_table,
    over_sequences,
)
from acll.evaluation.style import save_figure
from acll.evaluation.tables import read_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS = [
    *("sequence", "order", "seed", "method", "mean_score", "worst_score", "last_score"),
    *("bytes", "capacity", "bit_exact", "type", "front"),
]
RUNS = ["sequence", "seed", "method"]  # whose rows are replaced together, of all orders
SHOWN = ["front", "method", "compared", "difference", "low", "high", "worst_regret", "worst_in"]


def gathered(folders: Sequence[Path]) -> pd.DataFrame:
    """The rows of all results, in the order of the folders; `front` is that of a fixed ratio."""
    tables = []
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
        tables.append(own.assign(front=own["method"].map(fronts_of(folder)).astype(object)))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def fronts_of(folder: Path) -> dict[str, str]:
    """The front of each method with a fixed ratio."""
    table = read_table(folder / "tables/front.csv")
    own = table[table["on_front"].astype(bool)]
    return dict(zip(own["method"], own["front"], strict=True))


def with_others(new: pd.DataFrame, *files: Path) -> pd.DataFrame:
    """The rows, with those that files have of other sequences, seeds and methods."""
    known = [pd.read_csv(file) for file in files if file.exists()]
    if not known:
        return new
    old = pd.concat(known, ignore_index=True)
    taken = old.set_index(RUNS).index.isin(new.set_index(RUNS).index)
    together = pd.concat([old[~taken], new], ignore_index=True)
    first_seen = {name: place for place, name in enumerate(together["sequence"].unique())}
    order = together["sequence"].map(first_seen).sort_values(kind="stable").index
    return together.loc[order].reset_index(drop=True)


def parted(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of orders and seeds that all methods of a sequence have, and those that wait.

    Means over other seeds would not compare methods. Exits where all of a sequence would wait.
    """
    complete = pd.Series(False, index=runs.index)
    for sequence, own in runs.groupby("sequence", sort=False):
        methods = own.groupby(["order", "seed"])["method"].transform("nunique")
        complete[own.index] = methods == own["method"].nunique()
        if not complete[own.index].any():
            raise SystemExit(
                f"error: {sequence}: its methods have no order and seed in common; run those that "
                "lack, or take rows out of fronts.csv"
            )
    return runs[complete].reset_index(drop=True), runs[~complete].reset_index(drop=True)


def fronts(runs: pd.DataFrame) -> pd.DataFrame:
    """The tables of `front_table`, of each sequence with its own methods."""
    tables = []
    for _, own in runs.groupby("sequence", sort=False):
        fixed = own[own["front"].notna()].drop_duplicates("method")
        tables.append(front_table(own, dict(zip(fixed["method"], fixed["front"], strict=True))))
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables, ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+", help="folders of results")
    new = gathered(parser.parse_args(arguments).results)
    rows = DOCS / "benchmarks"
    files = rows / "fronts.csv", rows / "fronts_waiting.csv"
    runs, waiting = parted(with_others(new, *files))
    front = fronts(runs)
    runs.to_csv(files[0], index=False)
    waiting.to_csv(files[1], index=False)
    against_fixed_table(front).to_csv(rows / "fronts_by_sequence.csv", index=False)
    overall = over_sequences(front)
    overall.to_csv(rows / "fronts_overall.csv", index=False)
    if not len(front):
        print("No method has a fixed ratio: there is no front, and no figure.")
        return
    save_figure(fronts_figure(front), DOCS / "fronts.svg")
    own = overall[overall["front"] == REFERENCE_FRONT]
    print((own if len(own) else overall)[SHOWN].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
