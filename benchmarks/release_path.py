"""How long should release and retraining be, and how many weights does a task need?

    python benchmarks/release_path.py ../shared/data

Seven tasks with one seed that no other benchmark reports, each trained for 24 epochs. Validation
scores of kept shares, with distillation: with as many epochs for the release as for the retraining
(`path`, 6 and 6), and with more for the release (`long_path`, 8 and 4). The number of weights from
which a search starts, and its prior, come from these rows. Whatever ends is kept below .cache, so
that a run that is stopped goes on. Rows go to docs/benchmarks/release_path.csv; those in the
repository were made on a GPU.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import retraining
from tasks import ROOT, TASKS, Dense, arguments, cache_of, processes, quiet, remembered

from acll.seeds import derived
from acll.training.distillation import distilled
from acll.training.loop import FitConfig, fit
from acll.training.release import LAST_SHARE, STAGES, Pruning, ReleasePath

SEED = 100
VARIANTS = {"path": (6, 6), "long_path": (8, 4)}  # epochs of release and of retraining
SHARES = tuple(LAST_SHARE ** (stage / STAGES) for stage in range(2, STAGES + 1, 2))
CACHE = cache_of("retraining")
OUT = ROOT / "docs/benchmarks/release_path.csv"
retraining.OWN["digits"] = TASKS["digits"]


def scores(own: Dense, variant: str) -> list[float]:
    """Return the validation score of each of SHARES."""
    first, second = VARIANTS[variant]
    learner, pruning = distilled(own.learner, own.learner, own.state), Pruning(own.free, "global")
    steps = first * own.learner.steps()
    path = ReleasePath(pruning, steps, remember=True)
    schedule = own.training.for_retraining()
    flat = schedule.model_copy(update={"epochs": float(first), "constant": True})
    whole = schedule.model_copy(update={"epochs": float(second)})
    found = []
    with quiet():
        fit(learner, own.state, FitConfig(flat, derived(SEED, "path")), own.free, release=path)
        path.remember_end(steps, learner.network)
        for share in SHARES:
            reached = path.at(path.step_of(share), own.state)
            assert reached is not None
            start, keep = pruning.at_once(reached[0], 1 - share, reached[1])
            found.append(fit(learner, start, FitConfig(whole, derived(SEED, "retr")), keep).score)
    return found


def rows_of(data: Path, name: str) -> list[tuple[str, int, str, float, float, float | None]]:
    """Return (task, free weights, variant, kept share, score, standard error) of one task."""
    own = retraining.of(name, SEED, data)
    free = sum(int(mask.sum()) for mask in own.free.values())
    rows: list[tuple[str, int, str, float, float, float | None]]
    rows = [(name, free, "dense", 1.0, *own.validated())]
    for variant in VARIANTS:
        path = CACHE / f"{name}.{variant}.json"
        found = remembered(path, partial(scores, own, variant))
        rows += [(name, free, variant, *pair, None) for pair in zip(SHARES, found, strict=True)]
    return rows


def main() -> None:
    given = arguments(__doc__)
    with processes(given) as pool:
        found = pool.map(partial(rows_of, given.data), retraining.OWN)
        rows = [row for rows in found for row in rows]
    columns = ["task", "free", "variant", "kept", "score", "standard_error"]
    pd.DataFrame(rows, columns=columns).round(6).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
