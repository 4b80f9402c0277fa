"""Which of the free weights a task keeps: the largest magnitudes, exactly as many as asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acll.packing.ownership import PackingError
from acll.settings import Scope


def kept_count(free: int, ratio: float) -> int:
    """How many of `free` weights survive the release ratio; never more than their share (1 − ratio)."""
    return min(free, math.floor(free * (1.0 - ratio) + 1e-9 * max(1.0, free)))


@dataclass(frozen=True)
class Block:
    """Tensors whose weights are ranked together, and which share of the free ones among them is released."""

    names: tuple[str, ...]
    ratio: float


def blocks_of(scope: Scope, ratios: Mapping[str, float]) -> list[Block]:
    """What is ranked together, for the release ratio of each tensor: with `layer` each tensor is a block (PackNet,
    Mallya & Lazebnik 2018), with `global` all that have the same ratio."""
    if scope == "layer":
        return [Block((name,), ratio) for name, ratio in ratios.items()]
    return [
        Block(tuple(name for name, own in ratios.items() if own == ratio), ratio)
        for ratio in dict.fromkeys(ratios.values())
    ]


def keep_masks(weights: Mapping[str, Tensor], free: Mapping[str, Tensor], blocks: Sequence[Block]) -> dict[str, Tensor]:
    """Boolean masks of the weights to keep among the free ones: in each block the largest magnitudes.

    weights: tensors of any shapes; free: boolean tensors of the same shapes, True where the task has trained. Ratios
    lie in [0, 1). Ties go to the earlier position, so the counts are exact and the masks are the same on every machine.
    Raises ValueError for another ratio, PackingError where weights are not finite.
    """
    masks = {}
    for block in blocks:
        if not 0.0 <= block.ratio < 1.0:
            raise ValueError(f"the release ratio must lie in [0, 1), not {block.ratio}")
        magnitudes = [_magnitudes(name, weights[name], free[name]) for name in block.names]
        together = np.concatenate(magnitudes)
        kept = _largest(together, kept_count(together.size, block.ratio))
        for name, own in zip(block.names, np.split(kept, np.cumsum([values.size for values in magnitudes])[:-1])):
            masks[name] = torch.zeros(free[name].shape, dtype=torch.bool)
            masks[name][free[name].cpu()] = torch.from_numpy(own)
    return {name: masks[name] for name in weights}


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
