"""Joint training (multitask learning, Caruana 1997): one network, all tasks at once, in turns of a batch.

All weights that packing shares are shared; head, biases and normalisations are each task's own, as they are there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from acll.packing.ownership import Packed, State, TaskRecord, digest, effective
from acll.seeds import derived
from acll.settings import Training
from acll.training.learner import TaskLearner
from acll.training.metrics import Outcome


@dataclass(frozen=True)
class Joint:
    """The learner of several tasks at once. Their networks are tied here: they share the parameters named in `shared`.

    learners: of each task, whose own training settings are those of its batches and losses; training: of the whole.
    """

    learners: tuple[TaskLearner, ...]
    shared: tuple[str, ...]
    training: Training

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

    def batches(self) -> int:
        """How many batches an epoch has: those of all tasks."""
        return sum(learner.batches() for learner in self.learners)

    def losses(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """The loss of each batch of an epoch, the tasks in random turns."""
        counts = [learner.batches() for learner in self.learners]
        turns = np.random.default_rng(derived(seed, "turns", epoch)).permutation(np.repeat(range(len(counts)), counts))
        sources = [learner.losses(derived(seed, learner.header.name), epoch) for learner in self.learners]
        for turn in turns:
            yield next(sources[turn])

    def look(self) -> tuple[Outcome, ...]:
        """What each network does on its validation split."""
        return tuple(seen for learner in self.learners for seen in learner.look())

    def identity(self) -> str:
        """What a training depends on, beside the state of the networks."""
        return " ".join(f"{learner.training} {learner.identity()}" for learner in self.learners)


def joined(empty: Packed, records: Sequence[TaskRecord], state: Mapping[str, Tensor]) -> Packed:
    """The packed network of tasks that were learned together. state: of `Joint.network`, `<number>.<name>`."""
    states: list[State] = [
        {name.removeprefix(f"{number}."): value for name, value in state.items() if name.startswith(f"{number}.")}
        for number in range(len(records))
    ]
    shared = {
        name: next((own[name].clone() for own in states if name in own), value) for name, value in empty.shared.items()
    }
    private = {
        record.name: {name: value.clone() for name, value in own.items() if name not in shared}
        for record, own in zip(records, states, strict=True)
    }
    used = {name for own in states for name in own}  # a decoder that no task uses stays free
    owner = {name: torch.ones_like(value) if name in used else value for name, value in empty.owner.items()}
    packed = replace(empty, shared=shared, owner=owner, private=private, tasks=tuple(records))
    after = (replace(one, digest=digest(effective(packed, one.name)), frozen=False) for one in records)
    return replace(packed, tasks=tuple(after))
