"""What the prepared files of a variant depend on, beside those of the task that it is made from."""

from acll.parameters.base import Params


class VaryParams(Params):
    """How a task of a series differs from the one that the series is made of.

    The keys are those of a task.
    """

    name: str
    rotate: float
    noise: float
    permute: int | None
    train_samples: int | None
    split_seed: int
