"""Layers of different size: which share of each is kept where a share of all weights is."""

import math
from collections.abc import Mapping

LARGEST_SHARE = 0.5  # of a layer, so that one task does not take all of it


def layer_shares(free: Mapping[str, int], share: float) -> dict[str, float]:
    """Return which share of the free weights of each layer is kept, where `share` is of all.

    Of n free weights a layer keeps c √n, but never more than half; c is such that all layers
    together keep that share. So small layers, through which everything passes, keep a larger share
    than large ones, much as in Erdős–Rényi networks (Mocanu et al. 2018; Evci et al., ICML 2020).
    Of a half or more, each layer keeps the same share. free: of each layer, how many weights.
    """
    # just below a half the difference that is left would be of rounding alone
    half_or_more = share > LARGEST_SHARE or math.isclose(share, LARGEST_SHARE)
    if half_or_more or not any(free.values()):
        return dict.fromkeys(free, share)
    left = share * sum(free.values())
    roots = sum(map(math.sqrt, free.values()))
    for count in sorted(free.values()):  # small layers keep half, larger ones what is left
        if left / roots < LARGEST_SHARE * math.sqrt(count):
            break
        left, roots = left - LARGEST_SHARE * count, roots - math.sqrt(count)
    return {
        name: min(LARGEST_SHARE, left / roots / math.sqrt(count)) if count else share
        for name, count in free.items()
    }
