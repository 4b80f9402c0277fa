"""What a network answers on a test split: counts of each class, and the samples it does worst on.

One pass over the split. What is kept of it is exact, and small whatever the number of samples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acll.data.batches import Split
from acll.data.prepared import TaskInfo
from acll.evaluation.examples import WORST
from acll.training.evaluate import confusions, outputs
from acll.training.metrics import mean_iou

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
    labels: the answers [N] of classification.
    """

    confusion: NDArray[np.int64]
    badness: NDArray[np.float64]
    labels: NDArray[np.int64] | None

    @property
    def score(self) -> float:
        """The accuracy, or the mean IoU."""
        if self.labels is None:
            return mean_iou(self.confusion)
        return float(np.trace(self.confusion) / self.confusion.sum())


def answers_of(network: nn.Module, split: Split, info: TaskInfo, device: torch.device) -> Answers:
    """Run a network over a split. Raises NotFiniteError."""
    classes = len(info.classes)
    total = np.zeros((classes, classes), np.int64)
    badness: list[NDArray[np.float64]] = []
    answers: list[NDArray[np.int64]] = []
    for logits, labels in outputs(network, split, info, device):
        predicted = logits.argmax(dim=1)
        if info.kind == "segmentation":
            matrices = confusions(predicted, labels, classes).cpu().numpy()
            total += matrices.sum(axis=0)
            badness.append(np.array([_badness(matrix) for matrix in matrices]))
        else:
            # a matrix for each sample would have one entry
            cells = (labels * classes + predicted).cpu().numpy()
            total += np.bincount(cells, minlength=classes**2).reshape(classes, classes)
            probability = logits.float().softmax(dim=1).amax(dim=1)
            wrong = torch.where(predicted == labels, 0.0, probability)
            badness.append(wrong.double().cpu().numpy())
            answers.append(predicted.cpu().numpy())
    of_classification = np.concatenate(answers) if answers else None
    return Answers(total, np.concatenate(badness), of_classification)


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
