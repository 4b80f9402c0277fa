"""What a network answers on a test split: counts of each class, and the samples it does worst on.

One pass over the split. What comes of it is exact, and small whatever the number of samples.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acll.data.batches import Split
from acll.data.prepared import TaskInfo
from acll.evaluation.examples import WORST
from acll.evaluation.measures import (
    MOST_PROBABILITIES,
    TOP,
    calibration_error,
    of_classes,
    of_masks,
    of_probabilities,
)
from acll.training.evaluate import boundaries, confusions, outputs
from acll.training.metrics import Counts, mean_iou

CONFUSED = 1024  # pairs of classes: all of them for 32 classes or fewer


@dataclass(frozen=True)
class ClassCounts:
    """How many samples (of segmentation: pixels) there are of a class.

    present: whose truth it is. predicted: that the network gives it. correct: both.
    """

    name: str
    present: int
    predicted: int
    correct: int


@dataclass(frozen=True)
class Answers:
    """What a network made of a split.

    confusion: of all samples together [C, C], or of all pixels that are not ignored; rows are the
    truth. badness: of each sample [N], from 0, which is right, to 1. For classification it is the
    probability of a wrong answer, for segmentation 1 − the mean IoU of the image (or tile).
    labels: the answers [N] of classification. measures: all that they are measured by, the metric
    of the task among it: see `acll.evaluation.measures`.
    """

    confusion: Counts
    badness: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    measures: Mapping[str, float]


def answers_of(network: nn.Module, split: Split, info: TaskInfo, device: torch.device) -> Answers:
    """Run a network over a split. Raises NotFiniteError."""
    given = outputs(network, split, info, device)
    if info.kind == "segmentation":
        return _of_masks(given, len(info.classes), whole=split.tile_image_index is None)
    return _of_classes(given, len(info.classes), len(split))


def _of_masks(
    given: Iterable[tuple[torch.Tensor, torch.Tensor]], classes: int, whole: bool
) -> Answers:
    """Return answers of segmentation. given: logits and labels; whole: of images, not of tiles."""
    total = np.zeros((classes, classes), np.int64)
    boundary = np.zeros((classes, 4), np.int64)
    badness = []
    for logits, labels in given:
        predicted = logits.argmax(dim=1)
        matrices = confusions(predicted, labels, classes).cpu().numpy()
        total += matrices.sum(axis=0)
        badness.append(np.array([_badness(matrix) for matrix in matrices]))
        if whole:
            boundary += boundaries(predicted, labels, classes).sum(dim=0).cpu().numpy()
    measured = of_masks(total, boundary if whole else None)
    return Answers(total, np.concatenate(badness), None, measured)


def _of_classes(
    given: Iterable[tuple[torch.Tensor, torch.Tensor]], classes: int, count: int
) -> Answers:
    """Return answers of classification. given: logits and labels of so many images."""
    keeps = count * classes <= MOST_PROBABILITIES
    truths, answers, confidences, tops, kept = [], [], [], [], []
    for logits, labels in given:
        each = logits.float().softmax(dim=1)
        truths.append(labels.cpu().numpy())
        answers.append(logits.argmax(dim=1).cpu().numpy())
        confidences.append(each.amax(dim=1).double().cpu().numpy())
        if classes > TOP:
            among = logits.topk(TOP).indices == labels.unsqueeze(1)
            tops.append(among.any(dim=1).cpu().numpy())
        if keeps:  # their logarithms tell apart what is all but certain
            kept.append(logits.double().log_softmax(dim=1).float().cpu().numpy())
    truth, answer, confidence = map(np.concatenate, (truths, answers, confidences))
    right = truth == answer
    cells = np.bincount(truth * classes + answer, minlength=classes**2)
    confusion = cells.reshape(classes, classes)
    measured = of_classes(confusion)
    measured |= {f"top_{TOP}": float(np.concatenate(tops).mean())} if tops else {}
    measured |= of_probabilities(truth, np.concatenate(kept)) if kept else {}
    measured["calibration_error"] = calibration_error(confidence, right)
    return Answers(confusion, np.where(right, 0.0, confidence), answer, measured)


def _badness(confusion: NDArray[np.int64]) -> float:
    """Return 1 − the mean IoU of an image; 0 where every pixel is ignored."""
    return 1 - mean_iou(confusion) if confusion.any() else 0.0


def class_counts(confusion: NDArray[np.int64], names: tuple[str, ...]) -> tuple[ClassCounts, ...]:
    """Return the counts of each class. confusion: [C, C]; rows are the truth."""
    rows = zip(
        names,
        confusion.sum(axis=1).tolist(),
        confusion.sum(axis=0).tolist(),
        np.diag(confusion).tolist(),
        strict=True,
    )
    return tuple(ClassCounts(*row) for row in rows)


def confused(confusion: NDArray[np.int64], most: int = CONFUSED) -> tuple[tuple[int, ...], ...]:
    """Return (truth, predicted, count) of the classes that are taken for each other most often.

    confusion: [C, C]; rows are the truth. The most frequent come first; equal ones in the order of
    their classes.
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    truth, predicted = np.nonzero(wrong)
    counts = wrong[truth, predicted]
    order = np.argsort(-counts, kind="stable")[:most]
    found: Any = np.stack([truth, predicted, counts], axis=1)[order].tolist()
    return tuple(map(tuple, found))


def worst(badness: NDArray[np.float64], most: int = WORST) -> list[int]:
    """Return the positions of the samples that are worst, worst first; none that is right.

    Of equal ones the first comes first.
    """
    order = np.argsort(-badness, kind="stable")[:most]
    return [int(index) for index in order if badness[index] > 0]
