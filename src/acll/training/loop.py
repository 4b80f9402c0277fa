"""The training loop. Weights outside a mask do not move, whatever the optimiser does.

Gradients are multiplied by their masks after the backward pass, and weight decay is applied here,
through the same masks, instead of by the optimiser: with masked gradients SGD, momentum, Adam and
the others of `acll.training.optimizers` leave an entry untouched to the bit.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from acll.errors import UserError
from acll.packing.ownership import PackingError, State, digest, not_finite
from acll.progress import Epoch
from acll.seeds import derived
from acll.training.average import MovingAverage
from acll.training.checkpoint import Checkpoint, snapshot
from acll.training.evaluate import NotFiniteError
from acll.training.metrics import EvalResult, score
from acll.training.optimizers import COUPLED, optimizer_of
from acll.training.settings import Decrease, Schedule


class TrainingError(UserError):
    """The loss, the network or what it gives is not finite.

    epochs: how many were begun.
    """

    def __init__(self, label: str, what: str, epochs: int) -> None:
        super().__init__(f"{label}: {what} not finite in epoch {epochs}; lower the learning rate")
        self.epochs = epochs


class Learner(Protocol):
    """What the loop trains: a network with the data of its task, or of several tasks at once."""

    @property
    def network(self) -> nn.Module:
        """All that is trained; its state dict is what a training starts from and ends with."""

    @property
    def device(self) -> torch.device:
        """Where it is trained."""

    def steps(self) -> int:
        """Return how many steps of the optimiser an epoch has."""

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        """Yield for each step of an epoch the losses of its batches, whose sum counts, of the
        network as it is when a loss is asked for."""

    def validate(self) -> tuple[EvalResult, ...]:
        """Return what the network does on the validation split of each task."""


class Releasing(Protocol):
    """What releases weights while they are trained. Its text tells it from others."""

    @property
    def keep(self) -> State:
        """The masks of what may still move."""

    def progress(self) -> dict[str, Any]:
        """Return what `go_on` needs: plain data and tensors."""

    def go_on(self, progress: dict[str, Any]) -> None:
        """Go on from there."""

    def advance(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Release what is due before a step; return whether that was anything.

        step: how many steps were made. Raises PackingError where weights are not finite.
        """


@dataclass(frozen=True)
class FitConfig:
    """One training.

    The learning rate runs once through its course, however short the training, or is constant;
    where a training ends early, it ends in the midst of this course. There is one validation after
    each epoch and after the last step.
    """

    schedule: Schedule
    seed: int
    keep_state: bool = True  # whether the weights of the best validation are returned
    label: str = "training"

    @property
    def epochs(self) -> float:
        """How many epochs, or which part of one."""
        return self.schedule.epochs

    def of_length(self, epochs: float) -> "FitConfig":
        """Return the same training with so many epochs."""
        return replace(self, schedule=self.schedule.model_copy(update={"epochs": epochs}))

    @property
    def identity(self) -> str:
        """What tells the first epochs of this training from those of others.

        At one learning rate they are the first epochs of any longer training, too.
        """
        alike = self.schedule.constant and self.epochs == int(self.epochs)
        return str(self.of_length(0.0) if alike else self)


# is shown each validation, and the scores of all so far; True ends the training
OnValidation = Callable[[tuple[EvalResult, ...], list[float]], bool]


@dataclass(frozen=True)
class FitResult:
    """The state of the best validation, or of the last one where weights were released, its score,
    and a row for each validation."""

    state: dict[str, Tensor]
    score: float
    epoch: int
    history: list[dict[str, float]] = field(default_factory=list)

    def curve(self) -> list[float]:
        """Return the score of each validation."""
        return [row["score"] for row in self.history]


