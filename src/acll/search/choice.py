"""The rule that turns trials into a kept share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression


def tolerance_of(standard_error: float, z: float, lowest: float, highest: float) -> float:
    """How far below the reference a score may lie: z standard errors, within bounds (the one-standard-error rule)."""
    return float(np.clip(z * standard_error, lowest, highest))


def monotone_fit(kept: Sequence[float], scores: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score against kept share, monotone up to noise: (distinct kept shares, ascending; fitted scores).

    Weighted isotonic regression; trials of the same kept share are averaged and weigh as many as they are.
    """
    shares, members = np.unique(np.asarray(kept, float), return_inverse=True)
    weights = np.bincount(members).astype(float)
    means = np.bincount(members, weights=np.asarray(scores, float)) / weights
    return shares, np.asarray(isotonic_regression(means, weights=weights, increasing=True).x)


def smallest_share(kept: Sequence[float], scores: Sequence[float], threshold: float) -> float:
    """The smallest tried kept share from which on the fit reaches the threshold; 1 where none does.

    All trials must have had the same retraining, and the reference (kept share 1) is one of them. Read off the fit of
    all trials together, never off one lucky trial.
    """
    shares, fitted = monotone_fit(kept, scores)
    passing = shares[fitted >= threshold - 1e-12]
    return float(passing[0]) if len(passing) else 1.0
