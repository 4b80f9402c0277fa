"""Learned release: a task learns which weights it reads, with a score for each, and reads a share
of them that shrinks.

As in winning subnetworks (Kang et al., ICML 2022), scores and weights are learned together from the
first step on, and of each layer the weights with the largest scores are read. There the share is
fixed, and that of each layer. Here a small layer has a larger one than a large layer. The share of
all depends on the network while a task is trained; it then shrinks to what is kept, while training
goes on. A weight that is not read can come back as long as scores are learned.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from acll.networks.build import TaskNetwork
from acll.networks.partition import partition
from acll.packing.ownership import State
from acll.settings import Reuse, expected_share
from acll.training.checkpoint import Checkpoint, snapshot
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit
from acll.training.masking import (
    LargestScores,
    MaskedNetwork,
    first_scores,
    masked_state,
    masks_of,
    ranked_scores,
)
from acll.training.release import LAST_SHARE

LEAST_READ = 0.1  # of the free weights, while a task is trained
# of the weights of earlier tasks, whatever is kept of the others; docs/search.md says where from
READ_OF_EARLIER = 0.5


def trained_share(network: TaskNetwork) -> float:
    """Return the share of the free weights that a task reads while it is trained.

    That is a tenth, or, in a network so small that a task may need more, what it may need. Of given
    weights it reads all: without most of them they are worth little.
    """
    assert network.built_from is not None
    if network.built_from.weights != "none":
        return 1.0
    shared = partition(network).shared
    weights = sum(network.get_parameter(name).numel() for name in shared)
    return max(LEAST_READ, expected_share(weights))


def as_trained(network: TaskNetwork, kept: float) -> bool:
    """Return whether a task keeps of what is free what it reads while it is trained.

    Then nothing is released, and the dense network is the result. Where it reads all, it is only a
    beginning.
    """
    share = trained_share(network)
    return share < 1 and math.isclose(kept, share)


@dataclass(frozen=True)
class Scored:
    """What is free, and whether a task also chooses what it reads of earlier tasks' weights.

    free: boolean masks of the shared weights that the task may own. The others are those of earlier
    tasks.
    """

    free: Mapping[str, Tensor]
    reuse: Reuse

    def begin(
        self,
        learner: TaskLearner,
        start: Mapping[str, Tensor],
        ranks: Mapping[str, Tensor],
        seed: int,
    ) -> tuple[TaskLearner, State]:
        """Return the learner of a training before the release, and the state it begins with.

        start: of the task's network, on the CPU as `free`. ranks: of the weights of earlier tasks,
        as of `reading_ranks`. seed: of scores that are drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        scores = {}
        for name in self.free:
            drawn = first_scores(learner.network, name, start[name], generator)
            scores[name] = ranked_scores(learner.network, name, start[name], ranks[name], drawn)
        own = self._learner(learner, trained_share(learner.network), scores)
        return own, cast(MaskedNetwork, own.network).start(start)

    def learner(self, learner: TaskLearner, share: float) -> TaskLearner:
        """Return a learner whose network reads a share of the weights.

        share: of the free weights. Its scores are 0 until a state dict is loaded.
        """
        scores = {name: torch.zeros(mask.shape) for name, mask in self.free.items()}
        return self._learner(learner, share, scores)

    def dense(self, learner: TaskLearner) -> TaskLearner:
        """Return a learner of the dense network, as `learner` would."""
        return self.learner(learner, trained_share(learner.network))

    def choose(self, share: float) -> LargestScores:
        """Return what chooses a share."""
        return LargestScores(share, self.free, 1.0 if self.reuse == "all" else READ_OF_EARLIER)

    def _learner(self, learner: TaskLearner, share: float, scores: State) -> TaskLearner:
        network = MaskedNetwork(learner.network, scores, self.choose(share))
        return replace(learner, network=network)

    def finished(self, state: Mapping[str, Tensor]) -> tuple[State, State]:
        """Return the state of a task with 0 where it reads nothing, and masks of what it keeps."""
        keep = {name: mask & self.free[name].cpu() for name, mask in masks_of(state).items()}
        return masked_state(state), keep


def release_epochs(epochs: float, first: float, kept: float) -> float:
    """Return how many epochs the share takes to shrink from the first to what is kept.

    epochs: to LAST_SHARE. What is missing to a smaller share is released at once after them.
    """
    if kept >= first or math.isclose(kept, first):  # as `as_trained`
        return 0.0
    return epochs * min(1.0, math.log(kept / first) / math.log(LAST_SHARE / first))


def release_learned(
    learner: TaskLearner,
    state: Mapping[str, Tensor],
    scored: Scored,
    kept: float,
    config: FitConfig,
    taught: Callable[[TaskLearner], TaskLearner],
    checkpoint: Checkpoint | None = None,
) -> State:
    """Train while the share that is read shrinks to what is kept; return the last state.

    learner: of the task, as it is without scores. state: with scores. config: of a release to
    LAST_SHARE; of it so much is made as is needed. taught: returns a learner with the loss of the
    release. Raises TrainingError.
    """
    own = scored.dense(learner)
    network = cast(MaskedNetwork, own.network)
    epochs = release_epochs(config.epochs, trained_share(learner.network), kept)
    if epochs:
        shrinking = _Shrinking(own, scored, config.epochs * learner.steps(), kept)
        config = replace(config.of_length(epochs), keep_state=False)  # it is in the network
        fit(taught(own), state, config, scored.free, checkpoint, release=shrinking)
    else:
        network.load_state_dict(state)
    # steps are whole, so the last one need not have had this share
    network.choose = scored.choose(kept)
    network.make_masks()
    return snapshot(network.state_dict())


class _Shrinking:
    """The share that is read during a release: in each step smaller by the same factor.

    learner: of the dense network. steps: how many training steps there are to LAST_SHARE. kept: it
    ends there.
    """

    def __init__(self, learner: TaskLearner, scored: Scored, steps: float, kept: float) -> None:
        network = cast(MaskedNetwork, learner.network)
        self.choose = cast(LargestScores, network.choose)
        self.first = self.choose.share
        self.keep = {name: mask.cpu() for name, mask in scored.free.items()}
        self.steps, self.kept = steps, kept

    def __str__(self) -> str:
        numbers = f"{self.first} {LAST_SHARE} {self.steps} {self.kept}"
        return f"learned {numbers} {self.choose.earlier}"

    def progress(self) -> dict[str, Any]:
        """Return nothing: the share depends on the step alone."""
        return {}

    def go_on(self, progress: dict[str, Any]) -> None:
        """Do nothing."""

    def advance(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Set the share of a step. What may move stays the same."""
        part = (step + 1) / self.steps
        share = self.first * (LAST_SHARE / self.first) ** part
        self.choose.share = max(self.kept, share)
        return False
