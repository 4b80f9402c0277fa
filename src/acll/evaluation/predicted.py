"""What a segmentation network makes of a few test images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from acll.data import prepared
from acll.data.batches import normalised
from acll.evaluation.examples import Examples
from acll.evaluation.spread import spread
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed

SHOWN = 3  # images


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


def _predicted(packed: Packed, task: str, test: Path, device: torch.device) -> Examples:
    record = packed.record(task)
    images, masks, _ = prepared.some_samples(
        test, "test", spread(prepared.sample_count(test, "test"), SHOWN)
    )
    batch = normalised(torch.from_numpy(np.stack(images)), task_info_of(record), device)
    network, _ = restore_network(packed, task)
    with torch.no_grad():
        predictions = network.to(device)(batch).argmax(dim=1).to(torch.uint8).cpu().numpy()
    return Examples(record.classes, np.stack(images), np.stack(masks), predictions)
