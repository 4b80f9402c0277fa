"""Which of the free weights a task keeps: the largest magnitudes, exactly as many as asked for."""

import math
from bisect import bisect_right
from collections.abc import Mapping
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
        """The weights of layers by name, each with the normalisation that reads it, or None.

        The first dimension of these weights is that of output channels.
        """

    def idle(self, silent: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return which weights read only channels that are always 0.

        silent: the output channels that are always 0, bool [O] by the name of a weight. Returned
        are bool [O, I/groups] by the name of a weight.
        """


def kept_count(free: int, ratio: float) -> int:
    """Return how many of `free` weights a release ratio keeps: at most a share of 1 − ratio."""
    # the small number undoes the rounding of 1 − ratio: 10 × (1 − 0.9) is just below 1
    return min(free, math.floor(free * (1.0 - ratio) + 1e-9 * max(1.0, free)))


def keep_masks(
    weights: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    ratio: float,
    scope: Scope,
    channels: Channels | None = None,
    among: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return boolean masks of the weights to keep among the free ones.

    weights: tensors of any shapes.
    free: boolean tensors of the same shapes, True where the task has trained.
    ratio: share of the free weights to release, in [0, 1).
    scope: `layer` releases that share of each tensor (PackNet, Mallya & Lazebnik 2018), `global`
        ranks all tensors together, `channel` ranks whole output channels.
    channels: needed for `channel`.
    among: masks of an earlier call with a smaller ratio, where weights are released step by step:
        only what they keep is kept. None: whatever is free may be.

    With `layer` and `global`, counts are exact: ties go to the earlier position, so masks are the
    same on every machine.

    `channel` ranks slices of the first dimension by their mean magnitude relative to their
    tensor's. The best of each tensor comes before all others. It keeps the longest beginning of
    this order that has room in the share. A weight that reads only channels that are always 0 makes
    no difference: it is released, and not counted.

    Raises ValueError for another ratio, PackingError where weights are not finite.
    """
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"the release ratio must lie in [0, 1), not {ratio}")
    names = list(weights)
    candidates = free if among is None else among
    magnitudes = {name: _magnitudes(name, weights[name], candidates[name]) for name in names}
    sizes = {name: int(free[name].sum()) for name in names}
    if scope == "channel":
        assert channels is not None
        room = kept_count(sum(sizes.values()), ratio)
        return _by_channel(magnitudes, candidates, free, room, channels)
    if scope == "layer":
        kept = {
            name: _largest(values, kept_count(sizes[name], ratio))
            for name, values in magnitudes.items()
        }
    else:
        together = np.zeros(0, np.float32)
        if names:
            together = np.concatenate([magnitudes[name] for name in names])
        largest = _largest(together, kept_count(sum(sizes.values()), ratio))
        ends = np.cumsum([magnitudes[name].size for name in names])
        kept = dict(zip(names, np.split(largest, ends[:-1])))
    masks = {}
    for name in names:
        mask = torch.zeros(free[name].shape, dtype=torch.bool)
        mask[candidates[name].cpu()] = torch.from_numpy(kept[name])
        masks[name] = mask
    return masks


def released(
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    keep: Mapping[str, Tensor],
    channels: Channels | None = None,
) -> State:
    """Return the state with every free weight that is not kept set to zero.

    channels: given where pruning is by channel. Then an output channel whose weights are all zero
    also loses its bias and that of the normalisation after it. So it gives 0, and may be removed
    from the network. Behind a ReLU it stays 0 however long it is trained, since no gradient comes
    through.
    """
    after = dict(state)
    for name in keep:
        gone = (free[name] & ~keep[name]).to(state[name].device)
        after[name] = torch.where(gone, 0.0, state[name])
    for weight, norm in channels.layers.items() if channels is not None else ():
        if weight not in keep:
            continue
        silent = (after[weight].flatten(1) == 0).all(dim=1)
        biases = {
            f"{weight.removesuffix('weight')}bias",
            f"{norm}.bias",
            f"{norm}.running_mean",
        }
        for name in biases & set(after):
            after[name] = torch.where(silent, 0.0, after[name])
    return after


def _by_channel(
    magnitudes: Mapping[str, np.ndarray],
    candidates: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    room: int,
    channels: Channels,
) -> dict[str, Tensor]:
    """Return masks of the useful candidates of the best output channels.

    magnitudes: of the candidates of each tensor, flat. room: how many may be kept. See `keep_masks`
    for the order.
    """
    # of each channel: its candidates, their sum, and their mean relative to the tensor's mean
    counts = {name: mask.flatten(1).sum(dim=1).cpu().numpy() for name, mask in candidates.items()}
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
    # the rank of each channel among those of all tensors, 0 for the best
    each, values = np.concatenate(list(counts.values())), np.concatenate(list(relative.values()))
    rank = np.empty(len(each), np.int64)
    rank[np.argsort(-values, kind="stable")] = np.arange(len(each))
    ends = np.cumsum([len(count) for count in counts.values()])
    ranks = dict(zip(counts, np.split(rank, ends[:-1]), strict=True))

    def of_first(count: int) -> dict[str, Tensor]:
        keep = {}
        for name, mask in candidates.items():
            chosen = torch.from_numpy(ranks[name] < count)
            keep[name] = mask.cpu() & _beside(chosen, mask)
        return _useful(keep, free, channels)

    def size(count: int) -> int:
        return sum(int(mask.sum()) for mask in of_first(count).values())

    # more channels never keep fewer weights, so the largest number with room is found by bisection
    return of_first(bisect_right(range(len(each) + 1), room, key=size) - 1)


def _useful(
    keep: dict[str, Tensor], free: Mapping[str, Tensor], channels: Channels
) -> dict[str, Tensor]:
    """Return masks without the weights that read only channels that are always 0.

    Without them, other channels may become 0 in turn, so this goes on until nothing changes.
    """
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
    """Return flags of the first dimensions, viewed so that they broadcast to a mask."""
    return flags.view(*flags.shape, *[1] * (mask.dim() - flags.dim()))


def _mean(values: np.ndarray) -> float:
    """Return the mean, or 1 where that is 0 or there are no values: it is divided by."""
    return float(values.mean()) or 1.0 if values.size else 1.0


def _magnitudes(name: str, weight: Tensor, free: Tensor) -> np.ndarray:
    """Return the absolute values of the free weights, flat. Raises PackingError."""
    values: np.ndarray = weight.detach()[free].abs().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise PackingError(
            f"{name}: weights that are not finite: training has diverged; lower the learning rate"
        )
    return values


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return bool [N], True for the `count` largest values; of equal ones the first are taken."""
    if count <= 0:
        return np.zeros(values.size, bool)
    threshold = np.partition(values, values.size - count)[values.size - count]
    keep: np.ndarray = values > threshold
    ties = np.flatnonzero(values == threshold)
    keep[ties[: count - int(keep.sum())]] = True
    return keep
