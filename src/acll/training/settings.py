"""How networks are trained: the type of `training` in a configuration, and the parts of it that
steps get.

A step gets a `Schedule` for its optimiser and `Batches` for each of its tasks. No key of these has
a default: what a configuration says arrives, and what makes no difference to a training is None.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from acll.settings import (
    METRICS,
    Augmentation,
    Augmentations,
    Kind,
    MetricName,
    NameOf,
    Positive,
    Release,
    Sampling,
    Settings,
    augmentation_name,
)
from acll.training.optimizers import WITH_MOMENTUM, WITH_NESTEROV, Optimizer, why_not

Decrease = Literal["cosine", "polynomial", "step"]
LOSSES = ("cross_entropy", "dice", "cross_entropy_dice", "focal", "tversky", "lovasz")
LossName = Annotated[str, NameOf("loss", LOSSES)]
ClassWeights = Literal["none", "balanced"]


class Schedule(Settings):
    """How the weights move: the length of a training, its learning rate and its optimiser."""

    epochs: float
    learning_rate: float
    optimizer: Optimizer
    momentum: float | None  # None: the optimiser has none
    weight_decay: float
    schedule: Decrease
    warmup: float  # share of all steps in which the learning rate rises
    clip: float | None  # the largest norm of a gradient
    patience: int | None  # after so many validations without a better score it ends
    ema: float | None  # decay of a moving average of the weights, which is what is kept
    constant: bool  # whether the learning rate stays what it is at the start

    def parts(self, release: Release) -> "tuple[Schedule | None, Schedule]":
        """Return the schedules of a gradual release and of the retraining that follows it.

        Each has half of the epochs, whole ones where there are two and more. The release has the
        learning rate of the start throughout, so that it does not depend on where it ends; no
        moving average, which would bring back what was released; and no end before all is released.
        The retraining has its whole course. A release at once needs no training: None.
        """
        if release == "once":
            return None, self
        first = float(self.epochs // 2 if self.epochs >= 2 else self.epochs / 2)
        return (
            self.model_copy(
                update={"epochs": first, "constant": True, "ema": None, "patience": None}
            ),
            self.model_copy(update={"epochs": self.epochs - first}),
        )


class Batches(Settings):
    """What is learned from: the batches of a task and the loss of each; and what scores it."""

    batch_size: int
    accumulate: int  # batches of a step
    sampling: Sampling
    augmentation: list[Augmentation]
    loss: LossName | None  # None: classification without a plug-in, which has cross-entropy
    label_smoothing: float
    class_weights: ClassWeights
    mixed_precision: bool
    metric: MetricName

    @property
    def augmentation_names(self) -> list[str]:
        """What each entry of `augmentation` is called, without its strength."""
        return list(map(augmentation_name, self.augmentation))


class Training(Settings):
    """How a network is trained. Any of these can be overridden in a task."""

    epochs: Positive = Field(
        20, description="epochs of training; the best on the validation split is kept"
    )
    retrain_epochs: Positive | None = Field(
        None,
        description="epochs of release and retraining, after training; without it, half of "
        "`epochs`; of those after the release, the best is kept",
    )
    patience: Positive | None = Field(
        None,
        description="training, and retraining, ends after so many epochs without a better score on "
        "the validation split. The learning rate then does not reach its end, where `cosine` and "
        "`polynomial` gain most",
    )
    batch_size: int = Field(32, ge=2, description="images in a batch")
    accumulate: Positive = Field(
        1,
        description="batches of a step of the optimiser, where one that is large enough does not "
        "fit into memory: gradients are their mean. Normalisations see each batch by itself",
    )
    sampling: Sampling = Field(
        "shuffled",
        description="which images an epoch has: each one once (`shuffled`), or as many in all, but "
        "equally many of each class (`balanced`), for classification; `class_weights` count beside",
    )
    optimizer: Optimizer = Field(
        "adamw", description="`sgd` (with momentum) and `adamw` are PyTorch's, the others timm's"
    )
    learning_rate: float = Field(0.002, gt=0, description="at the start of training")
    retrain_learning_rate: float = Field(
        0.002, gt=0, description="at the start of release and retraining, and of each trial"
    )
    momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="of " + ", ".join(f"`{name}`" for name in WITH_MOMENTUM),
    )
    weight_decay: float = Field(
        1e-4,
        ge=0,
        description="only ever applied to weights that are being trained; part of the gradient in "
        "`sgd` and `nesterov`, a step of its own elsewhere",
    )
    schedule: Decrease = Field(
        "cosine",
        description="`cosine` to 0, `polynomial` to 0 (power 0.9), or `step`: a tenth at 1/2 and "
        "3/4",
    )
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the steps of training, and of retraining, in which the learning rate "
        "first rises from 0; 0.3 with `cosine` is known as one cycle",
    )
    clip: float | None = Field(
        None, gt=0, description="norm to which the gradient of each step is cut, if above it"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights: `0.99` is a mean of "
        "about the last 100 steps. The average is what is validated and kept; a gradual release "
        "has none",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the cross-entropy")
    augmentation: Augmentations = Field(
        [],
        description="random changes of each image: `flip`, `vertical_flip`, `shift`, `brightness`, "
        "`crop`, `affine`, `rotation`, `colour`, `blur`, `erasing`, `trivialaugment`, "
        "`randaugment`; for classification `mixup`, `cutmix`. `{rotation: 30}` sets the most "
        "degrees (else 15), `{crop: 0.5}` the least share of the area (else 0.25)",
    )
    loss: LossName = Field(
        "cross_entropy",
        description="for segmentation; classification uses cross-entropy, or a plug-in. `dice`, "
        "`cross_entropy_dice` (their sum), `focal` (power 2), `tversky` (misses weigh 0.7, false "
        "alarms 0.3), `lovasz` (Lovász-Softmax, for the mean IoU)",
    )
    class_weights: ClassWeights = Field(
        "none",
        description="`balanced`: classes weigh by the inverse root of their frequency in the "
        "training split",
    )
    mixed_precision: bool = Field(
        False, description="bfloat16 arithmetic on a GPU; no effect on a CPU"
    )

    @field_validator("optimizer", mode="before")
    @classmethod
    def _keeps_frozen_weights(cls, value: Any) -> Any:
        reason = why_not(value) if isinstance(value, str) else None
        if reason is not None:
            raise ValueError(reason)
        return value

    @field_validator("momentum")
    @classmethod
    def _nesterov_has_momentum(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("optimizer") in WITH_NESTEROV:
            raise ValueError(f"must be above 0 with {info.data['optimizer']}")
        return value

    def for_training(self) -> Schedule:
        """Return the schedule of the training of a task."""
        return self._schedule(self.epochs, self.learning_rate)

    def for_retraining(self) -> Schedule:
        """Return the schedule of the release and the retraining together."""
        epochs = self.retrain_epochs or max(1, self.epochs // 2)
        return self._schedule(epochs, self.retrain_learning_rate)

    def batches(self, kind: Kind, metric: MetricName | None = None) -> Batches:
        """Return the batches and the loss of a task of this kind. metric: None: the usual one."""
        return Batches(
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            sampling=self.sampling,
            augmentation=self.augmentation,
            loss=None if kind == "classification" and self.loss in LOSSES else self.loss,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
            mixed_precision=self.mixed_precision,
            metric=metric or METRICS[kind][0],
        )

    def _schedule(self, epochs: int, learning_rate: float) -> Schedule:
        return Schedule(
            epochs=epochs,
            learning_rate=learning_rate,
            optimizer=self.optimizer,
            momentum=self.momentum if self.optimizer in WITH_MOMENTUM else None,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            clip=self.clip,
            ema=self.ema,
            patience=self.patience,
            constant=False,
        )
