"""What is searched: the kept share of all free weights and, with groups of layers, their scales.

A group's scale is a factor. The magnitudes of its weights are multiplied by it before all weights
are ranked together. For given scales everything depends on one number again, the kept share, and
larger shares keep whatever smaller ones keep. With all factors 1 it is the search without groups.
Searches and files hold the logarithms of the factors, `group_log_scale`.
"""

import math
from collections.abc import Mapping, Sequence

PARTS = {"encoder": 4, "decoder": 2}  # into how many groups, at most, by depth


def groups_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return groups of neighbouring tensors, `encoder_1` … by depth, of about equal number.

    names: of the tensors, in the order of the network.
    """
    found = {}
    for part, count in PARTS.items():
        own = [name for name in names if name.split(".")[0] == part]
        count = min(count, len(own))
        for number in range(count):
            members = own[number * len(own) // count : (number + 1) * len(own) // count]
            found[f"{part}_{number + 1}"] = tuple(members)
    return found


def factors_of(names: Sequence[str], group_log_scale: Mapping[str, float]) -> dict[str, float]:
    """Return the factor of each tensor.

    group_log_scale: for each group the logarithm of its factor; empty without groups, and then the
    result is empty, too.
    """
    if not group_log_scale:
        return {}
    factors: dict[str, float] = {}
    for group, members in groups_of(names).items():
        factors |= dict.fromkeys(members, math.exp(group_log_scale[group]))
    return factors
