"""Does a searched share beat equal and fixed ones, on ten permutations of MNIST?

    make run CONFIG=permuted_mnist DATA=../shared/data
    python benchmarks/permuted_mnist.py results/permuted_mnist

Reads the scores of a finished run at the end of its sequence, for each method and seed. Rows go to
docs/benchmarks/permuted_mnist.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/benchmarks/permuted_mnist.csv"


def rows_of(results: Path) -> pd.DataFrame:
    """A row for each method, seed and task at the end of the sequence; images: training and
    validation together."""
    final = pd.read_csv(results / "tables/final.csv")
    data = pd.read_csv(results / "tables/data.csv")
    images = int((data["train"] + data["val"]).max())
    return final[["method", "seed", "task", "score"]].assign(images=images)[
        ["method", "images", "seed", "task", "score"]
    ]


def with_interval(values: pd.Series) -> str:
    """Mean and 95% interval over seeds."""
    half = (
        t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        if len(values) > 1
        else np.nan
    )
    return f"{values.mean():.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of config/permuted_mnist.yaml")
    table = rows_of(parser.parse_args().results)
    table.to_csv(OUT, index=False)
    runs = table.groupby(["method", "seed"])["score"].agg(["mean", "min"])
    for method, own in runs.groupby("method"):
        print(f"{method:10} mean {with_interval(own['mean'])}  worst {with_interval(own['min'])}")
    for method in dict.fromkeys(table["method"]):
        if method != "adaptive":
            paired = runs.loc["adaptive"] - runs.loc[method]
            print(
                f"adaptive less {method}: mean {with_interval(paired['mean'])}, worst "
                f"{with_interval(paired['min'])}"
            )


if __name__ == "__main__":
    main()
