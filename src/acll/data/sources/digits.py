"""Handwritten digits that come with scikit-learn: real images, no files."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from acll.data.arrays import manifest_of_arrays
from acll.data.manifest import Manifest
from acll.data.task import Task


class Digits(Task):
    """Handwritten digits, 1,797 real grey images of 8x8 pixels that come with scikit-learn."""

    source: Literal["digits"] = Field(description="`digits`")
    kind: Literal["classification"] = Field("classification", description="always classification")

    from_files: ClassVar[bool] = False

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self)


def _manifest(task: Digits) -> Manifest:
    """Return 1,797 grey images of ten classes.

    They are a part of UCI's optical recognition of handwritten digits.
    """
    from sklearn.datasets import load_digits

    content = load_digits()
    height, width = task.image_size
    images = [
        Image.fromarray((image * (255 / 16)).round().astype(np.uint8)) for image in content.images
    ]
    pixels = np.stack(
        [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images]
    )
    ids = [f"digits-{index:04d}" for index in range(len(images))]
    return manifest_of_arrays(
        pixels[:, None], content.target.astype(np.int64), ids, [str(digit) for digit in range(10)]
    )
