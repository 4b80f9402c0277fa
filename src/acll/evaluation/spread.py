"""Which of many things are shown."""

import numpy as np


def spread(count: int, wanted: int) -> list[int]:
    """Return at most so many numbers below `count`, at about equal distances."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, wanted)).round()})
