"""The file of what a segmentation network makes of a few test images, to look at.

`acll.evaluation.predicted` makes what is in it. To read it takes no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.files import written


@dataclass(frozen=True)
class Examples:
    """Some test images as prepared [N, C, H, W], their masks and predictions (uint8 [N, H, W])."""

    classes: tuple[str, ...]
    images: NDArray[Any]
    masks: NDArray[np.uint8]
    predictions: NDArray[np.uint8]


def write_examples(path: Path, examples: Mapping[str, Examples]) -> None:
    """Write the examples of some tasks into one file, whole or not at all."""
    from safetensors.numpy import save_file

    arrays = {
        f"{task}/{name}": getattr(one, name)
        for task, one in examples.items()
        for name in ("images", "masks", "predictions")
    }
    classes = {task: one.classes for task, one in examples.items()}
    with written(path) as beside:
        save_file(arrays, beside, metadata={"classes": json.dumps(classes, sort_keys=True)})


def read_examples(path: Path, task: str) -> Examples:
    """Return the examples of a task, as `write_examples` wrote them."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        classes = json.loads(file.metadata()["classes"])[task]
        arrays = {
            name: file.get_tensor(f"{task}/{name}") for name in ("images", "masks", "predictions")
        }
        return Examples(tuple(classes), **arrays)
