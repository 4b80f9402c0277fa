"""Predictions of a segmentation network on a few test images, to look at."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acll.data import prepared
from acll.evaluation.pictures import spread
from acll.files import written

if TYPE_CHECKING:
    import torch

    from acll.packing.ownership import Packed

SHOWN = 3  # images


@dataclass(frozen=True)
class Examples:
    """Some test images [N, C, H, W] as prepared, their masks and what a network makes of them, both
    uint8 [N, H, W]."""

    classes: tuple[str, ...]
    images: NDArray[Any]
    masks: NDArray[np.uint8]
    predictions: NDArray[np.uint8]


def examples_of(
    packed: "Packed", tests: Mapping[str, Path], device: "torch.device"
) -> dict[str, Examples]:
    """Return what the network makes of a few images of each of its segmentation tasks.

    tests: the prepared test split of each task. The images are spread over it, and the same for all
    networks.
    """
    kinds = {record.name: record.kind for record in packed.tasks}
    return {
        task: _predicted(packed, task, path, device)
        for task, path in tests.items()
        if kinds[task] == "segmentation"
    }


def _predicted(packed: "Packed", task: str, test: Path, device: "torch.device") -> Examples:
    import torch

    from acll.data.batches import normalised
    from acll.packing.load import restore_network, task_info_of

    record = packed.record(task)
    images, masks, _ = prepared.some_samples(
        test, "test", spread(prepared.sample_count(test, "test"), SHOWN)
    )
    batch = normalised(torch.from_numpy(np.stack(images)), task_info_of(record), device)
    network, _ = restore_network(packed, task)
    with torch.no_grad():
        predictions = network.to(device)(batch).argmax(dim=1).to(torch.uint8).cpu().numpy()
    return Examples(record.classes, np.stack(images), np.stack(masks), predictions)


def write_examples(path: Path, examples: Mapping[str, Examples]) -> None:
    """Write the examples of some tasks, whole or not at all; none make a file without tensors."""
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
    """Return the examples of a task, as `write` wrote them."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        classes = json.loads(file.metadata()["classes"])[task]
        arrays = {
            name: file.get_tensor(f"{task}/{name}") for name in ("images", "masks", "predictions")
        }
        return Examples(tuple(classes), **arrays)
