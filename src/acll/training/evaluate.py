"""What a network does on a split."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from acll.data.batches import Split, evaluation_batches
from acll.data.prepared import IGNORE, TaskInfo
from acll.errors import UserError
from acll.settings import METRICS, MetricName
from acll.training.metrics import EvalResult

# of the diagonal of an image: how far a boundary may be off (Csurka et al. 2013)
_TOLERANCE = 0.0075


class NotFiniteError(UserError):
    """What a network gives is not finite, so that the largest value means nothing."""


@torch.no_grad()
def evaluated(
    network: nn.Module,
    split: Split,
    header: TaskInfo,
    device: torch.device,
    metric: MetricName | None = None,
) -> EvalResult:
    """Run the network, in evaluation mode, over a split in order; return what it did.

    metric: None: the usual one of the kind. Raises NotFiniteError.
    """
    metric = metric or METRICS[header.kind][0]
    classes = len(header.classes)
    results = []
    for logits, labels in outputs(network, split, header, device):
        predictions = logits.argmax(dim=1)
        if header.kind == "classification":
            results.append(labels * classes + predictions)
        elif metric == "boundary_f1":
            results.append(boundaries(predictions, labels, classes))
        else:
            results.append(confusions(predictions, labels, classes))
    together = torch.cat(results).cpu().numpy()
    if header.kind == "classification":
        return EvalResult(metric, classes, cells=together)
    counts = together if split.tile_image_index is None else _stitched(together, split)
    return EvalResult(metric, classes, counts=counts)


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


def boundaries(predictions: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return counts int64 [B, C, 4] of the boundary pixels of predictions and labels [B, H, W].

    The columns are those of `acll.training.metrics`. A pixel is on the boundary of its class where
    one of its eight neighbours is of another; ignored pixels, and what lies outside of the image,
    are of no class. Near is what is no farther off, in rows and in columns, than a share of the
    diagonal, and one pixel at least.
    """
    height, width = labels.shape[1:]
    tolerance = max(1, round(_TOLERANCE * (height**2 + width**2) ** 0.5))
    valid = labels != IGNORE
    counts = torch.zeros(len(labels), classes, 4, dtype=torch.int64, device=labels.device)

    def edge(masks: torch.Tensor) -> torch.Tensor:
        return masks & _near(~masks & valid, 1)

    # class by class: all at once would take more memory than the network
    for one in torch.unique(torch.stack([predictions, labels])[:, valid]).tolist():
        predicted, truth = (edge((masks == one) & valid) for masks in (predictions, labels))
        counted = (
            predicted & _near(truth, tolerance),
            predicted,
            truth & _near(predicted, tolerance),
            truth,
        )
        counts[:, one] = torch.stack([part.sum(dim=(1, 2)) for part in counted], dim=1)
    return counts


def _near(masks: torch.Tensor, distance: int) -> torch.Tensor:
    """Return which pixels are at most so far from one that is set, in rows and in columns.

    masks: bool [B, H, W].
    """
    for axis in (1, 2):
        near = masks.clone()
        for off in range(1, min(distance, masks.shape[axis] - 1) + 1):
            rest = masks.shape[axis] - off
            near.narrow(axis, off, rest).logical_or_(masks.narrow(axis, 0, rest))
            near.narrow(axis, 0, rest).logical_or_(masks.narrow(axis, off, rest))
        masks = near
    return masks
