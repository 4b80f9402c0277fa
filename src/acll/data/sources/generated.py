"""Image tasks of adjustable difficulty, made from a seed: no files, no download."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from acll.data.arrays import manifest_of_arrays
from acll.data.manifest import Manifest
from acll.data.task import Task
from acll.settings import Kind

IMAGE_CHANNELS = 3


class Generated(Task):
    """Images made by the package from a seed, of adjustable difficulty; no files are needed."""

    source: Literal["generated"] = Field(description="`generated`")
    kind: Kind = Field(
        description="`classification` (textures) or `segmentation` (shapes on a textured ground)"
    )
    classes: int = Field(
        ge=2, le=20, description="number of classes; for segmentation the ground is one of them"
    )
    samples: int = Field(ge=20, description="number of images before the splits are cut")
    difficulty: float = Field(
        ge=0, le=1, description="0: classes far apart, no noise; 1: alike and noisy"
    )
    seed: int = Field(0, ge=0, description="seed of the images")

    from_files: ClassVar[bool] = False

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self)


def _manifest(task: Generated) -> Manifest:
    """Return all samples of a generated task."""
    images, labels = generate(task)
    ids = [f"{task.source}-{task.seed}-{index:06d}" for index in range(task.samples)]
    return manifest_of_arrays(
        images, labels, ids, [f"class_{index}" for index in range(task.classes)]
    )


def generate(task: Generated) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return images uint8 [N, 3, H, W], and labels int64 [N] or masks uint8 [N, H, W].

    Labels have all classes in about equal numbers.
    """
    generator = np.random.default_rng([task.seed, task.classes, task.samples])
    height, width = task.image_size
    make = _textures if task.kind == "classification" else _shapes
    return make(generator, task, height, width)


def _textures(
    generator: np.random.Generator, task: Generated, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return images and labels of a classification task.

    A class is a smooth pattern of std 1. A sample is its pattern, moved, mixed with another one,
    under noise. With difficulty d, patterns share a part d/2 of their variance with all others,
    samples move by up to d/2 of the image, and the noise has std 0.1 + 0.5 d.
    """
    difficulty = task.difficulty
    common = _smooth(generator, IMAGE_CHANNELS, height, width)
    patterns = np.stack(
        [_smooth(generator, IMAGE_CHANNELS, height, width) for _ in range(task.classes)]
    )
    patterns = np.sqrt(1 - difficulty / 2) * patterns + np.sqrt(difficulty / 2) * common
    labels = generator.permutation(np.arange(task.samples) % task.classes)
    images = np.empty((task.samples, IMAGE_CHANNELS, height, width), np.uint8)
    for index, label in enumerate(labels):
        reach = difficulty / 2
        move = generator.integers(
            [-int(reach * height), -int(reach * width)],
            [int(reach * height) + 1, int(reach * width) + 1],
        )
        other = patterns[generator.integers(task.classes)]
        mixed = generator.uniform(0, 0.4 * difficulty)
        image = (1 - mixed) * np.roll(patterns[label], tuple(move), axis=(1, 2)) + mixed * other
        images[index] = _bytes(image + generator.normal(0, 0.1 + 0.5 * difficulty, image.shape))
    return images, labels.astype(np.int64)


def _shapes(
    generator: np.random.Generator, task: Generated, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return images and masks of a segmentation task: shapes on a textured ground (class 0).

    A class has a shape (disc, square, diamond, ring, …) and a colour. With difficulty d, colours
    lie closer together (contrast 1.5 − d), shapes are smaller and more numerous, and ground and
    noise are stronger.
    """
    difficulty = task.difficulty
    colours = generator.normal(0, 1, (task.classes, IMAGE_CHANNELS))
    colours *= (1.5 - difficulty) / np.linalg.norm(colours, axis=1, keepdims=True)
    colours[0] = 0
    rows, columns = np.mgrid[0:height, 0:width]
    side = min(height, width)
    images = np.empty((task.samples, IMAGE_CHANNELS, height, width), np.uint8)
    masks = np.zeros((task.samples, height, width), np.uint8)
    for index in range(task.samples):
        image = (0.2 + 0.4 * difficulty) * _smooth(generator, IMAGE_CHANNELS, height, width)
        for _ in range(generator.integers(1, 3 + round(4 * difficulty))):
            label = int(generator.integers(1, task.classes))
            radius = side * generator.uniform(0.25 - 0.15 * difficulty, 0.4 - 0.2 * difficulty)
            row, column = generator.uniform(0, height), generator.uniform(0, width)
            inside = _shape(label, (rows - row) / radius, (columns - column) / radius)
            image[:, inside] += (colours[label] - colours[masks[index][inside]]).T
            masks[index][inside] = label
        images[index] = _bytes(image + generator.normal(0, 0.1 + 0.3 * difficulty, image.shape))
    return images, masks


def _shape(
    label: int, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which pixels lie in the shape of a class, of radius 1 about the origin."""
    distance = np.hypot(rows, columns)
    shapes = (
        distance < 1,
        np.maximum(abs(rows), abs(columns)) < 0.85,
        abs(rows) + abs(columns) < 1.2,
        (distance < 1) & (distance > 0.5),
        np.minimum(abs(rows), abs(columns)) < 0.3 * (distance < 1),
    )
    shape: NDArray[np.bool_] = shapes[(label - 1) % len(shapes)]
    return shape


def _smooth(
    generator: np.random.Generator, channels: int, height: int, width: int
) -> NDArray[np.float64]:
    """Return random patterns [channels, height, width] of low frequency, mean 0 and std 1."""
    rows, columns = np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None, :] * width
    weight = np.exp(-(rows**2 + columns**2) / 18)
    spectrum = np.fft.fft2(generator.normal(0, 1, (channels, height, width))) * weight
    pattern = np.fft.ifft2(spectrum).real
    pattern -= pattern.mean()
    smooth: NDArray[np.float64] = pattern / pattern.std()
    return smooth


def _bytes(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values of mean 0 and std about 1 as 0 … 255."""
    return np.clip(127.5 + 40 * image, 0, 255).round().astype(np.uint8)
