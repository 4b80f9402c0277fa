"""One plug-in of each kind, for plugins.yaml beside this file; docs/plugins.md explains them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from acll.data.arrays import manifest_of_arrays
from acll.data.manifest import Manifest
from acll.data.task import Task
from acll.methods.base import Before, Method, Start
from acll.packing.ownership import State
from acll.plugins import plugin
from acll.training.learner import TaskLearner


@plugin("loss")
def poly(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Poly-1 (Leng et al., ICLR 2022), equation 5, with a coefficient of 1."""
    entropy = F.cross_entropy(logits, labels, weights, ignore_index=255, reduction="none")
    valid = labels != 255
    likelihood = logits.softmax(dim=1).gather(1, torch.where(valid, labels, 0).unsqueeze(1))
    each = entropy + (1 - likelihood.squeeze(1)) * valid
    return each.sum() / valid.sum().clamp(min=1)


@plugin("metric")
def geometric_mean(confusion: NDArray[np.int64]) -> float:
    """The geometric mean of the recalls of the classes that there are."""
    there = confusion.sum(axis=1) > 0
    if not there.any():
        return 0.0
    recalls = np.diag(confusion)[there] / confusion.sum(axis=1)[there]
    return float(recalls.prod() ** (1 / there.sum()))


@plugin("network", "tiny", tasks=["classification", "segmentation"])
class Tiny(nn.Module):
    """Two convolutions; for masks a third one that brings back the resolution."""

    def __init__(self, kind: str, classes: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        if kind == "segmentation":
            self.decoder = nn.Sequential(
                nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU()
            )
            self.head: nn.Module = nn.Conv2d(width, classes, 1)
        else:
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)
            )


@plugin("network")
def plain(kind: str, classes: int, channels: int) -> nn.Module:
    """A classifier like any other: its last linear layer becomes the head of a task."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )


@plugin("augmentation")
def erase(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cutout (DeVries & Taylor 2017): a square of each image becomes the mean colour."""
    side = images.shape[-1] // 4
    for image in images:
        top, left = torch.randint(images.shape[-1] - side + 1, (2,), generator=generator).tolist()
        image[:, top : top + side, left : left + side] = 0
    return images, labels


@plugin("source")
class Stripes(Task):
    """Stripes that lie or stand, under noise."""

    source: Literal["stripes"] = Field(description="`stripes`")
    kind: Literal["classification"] = Field("classification", description="always classification")
    samples: int = Field(ge=20, description="number of images before the splits are cut")

    from_files: ClassVar[bool] = False

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Each third row, or column, is bright."""
        generator = np.random.default_rng(0)
        labels = np.arange(self.samples) % 2
        images = generator.integers(0, 100, (self.samples, 3, *self.image_size), dtype=np.uint8)
        images[labels == 0, :, ::3] += 100
        images[labels == 1, :, :, ::3] += 100
        names = [f"stripes-{index:04d}" for index in range(self.samples)]
        return manifest_of_arrays(images, labels, names, ["lying", "standing"])


@plugin("method")
class Near(Method):
    """Fine-tuning that stays near its start: L2-SP (Li, Grandvalet & Davoine, ICML 2018)."""

    type: Literal["near"] = Field(description="`near`")
    strength: float = Field(0.01, ge=0, description="weight of this pull (α/2)")

    def begin(self, learners: Sequence[TaskLearner], start: State, before: Before) -> Start:
        """Return a training whose loss has the squared distance to the start added."""
        (learner,) = learners
        origin = {name: value.to(learner.device) for name, value in start.items()}

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            total = learner.loss(images, labels)
            for name, weight in learner.network.named_parameters():
                if not name.startswith("head."):
                    total = total + self.strength * (weight - origin[name]).square().sum()
            return total

        return Start(replace(learner, batch_loss=loss), start)
