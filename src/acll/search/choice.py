"""The rule that turns trials into a kept share, and how sure it is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

CHOICE_RESAMPLES = 400
COVERAGE = 0.9  # of the interval

Floats = NDArray[np.float64]


def holds(score: float, threshold: float) -> bool:
    """Return whether a score reaches the threshold, but for rounding."""
    return score >= threshold - 1e-12


def tolerance_of(standard_error: float, z: float, lowest: float, highest: float) -> float:
    """Return how far below the reference a score may lie.

    That is z standard errors, within bounds (the one-standard-error rule).
    """
    return float(np.clip(z * standard_error, lowest, highest))


def monotone_fit(kept: Sequence[float], scores: Sequence[float]) -> tuple[Floats, Floats]:
    """Fit a score that rises with the kept share; return (kept shares, fitted scores).

    The kept shares are distinct and ascending. Weighted isotonic regression: trials of the same
    share are averaged, and weigh as many as they are.
    """
    shares, members = np.unique(np.asarray(kept, float), return_inverse=True)
    weights = np.bincount(members).astype(float)
    means = np.bincount(members, weights=np.asarray(scores, float)) / weights
    return shares, np.asarray(isotonic_regression(means, weights=weights, increasing=True).x)


def crossing(kept: Sequence[float], scores: Sequence[float], threshold: float) -> float:
    """Return the smallest kept share at which the fit reaches the threshold.

    Where it never does, return the largest share that was tried. Between neighbours the fit is
    linear in the log of the share. All trials must have had the same length. The answer is read
    off the fit of all together, never off one lucky trial.
    """
    shares, fitted = monotone_fit(kept, scores)
    passing = np.flatnonzero(fitted >= threshold - 1e-12)
    if len(passing) == 0:
        return float(shares[-1])
    first = passing[0]
    if first == 0:
        return float(shares[0])
    around = slice(first - 1, first + 1)  # the last that fails and the first that passes
    return float(np.exp(np.interp(threshold, fitted[around], np.log(shares[around]))))


def crossing_below_top(kept: Sequence[float], scores: Sequence[float], tolerance: float) -> float:
    """Return the kept share at which the fit is `tolerance` below its value at the largest share.

    Short trials make a single reference unreliable; the fit averages it with its neighbours.
    """
    return crossing(kept, scores, top_of_fit(kept, scores) - tolerance)


def top_of_fit(kept: Sequence[float], scores: Sequence[float]) -> float:
    """Return the fitted score at the largest kept share."""
    return float(monotone_fit(kept, scores)[1][-1])


def ratio_interval(
    kept: Sequence[float], scores: Sequence[float], threshold: float, noise: float, seed: int
) -> tuple[float, float]:
    """Return the bounds between which the smallest kept share that holds lies.

    It does with a probability of about COVERAGE. kept, scores: the full trials.
    noise: standard deviation of the score of one training.

    A parametric bootstrap. Each resample adds noise to all scores and to the threshold. It draws
    from between the smallest share that then holds and the next smaller one, which does not (or
    half of the smallest, where there is no smaller one).
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(kept)
    # keeping everything holds, whatever the noise: without it a resample might have no answer
    shares = np.append(np.asarray(kept, float)[order], 1.0)
    values = np.append(np.asarray(scores, float)[order], np.inf)
    found = []
    for _ in range(CHOICE_RESAMPLES):
        added = noise * generator.standard_normal(len(values) + 1)
        first = int(np.flatnonzero(values + added[:-1] >= threshold + added[-1])[0])
        below = shares[first - 1] if first else shares[0] / 2
        found.append(np.exp(generator.uniform(np.log(below), np.log(shares[first]))))
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def residuals_of(kept: Sequence[float], scores: Sequence[float]) -> Floats:
    """Return the difference of each score from the fit: [number of scores]."""
    shares, fitted = monotone_fit(kept, scores)
    found: Floats = (
        np.asarray(scores, float) - fitted[np.searchsorted(shares, np.asarray(kept, float))]
    )
    return found
