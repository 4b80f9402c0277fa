"""What do learned and gradual release, a long retraining and distillation bring, at which density?

    python benchmarks/retraining.py ../shared/data

Six real tasks, three seeds, a density of 1 and four small ones. Four ways from the dense network,
by magnitude in each layer: released at once and retrained for a sixth of the training
(`once_short`) or for half of it (`once_long`), released step by step within that half
(`gradual_long`), and with the dense network's predictions as a part of the loss
(`gradual_long_distilled`). And by scores that are learned from the first step on, within that half
(`learned`). Scores are of the test split. Whatever
ends is kept below .cache, so that a run that is stopped goes on. Rows go to
docs/benchmarks/retraining.csv.
"""

from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from tasks import MASKS, ROOT, TASKS, Dense, arguments, cache_of, dense, processes, remembered

from acll.settings import Criterion, Release

SEEDS = (0, 1, 2)
DENSITIES = (0.02, 0.05, 0.1, 0.2, 1.0)
EPOCHS, SHORT = 24, 4
VARIANTS = ("once_short", "once_long", "gradual_long", "gradual_long_distilled", "learned")
IMAGES = {"source": "image_folder"}
OWN = {
    "mnist": TASKS["mnist"] | {"train_samples": 2000},
    "fashion": IMAGES | {"path": "sets/fashion.zip", "image_size": 16, "train_samples": 2000},
    "cifar10": TASKS["cifar10"] | {"train_samples": 2000},
    "gtsrb": IMAGES | {"path": "sets/gtsrb.zip", "image_size": 24, "group": r"s\d+_t\d+"},
    "people": TASKS["people"],
    "camvid": TASKS["camvid"],
}
CACHE = cache_of("retraining")
OUT = ROOT / "docs/benchmarks/retraining.csv"


def of(name: str, seed: int, data: Path, criterion: Criterion = "magnitude") -> Dense:
    training = {"epochs": EPOCHS, "loss": "cross_entropy_dice"}
    return dense(name, OWN[name], seed, data, CACHE, training, criterion)


def train(name: str, seed: int, criterion: Criterion, data: Path) -> None:
    """Train the dense network, unless it is known."""
    of(name, seed, data, criterion)


def kind_of(name: str) -> str:
    return "segmentation" if OWN[name]["source"] == MASKS["source"] else "classification"


def measure(name: str, seed: int, density: float, variant: str, data: Path) -> float:
    """The test score."""
    own = of(name, seed, data, "learned" if variant == "learned" else "magnitude")
    schedule = own.training.for_retraining()
    if variant == "once_short":
        schedule = schedule.model_copy(update={"epochs": float(SHORT)})
    how: Release = "once" if variant.startswith("once") else "gradual"
    state, _ = own.lighter(density, schedule, how, seed, "distilled" in variant)
    return own.test(state)[0]


def one(data: Path, case: tuple[str, int, float, str]) -> float:
    name, seed, density, variant = case
    path = CACHE / f"{name}.{seed}.{density}.{variant}.json"
    score: float = remembered(path, lambda: measure(name, seed, density, variant, data))
    print(f"{name} {seed} {density} {variant}: {score:.4f}", flush=True)
    return score


def main() -> None:
    given = arguments(__doc__)
    cases = [
        (name, seed, density, variant)
        for seed, density, name, variant in product(SEEDS, DENSITIES, OWN, VARIANTS)
    ]
    with processes(given) as pool:
        dense_networks = product(OWN, SEEDS, ("magnitude", "learned"))
        list(pool.map(partial(train, data=given.data), *zip(*dense_networks)))
        scores = list(pool.map(partial(one, given.data), cases))
    rows = [
        (name, kind_of(name), seed, density, variant, round(score, 6))
        for (name, seed, density, variant), score in zip(cases, scores, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["task", "kind", "seed", "density", "variant", "score"])
    table.sort_values(["task", "seed", "density", "variant"]).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
