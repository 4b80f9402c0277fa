"""Frozen features: later tasks learn on what the first one left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from acll.methods.base import Before, Method, Start

if TYPE_CHECKING:
    from acll.packing.ownership import Packed, State, TaskRecord
    from acll.training.learner import TaskLearner


class Frozen(Method):
    """Train the first task; later ones train a head on its features, and a part (the decoder) that
    no task has used before, but nothing else."""

    type: Literal["frozen"] = Field(description="`frozen`")

    goes_on: ClassVar[bool] = True

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training in which nothing moves that an earlier task has had, but for the new
        head."""
        from acll.packing.ownership import free, frozen_private

        (learner,) = learners
        masks = free(before.packed, learner.info.kind) | frozen_private(before.packed, start)
        return Start(learner, start, masks)

    @classmethod
    def commit(cls, packed: "Packed", records: "Sequence[TaskRecord]", state: "State") -> "Packed":
        """Return the network with the new task owning all that was free: earlier tasks keep their
        weights."""
        from acll.packing.ownership import commit, free

        (record,) = records
        return commit(packed, record, state, free(packed, record.kind))
