"""Room for tasks to come: how much of what is free one task may own."""


def cap(position: int, expected_tasks: int, tail_share: float) -> float:
    """Return the largest share of the free weights that a task may own.

    position: t, 1 for the first task. expected_tasks: n. The share is 1 / (n − t + 1) while t < n,
    so that n equal tasks would share the network equally. From task n on it is `tail_share`, so
    that room never runs out at once. It depends on the position alone, never on the length of a
    sequence: appending a task changes no earlier one.
    """
    return 1.0 / (expected_tasks - position + 1) if position < expected_tasks else tail_share
