"""What the answers of a network are measured by, beside the metric of the task.

All of them are told of each task. docs/metrics.md has the definitions. Higher is better, but for
`calibration_error`.
"""

import numpy as np
from numpy.typing import NDArray

from acll.settings import METRICS, Kind
from acll.training.metrics import Counts, value_of

TOP = 5
BINS = 15  # of confidence, for the calibration error
MOST_PROBABILITIES = 2**26  # that are kept of a split, 256 MiB: above it, no area under a curve
MEASURES: dict[Kind, tuple[str, ...]] = {
    "classification": (
        *METRICS["classification"],
        f"top_{TOP}",
        *("roc_auc", "average_precision", "calibration_error"),
    ),
    "segmentation": METRICS["segmentation"],
}


def of_classes(confusion: Counts) -> dict[str, float]:
    """Return what a confusion matrix of classification [C, C] tells. Its rows are the truth."""
    return {name: value_of(name, confusion) for name in METRICS["classification"]}


def of_masks(confusion: Counts, boundary: Counts | None) -> dict[str, float]:
    """Return what counts of pixels tell.

    confusion: [C, C]; boundary: [C, 4], None where there are tiles, which cut boundaries.
    """
    found: dict[str, float] = {}
    for name in METRICS["segmentation"]:
        counts = boundary if name == "boundary_f1" else confusion
        if counts is not None:
            found[name] = value_of(name, counts)
    return found


def of_probabilities(truth: NDArray[np.int64], sure: NDArray[np.float32]) -> dict[str, float]:
    """Return areas under curves: the means over classes that some images have and others do not.

    Each class against all others. truth: [N]; sure: the probability of each class, or its logarithm
    [N, C]. Empty where there is no such class.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    present = np.bincount(truth, minlength=sure.shape[1])
    told = np.flatnonzero((present > 0) & (present < len(truth)))
    if not len(told):
        return {}
    pairs = [(truth == one, sure[:, one]) for one in told]
    return {
        "roc_auc": float(np.mean([roc_auc_score(*pair) for pair in pairs])),
        "average_precision": float(np.mean([average_precision_score(*pair) for pair in pairs])),
    }


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error.

    The mean over `BINS` equal ranges of confidence of how far the share of right answers is from
    the mean confidence, weighed by the answers in them. confidence: the largest probability of each
    image [N]; right: whether its answer is. Guo, Pleiss, Sun & Weinberger, "On Calibration of
    Modern Neural Networks", ICML 2017, equation 3.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    surplus = np.bincount(bins, confidence - right, minlength=BINS)
    return float(np.abs(surplus).sum() / len(right))
