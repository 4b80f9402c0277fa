"""Figures of a run, from its matrix of scores, and intervals over runs; docs/metrics.md has
definitions and sources.

A matrix [T, T] has in row i and column j the score of task j after i + 1 tasks were learned: NaN
above the diagonal, and where a method has no network after so few.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Matrix = NDArray[np.float64]


def forgetting(scores: Matrix) -> float:
    """Mean over all tasks but the last of the best score so far less that at the end (Chaudhry et
    al. 2018, eq. 3).

    0 for a single task. NaN where scores are missing.
    """
    earlier = scores[:-1, :-1]
    lost = [earlier[task:, task].max() - scores[-1, task] for task in range(len(earlier))]
    return float(np.mean(lost)) if lost else 0.0


def backward_transfer(scores: Matrix) -> float:
    """Mean over all tasks but the last of the score at the end less that when learned (Lopez-Paz &
    Ranzato 2017)."""
    change = (scores[-1] - np.diag(scores))[:-1]
    return float(change.mean()) if len(change) else 0.0


def intransigence(scores: Matrix, alone: Matrix) -> float:
    """Mean over tasks of the score of a network of the task's own [T] less that when learned in its
    turn (Chaudhry et al. 2018, eq. 5, with individual networks in place of joint training)."""
    return float((alone - np.diag(scores)).mean())


def forward_transfer(curves: Sequence[Sequence[float]], alone: Sequence[Sequence[float]]) -> float:
    """How much faster tasks are learned for what was learned before: mean over all tasks but the
    first of (A − B) / (1 − B), A and B being the mean of the learning curve of the task in its
    turn, and alone (Wołczyk et al. 2021). NaN where a curve is missing, or perfect from the start
    alone."""
    gains = []
    for own, reference in zip(curves[1:], alone[1:], strict=True):
        if not own or not reference or np.mean(reference) == 1:
            return float("nan")
        gains.append((np.mean(own) - np.mean(reference)) / (1 - np.mean(reference)))
    return float(np.mean(gains)) if gains else 0.0


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, lower, upper) of the 95% interval of the mean by Student's t.

    NaN bounds for fewer than two values.
    """
    sample = np.asarray(values, float)
    mean = float(sample.mean()) if len(sample) else float("nan")
    if len(sample) < 2:
        return mean, float("nan"), float("nan")
    half = float(stdtrit(len(sample) - 1, 0.975) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return mean, mean - half, mean + half
