"""Does it pay to leave out a part of what earlier tasks left?

    python benchmarks/reuse.py ../shared/data

A sequence of unlike tasks and one of like ones, in a network of half the width in which each task
keeps half of what is free. Each task but the first is learned in two ways: it reads all weights of
earlier tasks (`all`), or those that it has chosen by scores (`chosen`). It is trained, released and
retrained as in a run; later tasks follow on `all`. Scores are of the test split. Whatever ends is
kept below .cache, so that a run that is stopped goes
on. Rows go to docs/benchmarks/reuse.csv.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from tasks import ROOT, Dense, cache_of, quiet, remembered

from acll.config.checks import parse
from acll.config.configuration import Configuration
from acll.data.preparation import prepare
from acll.methods.base import Before
from acll.methods.packing import Packing
from acll.packing.ownership import Packed, State, commit, free, starting_state
from acll.packing.task_state_file import load_state, save_state
from acll.parameters.node import NodeParams
from acll.settings import Reuse
from acll.steps._setup import learner_of, packed_before, task_record
from acll.training.evaluate import evaluated
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit
from acll.training.metrics import score

KEPT, EPOCHS = 0.5, 24
SEEDS = (0, 1, 2)
VARIANTS: tuple[Reuse, ...] = ("all", "chosen")
SMALL: dict[str, Any] = {"source": "image_folder", "image_size": 24, "validation_share": 0.4}
MOVED = {"training": {"augmentation": ["flip", "shift"]}}
CIFAR = SMALL | {"path": "cifar10"} | MOVED
TASKS: dict[str, dict[str, Any]] = {
    "fashion": SMALL | {"path": "sets/fashion.zip"},
    "gtsrb": SMALL | {"path": "sets/gtsrb.zip", "group": r"s\d+_t\d+"},
    "cifar": CIFAR | {"train_samples": 2000},
    "cifar_first": CIFAR | {"part": [1, 2]},
    "cifar_second": CIFAR | {"part": [2, 2]},
}
SEQUENCES = {"like": ["cifar_first", "cifar_second"], "unlike": ["fashion", "gtsrb", "cifar"]}
CACHE = cache_of("reuse")
OUT = ROOT / "docs/benchmarks/reuse.csv"


def configuration(sequence: str) -> Configuration:
    tasks = SEQUENCES[sequence]
    return parse(
        {
            "name": "benchmark",
            "tasks": {name: TASKS[name] for name in tasks},
            "networks": {"small": {"backbone": "resnet_small", "width": 0.5}},
            "sequences": {sequence: {"network": "small", "tasks": tasks}},
            "methods": {"packing": {"ratio": 1 - KEPT}},
            "training": {"epochs": EPOCHS},
        }
    )


def prepared_task(sequence: str, name: str, data: Path) -> tuple[Path, Path]:
    """The files of the training and the validation split, and of the test split."""
    parts = ("train.safetensors", "test.safetensors", "csv")
    files = [CACHE / f"{name}.{part}" for part in parts]
    if not files[1].exists():
        with quiet():
            prepare(name, configuration(sequence).tasks[name], data, *files, 1, [3])
    return files[0], files[1]


def learned(
    learner: TaskLearner,
    node: NodeParams,
    packed: Packed,
    own: Any,
    variant: Reuse,
    path: Path,
    tests: Path,
) -> dict[str, float]:
    """Train, release and retrain a task; write its final state, return its figures.

    dense: the validation score before the release.
    """
    masks = free(packed, learner.info.kind)
    first = starting_state(packed, learner.info.kind, learner.network.state_dict())
    rule = Packing(ratio=1 - KEPT, reuse=variant).training_rule()
    start = rule.begin([learner], first, Before(packed, {}, node.seed_for("method")))
    seed = node.seed_for("train")
    with quiet():
        config = FitConfig(own.for_training(), seed)
        fitted = fit(start.learner, start.state, config, start.masks)
    dense = Dense("learned", learner, own, fitted.state, masks, seed, tests, variant)
    state, keep = dense.lighter(KEPT, own.for_retraining(), "gradual", seed, False)
    save_state(path, state, {}, keep)
    learner.network.load_state_dict(state)
    seen = evaluated(learner.network, learner.validation, learner.info, learner.device)
    return {
        "dense": fitted.score,
        "validation": score(seen),
        "test": dense.test(state)[0],
        "left_out": left_out(packed, state),
    }


def left_out(packed: Packed, state: State) -> float:
    """Share of earlier tasks' weights that a task does not read."""
    owned = sum(int((owner > 0).sum()) for owner in packed.owner.values())
    unread = sum(
        int(((owner > 0) & (state[name] == 0)).sum()) for name, owner in packed.owner.items()
    )
    return unread / owned if owned else 0.0


def measure(sequence: str, seed: int, data: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each task but the first and each variant."""
    tasks, whole = SEQUENCES[sequence], configuration(sequence)
    network = whole.networks["small"]
    packed: Packed | None = None
    for position, task in enumerate(tasks, 1):
        own = whole.training_of(task)
        prefix = tasks[:position]
        node = NodeParams(network=network, method="packing", seed=seed, prefix=prefix, threads=1)
        train, tests = prepared_task(sequence, task, data)
        packed = packed or packed_before(node, None)
        for variant in VARIANTS if position > 1 else VARIANTS[:1]:
            path = CACHE / f"{sequence}.{seed}.{task}.{variant}.safetensors"

            def make(variant: Reuse = variant, path: Path = path) -> dict[str, float]:
                learner = learner_of(node, train, own.batches("classification"))  # noqa: B023
                return learned(learner, node, packed, own, variant, path, tests)  # noqa: B023

            figures = remembered(path.with_suffix(".json"), make)
            print(sequence, seed, task, variant, figures, flush=True)
            if position > 1:
                yield {
                    "sequence": sequence,
                    "task": task,
                    "seed": seed,
                    "variant": variant,
                    **{key: round(value, 6) for key, value in figures.items()},
                }
        packed = grown(
            packed, node, train, own, CACHE / f"{sequence}.{seed}.{task}.all.safetensors"
        )


def grown(packed: Packed, node: NodeParams, train: Path, own: Any, path: Path) -> Packed:
    """Return the network with one more task, which reads all weights."""
    info = learner_of(node, train, own.batches("classification")).info
    state, keep, _ = load_state(path)
    return commit(packed, task_record(info, "accuracy", 0.0, [], {}, packed.width), state, keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    columns = ["sequence", "task", "seed", "variant", "dense", "validation", "test", "left_out"]
    rows: list[dict[str, Any]] = []
    for seed, name in product(SEEDS, SEQUENCES):
        rows.extend(measure(name, seed, given.data))
        pd.DataFrame(rows, columns=columns).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
