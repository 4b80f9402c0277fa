"""Does a search by another metric find what a sweep by this metric finds?

    python benchmarks/search_metrics.py ../shared/data  # half an hour on two cores

Traffic signs, whose classes are of very different size, by macro F1; vessels, which are thin, by
boundary F1. Two sweeps of the same kept shares, released and retrained as what follows a search,
and a search without cap; all on the validation split. Whatever ends is kept below .cache. Rows go
to docs/benchmarks/search_metrics.csv.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from curves import crossing
from tasks import ROOT, Dense, arguments, cache_of, dense, processes, remembered

from acll.search.settings import Search
from acll.seeds import derived

SEEDS = (0, 1)
SHARES = np.exp(np.linspace(np.log(0.01), np.log(0.5), 7))
CACHE = cache_of("search_metrics")
TRAINING = {"epochs": 20, "loss": "cross_entropy_dice", "augmentation": []}
TASKS: dict[str, dict[str, Any]] = {
    "signs": {
        "source": "image_folder",
        "path": "sets/gtsrb.zip",
        "image_size": 24,
        "group": r"s\d+_t\d+",
        "metric": "macro_f1",
        "train_samples": 2000,
    },
    "vessels": {
        "source": "mask_folder",
        "path": "sets/vessels.zip",
        "image_size": 64,
        "classes": ["ground", "vessel"],
        "group": r"/\d\d_",
        "metric": "boundary_f1",
        "training": {"batch_size": 16},
    },
}


def of(name: str, seed: int, data: Path) -> Dense:
    return dense(name, TASKS[name], seed, data, CACHE, TRAINING)


def row(case: tuple[str, int], data: Path) -> dict[str, Any]:
    """What a search and two sweeps find for one task and seed."""
    name, seed = case

    def known(what: str, make: Any) -> Any:
        return remembered(CACHE / f"{name}.{seed}.{what}.json", make)

    choice = known("search", lambda: asdict(of(name, seed, data).search(Search(search="bayes"))))
    sweeps = [
        known(what, lambda what=what: of(name, seed, data).swept(list(SHARES), derived(seed, what)))
        for what in ("first", "second")
    ]
    means = (np.mean(own, axis=0).tolist() for own in (sweeps, sweeps[:1], sweeps[1:]))
    both, first, second = (crossing(list(SHARES), own, choice["threshold"]) for own in means)
    found = {
        "task": name,
        "metric": TASKS[name]["metric"],
        "seed": seed,
        "kept": 1 - choice["ratio"],
        "sweep_kept": both,
        "first_sweep_kept": first,
        "second_sweep_kept": second,
        "inside": choice["ratio_low"] <= 1 - both <= choice["ratio_high"],
        "cost": choice["cost"],
    }
    print(found, flush=True)
    return found


def main() -> None:
    given = arguments(__doc__)
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = [(name, seed) for seed in SEEDS for name in TASKS]
    with processes(given) as pool:
        rows = list(pool.map(partial(row, data=given.data), cases))
    pd.DataFrame(rows).to_csv(ROOT / "docs/benchmarks/search_metrics.csv", index=False)


if __name__ == "__main__":
    main()
