"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), online (Schwarz et al., ICML 2018,
with γ = 1).

While a new task is learned, each parameter is drawn to where the earlier tasks have left it, by the
Fisher information that these had of it, summed over them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from acll.methods.base import Before, Method, Start

if TYPE_CHECKING:
    from torch import Tensor

    from acll.packing.ownership import State
    from acll.training.learner import TaskLearner

SAMPLES = 500  # of the training split, from which the information is estimated


class EWC(Method):
    """Elastic weight consolidation (Kirkpatrick et al. 2017), online (Schwarz et al. 2018):
    fine-tuning in which parameters are drawn to where they were, each by its Fisher information,
    summed over the tasks so far."""

    type: Literal["ewc"] = Field(description="`ewc`")
    strength: float = Field(
        1000.0, ge=0, description="weight of this pull (λ of equation 3); 0 is fine-tuning"
    )

    remembers: ClassVar[bool] = True

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training with the loss of equation 3, with one pull towards the latest
        parameters for all tasks."""
        import torch

        (learner,) = learners
        importance = {name: value.to(learner.device) for name, value in before.memory.items()}
        anchor = {name: start[name].to(learner.device) for name in importance if name in start}

        def loss(images: "Tensor", labels: "Tensor") -> "Tensor":
            own = dict(learner.network.named_parameters())
            pulls = [
                (importance[name] * (own[name] - anchor[name]).square()).sum()
                for name in importance
                if name in own
            ]
            return learner.loss(images, labels) + self.strength / 2 * torch.stack(pulls).sum()

        return Start(replace(learner, batch_loss=loss), start)

    @classmethod
    def remember(
        cls, learner: "TaskLearner", trained: "State", memory: "State", seed: int
    ) -> "State":
        """Return the Fisher information of each parameter but the head's, summed over the tasks so
        far."""
        own = fisher(learner, seed)
        total = dict(memory)
        for name, value in own.items():
            total[name] = total[name] + value if name in total else value
        return dict(sorted(total.items()))


def fisher(learner: "TaskLearner", seed: int) -> "State":
    """Return the diagonal of the Fisher information of each parameter but the head's, at the
    network's present state.

    A mean over (at most `SAMPLES`) training images of the squared gradient of the log-likelihood of
    a label that the network itself draws; for masks the likelihood is a mean over pixels.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    from acll.data.batches import normalised
    from acll.seeds import derived

    network = learner.network.to(learner.device).eval()
    body = {
        name: value for name, value in network.named_parameters() if not name.startswith("head.")
    }
    total = {name: torch.zeros_like(value) for name, value in body.items()}
    generator = torch.Generator().manual_seed(derived(seed, "labels"))
    order = np.random.default_rng(derived(seed, "samples")).permutation(len(learner.train))[
        :SAMPLES
    ]
    for index in sorted(order.tolist()):
        image = normalised(learner.train.images[index : index + 1], learner.info, learner.device)
        logits = network(image)
        flat = logits.detach().movedim(1, -1).reshape(-1, logits.shape[1]).softmax(dim=1).cpu()
        drawn = torch.multinomial(flat, 1, generator=generator).view(
            logits.movedim(1, -1).shape[:-1]
        )
        likelihood = F.cross_entropy(logits, drawn.to(learner.device))
        gradients = torch.autograd.grad(likelihood, list(body.values()), allow_unused=True)
        for name, gradient in zip(body, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
    return {name: (value / len(order)).cpu() for name, value in total.items()}
