"""What settings of `training` do to the network of a single task, on validation images.

    python benchmarks/training_settings.py ../shared/data

A classification and a segmentation task, one seed that no other benchmark reports. Each setting is
tried alone, against the defaults; augmentation is that of the task (benchmarks/tasks.py) unless it
is the setting. What is for unbalanced classes is tried on images of the first task of which each
class has six tenths of those of the class before, with a validation split that is balanced. Scores
are of the validation split. Whatever ends is kept below .cache, so that a run that is stopped goes
on. Rows go to docs/benchmarks/training_settings.csv.
"""

import shutil
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tasks import ROOT, TASKS, TRAINING, arguments, cache_of, dense, processes, remembered

SEEDS = (100,)
BOTH: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no augmentation": {"augmentation": []},
    "schedule: polynomial": {"schedule": "polynomial"},
    "warmup: 0.1": {"warmup": 0.1},
    "clip: 1": {"clip": 1.0},
    "ema: 0.99": {"ema": 0.99},
    "accumulate: 2": {"accumulate": 2},
    "patience: 5": {"patience": 5},
    "optimizer: nadam": {"optimizer": "nadam"},
}
ADDED = ("crop", "rotation", "colour", "erasing", "trivialaugment")
MIXED = ("mixup", "cutmix")
LOSSES = ("cross_entropy", "dice", "focal", "tversky", "lovasz")


def added(task: str, *names: str) -> dict[str, dict[str, Any]]:
    """Return settings that add one augmentation each to those of a task."""
    own = TASKS[task]["training"]["augmentation"]
    return {f"augmentation: …, {name}": {"augmentation": [*own, name]} for name in names}


CASES: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": BOTH
    | added("cifar10", *ADDED, *MIXED)
    | {"label_smoothing: 0.1": {"label_smoothing": 0.1}},
    "camvid": BOTH | added("camvid", *ADDED) | {f"loss: {name}": {"loss": name} for name in LOSSES},
    "unbalanced": {
        "defaults": {},
        "class_weights: balanced": {"class_weights": "balanced"},
        "sampling: balanced": {"sampling": "balanced"},
    },
}
CACHE = cache_of("training_settings")
OUT = ROOT / "docs/benchmarks/training_settings.csv"
UNBALANCED = TASKS["cifar10"] | {"path": "unbalanced", "train_samples": None}
# images of its first class, of the next in those of the one before, and of each for validation
MOST, FACTOR, VALIDATED = 500, 0.6, 60


def lay_out(data: Path) -> None:
    """Copy the images of the unbalanced task to a folder below `CACHE`."""
    for number, folder in enumerate(sorted((data / "cifar10/train").iterdir())):
        images = sorted(folder.iterdir())
        parts = {"train": images[: round(MOST * FACTOR**number)], "val": images[-VALIDATED:]}
        for part, chosen in parts.items():
            own = CACHE / "unbalanced" / part / folder.name
            own.mkdir(parents=True, exist_ok=True)
            for image in chosen:
                shutil.copyfile(image, own / image.name)


def validated(data: Path, case: tuple[str, str, int]) -> float:
    """Return the validation score of a dense network."""
    name, setting, seed = case
    task, root = (UNBALANCED, CACHE) if name == "unbalanced" else (TASKS[name], data)
    own = {**task.get("training", {}), **CASES[name][setting]}
    folder = CACHE / setting.replace(" ", "_").replace(":", "").replace("…,_", "")

    def train() -> float:
        folder.mkdir(parents=True, exist_ok=True)
        with_setting = task | {"training": own}
        return dense(name, with_setting, seed, root, folder, TRAINING).validated()[0]

    score: float = remembered(folder / f"{name}.{seed}.json", train)
    print(f"{name}, {setting}, seed {seed}: {score:.4f}", flush=True)
    return score


def main() -> None:
    given = arguments(__doc__)
    lay_out(given.data)
    cases = [
        (name, setting, seed)
        for name, settings in CASES.items()
        for setting, seed in product(settings, SEEDS)
    ]
    with processes(given) as pool:
        scores = list(pool.map(partial(validated, given.data), cases))
    rows = [(*case, round(score, 6)) for case, score in zip(cases, scores, strict=True)]
    table = pd.DataFrame(rows, columns=["task", "setting", "seed", "score"])
    table.to_csv(OUT, index=False)
    print(table.groupby(["task", "setting"], sort=False)["score"].mean().round(4).to_string())


if __name__ == "__main__":
    main()
