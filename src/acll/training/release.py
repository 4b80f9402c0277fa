"""Gradual release: a network loses its smallest weights step by step, while it is trained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from acll.packing.ownership import State, digest
from acll.packing.prune import Channels, keep_masks, released
from acll.settings import Scope
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, Learner, fit

STAGES = 20  # after so many stages of the path
LAST_SHARE = 0.005  # this share of the free weights is left


@dataclass(frozen=True)
class Pruning:
    """What may be released, and in which order. The arguments of `keep_masks`."""

    free: Mapping[str, Tensor]
    scope: Scope
    channels: Channels | None = None

    def keep(self, state: Mapping[str, Tensor], ratio: float, among: State | None = None) -> State:
        """Return the masks of what is kept at a ratio. among: what was kept before."""
        weights = {name: state[name] for name in self.free}
        return keep_masks(weights, self.free, ratio, self.scope, self.channels, among)

    def released(self, state: Mapping[str, Tensor], keep: State) -> State:
        """Return the state without what is not kept."""
        return released(state, self.free, keep, self.channels)

    def at_once(
        self, state: Mapping[str, Tensor], ratio: float, among: State | None = None
    ) -> tuple[State, State]:
        """Return the state after the release, and the masks of what is kept."""
        keep = self.keep(state, ratio, among)
        return self.released(state, keep), keep

    def __str__(self) -> str:
        return f"{self.scope} {digest(self.free)}"


def release(
    learner: Learner,
    state: Mapping[str, Tensor],
    pruning: Pruning,
    ratio: float,
    config: FitConfig,
    checkpoint: Checkpoint | None = None,
) -> tuple[State, State]:
    """Release step by step while the learner's network is trained; return its state and the masks.

    config: of a path of STAGES stages; so many are made as the ratio needs. What is missing to the
    ratio after them is released at once. Raises TrainingError.
    """
    path = ReleasePath(pruning, config.epochs * learner.steps())
    steps = path.step_of(1 - ratio)
    if steps:
        own = config.of_length(steps / learner.steps())
        state = fit(learner, state, own, pruning.free, checkpoint, release=path).state
    return pruning.at_once(state, ratio, path.keep)


class ReleasePath:
    """The release of a training, in stages at equal distances, one before the first step.

    Each stage keeps the same part of what the one before kept, by the magnitudes of that moment;
    what was released stays so. After STAGES of them LAST_SHARE of the free weights is left. The
    path does not depend on where it is left: a network with a share was on the way to any smaller
    one. So a search releases once, and its trials begin on the path.

    steps: how many training steps STAGES stages take. remember: whether `at` may be asked for the
    states on the way.
    """

    def __init__(self, pruning: Pruning, steps: float, remember: bool = False) -> None:
        self.pruning, self.steps = pruning, steps
        self.keep: State = {name: mask.cpu() for name, mask in pruning.free.items()}
        self.stage = 0  # the next one
        self.memory = _Memory(pruning.free) if remember else None

    def __str__(self) -> str:
        return f"path {STAGES} {LAST_SHARE} {self.steps} {self.memory is not None} {self.pruning}"

    def step_of(self, share: float) -> int:
        """Return after how many steps a network that is to keep this share leaves the path.

        That is at the end of the last stage that kept as much or more.
        """
        # the small number undoes the rounding of logarithms
        stage = math.log(share) / math.log(LAST_SHARE) * STAGES + 1e-9
        return self._begin(min(int(stage), STAGES))

    def at(self, step: int, start: Mapping[str, Tensor]) -> tuple[State, State] | None:
        """Return state and masks after so many steps; None where training has not come there.

        step: of `step_of`. start: the state in which the path begins.
        """
        if step == 0:
            return dict(start), {name: mask.cpu() for name, mask in self.pruning.free.items()}
        assert self.memory is not None
        return self.memory.at(step, start)

    def remember_end(self, step: int, network: nn.Module) -> None:
        """Remember the network at the end of a training of so many steps, if a stage ends there."""
        assert self.memory is not None
        if self.stage <= STAGES and self._begin(self.stage) == step:
            self.memory.add(step, network.state_dict(), self.keep)

    def progress(self) -> dict[str, Any]:
        """Return what `go_on` needs, for a checkpoint."""
        memory = None if self.memory is None else self.memory.content()
        return {"keep": self.keep, "stage": self.stage, "memory": memory}

    def go_on(self, progress: dict[str, Any]) -> None:
        """Go on from there."""
        self.keep, self.stage = progress["keep"], progress["stage"]
        if self.memory is not None:
            self.memory.restore(progress["memory"])

    def advance(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Release what is due, before a step; return whether that was anything.

        step: how many steps were made. The optimiser forgets what it knew of weights that are
        released: its moments would move them again. Raises PackingError where weights are not
        finite.
        """
        if self.stage > STAGES or self._begin(self.stage) != step:
            return False
        state, before = network.state_dict(), self.keep
        # several, where there are more stages than steps
        while self.stage < STAGES and self._begin(self.stage) == step:
            self.stage += 1
            share = LAST_SHARE ** (self.stage / STAGES)
            self.keep = self.pruning.keep(state, 1 - share, self.keep)
        if self.memory is not None:  # by now the weights are known to be finite
            self.memory.add(step, state, before)
        if self.keep is before:  # the path has ended
            self.stage += 1
            return False
        _put(network, optimizer, self.pruning.released(state, self.keep))
        return True

    def _begin(self, stage: int) -> int:
        return round(stage * self.steps / STAGES)


