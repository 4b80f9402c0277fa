"""Figures of a run from its matrix of scores, and intervals over runs; see docs/metrics.md.

A matrix [T, T] has in row i and column j the score of task j after i + 1 tasks were learned: NaN
above the diagonal, and where a method has no network after so few.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

MASK_SAVING = 0.78  # share of the bits of masks that Huffman codes save (Kang et al. 2022)


def forgetting(scores: Matrix) -> float:
    """Return the mean forgetting of all tasks but the last (Chaudhry et al. 2018, eq. 3).

    That is the best score before the last task, less the score at the end. 0 for a single task; NaN
    where scores are missing.
    """
    earlier = scores[:-1, :-1]
    lost = [earlier[task:, task].max() - scores[-1, task] for task in range(len(earlier))]
    return float(np.mean(lost)) if lost else 0.0


def backward_transfer(scores: Matrix) -> float:
    """Return the mean change of all tasks but the last (Lopez-Paz & Ranzato 2017).

    That is the score at the end, less the score when learned. 0 for a single task.
    """
    change = (scores[-1] - np.diag(scores))[:-1]
    return float(change.mean()) if len(change) else 0.0


def intransigence(scores: Matrix, alone: Matrix) -> float:
    """Return the mean of the score of a task alone less its score when learned in its turn.

    alone: scores [T] of networks of the tasks' own. Chaudhry et al. 2018, eq. 5, with individual
    networks in place of joint training.
    """
    return float((alone - np.diag(scores)).mean())


def forward_transfer(curves: Sequence[Sequence[float]], alone: Sequence[Sequence[float]]) -> float:
    """Return how much faster tasks are learned for what was learned before (Wołczyk et al. 2021).

    That is the mean over all tasks but the first of (A − B) / (1 − B). A is the mean of the
    learning curve of the task in its turn, B that of the task alone. NaN where a curve is missing,
    or B is 1. curves, alone: for each task the score after each epoch.
    """
    gains = []
    for own, reference in zip(curves[1:], alone[1:], strict=True):
        if not own or not reference or np.mean(reference) == 1:
            return float("nan")
        gains.append((np.mean(own) - np.mean(reference)) / (1 - np.mean(reference)))
    return float(np.mean(gains)) if gains else 0.0


def capacity(used: float, masks: int) -> float:
    """Return what a network takes (Kang et al. 2022, WSN), in networks of 32-bit weights.

    used: share of its shared weights that some task uses. masks: how many tasks have a mask, of a
    bit for each of these weights.
    """
    return used + (1 - MASK_SAVING) * masks / 32


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (mean, low, high): the mean and its 95% interval by Student's t.

    The bounds are NaN for fewer than two values.
    """
    sample = np.asarray(values, float)
    mean = float(sample.mean()) if len(sample) else float("nan")
    if len(sample) < 2:
        return mean, float("nan"), float("nan")
    from scipy.special import stdtrit

    half = float(stdtrit(len(sample) - 1, 0.975) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return mean, mean - half, mean + half
