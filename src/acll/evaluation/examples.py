"""Predictions of a segmentation network on a few test images."""

from pathlib import Path

import numpy as np
import torch

from acll.data import prepared
from acll.data.batches import normalised
from acll.evaluation.masks import SHOWN, Examples
from acll.evaluation.pictures import spread
from acll.packing.ownership import Packed
from acll.serving.restore import header_of, restore


@torch.no_grad()
def examples(packed: Packed, task: str, test: Path, device: torch.device) -> Examples:
    """What the network makes of a few images, spread over the task's prepared test split; the same for all networks."""
    record = packed.record(task)
    images, masks, _ = prepared.some_samples(test, "test", spread(prepared.samples(test, "test"), SHOWN))
    batch = normalised(torch.from_numpy(np.stack(images)), header_of(record), device)
    network, _ = restore(packed, task)
    predictions = network.to(device)(batch).argmax(dim=1).to(torch.uint8).cpu().numpy()
    return Examples(record.classes, np.stack(images), np.stack(masks), predictions)
