"""Winning subnetworks (Kang, Mina, Madjid, Yoon, Hasegawa-Johnson, Hwang & Yoo, ICML 2022).

Weights and a score of each are learned together. A task reads the weights with the largest scores
of each layer, weights of earlier tasks among them, which do not move. Scores, and weights that are
free, go on from where the task before has left them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from acll.methods.base import Before, Method, Start

if TYPE_CHECKING:
    from acll.networks.spec import Network
    from acll.packing.ownership import Packed, State, TaskRecord
    from acll.training.learner import TaskLearner

SCORE = "score."  # of a weight, in the memory


class WSN(Method):
    """Winning subnetworks (Kang et al. 2022): a task learns a score of each weight, and reads the
    weights with the largest scores of each layer, those of earlier tasks among them. It owns what
    it reads and nobody owned."""

    type: Literal["wsn"] = Field(description="`wsn`")
    capacity: float = Field(
        0.5, gt=0, le=1, description="share of the weights of each layer that a task reads (c)"
    )

    remembers: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True  # scores that are not remembered are drawn

    def shared_first(self, network: "Network") -> str | None:
        """Return None: the first task learns scores, too, with a share of its own."""
        return None

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training of free weights and of the scores of all."""
        import torch

        from acll.packing.ownership import free
        from acll.training.masking import (
            LargestScores,
            MaskedNetwork,
            first_scores,
        )

        (learner,) = learners
        generator = torch.Generator().manual_seed(before.seed)
        masks, state, scores = free(before.packed, learner.info.kind), dict(start), {}
        for name, mask in masks.items():
            if name in before.memory:
                state[name] = torch.where(mask, before.memory[name], start[name])
                scores[name] = before.memory[SCORE + name].view_as(start[name])
            else:
                scores[name] = first_scores(learner.network, name, start[name], generator)
        network = MaskedNetwork(learner.network, scores, LargestScores(self.capacity))
        return Start(replace(learner, network=network), network.start(state), masks)

    @classmethod
    def commit(cls, packed: "Packed", records: "Sequence[TaskRecord]", state: "State") -> "Packed":
        """Return the network with a task that owns what it reads and nobody owned."""
        from acll.packing.ownership import commit_read
        from acll.training.masking import masked_state

        (record,) = records
        return commit_read(packed, record, masked_state(state))

    @classmethod
    def remember(
        cls, learner: "TaskLearner", trained: "State", memory: "State", seed: int
    ) -> "State":
        """Return all weights as they are now, and their scores."""
        from acll.training.masking import scores_of

        scores = scores_of(trained)
        weights = {name: trained[name] for name in scores}
        return memory | weights | {SCORE + name: value for name, value in scores.items()}
