"""A learner of several tasks at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from acll.seeds import derived
from acll.training.learner import TaskLearner
from acll.training.metrics import EvalResult


@dataclass(frozen=True)
class JointLearner:
    """The learner of several tasks at once, whose networks are tied: they share the parameters
    named in `shared`."""

    learners: tuple[TaskLearner, ...]
    shared: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.learners[0].device

    @cached_property
    def network(self) -> nn.Module:
        """The networks of the tasks, by their number."""
        networks = [learner.network for learner in self.learners]
        for name in self.shared:
            path, _, leaf = name.rpartition(".")
            having = [one.get_submodule(path) for one in networks if name in one.state_dict()]
            for module in having[1:]:
                setattr(module, leaf, getattr(having[0], leaf))
        return nn.ModuleList(networks)

    def steps(self) -> int:
        """Return how many steps an epoch has: those of all tasks."""
        return sum(learner.steps() for learner in self.learners)

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        """Yield the losses of each step of an epoch, the tasks in random turns."""
        counts = [learner.steps() for learner in self.learners]
        generator = np.random.default_rng(derived(seed, "turns", epoch))
        turns = generator.permutation(np.repeat(range(len(counts)), counts))
        sources = [
            learner.losses(derived(seed, learner.info.name), epoch) for learner in self.learners
        ]
        for turn in turns:
            yield next(sources[turn])

    def validate(self) -> tuple[EvalResult, ...]:
        """Return what each network does on its validation split."""
        return tuple(seen for learner in self.learners for seen in learner.validate())
