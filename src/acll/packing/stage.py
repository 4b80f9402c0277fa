"""A task on its way into the store: its dense state, and its pruned state with the masks of what it keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from acll.packing import container, file
from acll.packing.ownership import State
from acll.packing.prune import Channels, keep_masks
from acll.settings import Scope


def save_state(path: Path, state: State, header: dict[str, Any], keep: State | None = None) -> None:
    """Write a task's state dict, the masks of what it keeps (once pruned), and a JSON header."""
    tensors = {f"state/{name}": value for name, value in state.items()}
    tensors |= {f"keep/{name}": value for name, value in (keep or {}).items()}
    container.save(path, tensors, header)


def load_state(path: Path) -> tuple[State, State, dict[str, Any]]:
    """(state, masks, header) as `save_state` wrote them."""
    tensors, header = container.load(path)
    parts: dict[str, State] = {"state": {}, "keep": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts[part][key] = value
    return parts["state"], parts["keep"], header


def free_of(parent: Path | None, state: Mapping[str, Tensor], shared: Sequence[str]) -> State:
    """Boolean masks of what a task could train: all of its shared weights, or those that its parent left free."""
    if parent is None:
        return {name: torch.ones(state[name].shape, dtype=torch.bool) for name in shared}
    owner = file.read(parent).owner
    return {name: owner[name] == 0 for name in shared}


def released(
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    keep: Mapping[str, Tensor],
    channels: Channels | None = None,
) -> State:
    """The state with every free weight that is not kept set to zero.

    channels: given where pruning is by channel. Where all weights of an output channel are zero, its bias and that of
    the normalisation after it then are zero, too: such a channel gives 0, and may be removed from the network.
    Behind a ReLU it stays 0 however long it is trained on, since no gradient comes through.
    """
    after = {
        name: torch.where(free[name] & ~keep[name], 0.0, value) if name in keep else value
        for name, value in state.items()
    }
    for weight, norm in channels.layers.items() if channels is not None else ():
        if weight not in keep:
            continue
        silent = (after[weight].flatten(1) == 0).all(dim=1)
        for name in {f"{weight.removesuffix('weight')}bias", f"{norm}.bias", f"{norm}.running_mean"} & set(after):
            after[name] = torch.where(silent, 0.0, after[name])
    return after


def pruned(
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    ratio: float,
    scope: Scope,
    factors: Mapping[str, float] = MappingProxyType({}),
    channels: Channels | None = None,
) -> tuple[State, State]:
    """The state without what is released at this ratio, and the masks of what is kept; as `keep_masks` and `released`
    say."""
    keep = keep_masks({name: state[name] for name in free}, free, ratio, scope, factors, channels)
    return released(state, free, keep, channels), keep
