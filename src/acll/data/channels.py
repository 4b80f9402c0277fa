"""Mean and standard deviation of the channels of images, which come one by one."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.images import top_of

Values = tuple[float, ...]  # one for each channel


def channel_statistics(
    images: Callable[[], Iterable[NDArray[Any]]], channels: int, dtype: str
) -> tuple[Values, Values]:
    """Return mean and std of each channel over images, white being 1.

    images: gives the images [channels, …] from the first on, whenever it is called; one at least.
    """
    if dtype == "float32":
        means, squares = _of_floats(images)
    else:
        means, squares = _of_integers(images, channels, int(top_of(dtype)))
    stds = []
    for mean, square in zip(means, squares):
        std = float(square) ** 0.5
        # a channel of one level has no std to divide by; floats may be of any size
        least = 1e-6 * abs(float(mean)) if dtype == "float32" else 1e-3
        stds.append(std if std > least else least or 1.0)
    return tuple(float(mean) for mean in means), tuple(stds)


def _of_floats(
    images: Callable[[], Iterable[NDArray[Any]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and variances in two passes: a difference of large sums would lose digits."""

    def flat() -> Iterable[NDArray[Any]]:
        return (image.reshape(len(image), -1) for image in images())

    pixels, sums = 0, 0.0
    for image in flat():
        pixels += image.shape[1]
        sums = sums + image.sum(axis=1, dtype=np.float64)
    means: NDArray[np.float64] = np.asarray(sums / pixels)
    squares = sum(((image - means[:, None]) ** 2).sum(axis=1) for image in flat()) / pixels
    return means, np.asarray(squares)


def _of_integers(
    images: Callable[[], Iterable[NDArray[Any]]], channels: int, top: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and variances in one pass: integers have few levels, which are counted."""
    counts = np.zeros((channels, top + 1), np.int64)
    for image in images():
        for channel, values in enumerate(image):
            counts[channel] += np.bincount(values.ravel(), minlength=top + 1)
    levels = np.arange(top + 1) / top
    means = np.array([np.average(levels, weights=count) for count in counts])
    squares = np.array(
        [np.average((levels - mean) ** 2, weights=count) for mean, count in zip(means, counts)]
    )
    return means, squares
