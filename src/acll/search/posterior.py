"""Where the smallest share that holds may lie, as far as the trials tell.

The score of a kept share k is taken to be top − drop · (answer / k)^slope: a plateau, and below it
a power law. At the answer it is the threshold, so that top = threshold + drop. Answer, drop and
slope lie on a grid; the posterior is computed on the whole of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9  # of the interval
# Before any trial the answer is about `expected_share`, up to this factor either way (one standard
# deviation); docs/search.md says where from.
PRIOR_FACTOR = 2.5
DROPS = (0.5, 1.0, 2.0, 4.0)  # of the plateau above the threshold, in tolerances
SLOPES = (0.7, 1.0, 1.5, 2.2, 3.0)
FAILED_SPREAD = 0.25  # how uncertain a score that failed is, in what it lacks to the threshold
POINTS = 400  # of the grid of answers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """The probability of each answer. shares: ascending; beyond 1 not even all weights hold."""

    shares: Floats
    probability: Floats

    def quantile(self, share: float, low: float = 0.0, high: float = math.inf) -> float:
        """Return the answer below which this share of the probability between two bounds lies."""
        inside = (self.shares > low) & (self.shares < high)
        total = np.cumsum(np.where(inside, self.probability, 0.0))
        if total[-1] <= 0:  # no answer between the bounds is likely at all: their middle
            return math.sqrt(max(low, self.shares[0]) * min(high, self.shares[-1]))
        return float(self.shares[np.searchsorted(total, share * total[-1])])

    def interval(self) -> tuple[float, float]:
        """Return the bounds between which the answer lies with a probability of COVERAGE."""
        return self.quantile((1 - COVERAGE) / 2), self.quantile((1 + COVERAGE) / 2)


def posterior(
    kept: Sequence[float],
    scores: Sequence[float],
    threshold: float,
    tolerance: float,
    noise: float,
    expected: float,
    lowest: float,
) -> Posterior:
    """Return the posterior of the smallest share that holds.

    kept, scores: the trials. One that failed may have ended early: its score may be wrong by
    half of what it lacks. noise: standard deviation of the score of one training. expected: the
    share before any trial. lowest: the smallest that may be tried.
    """
    shares = np.exp(np.linspace(math.log(lowest / 4), math.log(4.0), POINTS))
    log_prior = -0.5 * (np.log(shares / expected) / math.log(PRIOR_FACTOR)) ** 2
    answer = shares[:, None, None]
    drop = tolerance * np.array(DROPS)[None, :, None]
    slope = np.array(SLOPES)[None, None, :]
    log_likelihood = np.zeros((POINTS, len(DROPS), len(SLOPES)))
    for share, score in zip(kept, scores, strict=True):
        expected_score = threshold + drop * (1 - (answer / share) ** slope)
        spread = max(noise, (threshold - score) * FAILED_SPREAD)
        log_likelihood += -0.5 * ((score - expected_score) / spread) ** 2
    log_likelihood += log_prior[:, None, None]
    weights = np.exp(log_likelihood - log_likelihood.max()).sum(axis=(1, 2))
    return Posterior(shares, weights / weights.sum())
