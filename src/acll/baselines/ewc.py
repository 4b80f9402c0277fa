"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), online (Schwarz et al., ICML 2018, with γ = 1).

While a new task is learned, each parameter is drawn to where the earlier tasks have left it, by the Fisher information
that these had of it, summed over them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acll.data.batches import normalised
from acll.packing.ownership import State, digest
from acll.seeds import derived
from acll.training.learner import TaskLearner

SAMPLES = 500  # of the training split, from which the information is estimated


@dataclass(frozen=True)
class Consolidating(TaskLearner):
    """A task's learner whose parameters are drawn to an anchor. anchor, importance: by name in the state dict."""

    anchor: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]
    strength: float

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Equation 3 of the paper, with one pull towards the latest parameters in place of one for each task."""
        own = dict(self.network.named_parameters())
        pulls = [
            (importance * (own[name] - self.anchor[name]).square()).sum()
            for name, importance in self.importance.items()
            if name in own
        ]
        return super().loss(images, labels) + self.strength / 2 * torch.stack(pulls).sum()

    def identity(self) -> str:
        """What a training depends on, beside the state of the network."""
        return f"{super().identity()} {self.strength} {digest(self.importance)}"


def consolidating(
    learner: TaskLearner, start: Mapping[str, Tensor], importance: Mapping[str, Tensor], strength: float
) -> Consolidating:
    """The learner of a new task that starts from `start`, where the earlier ones have left all but its head."""
    here = {name: value.to(learner.device) for name, value in importance.items()}
    anchor = {name: start[name].to(learner.device) for name in here if name in start}
    return Consolidating(**learner.parts(), anchor=anchor, importance=here, strength=strength)


def fisher(learner: TaskLearner, seed: int) -> State:
    """The diagonal of the Fisher information of each parameter but the head's, at the network's present state.

    A mean over (at most `SAMPLES`) training images of the squared gradient of the log-likelihood of a label that the
    network itself draws; for masks the likelihood is a mean over pixels.
    """
    network = learner.network.to(learner.device).eval()
    body = {name: value for name, value in network.named_parameters() if not name.startswith("head.")}
    total = {name: torch.zeros_like(value) for name, value in body.items()}
    generator = torch.Generator().manual_seed(derived(seed, "labels"))
    order = np.random.default_rng(derived(seed, "samples")).permutation(len(learner.train))[:SAMPLES]
    for index in sorted(order.tolist()):
        image = normalised(learner.train.images[index : index + 1], learner.header, learner.device)
        logits = network(image)
        flat = logits.detach().movedim(1, -1).reshape(-1, logits.shape[1]).softmax(dim=1).cpu()
        drawn = torch.multinomial(flat, 1, generator=generator).view(logits.movedim(1, -1).shape[:-1])
        likelihood = F.cross_entropy(logits, drawn.to(learner.device))
        gradients = torch.autograd.grad(likelihood, list(body.values()), allow_unused=True)
        for name, gradient in zip(body, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
    return {name: (value / len(order)).cpu() for name, value in total.items()}


def accumulated(before: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> State:
    """The information of the tasks so far and that of a new one."""
    return {name: before.get(name, 0.0) + own.get(name, 0.0) for name in sorted({*before, *own})}  # type: ignore[misc]
