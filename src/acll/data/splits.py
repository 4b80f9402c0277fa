"""Cutting a split: shuffled, stratified, groups kept together, from a seed that is not the run's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.errors import UserError

IGNORE = 255  # in masks: no class


class DataError(UserError):
    """The data cannot be used as they are; the message names the files and says what to do."""


@dataclass(frozen=True)
class Samples:
    """Images of one size, in order of their ids.

    images: uint8 [N, C, H, W] with C = 1 (grey) or 3 (RGB); labels: int64 [N] or, for segmentation, uint8 [N, H, W]
    with 255 for "ignore"; ids: where each sample comes from; groups: samples with equal groups stay in one split.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    ids: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, indices: NDArray[np.int64]) -> "Samples":
        """The samples at these positions."""
        return Samples(
            self.images[indices],
            self.labels[indices],
            tuple(self.ids[index] for index in indices),
            tuple(self.groups[index] for index in indices),
        )


def cut(samples: Samples, share: float, classes: int, seed: int) -> tuple[Samples, Samples]:
    """Cut about `share` of the samples off: (the rest, the part cut off), both in the order of the ids.

    Groups stay whole. They are stratified: by class, for segmentation by the rarest class that is present. Of each
    stratum with two groups or more at least one goes to either side.
    """
    strata = _strata(samples.labels, classes)
    groups = np.array(samples.groups)
    names, first, members = np.unique(groups, return_index=True, return_inverse=True)
    generator = np.random.default_rng([seed, 0x5EED])
    chosen = np.zeros(len(names), bool)
    carry = 0.0
    for stratum in np.unique(strata):
        candidates = generator.permutation(np.flatnonzero(strata[first] == stratum))
        if len(candidates) < 2:
            continue
        # what rounding takes from one stratum goes to the next, so that the whole has the share asked for
        exact = share * len(candidates) + carry
        count = min(max(1, round(exact)), len(candidates) - 1)
        carry = exact - count if abs(exact - count) < 1 else 0.0
        chosen[candidates[:count]] = True
    if not chosen.any() and len(names) > 1:
        chosen[generator.integers(len(names))] = True
    off = chosen[members]
    return samples.select(np.flatnonzero(~off)), samples.select(np.flatnonzero(off))


def _strata(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """[N] the class of each sample; of a mask the class that, over all masks, is present least often."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    present = np.stack([(labels == index).any(axis=(1, 2)) for index in range(classes)], axis=1)
    frequency = present.sum(axis=0)
    rarest: NDArray[np.int64] = np.where(present, frequency, len(labels) + 1).argmin(axis=1)
    return rarest


def as_groups(ids: Sequence[str], pattern: str | None) -> tuple[str, ...]:
    """The group of each id: what the pattern matches in it, or the id itself."""
    if pattern is None:
        return tuple(ids)
    matches = [re.search(pattern, one) for one in ids]
    return tuple(match.group() if match else one for match, one in zip(matches, ids))
