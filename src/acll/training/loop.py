"""The training loop. Weights outside a mask do not move, whatever the optimiser does.

Gradients are multiplied by their masks after the backward pass, and weight decay is applied here, through the same
masks, instead of by the optimiser: with masked gradients SGD, momentum and Adam leave an entry untouched to the bit.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from acll.errors import UserError
from acll.packing.ownership import digest
from acll.seeds import derived
from acll.settings import Training
from acll.training import checkpoint as checkpoints
from acll.training.metrics import Outcome, score


class TrainingError(UserError):
    """Training cannot go on; the message says why and what to change."""


class Learner(Protocol):
    """What the loop trains: a network with the data of its task, or of several tasks at once."""

    @property
    def network(self) -> nn.Module:
        """All that is trained; its state dict is what a training starts from and ends with."""

    @property
    def training(self) -> Training:
        """How it is trained."""

    @property
    def device(self) -> torch.device:
        """Where it is trained."""

    def batches(self) -> int:
        """How many batches an epoch has."""

    def losses(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """The loss of each batch of an epoch, of the network as it is when the loss is asked for."""

    def look(self) -> tuple[Outcome, ...]:
        """What the network does on the validation split of each task."""

    def identity(self) -> str:
        """Whatever the bits of a training depend on, beside the state of the network."""


@dataclass(frozen=True)
class Plan:
    """One training: how many epochs, or which part of one, from which learning rate.

    The schedule runs once through the whole training, however short. There is one look at the validation split after
    each epoch and after the last step.
    """

    epochs: float
    learning_rate: float
    seed: int
    keep_state: bool = True  # whether the weights of the best look are returned
    label: str = "training"


Watch = Callable[[tuple[Outcome, ...]], bool]  # is shown each look at the validation split; True ends the training


@dataclass(frozen=True)
class Unfinished:
    """Where a training keeps its last epoch, and what it depends on beside its arguments: settings, code, libraries."""

    path: Path
    key: str


@dataclass(frozen=True)
class Fitted:
    """The state of the best look at the validation split, its score, and a row for each look."""

    state: dict[str, Tensor]
    score: float
    epoch: int
    history: list[dict[str, float]] = field(default_factory=list)

    def curve(self) -> list[float]:
        """The score of each look."""
        return [row["score"] for row in self.history]


def prepare_process(threads: int) -> torch.device:
    """Make torch repeatable, with this number of threads; the device is a GPU where there is one.

    On a CPU results are equal bit for bit. On a GPU a few operations (cross-entropy of masks, bilinear upsampling) have
    no repeatable form, and results may differ in the last bits from run to run.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    learner: Learner,
    state: Mapping[str, Tensor],
    plan: Plan,
    masks: Mapping[str, Tensor] | None = None,
    unfinished: Unfinished | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train the learner's network in place, from `state` on.

    masks: by name in the state dict, True where a parameter may move; parameters without a mask move freely, and so
    does everything where `masks` is None. unfinished: where to keep the last epoch; a training that was killed goes on
    from there and gives the same bits as one left alone. Raises TrainingError where the loss is no longer finite.
    """
    network = learner.network
    network.load_state_dict(state)
    network.to(learner.device)
    masked = _Masked(network, masks or {}, learner.training, learner.device)
    optimizer = _optimizer(network, learner.training, plan.learning_rate)
    best: dict[str, Tensor] = {}
    progress: dict[str, Any] = {"epoch": 0, "best_score": -1.0, "best_epoch": 0, "history": []}
    if unfinished is not None:
        # whatever the bits depend on, so that an old checkpoint is never taken for a new training's
        states = digest(network.state_dict()), digest(masks or {})
        key = f"{unfinished.key} {plan} {learner.training} {learner.device.type} {states} {learner.identity()}"
        restored = checkpoints.restore(unfinished.path, key, network, optimizer)
        if restored is not None:
            best, progress = restored
            print(f"{plan.label}: goes on after epoch {progress['epoch']} of {plan.epochs}", flush=True)
    looks = math.ceil(steps_of(plan.epochs, learner.batches()) / learner.batches())
    for epoch in range(progress["epoch"], looks):
        loss = _train_epoch(learner, masked, optimizer, plan, epoch)
        seen = learner.look()
        row: dict[str, float] = {"epoch": epoch + 1, "loss": loss, "score": sum(map(score, seen)) / len(seen)}
        print(_line(plan, row), flush=True)
        if row["score"] > progress["best_score"]:
            if plan.keep_state:
                best = checkpoints.snapshot(network)
            progress |= {"best_score": row["score"], "best_epoch": epoch + 1}
        progress["history"].append(row)
        progress["epoch"] = epoch + 1
        if unfinished is not None:
            checkpoints.store(unfinished.path, key, network, optimizer, best, progress)
        if watch is not None and watch(seen):
            break
    return Fitted(best, progress["best_score"], progress["best_epoch"], progress["history"])


def _train_epoch(
    learner: Learner, masked: "_Masked", optimizer: torch.optim.Optimizer, plan: Plan, epoch: int
) -> float:
    """One pass over the training split, or what the plan has left of it; the mean loss. Raises TrainingError where it
    is not finite."""
    learner.network.train()
    for module in masked.still:
        module.eval()
    torch.manual_seed(derived(plan.seed, "dropout", epoch))
    an_epoch, total = learner.batches(), 0.0
    whole = steps_of(plan.epochs, an_epoch)
    steps = min(an_epoch, whole - epoch * an_epoch)
    for step, loss in enumerate(_bar(islice(learner.losses(plan.seed, epoch), steps), steps, plan, epoch)):
        rate = _rate(learner.training.schedule, plan.learning_rate, (epoch * an_epoch + step) / whole)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        masked.before_step(rate)
        optimizer.step()
        total += loss.item()
    if not math.isfinite(total):
        raise TrainingError(f"{plan.label}: the loss is not finite in epoch {epoch + 1}; lower the learning rate")
    return total / steps


def steps_of(epochs: float, batches: int) -> int:
    """How many batches a training of some epochs, or a part of one, sees; at least one. batches: of an epoch."""
    return max(1, round(epochs * batches))


class _Masked:
    """Masks of gradients, and weight decay through them."""

    def __init__(
        self, network: nn.Module, masks: Mapping[str, Tensor], training: Training, device: torch.device
    ) -> None:
        self.decay, self.coupled = training.weight_decay, training.optimizer == "sgd"
        self.masked: list[tuple[Tensor, Tensor]] = [
            (parameter, masks[name].to(device, torch.float32))
            for name, parameter in network.named_parameters()
            if name in masks and not bool(masks[name].all())
        ]
        masked = {id(parameter) for parameter, _ in self.masked}
        self.still = _still(network, masks)
        # as is usual, biases and normalisations do not decay
        self.free: list[Tensor] = [
            value for value in network.parameters() if value.ndim > 1 and id(value) not in masked
        ]

    @torch.no_grad()
    def before_step(self, rate: float) -> None:
        """Add the decay and mask the gradients, between the backward pass and the optimiser's step.

        rate: the learning rate of the step. SGD's decay is part of the gradient; AdamW's (Loshchilov & Hutter 2019) is
        a step of its own. Parameters without a gradient took no part in the step and stay as they are.
        """
        free = [value for value in self.free if value.grad is not None]
        masked = [(value, mask) for value, mask in self.masked if value.grad is not None]
        values, masks = [value for value, _ in masked], [mask for _, mask in masked]
        if self.decay and self.coupled:
            torch._foreach_add_(_gradients(free + values), free + values, alpha=self.decay)
        elif self.decay:
            torch._foreach_mul_(free, 1 - rate * self.decay)
            if values:
                torch._foreach_add_(values, torch._foreach_mul(values, masks), alpha=-rate * self.decay)
        if values:
            torch._foreach_mul_(_gradients(values), masks)


def _still(network: nn.Module, masks: Mapping[str, Tensor]) -> list[nn.Module]:
    """Normalisations of which no parameter may move: neither may their statistics."""
    return [
        module
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and all(f"{path}.{leaf}" in masks and not masks[f"{path}.{leaf}"].any() for leaf in ("weight", "bias"))
    ]


def _gradients(values: list[Tensor]) -> list[Tensor]:
    return [value.grad for value in values if value.grad is not None]


def _optimizer(network: nn.Module, training: Training, rate: float) -> torch.optim.Optimizer:
    """The optimiser, without decay: see `_Masked`."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=training.momentum)
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)


def _rate(schedule: str, start: float, done: float) -> float:
    """The learning rate after the share `done` of all steps."""
    if schedule == "cosine":
        return start * 0.5 * (1 + math.cos(math.pi * done))
    return start * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)


def _bar(loader: Any, steps: int, plan: Plan, epoch: int) -> Any:
    """A progress bar where a person is watching; a log gets a line an epoch instead."""
    if not sys.stderr.isatty():
        return loader
    return tqdm(loader, f"{plan.label} {epoch + 1}/{math.ceil(plan.epochs)}", steps, leave=False, unit="batch")


def _line(plan: Plan, row: dict[str, float]) -> str:
    epoch = min(row["epoch"], plan.epochs)
    return f"{plan.label}: epoch {epoch:g}/{plan.epochs:g}  loss {row['loss']:.4f}  validation {row['score']:.4f}"
