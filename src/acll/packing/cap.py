"""Room for tasks to come: how much of what is free one task may own."""

LARGEST_CAP = 0.25  # unless an equal share is more; docs/search.md says where from


def equal_share(position: int, expected_tasks: int, tail_share: float) -> float:
    """Return the share of the free weights with which equal tasks share the network equally.

    position: t, 1 for the first task. expected_tasks: n. The share is 1 / (n − t + 1) while t < n.
    From task n on it is `tail_share`, so that room never runs out at once. It depends on the
    position alone, never on the length of a sequence: appending a task changes no earlier one.
    """
    return 1.0 / (expected_tasks - position + 1) if position < expected_tasks else tail_share


def cap(position: int, expected_tasks: int, tail_share: float) -> float:
    """Return the largest share of the free weights that a search may choose.

    Before task n that is up to twice an equal share, but no more than a quarter unless an equal
    share is. What one task owns helps later ones, too, so it need not be equal. If each task used
    its cap, the last of ten would own a quarter of an equal share. Arguments: as of `equal_share`.
    """
    equal = equal_share(position, expected_tasks, tail_share)
    if position >= expected_tasks:
        return equal
    return max(equal, min(2 * equal, LARGEST_CAP))
