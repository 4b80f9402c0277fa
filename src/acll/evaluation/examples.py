"""The file of what a network makes of a few test images, to look at.

Of segmentation: some that are spread over the test split. Of both kinds: those it does worst on.

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

SPREAD, MISTAKES = "spread", "mistakes"
WORST = 8  # mistakes that are kept of a task


@dataclass(frozen=True)
class Examples:
    """Some test images as prepared [N, C, H, W], their masks and predictions (uint8 [N, H, W]).

    Of classification there are images alone: masks and predictions are empty [0, H, W].
    """

    classes: tuple[str, ...]
    images: NDArray[Any]
    masks: NDArray[np.uint8]
    predictions: NDArray[np.uint8]


def write_examples(
    path: Path, examples: Mapping[str, Examples], mistakes: Mapping[str, Examples]
) -> None:
    """Write examples and worst mistakes of some tasks into one file, whole or not at all."""
    from safetensors.numpy import save_file

    arrays = {
        f"{task}/{what}/{name}": getattr(one, name)
        for what, of_tasks in ((SPREAD, examples), (MISTAKES, mistakes))
        for task, one in of_tasks.items()
        for name in ("images", "masks", "predictions")
    }
    classes = {task: one.classes for task, one in {**examples, **mistakes}.items()}
    with written(path) as beside:
        save_file(arrays, beside, metadata={"classes": json.dumps(classes, sort_keys=True)})


def read_examples(path: Path, task: str, what: str) -> Examples:
    """Return what `write_examples` wrote of a task. what: SPREAD or MISTAKES."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        classes = json.loads(file.metadata()["classes"])[task]
        arrays = {
            name: file.get_tensor(f"{task}/{what}/{name}")
            for name in ("images", "masks", "predictions")
        }
        return Examples(tuple(classes), **arrays)


def evaluation_of(scores: Path, task: str) -> Any:
    """Return what the evaluation of a network wrote of a task. scores: its `scores.json`."""
    rows = json.loads(scores.read_text(encoding="utf-8"))["rows"]
    return next(row for row in rows if row["task"] == task)
