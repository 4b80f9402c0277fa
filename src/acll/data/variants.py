"""What the benchmarks of the field do to a task: a part of its classes, fewer samples, noise,
rotations, permutations.

Split, permuted and rotated tasks as in Zenke et al. 2017, Goodfellow et al. 2014 and Lopez-Paz &
Ranzato 2017.
"""

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acll.data.errors import DataError
from acll.data.images import Pixels, each_band, top_of
from acll.data.manifest import Manifest
from acll.data.prepared import IGNORE
from acll.data.task import Task


def part_of_classes(
    name: str, listing: Manifest, part: list[int]
) -> tuple[Manifest, dict[int, int]]:
    """The k-th of n parts of the classes, all of about one size: what is left of the samples, and
    old → new labels.

    For segmentation all samples stay; whoever decodes them has to relabel their masks. Raises
    DataError where a part would have less than two classes.
    """
    number, parts = part
    chosen = np.array_split(np.arange(len(listing.classes)), parts)[number - 1].tolist()
    if len(chosen) < 2:
        count = len(listing.classes)
        raise DataError(
            f"{name}: part = {part}: {count} classes make parts of less than two; at most "
            f"{count // 2} parts of two"
        )
    labels = {old: new for new, old in enumerate(chosen)}
    items = listing.items
    if listing.kind == "classification":
        items = [replace(item, label=labels[item.label]) for item in items if item.label in labels]
    return replace(listing, classes=[listing.classes[old] for old in chosen], items=items), labels


def relabelled(mask: NDArray[np.uint8], labels: dict[int, int]) -> NDArray[np.uint8]:
    """A mask with new labels; pixels of other classes are ignored."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(labels)] = list(labels.values())
    return table[mask]


def varied(
    pixels: Pixels, mask: NDArray[np.uint8] | None, task: Task, identity: str
) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """An image [C, H, W] and its mask [H, W], rotated, under noise and permuted as the task says."""
    pixels = rotated(pixels, task.rotate)
    mask = _turned(mask, task.rotate) if mask is not None and task.rotate else mask
    if task.noise:
        digest = hashlib.sha256(f"{task.split_seed} {identity}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8]))
        top = top_of(pixels.dtype)
        noisy = pixels + generator.normal(0, task.noise * top, pixels.shape)
        pixels = (noisy if pixels.dtype == np.float32 else noisy.round().clip(0, top)).astype(
            pixels.dtype
        )
    return permuted(pixels, task.permute), mask


def rotated(pixels: Pixels, degrees: float) -> Pixels:
    """An image [C, H, W] rotated against the clock; what comes from beyond its border is black."""
    if not degrees:
        return pixels
    return each_band(pixels, lambda image: image.rotate(degrees, Image.Resampling.BILINEAR))


def permuted(pixels: Pixels, seed: int | None) -> Pixels:
    """An image [C, H, W], its pixels in the order that a seed gives; as it is without one."""
    if seed is None:
        return pixels
    order = np.random.default_rng(seed).permutation(pixels[0].size)
    return pixels.reshape(len(pixels), -1)[:, order].reshape(pixels.shape)


def _turned(mask: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    return np.asarray(
        Image.fromarray(mask).rotate(degrees, Image.Resampling.NEAREST, fillcolor=IGNORE)
    )
