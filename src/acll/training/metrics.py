"""Scores and their standard errors; all are shares in [0, 1], higher is better."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acll.settings import Kind

METRIC: dict[Kind, str] = {"classification": "accuracy", "segmentation": "mean_iou"}
RESAMPLES = 200


@dataclass(frozen=True)
class EvalResult:
    """What a network did on a split.

    confusion: a matrix for each image [N, C, C]; rows are truth, columns predictions. correct: for
    classification [N], whether each image was right; its matrices would have one entry each.
    """

    kind: Kind
    correct: NDArray[np.bool_] | None = None
    confusion: NDArray[np.int64] | None = None


def score(result: EvalResult) -> float:
    """Return the accuracy, or the mean IoU of the summed confusion matrices."""
    if result.correct is not None:
        return float(result.correct.mean())
    assert result.confusion is not None
    return mean_iou(result.confusion.sum(axis=0))


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Return the mean intersection over union of a confusion matrix [C, C]; its rows are truth.

    The mean is over the classes that occur in the truth; it is 0 where none does.
    """
    hit = np.diag(confusion).astype(float)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    present = truth > 0
    if not present.any():
        return 0.0
    union = truth + predicted - hit
    return float((hit[present] / union[present]).mean())


def standard_error(result: EvalResult, seed: int) -> float:
    """Return the standard error of the score.

    For accuracy it is the standard deviation of the posterior from Jeffreys' prior, which is above
    0 where all images are right, too. For mean IoU it is that of a seeded bootstrap over images.
    """
    if result.correct is not None:
        count = len(result.correct)
        share = (result.correct.sum() + 0.5) / (count + 1)
        return float(np.sqrt(share * (1 - share) / (count + 2)))
    assert result.confusion is not None
    generator = np.random.default_rng(seed)
    count = len(result.confusion)
    # how often each image is drawn, at once for all resamples: [RESAMPLES, N] @ [N, C·C]
    draws = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    sums = draws @ result.confusion.reshape(count, -1)
    matrices = sums.reshape(RESAMPLES, *result.confusion.shape[1:])
    return float(np.std([mean_iou(matrix) for matrix in matrices], ddof=1))
