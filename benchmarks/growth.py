"""Does a narrow network that grows have room for tasks for which a fixed one has none?

    make run CONFIG=growth DATA=../shared/data
    python benchmarks/growth.py results/growth

Reads the scores of a finished run, when each task is learned and at the end. Rows go to
docs/benchmarks/growth.csv.
"""

import argparse
from pathlib import Path

import pandas as pd

from acll.evaluation.tables import read_table

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/benchmarks/growth.csv"
_AT_THE_END = (
    *("sequence", "method", "seed", "task", "position", "width", "owned_share"),
    *("ratio_searched", "cap", "capped", "score", "forgetting", "bit_exact"),
)


def rows_of(results: Path) -> pd.DataFrame:
    """A row for each sequence, method, seed and task.

    free_share, bytes: of the network when the task has just been learned. capped: whether the task
    misses its goal within its cap. owned_share, score, forgetting, bit_exact: at the end of the
    sequence.
    """
    final = read_table(results / "tables/final.csv")
    scores = read_table(results / "tables/scores.csv")
    # of each network the row of its latest task: free_share and bytes are those of the network
    last = scores.groupby(["method", "seed", "prefix"])["position"].transform("max")
    learned = scores[scores["position"] == last].set_index(["method", "seed", "prefix"])
    rows = []
    for row in final.to_dict("records"):
        order = row["order"].split("+")
        alone = row["method"] == "individual"
        prefix = row["task"] if alone else "+".join(order[: row["position"]])
        then = learned.loc[(row["method"], row["seed"], prefix)]
        known = {name: row[name] for name in _AT_THE_END}
        rows.append(known | {name: then[name] for name in ("free_share", "bytes")})
    return pd.DataFrame(rows).sort_values(["sequence", "method", "seed", "position"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of config/growth.yaml")
    table = rows_of(parser.parse_args().results)
    table.to_csv(OUT, index=False)
    print(table.round(4).to_string(index=False))
    means = table.groupby(["sequence", "method", "seed"])["score"].agg(["mean", "min"])
    print(means.round(4).to_string())


if __name__ == "__main__":
    main()
