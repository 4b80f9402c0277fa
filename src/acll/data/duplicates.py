"""Copies of images across splits: a test that has been seen in training is no test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acll.data.images import Pixels

SIDE = 16  # of a thumbnail
# Deviation between near copies, as a share of a thumbnail's own deviation. Measured: JPEG copies of
# quality 70 deviate by 0.01 to 0.06; the nearest neighbours that are none, in MNIST, CIFAR-10,
# CamVid, by 0.12, 0.23 and 0.26.
NEAR = 0.06
FLAT = 2.0  # levels; what deviates less is one colour, and all such images look alike
_BLOCK = 1024


@dataclass(frozen=True)
class Copy:
    """Two samples in two splits; the first is the one farther from the test."""

    first: int
    second: int
    exact: bool


def thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    """[C, H, W] → grey levels [SIDE * SIDE], the average over bands; deep images are stretched to
    what is in them."""
    grey = pixels.astype(np.float32).mean(axis=0)
    if pixels.dtype != np.uint8:
        grey = (grey - grey.min()) * (255 / max(float(np.ptp(grey)), 1e-30))
    small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).clip(0, 255).round().astype(np.uint8).ravel()


def copies(
    digests: NDArray[Any], thumbnails: NDArray[np.uint8], splits: Sequence[NDArray[np.int64]]
) -> Iterator[Copy]:
    """Samples that have a copy in a later split, each with one of them; splits are given as
    positions, the test last.

    Exact copies have equal rows of `digests`. A sample with an exact copy in a split is not
    compared with others there.
    """
    for later in range(len(splits)):
        seen = {digests[index].tobytes(): int(index) for index in reversed(splits[later])}
        for earlier in range(later):
            partners = [seen.get(digests[index].tobytes()) for index in splits[earlier]]
            for index, partner in zip(splits[earlier], partners):
                if partner is not None:
                    yield Copy(int(index), partner, True)
            others = [index for index, partner in zip(splits[earlier], partners) if partner is None]
            yield from _near(thumbnails, np.array(others, np.int64), splits[later])


def _near(
    thumbnails: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]
) -> Iterator[Copy]:
    """Those of the first that differ from one of the second by no more than NEAR of that one's own
    deviation.

    Only those of about the same average are compared: near copies cannot differ by more there than
    anywhere.
    """
    if not len(first) or not len(second):
        return
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
            square = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
            close = (np.sqrt(square.clip(0) / SIDE**2) <= NEAR * spread) & (spread > FLAT)
            found = np.flatnonzero(close.any(axis=1))
            partners = close[found].argmax(axis=1)
            yield from (
                Copy(int(part[one]), int(block[other]), False)
                for one, other in zip(found, partners)
            )
