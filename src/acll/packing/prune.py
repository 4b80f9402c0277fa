"""Which of the free weights a task keeps: the largest magnitudes, exactly as many as asked for."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from acll.packing.ownership import PackingError
from acll.settings import Scope


def kept_count(free: int, ratio: float) -> int:
    """How many of `free` weights survive the release ratio; never more than their share (1 − ratio)."""
    return min(free, math.floor(free * (1.0 - ratio) + 1e-9 * max(1.0, free)))


def keep_masks(
    weights: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    ratio: float,
    scope: Scope,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Boolean masks of the weights to keep among the free ones.

    weights: tensors of any shapes; free: boolean tensors of the same shapes, True where the task has trained.
    ratio: share of the free weights to release, in [0, 1). scope: `layer` releases that share of each tensor (PackNet,
    Mallya & Lazebnik 2018), `global` ranks all tensors together, `channel` ranks output channels (slices of the first
    dimension) by their mean magnitude relative to their tensor's, and keeps them in this order until the next has no
    room in the share; factors: by what the magnitudes of a tensor count more than those of others (1 where it is
    absent; with `channel` they make no difference). Ties go to the earlier
    position, so the counts are exact (but with `channel`) and the masks are the same on every machine.

    Raises ValueError for another ratio, PackingError where weights are not finite.
    """
    if not 0.0 <= ratio < 1.0:
        raise ValueError(f"the release ratio must lie in [0, 1), not {ratio}")
    names = list(weights)
    magnitudes = {
        name: _magnitudes(name, weights[name], free[name]) * np.float32(factors.get(name, 1.0)) for name in names
    }
    if scope == "channel":
        return _channels(magnitudes, free, ratio)
    if scope == "layer":
        kept = {name: _largest(values, kept_count(values.size, ratio)) for name, values in magnitudes.items()}
    else:
        together = np.concatenate([magnitudes[name] for name in names]) if names else np.zeros(0, np.float32)
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


def _channels(magnitudes: Mapping[str, np.ndarray], free: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Masks of whole output channels: the free weights of those that are largest for their tensor."""
    counts = {name: mask.flatten(1).sum(dim=1).cpu().numpy() for name, mask in free.items()}
    sums = {
        name: np.bincount(np.repeat(np.arange(len(count)), count), magnitudes[name], minlength=len(count))
        for name, count in counts.items()
    }
    relative = {name: sums[name] / np.maximum(count, 1) / _mean(magnitudes[name]) for name, count in counts.items()}
    each, values = np.concatenate(list(counts.values())), np.concatenate(list(relative.values()))
    order = np.argsort(-values, kind="stable")
    chosen = np.zeros(len(each), bool)
    chosen[order[np.cumsum(each[order]) <= kept_count(int(each.sum()), ratio)]] = True
    parts = np.split(chosen, np.cumsum([len(count) for count in counts.values()])[:-1])
    return {
        name: mask.cpu() & torch.from_numpy(part).view(-1, *[1] * (mask.dim() - 1))
        for (name, mask), part in zip(free.items(), parts, strict=True)
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) or 1.0 if values.size else 1.0


def _magnitudes(name: str, weight: Tensor, free: Tensor) -> np.ndarray:
    values: np.ndarray = weight.detach()[free].abs().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise PackingError(f"{name}: weights that are not finite: training has diverged; lower the learning rate")
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
