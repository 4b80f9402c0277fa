"""A network for each task."""

from typing import Literal

from pydantic import Field

from acll.methods.base import Method, Stage


class Individual(Method):
    """A network for each task: nothing is shared, nothing forgotten, and the size grows with every
    task. The bound that other methods are measured against."""

    type: Literal["individual"] = Field(description="`individual`")

    def stages(self, tasks: tuple[str, ...]) -> tuple[Stage, ...]:
        """Return the networks of single tasks that serve the first one, two, … of them."""
        return tuple(tuple((task,) for task in tasks[:count]) for count in range(1, len(tasks) + 1))
