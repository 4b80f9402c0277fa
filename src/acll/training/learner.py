"""A task's learner: its network, its data and its training settings."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from acll.data.batches import Split, batches, normalised, training_batches
from acll.data.prepared import TaskInfo
from acll.networks.build import TaskNetwork
from acll.training.evaluate import evaluated
from acll.training.losses import Loss, class_weights, loss_of
from acll.training.metrics import EvalResult
from acll.training.settings import Batches

# of images [B, C, H, W] and labels [B] or [B, H, W], or shares of classes [B, classes]
BatchLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TaskLearner:
    """A task's network, its data and how it is trained: what every training of a task has in
    common.

    The learner of `acll.training.loop`. batch_loss: of methods that learn with another loss than
    the task's own.
    """

    network: TaskNetwork
    train: Split
    validation: Split
    info: TaskInfo
    settings: Batches
    device: torch.device
    batch_loss: BatchLoss | None = None

    def some_images(self) -> Tensor:
        """Return two of its training images, as the network takes them."""
        return normalised(self.train.images[:2], self.info, self.device)

    def steps(self) -> int:
        """Return how many steps an epoch has; each takes `accumulate` batches, or nearly so."""
        return math.ceil(self._batches() / self.settings.accumulate)

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        """Yield for each step of an epoch the losses of its batches, each a part of their mean."""
        losses = self._losses_of_batches(seed, epoch)
        for of_step in np.array_split(range(self._batches()), self.steps()):
            yield (next(losses) / len(of_step) for _ in of_step)

    def _batches(self) -> int:
        return batches(len(self.train), self.settings.batch_size)

    def _losses_of_batches(self, seed: int, epoch: int) -> Iterator[Tensor]:
        settings, kind = self.settings, self.device.type
        loader = training_batches(
            self.train,
            self.info,
            settings.batch_size,
            settings.augmentation,
            seed,
            epoch,
            self.device,
            settings.sampling,
        )
        for images, labels in loader:
            with torch.autocast(kind, torch.bfloat16, settings.mixed_precision and kind == "cuda"):
                loss = self.loss(images, labels)
            yield loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch: images and labels as of `BatchLoss`."""
        if self.batch_loss is not None:
            return self.batch_loss(images, labels)
        return self.task_loss(self.network(images).float(), labels)

    @cached_property
    def task_loss(self) -> Loss:
        """The loss of the task alone, of logits and labels."""
        if self.settings.class_weights == "none":
            return loss_of(self.info.kind, self.settings, None)
        weights = class_weights(self.train.labels, len(self.info.classes)).to(self.device)
        return loss_of(self.info.kind, self.settings, weights)

    def validate(self) -> tuple[EvalResult, ...]:
        """Return what the network does on the validation split."""
        metric = self.settings.metric
        return (evaluated(self.network, self.validation, self.info, self.device, metric),)
