"""Room for tasks to come: how much of what is free one task may own."""


def cap(position: int, expected_tasks: int, tail_share: float) -> float:
    """The largest share of the free weights that the task at `position` (1 is the first) may own.

    1 / (n − t + 1) while t < n, so that n equal tasks would share the network equally, and
    `tail_share` from task n on, so that room never runs out at once. It depends on the position
    alone, never on the length of a sequence: appending a task changes no earlier one.
    """
    return 1.0 / (expected_tasks - position + 1) if position < expected_tasks else tail_share
