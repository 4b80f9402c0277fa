"""The prepared files of a task: training and validation in one, the test split in a file of its own.

`<task>.train.safetensors` holds the tensors `train_images`, `train_labels`, `val_images`, `val_labels`;
`<task>.test.safetensors` holds `test_images`, `test_labels`. The header (JSON, under `task` in the metadata) has
classes, kind, size, mean and deviation of the training split, and the id of each sample. They are mapped into memory
when read. No step but evaluation can read a test file: see `allow_test`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from acll.config import Kind
from acll.data.splits import Samples

TEST = ".test.safetensors"
_allowed = {"test": False}


class TestSplitError(PermissionError):
    """A step that is not evaluation tried to read a test split."""

    __test__ = False  # not a class of tests, whatever its name


@dataclass(frozen=True)
class Header:
    """What is known of a prepared task."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    ids: dict[str, list[str]]  # split → ids of its samples


def allow_test() -> None:
    """Let this process read test splits. Called by the evaluation step and by nothing else."""
    _allowed["test"] = True


def write(name: str, kind: Kind, splits: dict[str, Samples], classes: list[str], train: Path, test: Path) -> Header:
    """Write both files of a task, each whole or not at all; the statistics come from the training split alone."""
    images = splits["train"].images
    scaled = [images[:, channel].astype(np.float64) / 255 for channel in range(images.shape[1])]
    header: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "classes": classes,
        "image_size": list(images.shape[2:]),
        "mean": [float(channel.mean()) for channel in scaled],
        "deviation": [max(float(channel.std()), 1e-3) for channel in scaled],
    }
    for path, names in ((train, ("train", "val")), (test, ("test",))):
        tensors = {f"{split}_images": splits[split].images for split in names}
        tensors |= {f"{split}_labels": splits[split].labels for split in names}
        content = header | {"ids": {split: list(splits[split].ids) for split in names}}
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(
            {key: np.ascontiguousarray(value) for key, value in tensors.items()},
            beside,
            metadata={"task": json.dumps(content, sort_keys=True)},
        )
        beside.replace(path)
    return header_from(header | {"ids": {split: list(samples.ids) for split, samples in splits.items()}})


def read(path: Path) -> tuple[dict[str, Any], Header]:
    """Tensors by name, mapped into memory, and the header. Raises TestSplitError."""
    from safetensors import safe_open

    if path.name.endswith(TEST) and not _allowed["test"]:
        raise TestSplitError(f"{path}: only evaluation may read a test split")
    with safe_open(path, framework="pt") as file:
        header = header_from(json.loads(file.metadata()["task"]))
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a mapping


def header_from(values: dict[str, Any]) -> Header:
    """A header from its JSON."""
    lists = ("classes", "image_size", "mean", "deviation")
    return Header(**(values | {key: tuple(values[key]) for key in lists}))
