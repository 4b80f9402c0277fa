"""Duplicates across splits: a test image that has been seen in training tests nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acll.data.images import Pixels

SIDE = 16  # of a thumbnail
# Root mean square difference of near duplicates, as a share of a thumbnail's own standard
# deviation. Measured: JPEG copies of quality 70 differ by 0.01 to 0.06; the nearest neighbours that
# are no copies, in MNIST, CIFAR-10, CamVid, by 0.12, 0.23 and 0.26.
NEAR = 0.06
FLAT = 2.0  # levels; an image with a smaller std is one colour, and all such images look alike
_BLOCK = 1024


@dataclass(frozen=True)
class Duplicate:
    """Positions of two alike samples in two splits; the first lies farther from the test."""

    first: int
    second: int
    exact: bool


def thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    """Return grey levels [SIDE * SIDE] of an image [C, H, W]: the average over its bands.

    Images of 16 bits and floats are stretched to the range of what is in them.
    """
    grey = pixels.astype(np.float32).mean(axis=0)
    if pixels.dtype != np.uint8:
        grey = (grey - grey.min()) * (255 / max(float(np.ptp(grey)), 1e-30))
    small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).clip(0, 255).round().astype(np.uint8).ravel()


def duplicates(
    digests: NDArray[Any], thumbnails: NDArray[np.uint8], splits: Sequence[NDArray[np.int64]]
) -> Iterator[Duplicate]:
    """Yield each sample that has a duplicate in a later split, with one of these.

    digests: [N, bytes], equal for exact duplicates. thumbnails: [N, SIDE * SIDE]. splits: positions
    of the samples of each split, the test last. A sample with an exact duplicate in a split is not
    compared with others there.
    """
    for later in range(len(splits)):
        # reversed, so that of several the first one is found
        seen = {digests[index].tobytes(): int(index) for index in reversed(splits[later])}
        for earlier in range(later):
            partners = [seen.get(digests[index].tobytes()) for index in splits[earlier]]
            for index, partner in zip(splits[earlier], partners):
                if partner is not None:
                    yield Duplicate(int(index), partner, True)
            others = [index for index, partner in zip(splits[earlier], partners) if partner is None]
            yield from _near(thumbnails, np.array(others, np.int64), splits[later])


def _near(
    thumbnails: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]
) -> Iterator[Duplicate]:
    """Yield the samples of `first` that differ little from one of `second`.

    Little is NEAR of that one's own standard deviation.
    """
    if not len(first) or not len(second):
        return
    # In the order of their averages, only neighbours need to be compared: the averages of two
    # thumbnails differ by no more than the thumbnails do.
    averages = thumbnails.mean(axis=1, dtype=np.float32)
    first = first[np.argsort(averages[first], kind="stable")]
    second = second[np.argsort(averages[second], kind="stable")]
    for begin in range(0, len(second), _BLOCK):
        block = second[begin : begin + _BLOCK]
        right = thumbnails[block].astype(np.float32)
        spread = right.std(axis=1)
        reach = NEAR * float(spread.max())
        low = np.searchsorted(averages[first], averages[block[0]] - reach, "left")
        high = np.searchsorted(averages[first], averages[block[-1]] + reach, "right")
        for start in range(low, high, _BLOCK):
            part = first[start : min(start + _BLOCK, high)]
            left = thumbnails[part].astype(np.float32)
            # |a − b|² = |a|² + |b|² − 2ab, all pairs by one product of matrices
            square = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
            close = (np.sqrt(square.clip(0) / SIDE**2) <= NEAR * spread) & (spread > FLAT)
            found = np.flatnonzero(close.any(axis=1))
            partners = close[found].argmax(axis=1)
            for one, other in zip(found, partners):
                yield Duplicate(int(part[one]), int(block[other]), False)