class _Memory:
    """States on a path. A free weight takes a byte, and its value while it is kept."""

    def __init__(self, free: Mapping[str, Tensor]) -> None:
        self.free = {name: mask.cpu() for name, mask in free.items()}
        self.steps: list[int] = []
        # in how many of the states a weight was kept
        self.lasted = {
            name: torch.zeros(mask.shape, dtype=torch.uint8) for name, mask in free.items()
        }
        self.values: list[State] = []  # what is kept, flat, and all that is no weight of `free`

    def content(self) -> dict[str, Any]:
        return {"steps": self.steps, "lasted": self.lasted, "values": self.values}

    def restore(self, content: dict[str, Any]) -> None:
        self.steps, self.lasted = content["steps"], content["lasted"]
        self.values = content["values"]

    def add(self, step: int, state: Mapping[str, Tensor], keep: State) -> None:
        if step == 0 or step in self.steps:  # parts of a training share the step between them
            return
        own = {}
        for name, value in state.items():
            value = value.detach().cpu()
            own[name] = value[keep[name]] if name in keep else value.clone()
        self.values.append(own)
        self.steps.append(step)
        for name, mask in keep.items():
            self.lasted[name][mask] = len(self.steps)

    def at(self, step: int, start: Mapping[str, Tensor]) -> tuple[State, State] | None:
        if step not in self.steps:
            return None
        number = self.steps.index(step)
        state: State = {}
        keep = {name: lasted > number for name, lasted in self.lasted.items()}
        for name, value in self.values[number].items():
            if name in keep:
                whole = start[name].detach().cpu().clone()
                whole[self.free[name]] = 0.0
                whole[keep[name]] = value
                value = whole
            state[name] = value
        return state, keep


@torch.no_grad()
def _put(network: nn.Module, optimizer: torch.optim.Optimizer, after: State) -> None:
    """Put a state into a network; what is 0 in it is 0 in the optimiser's moments, too."""
    for name, own in network.state_dict(keep_vars=True).items():
        own.copy_(after[name])
        for moment in optimizer.state.get(own, {}).values():
            if isinstance(moment, Tensor) and moment.shape == own.shape:
                moment.masked_fill_(after[name] == 0, 0.0)  # a product with 0 may be NaN
