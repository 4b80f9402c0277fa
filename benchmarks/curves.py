"""What benchmarks read off curves of scores against kept shares."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression


def crossing(shares: Sequence[float], scores: Sequence[float], threshold: float) -> float:
    """Return the share from which on scores reach the threshold.

    Scores are fitted by a monotone curve, which is linear in the log of the share. shares:
    distinct; scores: of each.
    """
    order = np.argsort(shares)
    ascending = np.asarray(shares, float)[order]
    fitted = np.asarray(isotonic_regression(np.asarray(scores, float)[order]).x)
    passing = np.flatnonzero(fitted >= threshold - 1e-12)
    if len(passing) == 0:
        return float(ascending[-1])
    first = passing[0]
    if first == 0:
        return float(ascending[0])
    around = slice(first - 1, first + 1)  # the last that fails and the first that passes
    return float(np.exp(np.interp(threshold, fitted[around], np.log(ascending[around]))))
