"""What a network does on a split."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from acll.data.batches import Split, evaluation_batches
from acll.data.prepared import IGNORE, TaskInfo
from acll.errors import UserError
from acll.settings import Kind
from acll.training.metrics import EvalResult


class NotFiniteError(UserError):
    """What a network gives is not finite, so that the largest value means nothing."""


@torch.no_grad()
def evaluated(
    network: nn.Module, split: Split, header: TaskInfo, device: torch.device
) -> EvalResult:
    """Run the network, in evaluation mode, over a split in order; return what it did.

    Raises NotFiniteError.
    """
    kind: Kind = header.kind
    results = []
    for logits, labels in outputs(network, split, header, device):
        predictions = logits.argmax(dim=1)
        if kind == "classification":
            results.append(predictions == labels)
        else:
            results.append(confusions(predictions, labels, len(header.classes)))
    together = torch.cat(results).cpu().numpy()
    if kind == "classification":
        return EvalResult(kind, correct=together)
    return EvalResult(
        kind, confusion=together if split.tile_image_index is None else _stitched(together, split)
    )


@torch.no_grad()
def outputs(
    network: nn.Module, split: Split, header: TaskInfo, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits [B, C, …] and labels [B, …] of a split in order, in evaluation mode.

    Raises NotFiniteError, after the last.
    """
    network.eval()
    # read once, at the end: to ask a GPU would let it wait for the next batch
    finite = torch.ones((), dtype=torch.bool, device=device)
    for images, labels in evaluation_batches(split, header, device):
        logits = network(images)
        finite &= torch.isfinite(logits).all()
        yield logits, labels
    if not finite:
        raise NotFiniteError(
            f"{header.name}: the network gives values that are not finite; it cannot be scored"
        )


def _stitched(confusion: np.ndarray, split: Split) -> np.ndarray:
    """Add up the matrices of tiles [N, C, C] to those of whole images.

    The parts for which the tiles of an image answer cover it once.
    """
    assert split.tile_image_index is not None
    matrices = np.zeros((split.image_count(), *confusion.shape[1:]), confusion.dtype)
    np.add.at(matrices, split.tile_image_index.numpy(), confusion)
    return matrices


def confusions(predictions: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return matrices int64 [B, C, C] of predictions and labels [B, H, W], less ignored pixels."""
    valid = labels != IGNORE
    image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1).expand_as(labels)
    cell = (image * classes + labels) * classes + predictions
    counts = torch.bincount(cell[valid], minlength=len(labels) * classes * classes)
    return counts.view(-1, classes, classes)
