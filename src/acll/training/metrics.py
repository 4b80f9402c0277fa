"""Scores and their standard errors; all are shares in [0, 1], higher is better.

Each is a value of counts that are added up over the images of a split: a confusion matrix [C, C],
whose rows are truth and whose columns are predictions, or counts of boundary pixels [C, 4].
docs/metrics.md has the definitions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acll import plugins
from acll.settings import MetricName

RESAMPLES = 200
# columns of counts of boundary pixels: of the prediction those near one of the truth, and all; of
# the truth those near one of the prediction, and all
NEAR_TRUTH, PREDICTED, NEAR_PREDICTION, TRUTH = range(4)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class EvalResult:
    """What a network did on a split.

    cells: of classification, for each image the cell of the confusion matrix that it counts in,
    truth · classes + prediction [N]; a matrix for each would have one entry. counts: of
    segmentation, for each image its confusion matrix [N, C, C] or, for `boundary_f1`, its boundary
    pixels [N, C, 4].
    """

    metric: MetricName
    classes: int
    cells: NDArray[np.int64] | None = None
    counts: Counts | None = None


def score(result: EvalResult) -> float:
    """Return the value of the metric over all images together."""
    if result.counts is not None:
        return value_of(result.metric, result.counts.sum(axis=0))
    return value_of(result.metric, _matrix(result))


def _matrix(result: EvalResult, weights: NDArray[np.int64] | None = None) -> Counts:
    """Return the confusion matrix of classification. weights: how often each image counts [N]."""
    assert result.cells is not None
    size = result.classes
    counts = np.bincount(result.cells, weights, minlength=size**2)
    return counts.astype(np.int64).reshape(size, size)


def value_of(metric: MetricName, counts: Counts) -> float:
    """Return the value of a metric. counts: of all images together; see the head of the module.

    Raises PluginError for a metric that is not known here.
    """
    known = _VALUES.get(metric)
    return known(counts) if known is not None else plugins.metric_value(metric, counts)


def share_right(confusion: Counts) -> float:
    """Return the accuracy, of images or of pixels; 0 where there are none."""
    return float(np.trace(confusion) / max(confusion.sum(), 1))


def mean_recall(confusion: Counts) -> float:
    """Return the balanced accuracy: the mean of the recalls of classes that occur in the truth."""
    truth = confusion.sum(axis=1)
    return _mean(np.diag(confusion), truth, truth > 0)


def macro_f1(confusion: Counts) -> float:
    """Return the mean F1 score of the classes that occur in the truth or are predicted."""
    both = confusion.sum(axis=1) + confusion.sum(axis=0)
    return _mean(2 * np.diag(confusion), both, both > 0)


def mean_iou(confusion: Counts) -> float:
    """Return the mean intersection over union of the classes that occur in the truth.

    It is 0 where none does.
    """
    hit = np.diag(confusion)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return _mean(hit, truth + predicted - hit, truth > 0)


def mean_dice(confusion: Counts) -> float:
    """Return the mean Dice coefficient, which is an F1 score, of the classes in the truth."""
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    return _mean(2 * np.diag(confusion), truth + predicted, truth > 0)


def boundary_f1(boundary: Counts) -> float:
    """Return the mean boundary F1 score of the classes that have a boundary in the truth.

    boundary: [C, 4]. Csurka, Larlus & Perronnin, "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013; precision and recall are those of all images together.
    """
    present = boundary[:, TRUTH] > 0
    of_class = boundary.astype(float)
    precision = of_class[:, NEAR_TRUTH] / np.maximum(of_class[:, PREDICTED], 1)
    recall = of_class[:, NEAR_PREDICTION] / np.maximum(of_class[:, TRUTH], 1)
    both = np.maximum(precision + recall, np.finfo(float).tiny)
    return _mean(2 * precision * recall, both, present)


def _mean(
    parts: NDArray[np.generic], wholes: NDArray[np.generic], which: NDArray[np.bool_]
) -> float:
    """Return the mean share of some classes; 0 where there are none."""
    if not which.any():
        return 0.0
    return float((parts[which].astype(float) / wholes[which]).mean())


_VALUES: dict[MetricName, Callable[[Counts], float]] = {
    "accuracy": share_right,
    "balanced_accuracy": mean_recall,
    "macro_f1": macro_f1,
    "mean_iou": mean_iou,
    "mean_dice": mean_dice,
    "pixel_accuracy": share_right,
    "boundary_f1": boundary_f1,
}


def standard_error(result: EvalResult, seed: int) -> float:
    """Return the standard error of the score.

    For accuracy it is the standard deviation of the posterior from Jeffreys' prior, which is above
    0 where all images are right, too; for balanced accuracy that of the mean of such recalls. For
    all others it is that of a seeded bootstrap over images; of macro F1 no less than that of the
    recalls.
    """
    if result.metric == "accuracy":
        matrix = _matrix(result)
        return float(np.sqrt(_variances(np.trace(matrix), matrix.sum())))
    if result.metric == "balanced_accuracy":
        return _error_of_recalls(_matrix(result))
    least = _error_of_recalls(_matrix(result)) if result.metric == "macro_f1" else 0.0
    generator = np.random.default_rng(seed)
    given = result.cells if result.counts is None else result.counts
    assert given is not None
    count = len(given)
    # how often each image is drawn [RESAMPLES, N]
    draws = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    if result.counts is None:
        values = [value_of(result.metric, _matrix(result, weights)) for weights in draws]
    else:  # at once for all resamples
        sums = draws @ result.counts.reshape(count, -1)
        drawn = sums.reshape(RESAMPLES, *result.counts.shape[1:])
        values = [value_of(result.metric, counts) for counts in drawn]
    return max(float(np.std(values, ddof=1)), least)


def _variances(right: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the variance of the posterior of each share that is right, from Jeffreys' prior."""
    shares: NDArray[np.float64] = (right + 0.5) / (counts + 1)
    return shares * (1 - shares) / (counts + 2)


def _error_of_recalls(confusion: Counts) -> float:
    """Return the standard error of the mean recall of the classes that occur in the truth."""
    truth = confusion.sum(axis=1)
    present = truth > 0
    variances = _variances(np.diag(confusion)[present], truth[present])
    return float(np.sqrt(variances.sum()) / max(present.sum(), 1))
