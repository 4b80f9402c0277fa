"""What is searched: one kept share for all layers, or one for each group of them.

Groups are searched as a *shape*: how much more or less each keeps than the others. Along a shape everything depends
on one number again, the kept share of all free weights together, and larger shares keep whatever smaller ones keep.
"""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

PARTS = {"encoder": 4, "decoder": 2}  # into how many groups, at most, by depth


def groups_of(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Tensors in the order of the network → groups of neighbours: `encoder 1` … by depth, with about equally many."""
    found = {}
    for part, count in PARTS.items():
        own = [name for name in names if name.split(".")[0] == part]
        count = min(count, len(own))
        for number in range(count):
            members = own[number * len(own) // count : (number + 1) * len(own) // count]
            found[f"{part}_{number + 1}"] = tuple(members)
    return found


def kept_shares(sizes: Mapping[str, int], shape: Mapping[str, float], kept: float) -> dict[str, float]:
    """Each group's kept share, in proportion to exp(shape) up to 1, so that all together keep at most `kept`.

    sizes: number of free weights of each group; shape: log multipliers, 0 where a group is absent.
    """
    total = sum(sizes.values())
    multipliers = {group: math.exp(shape.get(group, 0.0)) for group in sizes}
    if kept >= 1 or total == 0:
        return dict.fromkeys(sizes, 1.0)

    def shares(scale: float) -> dict[str, float]:
        return {group: min(1.0, scale * multiplier) for group, multiplier in multipliers.items()}

    def share(scale: float) -> float:
        return sum(own * sizes[group] for group, own in shares(scale).items()) / total

    low, high = 0.0, 1 / min(multipliers.values())
    for _ in range(60):  # to the last bits of a float
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) <= kept else (low, middle)
    return shares(low)


def ratios_of(free: Mapping[str, Tensor], kept: float, shape: Mapping[str, float]) -> dict[str, float]:
    """The release ratio of each tensor. free: masks of the free weights, in the order of the network."""
    if not shape:
        return dict.fromkeys(free, 1 - kept)
    groups = groups_of(list(free))
    sizes = {group: sum(int(free[name].sum()) for name in names) for group, names in groups.items()}
    shares = kept_shares(sizes, shape, kept)
    return {name: 1 - shares[group] for group, names in groups.items() for name in names}
