"""How packing trains a task before anything is released.

It is no part of `packing.py`, whose other settings make no difference to it, nor of `base.py`: the
trainings of other methods do not depend on it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acll.methods.base import Before, FreeWeights, Start, TrainingRule
from acll.settings import Criterion, Reuse

if TYPE_CHECKING:
    from acll.packing.ownership import State
    from acll.training.learner import TaskLearner


class TrainFreeWeights(TrainingRule):
    """Train the weights that no task owns, and the private parameters; the weights of earlier tasks
    stay."""

    type: str  # of the method
    later: FreeWeights  # where free weights start for later tasks
    criterion: Criterion  # what tells which weights are kept later on
    reuse: Reuse  # which weights of earlier tasks it reads

    def free_from(self, position: int) -> FreeWeights:
        """Return where free weights start; for a first task from the network's own."""
        return "pretrained" if position == 1 else self.later

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training in which owned weights do not move.

        With the criterion `learned` each weight has a score, and a share of them is read.
        """
        from acll.packing.ownership import free, reading_ranks

        (learner,) = learners
        masks = free(before.packed, learner.info.kind)
        if self.criterion == "magnitude":
            return Start(learner, start, masks)
        from acll.training.learned import Scored

        ranks = reading_ranks(before.packed, learner.info.kind)
        own, first = Scored(masks, self.reuse).begin(learner, start, ranks, before.seed)
        return Start(own, first, masks)
