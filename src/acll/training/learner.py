"""A task's learner: its network, its data and its training settings."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from acll.data.batches import Split, batches, normalised, training_batches
from acll.data.prepared import Header
from acll.networks.build import TaskNetwork
from acll.packing.ownership import digest
from acll.settings import Training
from acll.training.evaluate import outcome
from acll.training.losses import Loss, class_weights, loss_of
from acll.training.metrics import Outcome


@dataclass(frozen=True)
class TaskLearner:
    """A task's network, its data and how it is trained: what every training of a task has in common.

    The learner of `acll.training.loop`; methods that learn with another loss override `loss`.
    """

    network: TaskNetwork
    train: Split
    validation: Split
    header: Header
    training: Training
    device: torch.device

    def parts(self) -> dict[str, Any]:
        """Its fields by name, to make another kind of learner of."""
        return {one.name: getattr(self, one.name) for one in fields(TaskLearner)}

    def some_images(self) -> Tensor:
        """Two of its training images, as the network takes them."""
        return normalised(self.train.images[:2], self.header, self.device)

    def batches(self) -> int:
        """How many batches an epoch has."""
        return batches(len(self.train), self.training.batch_size)

    def losses(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """The loss of each batch of an epoch."""
        settings, kind = self.training, self.device.type
        loader = training_batches(
            self.train, self.header, settings.batch_size, settings.augmentation, seed, epoch, self.device
        )
        for images, labels in loader:
            with torch.autocast(kind, torch.bfloat16, settings.mixed_precision and kind == "cuda"):
                loss = self.loss(images, labels)
            yield loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch: images [B, C, H, W], labels [B] or [B, H, W]."""
        return self.task_loss(self.network(images).float(), labels)

    @cached_property
    def task_loss(self) -> Loss:
        """The loss of the task alone, of logits and labels."""
        if self.training.class_weights == "none":
            return loss_of(self.header.kind, self.training, None)
        weights = class_weights(self.train.labels, len(self.header.classes)).to(self.device)
        return loss_of(self.header.kind, self.training, weights)

    def look(self) -> tuple[Outcome, ...]:
        """What the network does on the validation split."""
        return (outcome(self.network, self.validation, self.header, self.device),)

    def identity(self) -> str:
        """What a training depends on, beside the state of the network: the data."""
        samples = {"images": self.train.images, "labels": self.train.labels}
        samples |= {"val_images": self.validation.images, "val_labels": self.validation.labels}
        return f"{self.header} {digest(samples)}"
