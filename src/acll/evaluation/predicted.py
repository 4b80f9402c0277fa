"""What a network makes of a few test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acll.data import prepared
from acll.data.batches import normalised
from acll.evaluation.examples import Examples
from acll.evaluation.score import TaskScore
from acll.evaluation.spread import spread
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed
from acll.training.calibration import Calibrated

SHOWN = 3  # images
THUMBNAIL = 96  # pixels


def examples_of(
    packed: Packed, tests: Mapping[str, Path], device: torch.device
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


def mistakes_of(
    packed: Packed, tests: Mapping[str, Path], rows: Sequence[TaskScore], device: torch.device
) -> dict[str, Examples]:
    """Return the images that the network does worst on, worst first, as small pictures.

    rows: the scores of its tasks. Of segmentation with masks and predictions. A picture has three
    bands and `THUMBNAIL` pixels a side at most.
    """
    found = {}
    for row in rows:
        positions = [mistake.position for mistake in row.mistakes]
        if not positions:
            continue
        if row.kind == "segmentation":
            one = _predicted_at(packed, row.task, tests[row.task], positions, device)
        else:
            images, _, info = prepared.some_samples(tests[row.task], "test", positions)
            none = np.zeros((0, *info.image_size), np.uint8)
            one = Examples(info.classes, np.stack(images), none, none)
        found[row.task] = Examples(
            one.classes, _small(one.images[:, :3]), _small(one.masks), _small(one.predictions)
        )
    return found


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Return every second, third, … row and column of images or masks [N, …, H, W]."""
    step = -(-max(values.shape[-2:]) // THUMBNAIL)
    return np.ascontiguousarray(values[..., ::step, ::step])


def _predicted(packed: Packed, task: str, test: Path, device: torch.device) -> Examples:
    positions = spread(prepared.sample_count(test, "test"), SHOWN)
    return _predicted_at(packed, task, test, positions, device)


def _predicted_at(
    packed: Packed, task: str, test: Path, positions: Sequence[int], device: torch.device
) -> Examples:
    record = packed.record(task)
    images, masks, _ = prepared.some_samples(test, "test", positions)
    batch = normalised(torch.from_numpy(np.stack(images)), task_info_of(record), device)
    network = Calibrated(restore_network(packed, task)[0].to(device), record.temperature)
    with torch.no_grad():
        predictions = network(batch).argmax(dim=1).to(torch.uint8).cpu().numpy()
    return Examples(record.classes, np.stack(images), np.stack(masks), predictions)
