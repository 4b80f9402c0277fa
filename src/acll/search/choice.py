"""What a search asks of a score."""

import numpy as np


def holds(score: float, threshold: float) -> bool:
    """Return whether a score reaches the threshold, but for rounding."""
    return score >= threshold - 1e-12


def tolerance_of(standard_error: float, z: float, lowest: float, highest: float) -> float:
    """Return how far below the reference a score may lie.

    That is z standard errors, within bounds (the one-standard-error rule).
    """
    return float(np.clip(z * standard_error, lowest, highest))
