"""Would channels-last memory or torch.compile make a training faster on a CPU?

    python benchmarks/layouts.py                       some minutes on one core that is idle

The small residual network of the demo, at its size of images, and ResNet-18 at 64 × 64 pixels;
batches of 32, one thread, steps of SGD. In each round every variant makes as many steps on the same
batch, in another order each time; a ratio is the median over rounds of its seconds by those of the
plain loop in the same round. Seconds are those of the processor, so that others on the machine
count less. `first_seconds` is how long the first step takes by the clock: in it torch.compile
compiles, and each training of a run is a process of its own. Rows go to docs/benchmarks/layouts.csv
after each network.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from acll.networks.build import build
from acll.networks.spec import BackboneNetwork
from acll.training.process import prepare_process

OUT = Path(__file__).parents[1] / "docs/benchmarks/layouts.csv"
BATCH, CLASSES = 32, 10
SIZES = {"resnet_small": 16, "resnet18": 64}
VARIANTS = ("plain", "channels_last", "compile", "both")


class Steps:
    """Steps of a network in one of the variants."""

    def __init__(self, backbone: str, variant: str) -> None:
        spec = BackboneNetwork(backbone=backbone)
        network = build(spec, "classification", CLASSES, 0, pretrained=False).train()
        self.format = torch.contiguous_format
        if variant in ("channels_last", "both"):
            self.format = torch.channels_last
            network = network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        self.logits: Callable[[Tensor], Tensor] | nn.Module = network
        if variant in ("compile", "both"):
            self.logits = torch.compile(network)
        generator = torch.Generator().manual_seed(0)
        size = SIZES[backbone]
        self.images = torch.randn(BATCH, 3, size, size, generator=generator)
        self.labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)

    def seconds(self, steps: int) -> float:
        """Return how many seconds of the processor a step takes."""
        begin = process_time()
        for _ in range(steps):
            images = self.images.contiguous(memory_format=self.format)
            loss = functional.cross_entropy(self.logits(images), self.labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return (process_time() - begin) / steps

    def first_seconds(self) -> float:
        """Return how long one step takes by the clock."""
        begin = perf_counter()
        self.seconds(1)
        return perf_counter() - begin


def measured(backbone: str, steps: int, rounds: int) -> list[tuple]:
    """Return a row for each variant."""
    made = {variant: Steps(backbone, variant) for variant in VARIANTS}
    first = {variant: own.first_seconds() for variant, own in made.items()}
    taken: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds):
        shift = number % len(VARIANTS)
        for variant in VARIANTS[shift:] + VARIANTS[:shift]:
            taken[variant].append(made[variant].seconds(steps))
            print(f"{backbone} {number} {variant}: {taken[variant][-1]:.4f} s a step", flush=True)
    rows = []
    for variant in VARIANTS:
        ratios = [own / plain for own, plain in zip(taken[variant], taken["plain"], strict=True)]
        numbers = (median(taken[variant]), median(ratios), min(ratios), max(ratios), first[variant])
        rows.append((backbone, variant, steps, rounds, *(round(one, 4) for one in numbers)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    prepare_process(1)
    rows: list[tuple] = []
    columns = ["network", "variant", "steps", "rounds", "step_seconds", "ratio", "ratio_lowest",
               "ratio_highest", "first_seconds"]  # fmt: skip
    for backbone in SIZES:
        rows += measured(backbone, options.steps, options.rounds)
        pd.DataFrame(rows, columns=columns).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
