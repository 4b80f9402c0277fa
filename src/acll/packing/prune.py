"""Which of the free weights a task keeps: the largest magnitudes, exactly as many as asked for."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from acll.packing.ownership import PackingError, State
from acll.settings import Scope


class Channels(Protocol):
    """What pruning by channel has to know of a network; see `acll.networks.channels`."""

    @property
    def layers(self) -> Mapping[str, str | None]:
        """The weights of layers whose first dimension are output channels, by name, each with the
        name of the normalisation that reads it, if there is one."""

    def idle(self, silent: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Which weights read nothing but output channels that are always 0.

        silent: these, bool [O] by the name of a weight → bool [O, I/groups] by the name of a
        weight.
        """


def kept_count(free: int, ratio: float) -> int:
    """How many of `free` weights survive the release ratio; never more than their share (1 −
    ratio)."""
    return min(free, math.floor(free * (1.0 - ratio) + 1e-9 * max(1.0, free)))


def keep_masks(
    weights: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    ratio: float,
    scope: Scope,
    factors: Mapping[str, float] = MappingProxyType({}),
    channels: Channels | None = None,
) -> dict[str, Tensor]:
    """Boolean masks of the weights to keep among the free ones.

    weights: tensors of any shapes; free: boolean tensors of the same shapes, True where the task
    has trained. ratio: share of the free weights to release, in [0, 1). scope: `layer` releases
    that share of each tensor (PackNet, Mallya & Lazebnik 2018), `global` ranks all tensors
    together, `channel` whole output channels. factors: by what the magnitudes of a tensor count
    more than those of others (1 where it is absent; with `channel` they make no difference). Ties
    go to the earlier position, so the counts are exact (but with `channel`) and the masks are the
    same on every machine.

    `channel`, which needs `channels`, ranks slices of the first dimension by their mean magnitude
    relative to their tensor's, the first of each tensor before all others. It keeps the longest
    beginning of this order that has room in the share. A weight that reads only channels that are
    always 0 makes no difference: it is released, and not counted.

    Raises ValueError for another ratio, PackingError where weights are not finite.
    """
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"the release ratio must lie in [0, 1), not {ratio}")
    names = list(weights)
    magnitudes = {
        name: _magnitudes(name, weights[name], free[name]) * np.float32(factors.get(name, 1.0))
        for name in names
    }
    if scope == "channel":
        assert channels is not None
        return _by_channel(magnitudes, free, ratio, channels)
    if scope == "layer":
        kept = {
            name: _largest(values, kept_count(values.size, ratio))
            for name, values in magnitudes.items()
        }
    else:
        together = (
            np.concatenate([magnitudes[name] for name in names])
            if names
            else np.zeros(0, np.float32)
        )
        parts = np.split(
            _largest(together, kept_count(together.size, ratio)),
            np.cumsum([magnitudes[name].size for name in names])[:-1],
        )
        kept = dict(zip(names, parts))
    masks = {}
    for name in names:
        mask = torch.zeros(free[name].shape, dtype=torch.bool)
        mask[free[name].cpu()] = torch.from_numpy(kept[name])
        masks[name] = mask
    return masks


def released(
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    keep: Mapping[str, Tensor],
    channels: Channels | None = None,
) -> State:
    """The state with every free weight that is not kept set to zero.

    channels: given where pruning is by channel. Where all weights of an output channel are zero,
    its bias and that of the normalisation after it then are zero, too: such a channel gives 0, and
    may be removed from the network. Behind a ReLU it stays 0 however long it is trained on, since
    no gradient comes through.
    """
    after = {
        name: torch.where(free[name] & ~keep[name], 0.0, value) if name in keep else value
        for name, value in state.items()
    }
    for weight, norm in channels.layers.items() if channels is not None else ():
        if weight not in keep:
            continue
        silent = (after[weight].flatten(1) == 0).all(dim=1)
        for name in {
            f"{weight.removesuffix('weight')}bias",
            f"{norm}.bias",
            f"{norm}.running_mean",
        } & set(after):
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
    """The state without what is released at this ratio, and the masks of what is kept; as
    `keep_masks` and `released` say."""
    keep = keep_masks({name: state[name] for name in free}, free, ratio, scope, factors, channels)
    return released(state, free, keep, channels), keep


def _by_channel(
    magnitudes: Mapping[str, np.ndarray],
    free: Mapping[str, Tensor],
    ratio: float,
    channels: Channels,
) -> dict[str, Tensor]:
    """Masks of output channels: the useful among the free weights of those that are largest for
    their tensor."""
    counts = {name: mask.flatten(1).sum(dim=1).cpu().numpy() for name, mask in free.items()}
    sums = {
        name: np.bincount(
            np.repeat(np.arange(len(count)), count), magnitudes[name], minlength=len(count)
        )
        for name, count in counts.items()
    }
    relative = {
        name: sums[name] / np.maximum(count, 1) / _mean(magnitudes[name])
        for name, count in counts.items()
    }
    for own in filter(len, relative.values()):
        own[own.argmax()] = np.inf  # a layer of which nothing is left would let nothing through
    each, values = np.concatenate(list(counts.values())), np.concatenate(list(relative.values()))
    rank = np.empty(len(each), np.int64)
    rank[np.argsort(-values, kind="stable")] = np.arange(len(each))
    ranks = dict(
        zip(
            counts,
            np.split(rank, np.cumsum([len(count) for count in counts.values()])[:-1]),
            strict=True,
        )
    )

    def of_first(count: int) -> dict[str, Tensor]:
        chosen = {name: torch.from_numpy(own < count) for name, own in ranks.items()}
        return _useful(
            {name: mask.cpu() & _beside(chosen[name], mask) for name, mask in free.items()},
            free,
            channels,
        )

    def size(count: int) -> int:
        return sum(int(mask.sum()) for mask in of_first(count).values())

    room = kept_count(int(each.sum()), ratio)
    return of_first(bisect_right(range(len(each) + 1), room, key=size) - 1)


def _useful(
    keep: dict[str, Tensor], free: Mapping[str, Tensor], channels: Channels
) -> dict[str, Tensor]:
    """What is kept, less the weights that read only channels that are always 0; which may make
    others so."""
    while True:
        silent = {
            name: ~(mask | ~free[name].cpu()).flatten(1).any(dim=1) for name, mask in keep.items()
        }
        idle = channels.idle(silent)
        left = {
            name: mask & ~_beside(idle[name], mask) if name in idle else mask
            for name, mask in keep.items()
        }
        if all(torch.equal(left[name], mask) for name, mask in keep.items()):
            return keep
        keep = left


def _beside(flags: Tensor, mask: Tensor) -> Tensor:
    """Flags of the first dimensions, as a mask is laid out."""
    return flags.view(*flags.shape, *[1] * (mask.dim() - flags.dim()))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) or 1.0 if values.size else 1.0


def _magnitudes(name: str, weight: Tensor, free: Tensor) -> np.ndarray:
    values: np.ndarray = weight.detach()[free].abs().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise PackingError(
            f"{name}: weights that are not finite: training has diverged; lower the learning rate"
        )
    return values


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """A boolean array with exactly `count` True, at the largest values; ties in order of position."""
    if count <= 0:
        return np.zeros(values.size, bool)
    threshold = np.partition(values, values.size - count)[values.size - count]
    keep: np.ndarray = values > threshold
    ties = np.flatnonzero(values == threshold)
    keep[ties[: count - int(keep.sum())]] = True
    return keep
