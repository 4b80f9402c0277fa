"""Scores and their standard errors; all are shares in [0, 1], higher is better."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acll.settings import Kind

METRIC: dict[Kind, str] = {"classification": "accuracy", "segmentation": "mean_iou"}
RESAMPLES = 200


@dataclass(frozen=True)
class EvalResult:
    """What a network did on a split: for each image a confusion matrix [N, C, C], rows truth,
    columns prediction.

    For classification the matrix of an image has one entry, so counts suffice: `correct` [N] and no
    matrices.
    """

    kind: Kind
    correct: NDArray[np.bool_] | None = None
    confusion: NDArray[np.int64] | None = None


def score(result: EvalResult) -> float:
    """Accuracy, or mean intersection over union from summed confusion matrices, over the classes
    that are present."""
    if result.correct is not None:
        return float(result.correct.mean())
    assert result.confusion is not None
    return mean_iou(result.confusion.sum(axis=0))


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean IoU from a matrix [C, C] (rows truth) over the classes that occur in the truth; 0 where
    none does."""
    hit = np.diag(confusion).astype(float)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    present = truth > 0
    return (
        float((hit[present] / (truth + predicted - hit)[present]).mean()) if present.any() else 0.0
    )


def standard_error(result: EvalResult, seed: int) -> float:
    """Of the score: binomial for accuracy; for mean IoU by a seeded bootstrap over images, not
    pixels."""
    if result.correct is not None:
        share = result.correct.mean()
        return float(np.sqrt(share * (1 - share) / len(result.correct)))
    assert result.confusion is not None
    generator = np.random.default_rng(seed)
    count = len(result.confusion)
    # how often each image is drawn, at once for all resamples: [RESAMPLES, N] @ [N, C·C]
    draws = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    sums = (draws @ result.confusion.reshape(count, -1)).reshape(
        RESAMPLES, *result.confusion.shape[1:]
    )
    return float(np.std([mean_iou(matrix) for matrix in sums], ddof=1))
