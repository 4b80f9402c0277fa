"""The rule that turns trials into a kept share, and how sure it is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

CHOICE_RESAMPLES = 400
COVERAGE = 0.9  # of the interval

Floats = NDArray[np.float64]


def tolerance_of(standard_error: float, z: float, lowest: float, highest: float) -> float:
    """How far below the reference a score may lie: z standard errors, within bounds (the
    one-standard-error rule)."""
    return float(np.clip(z * standard_error, lowest, highest))


def monotone_fit(kept: Sequence[float], scores: Sequence[float]) -> tuple[Floats, Floats]:
    """Score against kept share, monotone up to noise: (distinct kept shares, ascending; fitted
    scores).

    Weighted isotonic regression; trials of the same kept share are averaged and weigh as many as
    they are.
    """
    shares, members = np.unique(np.asarray(kept, float), return_inverse=True)
    weights = np.bincount(members).astype(float)
    means = np.bincount(members, weights=np.asarray(scores, float)) / weights
    return shares, np.asarray(isotonic_regression(means, weights=weights, increasing=True).x)


def crossing(kept: Sequence[float], scores: Sequence[float], threshold: float) -> float:
    """The smallest kept share at which the fit reaches the threshold; the largest tried where it
    never does.

    Between neighbours the fit is linear in the log of the share. All trials must have had the same
    retraining. Read off the fit of all together, never off one lucky trial.
    """
    shares, fitted = monotone_fit(kept, scores)
    passing = np.flatnonzero(fitted >= threshold - 1e-12)
    if len(passing) == 0:
        return float(shares[-1])
    first = passing[0]
    if first == 0:
        return float(shares[0])
    return float(
        np.exp(
            np.interp(
                threshold, fitted[first - 1 : first + 1], np.log(shares[first - 1 : first + 1])
            )
        )
    )


def crossing_below_top(kept: Sequence[float], scores: Sequence[float], tolerance: float) -> float:
    """Where the fit is `tolerance` below its value at the largest share: brief retraining makes
    single references unreliable, the fit pools them with their neighbours."""
    return crossing(kept, scores, float(monotone_fit(kept, scores)[1][-1]) - tolerance)


def ratio_interval(
    kept: Sequence[float], scores: Sequence[float], threshold: float, noise: float, seed: int
) -> tuple[float, float]:
    """Between which kept shares the smallest one that holds lies, with a probability of about
    COVERAGE.

    kept, scores: the trials with full retraining; noise: the deviation of the score of one
    training. A parametric bootstrap: each resample adds noise to all scores and to the threshold,
    and draws from between the smallest share that then holds and the largest below it that does not
    (half of it, where there is none).
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(kept)
    shares, values = (
        np.append(np.asarray(kept, float)[order], 1.0),
        np.append(np.asarray(scores, float)[order], np.inf),
    )
    found = []
    for _ in range(CHOICE_RESAMPLES):
        added = noise * generator.standard_normal(len(values) + 1)
        first = int(np.flatnonzero(values + added[:-1] >= threshold + added[-1])[0])
        below = shares[first - 1] if first else shares[0] / 2
        found.append(np.exp(generator.uniform(np.log(below), np.log(shares[first]))))
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def residuals_of(kept: Sequence[float], scores: Sequence[float]) -> Floats:
    """What the fit leaves of each score: [number of scores]."""
    shares, fitted = monotone_fit(kept, scores)
    found: Floats = (
        np.asarray(scores, float) - fitted[np.searchsorted(shares, np.asarray(kept, float))]
    )
    return found
