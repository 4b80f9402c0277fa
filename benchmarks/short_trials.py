"""What do short trials tell of how many weights the whole release and retraining need?

    python benchmarks/short_trials.py ../shared/data

The tasks of retraining.py, and digits, with one seed that no other benchmark reports: validation
scores of twelve kept shares, released and retrained for 12 epochs (half of the training), and for
3/4 and 3/2 of an epoch, without distillation; and of the dense network (24 epochs). The factors in
docs/search.md come from these rows. Whatever ends is kept below .cache, so that a run that is
stopped goes on. Rows go to docs/benchmarks/short_trials.csv; those in the repository were made on a
GPU.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import retraining
from tasks import ROOT, TASKS, Dense, remembered

from acll.packing.ownership import State
from acll.seeds import derived
from acll.training.evaluate import evaluated
from acll.training.metrics import score, standard_error
from acll.training.release import Pruning

SEED = 100
SHARES = (0.005, 0.0081, 0.0131, 0.0213, 0.0343, 0.0556, 0.09, 0.1457, 0.236, 0.3819, 0.6181, 1.0)
LENGTHS = (12.0, 0.75, 1.5)
CACHE = ROOT / ".cache/benchmarks/retraining"
OUT = ROOT / "docs/benchmarks/short_trials.csv"
retraining.OWN["digits"] = TASKS["digits"]


def validated(own: Dense, state: State) -> tuple[float, float]:
    """Return the validation score of a state, and its standard error."""
    own.learner.network.load_state_dict(state)
    learner = own.learner
    seen = evaluated(learner.network, learner.validation, learner.info, learner.device)
    return score(seen), standard_error(seen, 0)


def trial(own: Dense, share: float, epochs: float) -> float:
    """Return the validation score of a share."""
    schedule = own.training.for_retraining().model_copy(update={"epochs": epochs})
    pruning = Pruning(own.free, 1 - share, "global")
    seed = derived(SEED, "r", 0)
    return validated(own, own.lighter(own.learner, pruning, schedule, "gradual", seed))[0]


def rows_of(data: Path, name: str) -> list[tuple[str, int, float, float, float, float | None]]:
    """Return (task, free weights, epochs, kept share, score, standard error) of one task."""
    own = retraining.of(name, SEED, data)
    free = sum(int(mask.sum()) for mask in own.free.values())
    dense = validated(own, own.state)
    rows: list[tuple[str, int, float, float, float, float | None]] = [(name, free, 0, 1.0, *dense)]
    for epochs, share in product(LENGTHS, SHARES):
        path = CACHE / f"{name}.short.{epochs}.{share}.json"
        found = remembered(path, partial(trial, own, share, epochs))
        rows.append((name, free, epochs, share, found, None))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        found = pool.map(partial(rows_of, given.data), retraining.OWN)
        rows = [row for rows in found for row in rows]
    columns = ["task", "free", "epochs", "kept", "score", "standard_error"]
    pd.DataFrame(rows, columns=columns).round(6).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
