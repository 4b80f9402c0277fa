"""Piggyback (Mallya, Davis & Lazebnik, ECCV 2018): a binary mask for each task over weights that
are fixed.

The encoder is fixed at the weights that the network starts from. Where it starts from none, it is
fixed as the first task has trained it; so is a decoder by the first task that uses it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from acll.methods.base import Before, FreeWeights, Method, Start
from acll.node import DENSE

if TYPE_CHECKING:
    from torch import Tensor

    from acll.networks.spec import Network
    from acll.packing.ownership import Packed, State, TaskRecord
    from acll.training.learner import TaskLearner


class Piggyback(Method):
    """Piggyback (Mallya, Davis & Lazebnik 2018): a task learns a binary mask over weights that are
    fixed: those of `weights`, or, without, as the first task has trained them."""

    type: Literal["piggyback"] = Field(description="`piggyback`")
    # the paper's, 50 steps, would be 0.1; on validation splits of short trainings 0.03 was better
    margin: float = Field(
        0.03,
        gt=0,
        description="how far above their threshold the real values of a mask start; with `adamw` "
        "one step is about the learning rate",
    )

    goes_on: ClassVar[bool] = True

    def shared_first(self, network: "Network") -> str | None:
        """Return DENSE where nothing is fixed when the first task is learned, else None."""
        return DENSE if network.weights == "none" else None

    def free_from(self, position: int) -> FreeWeights:
        """Return `pretrained`: what no mask has chosen so far is as it was at the beginning."""
        return "pretrained"

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training of masks, and of parts that no task has used before.

        Biases and normalisations start from those that the fixed weights were trained with.
        """
        import torch

        from acll.training.masking import MaskedNetwork, positive

        (learner,) = learners
        fixed = self._fixed(learner, before.packed)
        scores = {name: torch.full(start[name].shape, self.margin) for name in fixed}
        network = MaskedNetwork(learner.network, scores, positive, signed=True)
        state = start | self._private(learner, before.packed)
        masks = {name: torch.zeros(start[name].shape, dtype=torch.bool) for name in fixed}
        return Start(replace(learner, network=network), network.start(state), masks)

    def _fixed(self, learner: "TaskLearner", packed: "Packed") -> list[str]:
        """Return the names of the shared weights that do not move."""
        from acll.packing.ownership import kind_uses
        from acll.training.masking import starts_from_weights

        return [
            name
            for name, owner in packed.owner.items()
            if kind_uses(learner.info.kind, name)
            and (starts_from_weights(learner.network, name) or bool((owner > 0).any()))
        ]

    def _private(self, learner: "TaskLearner", packed: "Packed") -> "dict[str, Tensor]":
        """Return the private state, but the head, that came with the fixed weights."""
        from acll.training.masking import starts_from_weights

        found = {}
        for name, value in learner.network.state_dict().items():
            if name in packed.owner or name.startswith("head."):
                continue
            if starts_from_weights(learner.network, name):
                found[name] = value.clone()
                continue
            for record in packed.tasks:
                if name in packed.private[record.name]:
                    found[name] = packed.private[record.name][name].clone()
                    break
        return found

    @classmethod
    def commit(cls, packed: "Packed", records: "Sequence[TaskRecord]", state: "State") -> "Packed":
        """Return the network with a task that owns what it reads and nobody owned."""
        from acll.packing.ownership import commit_read
        from acll.training.masking import masked_state

        (record,) = records
        return commit_read(packed, record, masked_state(state))
