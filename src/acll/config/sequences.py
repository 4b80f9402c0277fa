"""Which network learns which tasks in which order: the types of `sequences` in a configuration."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from acll.settings import Settings

PartCount = Annotated[int, Field(ge=2, le=255)]


class Sequence(Settings):
    """A network and the tasks that it learns, in order."""

    network: str = Field(description="name of a network")
    tasks: list[str] = Field(
        min_length=1,
        max_length=255,
        description="names of tasks, in the order of learning; or a series, see below",
    )


def _in_name(value: float) -> str:
    """Return a number in letters that names may have."""
    return f"{value:g}".replace(".", "_").replace("-", "minus_").replace("+", "")


class Series(Settings):
    """Tasks that are made from one, in place of the list `tasks` of a sequence.

    Besides `of` there is exactly one key. The tasks are called by it: `{of: mnist, permuted: 10}`
    is `mnist_permuted_1` to `mnist_permuted_10`, `{of: mnist, noise: [0, 0.2]}` is `mnist_noise_0`
    and `mnist_noise_0_2`.
    """

    of: str = Field(description="name of the task that they are made from")
    permuted: PartCount | None = Field(
        None, description="so many tasks, in each the pixels in a random order of its own"
    )
    split: PartCount | None = Field(
        None, description="so many tasks, each with a part of the classes"
    )
    rotated: list[float] | None = Field(
        None, min_length=2, description="a task for each angle, in degrees"
    )
    noise: list[float] | None = Field(
        None, min_length=2, description="a task for each deviation of noise"
    )
    train_samples: list[int] | None = Field(
        None, min_length=2, description="a task for each number of training samples"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [
            key for key in type(self).model_fields if key != "of" and getattr(self, key) is not None
        ]
        if len(given) != 1:
            kinds = ", ".join(key for key in type(self).model_fields if key != "of")
            raise ValueError(f"must have `of` and exactly one of {kinds}")
        return self

    def variants(self) -> dict[str, dict[str, Any]]:
        """Return for each task, by name, the settings in which it differs from the task `of`."""
        if self.permuted is not None:
            return {
                f"{self.of}_permuted_{number}": {"permute": number}
                for number in range(1, self.permuted + 1)
            }
        if self.split is not None:
            numbers = range(1, self.split + 1)
            return {
                f"{self.of}_split_{number}_of_{self.split}": {"part": [number, self.split]}
                for number in numbers
            }
        for name, key in (
            ("rotated", "rotate"),
            ("noise", "noise"),
            ("train_samples", "train_samples"),
        ):
            values = getattr(self, name)
            if values is not None:
                return {f"{self.of}_{name}_{_in_name(value)}": {key: value} for value in values}
        raise AssertionError  # exactly one was given
