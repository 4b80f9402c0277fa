"""Losses for both kinds of task, and weights for unbalanced classes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acll.data.prepared import IGNORE
from acll.settings import Kind
from acll.training.settings import Batches

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(kind: Kind, settings: Batches, weights: Tensor | None) -> Loss:
    """Return the loss of logits [N, C, …] and labels [N, …]; ignored pixels count nothing. weights:
    [C] or None."""
    # a classification task may have 256 classes or more
    ignored = IGNORE if kind == "segmentation" else -1

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        if kind == "segmentation" and logits.is_cuda:
            return repeatable_cross_entropy(logits, labels, weights, settings.label_smoothing)
        # a batch of ignored pixels alone has a mean over nothing: no loss then, rather than NaN
        if kind == "segmentation" and not bool((labels != ignored).any()):
            return logits.sum() * 0.0
        return F.cross_entropy(
            logits,
            labels,
            weight=weights,
            ignore_index=ignored,
            label_smoothing=settings.label_smoothing,
        )

    if kind == "classification" or settings.loss == "cross_entropy":
        return cross_entropy
    from segmentation_models_pytorch.losses import DiceLoss

    dice = DiceLoss(mode="multiclass", ignore_index=IGNORE)
    if settings.loss == "dice":
        return lambda logits, labels: dice(logits, labels)
    if settings.loss == "cross_entropy_dice":
        return lambda logits, labels: cross_entropy(logits, labels) + dice(logits, labels)
    raise ValueError(f"there is no loss {settings.loss!r}")


def repeatable_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Return the cross-entropy of masks, with the same bits each time on a GPU, too.

    PyTorch's own adds up pixels there in any order. None of this waits for the GPU. Ignored pixels
    alone give 0.
    """
    each = F.cross_entropy(
        logits,
        labels,
        weight=weights,
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    valid = labels != IGNORE
    counts = valid if weights is None else weights[torch.where(valid, labels, 0)] * valid
    total = counts.sum()
    return each.sum() / torch.where(total > 0, total, 1)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return weights [classes]: the inverse root of each class's frequency in the training split.

    Their mean over the classes that are present is 1; those that are not have 0.
    """
    # no ignored ones
    counts = torch.bincount(labels[labels < classes].long().flatten(), minlength=classes).double()
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    return (weights / weights[counts > 0].mean()).float()