def fit(
    learner: Learner,
    state: Mapping[str, Tensor],
    config: FitConfig,
    masks: Mapping[str, Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    on_validation: OnValidation | None = None,
    release: Releasing | None = None,
) -> FitResult:
    """Train the learner's network in place, from `state` on.

    masks: by name in the state dict, True where a parameter may move; parameters without a mask
    move freely, and so does everything where `masks` is None. release: releases more and more of
    what may move; then the last state and its score are returned instead of the best, since only
    the last has released everything that is to be; there is no moving average then: it would bring
    back what was released. checkpoint: where to keep the last epoch; a
    training that was killed goes on from there and gives the same bits as one left alone. At a
    constant learning rate a longer training goes on from a shorter one, too; one that is longer
    than what is asked for is taken as it is. The key is extended here by configuration, device,
    state, masks and release. Raises TrainingError.
    """
    network = learner.network
    network.load_state_dict(state)
    network.to(learner.device)
    gradient_masks = GradientMasks(network, masks or {}, config.schedule, learner.device)
    optimizer = _optimizer(network, config.schedule)
    average = _average(network, gradient_masks, config.schedule)
    assert release is None or average is None
    best: dict[str, Tensor] = {}
    progress: dict[str, Any] = {
        "epoch": 0,
        "best_score": -1.0,
        "best_epoch": 0,
        "history": [],
        "ended": False,
    }
    if checkpoint is not None:
        # whatever the bits depend on, so that an old checkpoint is never taken for a new training's
        states = digest(network.state_dict()), digest(masks or {})
        checkpoint = replace(
            checkpoint,
            key=f"{checkpoint.key} {config.identity} {learner.device.type} {states} {release}",
        )
        best, progress = checkpoint.restore(network, optimizer) or (best, progress)
        if progress["epoch"]:
            if release is not None:
                release.go_on(progress["release"])
                gradient_masks.narrow(release.keep)
            if average is not None:
                average.go_on(progress["average"])
            print(
                f"{config.label}: goes on after epoch {progress['epoch']} of {config.epochs:g}",
                flush=True,
            )
    validations = math.ceil(steps_of(config.epochs, learner.steps()) / learner.steps())
    for epoch in range(progress["epoch"], 0 if progress["ended"] else validations):
        loss = _train_epoch(learner, gradient_masks, optimizer, average, config, epoch, release)
        with nullcontext() if average is None else average.shown():
            seen = _validated(learner, config, epoch)
            row: dict[str, float] = {
                "epoch": epoch + 1,
                "loss": loss,
                "score": sum(map(score, seen)) / len(seen),
            }
            told = Epoch(
                config.label,
                min(epoch + 1, config.epochs),
                config.epochs,
                row["score"],
                loss,
                optimizer.param_groups[0]["lr"],
                _reads(network, release),
            )
            print(told, flush=True)
            if release is not None or row["score"] > progress["best_score"]:
                if config.keep_state:
                    best = snapshot(network.state_dict())
                progress |= {"best_score": row["score"], "best_epoch": epoch + 1}
        progress["history"].append(row)
        progress["epoch"] = epoch + 1
        progress["release"] = None if release is None else release.progress()
        progress["average"] = None if average is None else average.progress()
        scores = [one["score"] for one in progress["history"]]
        ended = on_validation is not None and on_validation(seen, scores)
        progress["ended"] = ended or _out_of_patience(config, progress)
        if checkpoint is not None:
            checkpoint.write(network, optimizer, best, progress)
        if progress["ended"]:
            break
    return FitResult(best, progress["best_score"], progress["best_epoch"], progress["history"])


def _out_of_patience(config: FitConfig, progress: dict[str, Any]) -> bool:
    """Return whether the last validations, as many as are waited for, were none better."""
    patience = config.schedule.patience
    if patience is None or progress["epoch"] - progress["best_epoch"] < patience:
        return False
    if progress["epoch"] < config.epochs:
        print(f"{config.label}: ends, since epoch {progress['best_epoch']} stays the best")
    return True


def _train_epoch(
    learner: Learner,
    gradient_masks: "GradientMasks",
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None,
    config: FitConfig,
    epoch: int,
    release: Releasing | None,
) -> float:
    """Make one pass over the training split, or over what is left of a last part of one; return the
    mean loss.

    Raises TrainingError where the loss is not finite, or weights of which some are to be released.
    """
    learner.network.train()
    for module in gradient_masks.frozen_norms:
        module.eval()
    torch.manual_seed(derived(config.seed, "dropout", epoch))
    an_epoch = learner.steps()
    seen: list[Tensor] = []
    whole = steps_of(config.epochs, an_epoch)
    steps = min(an_epoch, whole - epoch * an_epoch)
    losses = learner.losses(config.seed, epoch)
    for step in range(steps):
        made = epoch * an_epoch + step
        if release is not None:
            try:
                narrower = release.advance(made, learner.network, optimizer)
            except PackingError:
                raise TrainingError(config.label, "the weights are", epoch + 1) from None
            if narrower:
                gradient_masks.narrow(release.keep)
        lr = _learning_rate(config.schedule, made, whole)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        # one after the other, so that only one batch is in memory
        for loss in next(losses):
            loss.backward()  # type: ignore[no-untyped-call]
            seen.append(loss.detach())
        gradient_masks.before_step(lr)
        optimizer.step()
        if average is not None:
            average.update()
    # read once: to ask a GPU for each loss would let it wait for the next batch
    total: float = sum(torch.stack(seen).tolist())
    if not math.isfinite(total):
        raise TrainingError(config.label, "the loss is", epoch + 1)
    return total / steps


def _validated(learner: Learner, config: FitConfig, epoch: int) -> tuple[EvalResult, ...]:
    """Return what the network does on the validation splits.

    Raises TrainingError for a network that no score can be trusted of: the last step of an epoch
    may leave what no loss has seen, and statistics of normalisations take no part in the loss.
    """
    if not_finite(learner.network.state_dict()):
        raise TrainingError(config.label, "the weights are", epoch + 1)
    try:
        return learner.validate()
    except NotFiniteError:
        raise TrainingError(config.label, "what the network gives is", epoch + 1) from None


def steps_of(epochs: float, steps: int) -> int:
    """Return how many steps a training has; at least one. steps: of an epoch."""
    return max(1, round(epochs * steps))


class GradientMasks:
    """Masks of gradients, and weight decay through them."""

    def __init__(
        self,
        network: nn.Module,
        masks: Mapping[str, Tensor],
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self.decay, self.coupled = schedule.weight_decay, schedule.optimizer in COUPLED
        self.clip = schedule.clip
        self.network, self.masks, self.device = network, dict(masks), device
        self.frozen_norms = _frozen_norms(network, masks)
        self._sort()

    def narrow(self, masks: Mapping[str, Tensor]) -> None:
        """Take other masks for some parameters."""
        self.masks |= masks
        self._sort()

    def _sort(self) -> None:
        """Sort the parameters: those with masks, and those without that decay."""
        self.with_mask: list[tuple[Tensor, Tensor]] = [
            (parameter, self.masks[name].to(self.device, torch.float32))
            for name, parameter in self.network.named_parameters()
            if name in self.masks and not bool(self.masks[name].all())
        ]
        masked = {id(parameter) for parameter, _ in self.with_mask}
        # as is usual, biases and normalisations do not decay
        self.without_mask: list[Tensor] = [
            value
            for value in self.network.parameters()
            if value.ndim > 1 and id(value) not in masked
        ]

    @torch.no_grad()
    def before_step(self, lr: float) -> None:
        """Clip the gradients, add the decay and mask them, between the backward pass and the
        optimiser's step.

        What may not move counts nothing in the norm, nor does the decay. lr: the learning rate of
        the step. SGD's decay is part of the gradient; that of AdamW (Loshchilov & Hutter 2019) and
        of the others is a step of its own. Parameters without a gradient took no part in the step
        and stay as they are.
        """
        unmasked = [value for value in self.without_mask if value.grad is not None]
        masked = [(value, mask) for value, mask in self.with_mask if value.grad is not None]
        values, masks = [value for value, _ in masked], [mask for _, mask in masked]
        if self.clip is not None:
            if values:
                torch._foreach_mul_(_gradients(values), masks)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        if self.decay and self.coupled:
            torch._foreach_add_(_gradients(unmasked + values), unmasked + values, alpha=self.decay)
        elif self.decay:
            if unmasked:
                torch._foreach_mul_(unmasked, 1 - lr * self.decay)
            if values:
                torch._foreach_add_(
                    values, torch._foreach_mul(values, masks), alpha=-lr * self.decay
                )
        if values:
            torch._foreach_mul_(_gradients(values), masks)


def _frozen_norms(network: nn.Module, masks: Mapping[str, Tensor]) -> list[nn.Module]:
    """Return normalisations of which no parameter may move: neither may their statistics."""
    return [
        module
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and all(
            f"{path}.{leaf}" in masks and not masks[f"{path}.{leaf}"].any()
            for leaf in ("weight", "bias")
        )
    ]


def _gradients(values: list[Tensor]) -> list[Tensor]:
    return [value.grad for value in values if value.grad is not None]


def _optimizer(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    lr, momentum = schedule.learning_rate, schedule.momentum
    return optimizer_of(schedule.optimizer, network.parameters(), lr, momentum)


def _average(network: nn.Module, masks: GradientMasks, schedule: Schedule) -> MovingAverage | None:
    """Return the moving average of what may move, if there is to be one."""
    if schedule.ema is None:
        return None
    return MovingAverage(network, schedule.ema, masks.masks, masks.frozen_norms)


def _learning_rate(schedule: Schedule, made: int, whole: int) -> float:
    """Return the learning rate of a step. made: how many steps were made, of so many."""
    if schedule.constant:
        return schedule.learning_rate
    rising = round(schedule.warmup * whole)
    if made < rising:
        return schedule.learning_rate * (made + 1) / (rising + 1)
    return _decreased(schedule.schedule, schedule.learning_rate, (made - rising) / (whole - rising))


def _decreased(schedule: Decrease, start: float, done: float) -> float:
    """Return the learning rate after the share `done` of its course."""
    if schedule == "cosine":
        return start * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "polynomial":  # Chen et al., DeepLab (2017)
        return start * float((1 - done) ** 0.9)
    return start * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)


def _reads(network: nn.Module, release: Releasing | None) -> float | None:
    """Return which share of the weights that may be left out is read; None where none may."""
    if release is not None:
        masks = list(release.keep.values())
    else:
        masks = [value for name, value in network.named_buffers() if name.startswith("masks.")]
    if not masks:
        return None
    return sum(int(one.sum()) for one in masks) / sum(one.numel() for one in masks)
