"""What is searched: one number for the whole network, or a *shape* too, by which groups of layers
differ.

A shape has a factor for each group, by which the magnitudes of its weights count more than others
when all are ranked. Along a shape everything depends on one number again, the kept share of all
free weights together, and larger shares keep whatever smaller ones keep; with all factors 1 it is
the search without groups.
"""

import math
from collections.abc import Mapping, Sequence

PARTS = {"encoder": 4, "decoder": 2}  # into how many groups, at most, by depth


def groups_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Tensors in the order of the network → groups of neighbours: `encoder_1` … by depth, with
    about equally many."""
    found = {}
    for part, count in PARTS.items():
        own = [name for name in names if name.split(".")[0] == part]
        count = min(count, len(own))
        for number in range(count):
            members = own[number * len(own) // count : (number + 1) * len(own) // count]
            found[f"{part}_{number + 1}"] = tuple(members)
    return found


def factors_of(names: Sequence[str], shape: Mapping[str, float]) -> dict[str, float]:
    """The factor of each tensor. shape: the log of each group's factor; empty without groups."""
    if not shape:
        return {}
    return {
        name: math.exp(shape[group])
        for group, members in groups_of(names).items()
        for name in members
    }
