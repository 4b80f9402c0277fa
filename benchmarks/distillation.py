"""Does a task lose fewer points to release if it learns from its dense network, too?

    python benchmarks/distillation.py ../shared/data

Seven real tasks, two seeds that no other benchmark reports. Each is trained, then six kept shares
are released and retrained as what follows a search, with and without distillation. Scores are of
the validation split: the default of `distill` is decided by them. Whatever ends is kept below
.cache, so that a run that is stopped goes on. Rows go to docs/benchmarks/distillation.csv.
"""

from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from retraining import OWN, train
from retraining import of as trained
from tasks import ROOT, TASKS, arguments, cache_of, processes, remembered

from acll.seeds import derived

SEEDS = (100, 101)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CACHE = cache_of("distillation")
OUT = ROOT / "docs/benchmarks/distillation.csv"
OWN["digits"] = TASKS["digits"]


def swept(data: Path, case: tuple[str, int, bool]) -> list[float]:
    """Return the validation score of each of SHARES."""
    name, seed, distill = case
    scores: list[float] = remembered(
        CACHE / f"{name}.{seed}.{distill}.json",
        lambda: trained(name, seed, data, "learned").swept(SHARES, derived(seed, "sweep"), distill),
    )
    print(f"{name} {seed} {distill}: {scores}", flush=True)
    return scores


def report(table: pd.DataFrame) -> None:
    """Print what distillation gains, by share and by task."""
    index = ["task", "seed", "kept"]
    wide = table[table["kept"] < 1].pivot(index=index, columns="distill", values="score")
    gain = 100 * (wide[True] - wide[False])
    for key in ("kept", "task"):
        print(gain.groupby(key).mean().round(2).to_string())
    print(f"all: {gain.mean():.2f} points, standard error {gain.sem():.2f}")


def main() -> None:
    given = arguments(__doc__)
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = list(product(OWN, SEEDS, (False, True)))
    with processes(given) as pool:
        training = partial(train, criterion="learned", data=given.data)
        list(pool.map(training, *zip(*product(OWN, SEEDS))))
        found = list(pool.map(partial(swept, given.data), cases))
    rows = [
        (name, seed, distill, share, round(score, 6))
        for (name, seed, distill), scores in zip(cases, found, strict=True)
        for share, score in zip(SHARES, scores, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["task", "seed", "distill", "kept", "score"])
    table.to_csv(OUT, index=False)
    report(table)


if __name__ == "__main__":
    main()
