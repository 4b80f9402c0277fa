"""How long is a step: of the project's loop, of a gradual release, with distillation?

    python benchmarks/step.py                          some 90 minutes on one core that is idle
    python benchmarks/step.py --steps 20 --rounds 3    some minutes

The small residual network of the demo with images of 24 × 24 pixels; ResNet-18, and a U-Net with it
as encoder, with 64 × 64; batches of 32, one thread. In each round every variant makes as many steps
on the same batches, in another order each time; a ratio is the median over rounds of its seconds by
those of a plain PyTorch loop in the same round. Seconds are those of the processor, so that others
on the machine count less.

- `plain`: a loop as tutorials of PyTorch have it.
- `masked`: the project's loop, half of the shared weights frozen.
- `global`, `layer`, `channel`: a whole gradual release in this scope, to a density of 0.1. Its
  stages cost the same however many steps lie between them: `stage_seconds` is one of them.
- `learned`: `masked`, and a score of each weight is learned, by which half of all is read.
- `distilled`: `masked`, and the dense network is asked for its predictions.

Rows go to docs/benchmarks/step.csv; `steps` and `rounds` there say how long the run was.
"""

import argparse
import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from acll.data.batches import Split, normalised
from acll.data.prepared import TaskInfo
from acll.networks.build import build
from acll.networks.channels import ChannelGraph
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, Network
from acll.packing.ownership import State
from acll.settings import Kind, Scope
from acll.training.checkpoint import snapshot
from acll.training.distillation import distilled
from acll.training.learned import Scored
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, Learner, fit
from acll.training.metrics import EvalResult
from acll.training.process import prepare_process
from acll.training.release import Pruning, ReleasePath
from acll.training.settings import Training

OUT = Path(__file__).parents[1] / "docs/benchmarks/step.csv"
BATCH, CLASSES, IN_MEMORY = 32, 10, 4
# with the side of its images
CASES: dict[str, tuple[Network, Kind, int]] = {
    "resnet_small": (BackboneNetwork(backbone="resnet_small"), "classification", 24),
    "resnet18": (BackboneNetwork(backbone="resnet18"), "classification", 64),
    "unet": (DecoderNetwork(decoder="unet", encoder="resnet18"), "segmentation", 64),
}
SCOPES: tuple[Scope, ...] = ("global", "layer", "channel")
TRAINING = Training(optimizer="sgd", learning_rate=0.01, weight_decay=1e-4, batch_size=BATCH)


@dataclass(frozen=True)
class Given:
    """A learner whose batches lie in memory, so that steps alone are timed; an epoch is a turn."""

    learner: TaskLearner
    data: list[tuple[Tensor, Tensor]]
    count: int

    @property
    def network(self) -> nn.Module:
        return self.learner.network

    @property
    def device(self) -> torch.device:
        return self.learner.device

    def steps(self) -> int:
        return self.count

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        for step in range(self.count):
            yield iter([self.learner.loss(*self.data[step % len(self.data)])])

    def validate(self) -> tuple[EvalResult, ...]:
        return (EvalResult("accuracy", 2, cells=np.zeros(2, np.int64)),)


class Timed(ReleasePath):
    """A release that counts its stages and their seconds."""

    stages, seconds = 0, 0.0

    def advance(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        begin = process_time()
        released = super().advance(step, network, optimizer)
        self.seconds += process_time() - begin
        self.stages += released
        return released


def given(case: str, steps: int) -> Given:
    spec, kind, side = CASES[case]
    device = prepare_process(1)
    random = np.random.default_rng(0)
    count = IN_MEMORY * BATCH
    images = torch.from_numpy(random.integers(0, 256, (count, 3, side, side), np.uint8))
    shape = (count,) if kind == "classification" else (count, side, side)
    labels = torch.from_numpy(random.integers(0, CLASSES, shape))
    classes = tuple(f"class_{number}" for number in range(CLASSES))
    info = TaskInfo("task", kind, classes, (side, side), (0.45,) * 3, (0.2,) * 3)
    network, split = build(spec, kind, CLASSES, 0, pretrained=False), Split(images, labels)
    learner = TaskLearner(network, split, split, info, TRAINING.batches(kind), device)
    pixels = normalised(images, info, device)
    return Given(learner, list(zip(pixels.split(BATCH), labels.split(BATCH))), steps)


def plain(which: Given, state: State) -> None:
    """Train as tutorials of PyTorch do."""
    which.network.load_state_dict(state)
    optimizer = torch.optim.SGD(
        which.network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
    )
    which.network.train()
    for step in range(which.count):
        images, labels = which.data[step % len(which.data)]
        loss = functional.cross_entropy(which.network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def scored(which: Given, state: State, free: State) -> tuple[Given, State]:
    """Return a learner that learns scores, and its first state."""
    ranks = {name: torch.rand(state[name].shape) for name in free}
    learner, first = Scored(free, "chosen").begin(which.learner, state, ranks, 0)
    return Given(learner, which.data, which.count), first


def ours(which: Learner, state: State, masks: State, release: ReleasePath | None = None) -> None:
    """Train with the project's loop, without a word."""
    schedule = TRAINING.for_training().model_copy(update={"epochs": 1.0})
    with contextlib.redirect_stdout(io.StringIO()):
        fit(which, state, FitConfig(schedule, 0, keep_state=False), masks, release=release)


def measured(case: str, steps: int, rounds: int) -> pd.DataFrame:
    """Return a row for each variant."""
    which = given(case, steps)
    state = snapshot(which.network.state_dict())
    random = torch.Generator().manual_seed(0)
    shared = partition(which.learner.network).shared
    half = {name: torch.rand(state[name].shape, generator=random) < 0.5 for name in shared}
    free = {name: torch.ones_like(mask) for name, mask in half.items()}
    taught = distilled(which.learner, which.learner, state)
    pupil = Given(taught, which.data, steps)
    graph = ChannelGraph(which.network, which.data[0][0])
    stages: dict[str, list[float]] = {}

    def released(scope: Scope) -> None:
        channels = graph if scope == "channel" else None
        release = Timed(Pruning(free, scope, channels), steps)
        ours(which, state, free, release)
        stages.setdefault(scope, []).append(release.seconds / release.stages)

    turns: dict[str, Callable[[], None]] = {
        "plain": partial(plain, which, state),
        "masked": partial(ours, which, state, half),
        "learned": partial(ours, *scored(which, state, half), half),
        **{scope: partial(released, scope) for scope in SCOPES},
        "distilled": partial(ours, pupil, state, half),
    }
    plain(Given(which.learner, which.data, 2), state)  # the first steps of a process are slow
    names, seconds = list(turns), {name: [] for name in turns}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            begin = process_time()
            turns[name]()
            seconds[name].append((process_time() - begin) / steps)
            print(f"{case} {number} {name}: {seconds[name][-1]:.4f} s a step", flush=True)
    rows = []
    for name in names:
        ratios = [own / base for own, base in zip(seconds[name], seconds["plain"], strict=True)]
        stage = round(median(stages[name]), 4) if name in stages else None
        row = (case, name, steps, rounds, round(median(seconds[name]), 5))
        rows.append((*row, round(median(ratios), 4), min(ratios), max(ratios), stage))
    columns = ["network", "variant", "steps", "rounds", "step_seconds", "ratio", "ratio_lowest",
               "ratio_highest", "stage_seconds"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).round({"ratio_lowest": 4, "ratio_highest": 4})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300, help="of a turn, and of a release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    tables = [measured(case, options.steps, options.rounds) for case in CASES]
    pd.concat(tables).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
