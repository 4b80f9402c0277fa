"""The prepared files of a task: training and validation in one, the test split in a file of its own.

`<task>.train.safetensors` holds the tensors `train_images`, `train_labels`, `val_images`, `val_labels`;
`<task>.test.safetensors` holds `test_images`, `test_labels`. The header (JSON, under `task` in the metadata) has
classes, kind, size, mean and deviation of the training split, and the id of each sample. They are mapped into memory
when read. No step but evaluation can read a test file: see `allow_test`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from acll.data.splits import DataError, Samples
from acll.files import written
from acll.settings import Kind

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


def write(name: str, kind: Kind, splits: dict[str, Samples], classes: list[str], train: Path, test: Path) -> None:
    """Write both files of a task, each whole or not at all; the statistics come from the training split alone."""
    images = splits["train"].images
    counts = [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])]
    levels = np.arange(256) / 255
    means = [float(np.average(levels, weights=count)) for count in counts]
    variances = [float(np.average((levels - mean) ** 2, weights=count)) for mean, count in zip(means, counts)]
    header: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "classes": classes,
        "image_size": list(images.shape[2:]),
        "mean": means,
        "deviation": [max(variance**0.5, 1e-3) for variance in variances],
    }
    for path, names in ((train, ("train", "val")), (test, ("test",))):
        tensors = {f"{split}_images": splits[split].images for split in names}
        tensors |= {f"{split}_labels": splits[split].labels for split in names}
        content = header | {"ids": {split: list(splits[split].ids) for split in names}}
        arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        with written(path) as beside:
            save_file(arrays, beside, metadata={"task": json.dumps(content, sort_keys=True)})


def read(path: Path) -> tuple[dict[str, Any], Header]:
    """Tensors by name, mapped into memory, and the header. Raises TestSplitError, DataError for a damaged file."""
    from safetensors import SafetensorError, safe_open

    if path.name.endswith(TEST) and not _allowed["test"]:
        raise TestSplitError(f"{path}: only evaluation may read a test split")
    try:
        with safe_open(path, framework="pt") as file:
            header = header_from(json.loads(file.metadata()["task"]))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a prepared file, or damaged: {error}; delete it to have it made anew") from None


def header_from(values: dict[str, Any]) -> Header:
    """A header from its JSON."""
    lists = ("classes", "image_size", "mean", "deviation")
    return Header(**(values | {key: tuple(values[key]) for key in lists}))
