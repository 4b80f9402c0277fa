"""Variants of a task as benchmarks have them: a part of its classes, noise, rotation, permutation.

Split, permuted and rotated tasks as in Zenke et al. 2017, Goodfellow et al. 2014 and Lopez-Paz &
Ranzato 2017.
"""

import hashlib
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acll.data.errors import DataError
from acll.data.images import Pixels, each_band, top_of
from acll.data.manifest import Manifest
from acll.data.prepared import IGNORE


class Variation(Protocol):
    """How images of a task are varied: a task, or the parameters of the step `vary`."""

    @property
    def rotate(self) -> float:
        """Degrees against the clock."""

    @property
    def noise(self) -> float:
        """Standard deviation, 1 being white."""

    @property
    def permute(self) -> int | None:
        """Seed of the order of all pixels."""

    @property
    def split_seed(self) -> int:
        """Seed of the noise."""


def part_of_classes(
    name: str, manifest: Manifest, part: list[int]
) -> tuple[Manifest, dict[int, int]]:
    """Return the manifest with the k-th of n parts of the classes, and old → new labels.

    part: [k, n]; all parts are of about one size. For segmentation all samples stay, and their
    masks have to be relabelled when they are decoded. Raises DataError where a part would have less
    than two classes.
    """
    number, parts = part
    chosen = np.array_split(np.arange(len(manifest.classes)), parts)[number - 1].tolist()
    if len(chosen) < 2:
        count = len(manifest.classes)
        raise DataError(
            f"{name}: part = {part}: {count} classes make parts of less than two; at most "
            f"{count // 2} parts of two"
        )
    labels = {old: new for new, old in enumerate(chosen)}
    samples = manifest.samples
    if manifest.kind == "classification":
        own = [sample for sample in samples if sample.label in labels]
        samples = [replace(sample, label=labels[sample.label]) for sample in own]
    classes = [manifest.classes[old] for old in chosen]
    return replace(manifest, classes=classes, samples=samples), labels


def relabelled(mask: NDArray[np.uint8], labels: dict[int, int]) -> NDArray[np.uint8]:
    """Return a mask with new labels; pixels of other classes become IGNORE."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(labels)] = list(labels.values())
    return table[mask]


def varied(
    pixels: Pixels, mask: NDArray[np.uint8] | None, how: Variation, identity: str
) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """Return an image [C, H, W] and its mask [H, W], varied.

    They are rotated, the image gets noise, and its pixels are permuted. identity: the id of the
    sample, from which its noise is drawn.
    """
    mask = _turned(mask, how.rotate) if mask is not None and how.rotate else mask
    return permuted(varied_image(pixels, how, identity), how.permute), mask


def varied_image(pixels: Pixels, how: Variation, identity: str) -> Pixels:
    """Return an image [C, H, W] rotated and with noise, its pixels in their order."""
    pixels = rotated(pixels, how.rotate)
    if not how.noise:
        return pixels
    # a seed a sample: the noise of one does not depend on which others there are
    digest = hashlib.sha256(f"{how.split_seed} {identity}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8]))
    top = top_of(pixels.dtype)
    noisy = pixels + generator.normal(0, how.noise * top, pixels.shape)
    if pixels.dtype != np.float32:
        noisy = noisy.round().clip(0, top)
    return noisy.astype(pixels.dtype)


def rotated(pixels: Pixels, degrees: float) -> Pixels:
    """Return an image [C, H, W] rotated against the clock, black beyond its border."""
    if not degrees:
        return pixels
    return each_band(pixels, lambda image: image.rotate(degrees, Image.Resampling.BILINEAR))


def permuted(pixels: NDArray[Any], seed: int | None) -> NDArray[Any]:
    """Return images […, H, W] with their pixels in the order of a seed; None changes nothing."""
    if seed is None:
        return pixels
    *others, height, width = pixels.shape
    order = np.random.default_rng(seed).permutation(height * width)
    return pixels.reshape(*others, -1)[..., order].reshape(pixels.shape)


def _turned(mask: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Return a mask [H, W] rotated against the clock, IGNORE beyond its border."""
    return np.asarray(
        Image.fromarray(mask).rotate(degrees, Image.Resampling.NEAREST, fillcolor=IGNORE)
    )
