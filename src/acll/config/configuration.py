"""The whole configuration: tasks, networks, sequences, methods and training, put together."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator, Field, PrivateAttr

from acll.config.given import AnyNetwork, Given, LearnedNetwork
from acll.config.sequences import Sequence
from acll.data.sources.registry import SOURCES
from acll.data.task import Task
from acll.methods.base import Method
from acll.methods.registry import METHODS
from acll.networks.spec import Network
from acll.parameters.prepare import prepared_settings
from acll.registry import any_kind
from acll.settings import Positive, Settings
from acll.training.settings import Batches, Training


def _orders(value: str) -> str:
    if not re.fullmatch(r"given|all|[1-9][0-9]* random", value):
        raise ValueError("must be `given`, `all`, or a number of random orders, such as `3 random`")
    return value


_OF_IMAGES = ("rotate", "noise", "permute")  # keys of a task that change images one by one


def _without(task: Task, *keys: str) -> str:
    """Return what is prepared of a task, as JSON, as if some keys had not been set."""
    defaults = {key: Task.model_fields[key].default for key in keys}
    return prepared_settings(task).model_copy(update=defaults).model_dump_json()


def _beginnings(name: str) -> Iterator[str]:
    """Yield a name less what follows each of its `_`, the longest first."""
    while "_" in name:
        name = name.rpartition("_")[0]
        yield name


Orders = Annotated[str, AfterValidator(_orders)]
if TYPE_CHECKING:
    AnyTask: TypeAlias = Task
    AnyMethod: TypeAlias = Method
else:
    AnyTask = any_kind(SOURCES, "source", Task)
    AnyMethod = any_kind(METHODS, "type", Method, default="packing")


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
    plugins: list[str] = Field(
        [],
        description="Python files beside this one, or names of installed modules, with sources, "
        "networks, losses, metrics, augmentations or methods of your own: docs/plugins.md",
    )
    tasks: dict[str, AnyTask] = Field(min_length=1, description="the tasks, by name")
    networks: dict[str, AnyNetwork] = Field(min_length=1, description="the networks, by name")
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

    # of each packed network, what its file says; empty until the files are opened
    _given: Mapping[str, Given] = PrivateAttr(default_factory=dict)

    def opened(self, given: Mapping[str, Given]) -> "Configuration":
        """Return the same, with what the files of its packed networks say."""
        whole = self.model_copy()
        whole._given = given
        return whole

    @property
    def given(self) -> Mapping[str, Given]:
        """What the files of packed networks say, by the names of these; empty until opened."""
        return self._given

    @property
    def packed(self) -> dict[str, LearnedNetwork]:
        """The networks that have learned tasks already, by name."""
        return {
            name: network
            for name, network in self.networks.items()
            if isinstance(network, LearnedNetwork)
        }

    @property
    def specs(self) -> dict[str, Network]:
        """What each network is built from; packed ones are left out until they are opened."""
        new = {
            name: network
            for name, network in self.networks.items()
            if not isinstance(network, LearnedNetwork)
        }
        return new | {name: given.network for name, given in self._given.items()}

    def tasks_before(self, network: str) -> tuple[str, ...]:
        """Return the tasks that a network has learned before any sequence; none for a new one.

        Raises KeyError for a packed one that has not been opened.
        """
        return self._given[network].tasks if network in self.packed else ()

    def training_of(self, task: str) -> Training:
        """Return the training settings of a task, its own overrides included."""
        return Training.model_validate(self.training.model_dump() | self.tasks[task].training)

    def batches_of(self, task: str) -> Batches:
        """Return what a task is learned from, and what scores it."""
        own = self.tasks[task]
        return self.training_of(task).batches(own.kind, own.metric)

    def learned(self) -> set[str]:
        """Return the names of the tasks that some sequence learns."""
        return {task for sequence in self.sequences.values() for task in sequence.tasks}

    @cached_property
    def made_from(self) -> dict[str, str]:
        """For each variant of a task, as those of a series, the name of that task.

        It is called by that name, `_` and more, and differs in nothing but rotation, noise, the
        order of pixels, or the number of training samples, which the other leaves as they are. So
        it is made from what is prepared of the other, which is no variant itself. Masks lose
        classes by a rotation, and splits are cut by these: a segmentation task that is rotated is
        prepared by itself.
        """
        own = {name: _without(task) for name, task in self.tasks.items()}
        found: dict[str, str] = {}
        for name in sorted(own):  # what a name begins with comes before it
            task = self.tasks[name]
            if task.kind == "segmentation" and task.rotate:
                continue
            plain = {_without(task, *_OF_IMAGES), _without(task, *_OF_IMAGES, "train_samples")}
            others = (other for other in _beginnings(name) if own.get(other) in plain)
            source = next((other for other in others if other not in found), None)
            if source is not None:
                found[name] = source
        return found

    def prepared(self) -> set[str]:
        """Return the names of the tasks whose raw data are prepared: those that some sequence
        learns, or what these are made from."""
        return {self.made_from.get(task, task) for task in self.learned()}

    def channels_by_task(self) -> dict[str, list[int]]:
        """Return the channels of the networks that learn each task that is prepared, or a variant
        of it; of packed networks once they are opened."""
        specs = self.specs
        found: dict[str, set[int]] = {}
        for sequence in self.sequences.values():
            for task in sequence.tasks:
                own = found.setdefault(self.made_from.get(task, task), set())
                own |= {specs[sequence.network].channels} if sequence.network in specs else set()
        return {task: sorted(channels) for task, channels in found.items()}
