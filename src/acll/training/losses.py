"""Losses for both kinds of task, and weights for unbalanced classes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acll import plugins
from acll.data.prepared import IGNORE
from acll.settings import Kind
from acll.training.settings import LOSSES, Batches

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(kind: Kind, settings: Batches, weights: Tensor | None) -> Loss:
    """Return the loss of logits [N, C, …] and labels [N, …]; ignored pixels count nothing. weights:
    [C] or None.

    Classification also takes shares of classes [N, C] for labels, as mixup and CutMix make them.
    """
    if settings.loss is not None and settings.loss not in LOSSES:
        return plugins.loss_with(settings.loss, weights)
    cross_entropy = _cross_entropy(kind, weights, settings.label_smoothing)
    if kind == "classification" or settings.loss == "cross_entropy":
        return cross_entropy
    if settings.loss == "focal":
        return lambda logits, labels: focal(logits, labels, weights)
    if settings.loss == "lovasz":
        return _lovasz()
    from segmentation_models_pytorch.losses import DiceLoss, TverskyLoss

    if settings.loss == "tversky":
        tversky = TverskyLoss(mode="multiclass", ignore_index=IGNORE, alpha=0.3, beta=0.7)
        return lambda logits, labels: tversky(logits, labels)
    dice = DiceLoss(mode="multiclass", ignore_index=IGNORE)
    if settings.loss == "dice":
        return lambda logits, labels: dice(logits, labels)
    if settings.loss == "cross_entropy_dice":
        return lambda logits, labels: cross_entropy(logits, labels) + dice(logits, labels)
    raise ValueError(f"there is no loss {settings.loss!r}")


def _cross_entropy(kind: Kind, weights: Tensor | None, label_smoothing: float) -> Loss:
    # a classification task may have 256 classes or more
    ignored = IGNORE if kind == "segmentation" else -1

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return soft_cross_entropy(logits, labels, weights, label_smoothing)
        if kind == "segmentation" and logits.is_cuda:
            return repeatable_cross_entropy(logits, labels, weights, label_smoothing)
        # a batch of ignored pixels alone has a mean over nothing: no loss then, rather than NaN
        if kind == "segmentation" and not bool((labels != ignored).any()):
            return logits.sum() * 0.0
        return F.cross_entropy(
            logits, labels, weight=weights, ignore_index=ignored, label_smoothing=label_smoothing
        )

    return loss


def _lovasz() -> Loss:
    """Return the Lovász-Softmax loss over a batch; ignored pixels alone give 0.

    Berman, Rannen Triki & Blaschko, CVPR 2018, of the classes that the batch has.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    lovasz = LovaszLoss(mode="multiclass", ignore_index=IGNORE)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        # the library's would be no number then, but a tensor without any
        if not bool((labels != IGNORE).any()):
            return logits.sum() * 0.0
        value: Tensor = lovasz(logits, labels)
        return value

    return loss


def soft_cross_entropy(
    logits: Tensor, shares: Tensor, weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Return the cross-entropy to shares of classes [N, C]; of one class alone, that of its label.

    PyTorch's own divides by the number of samples, whatever the weights of their classes.
    """
    each = F.cross_entropy(
        logits, shares, weight=weights, reduction="none", label_smoothing=label_smoothing
    )
    return each.sum() / (shares if weights is None else shares * weights).sum()


def focal(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the focal loss of masks with power 2; ignored pixels alone give 0.

    Pixels that are right already count little. Lin et al., "Focal Loss for Dense Object Detection",
    ICCV 2017, equation 4; its α are our class weights.
    """
    each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    counts = valid if weights is None else weights[torch.where(valid, labels, 0)] * valid
    total = counts.sum()
    return ((1 - torch.exp(-each)).square() * each * counts).sum() / torch.where(
        total > 0, total, 1
    )


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
