"""The whole configuration: tasks, networks, sequences, methods and training, put together."""

import re
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, Field

from acll.config.sequences import Sequence
from acll.data.sources.registry import SOURCES
from acll.data.task import Task
from acll.methods.base import Method
from acll.methods.registry import METHODS
from acll.networks.spec import Network
from acll.registry import union
from acll.settings import Positive, Settings
from acll.training.settings import Training


def _orders(value: str) -> str:
    if not re.fullmatch(r"given|all|[1-9][0-9]* random", value):
        raise ValueError("must be `given`, `all`, or a number of random orders, such as `3 random`")
    return value


Orders = Annotated[str, AfterValidator(_orders)]
if TYPE_CHECKING:
    AnyTask: TypeAlias = Task
    AnyMethod: TypeAlias = Method
else:
    AnyTask = union(SOURCES, "source", Task)
    AnyMethod = union(METHODS, "type", Method, default="packing")


class Configuration(Settings):
    """All that one run of the pipeline makes, under `results/<name>/`."""

    name: str = Field(description="name of the configuration, equal to the name of its file")
    data_root: str = Field(
        "data",
        description="folder of raw data, relative to the repository (`~`: your home); `DATA=…` "
        "overrides it",
    )
    threads: Positive = Field(
        1, description="threads of a job; results depend on it bit for bit, so it is set here"
    )
    tasks: dict[str, AnyTask] = Field(min_length=1, description="the tasks, by name")
    networks: dict[str, Network] = Field(min_length=1, description="the networks, by name")
    sequences: dict[str, Sequence] = Field(
        min_length=1, description="which network learns which tasks in which order"
    )
    methods: dict[str, AnyMethod] = Field(
        min_length=1, description="the methods that are compared, by name"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="one run for each"
    )
    orders: Orders = Field(
        "given",
        description="in which orders each sequence is learned: as `given`, `all`, or so many: "
        "`3 random`",
    )
    training: Training = Field(Training(), description="how networks are trained")

    def training_of(self, task: str) -> Training:
        """Return the training settings of a task, its own overrides included."""
        return Training.model_validate(self.training.model_dump() | self.tasks[task].training)

    def learned(self) -> set[str]:
        """Return the names of the tasks that some sequence learns."""
        return {task for sequence in self.sequences.values() for task in sequence.tasks}

    def channels_by_task(self) -> dict[str, list[int]]:
        """Return the channels of the networks that learn each task."""
        found: dict[str, set[int]] = {}
        for sequence in self.sequences.values():
            for task in sequence.tasks:
                found.setdefault(task, set()).add(self.networks[sequence.network].channels)
        return {task: sorted(channels) for task, channels in found.items()}
