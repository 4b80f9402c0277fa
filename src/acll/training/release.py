"""Gradual release: a network loses its smallest weights step by step, while it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from acll.packing.ownership import State, digest
from acll.packing.prune import Channels, keep_masks, released
from acll.settings import Scope
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, Learner, fit

STAGES = 20  # in how many stages, at most, weights are released


@dataclass(frozen=True)
class Pruning:
    """What is to be released. The arguments of `acll.packing.prune.keep_masks`."""

    free: Mapping[str, Tensor]
    ratio: float
    scope: Scope
    factors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    channels: Channels | None = None

    def keep(self, state: Mapping[str, Tensor], ratio: float, among: State | None = None) -> State:
        """Return the masks of what is kept at a ratio. among: what was kept before."""
        weights = {name: state[name] for name in self.free}
        return keep_masks(weights, self.free, ratio, self.scope, self.factors, self.channels, among)

    def released(self, state: Mapping[str, Tensor], keep: State) -> State:
        """Return the state without what is not kept."""
        return released(state, self.free, keep, self.channels)

    def at_once(self, state: Mapping[str, Tensor]) -> tuple[State, State]:
        """Return the state after the release, and the masks of what is kept."""
        keep = self.keep(state, self.ratio)
        return self.released(state, keep), keep

    def __str__(self) -> str:
        factors = dict(self.factors)
        return f"{self.ratio} {self.scope} {factors} {digest(self.free)}"


def release(
    learner: Learner,
    state: Mapping[str, Tensor],
    pruning: Pruning,
    config: FitConfig,
    checkpoint: Checkpoint | None = None,
) -> tuple[State, State]:
    """Release step by step while the learner's network is trained; return its state and the masks.

    Raises TrainingError.
    """
    gradual = GradualRelease(pruning)
    result = fit(learner, state, config, pruning.free, checkpoint, release=gradual)
    return result.state, gradual.keep


class GradualRelease:
    """The release of a training.

    There are STAGES stages, at equal distances, one before the first step. After the share s of
    them, 1 − (1 − s)³ of the ratio is released (Zhu & Gupta 2017): much at the beginning, while the
    learning rate is high and there is much to spare. The magnitudes are those of that moment. What
    was released stays so.
    """

    def __init__(self, pruning: Pruning) -> None:
        self.pruning = pruning
        self.keep: State = {name: mask.cpu() for name, mask in pruning.free.items()}

    def __str__(self) -> str:
        return f"gradual {STAGES} {self.pruning}"

    def restore(self, keep: State) -> None:
        """Go on from these masks."""
        self.keep = keep

    def advance(
        self, step: int, steps: int, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> bool:
        """Release what is due, before a step; return whether that was anything.

        step: how many steps were made. steps: how many there are in all; a stage needs one at
        least. The optimiser forgets what it knew of weights that are released: its moments would
        move them again. Raises PackingError where weights are not finite.
        """
        stages = min(STAGES, steps)
        begins = [stage * steps // stages for stage in range(stages)]  # at which step
        if step not in begins:
            return False
        share = 1 - (1 - (begins.index(step) + 1) / stages) ** 3
        state = network.state_dict()
        self.keep = self.pruning.keep(state, self.pruning.ratio * share, self.keep)
        _put(network, optimizer, self.pruning.released(state, self.keep))
        return True


@torch.no_grad()
def _put(network: nn.Module, optimizer: torch.optim.Optimizer, after: State) -> None:
    """Put a state into a network; what is 0 in it is 0 in the optimiser's moments, too."""
    for name, own in network.state_dict(keep_vars=True).items():
        own.copy_(after[name])
        for moment in optimizer.state.get(own, {}).values():
            if isinstance(moment, Tensor) and moment.shape == own.shape:
                moment.masked_fill_(after[name] == 0, 0.0)  # a product with 0 may be NaN
