"""What the header of a packed file says, and what it may say.

A file may come from a stranger. So all that a header could ask for (memory, time, text on a
terminal) is bounded here, before anything is made of it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, BeforeValidator, FailFast, Field, model_validator

from acll.networks.spec import LARGEST_WIDTH, SMALLEST_WIDTH
from acll.packing.corners import Corner, seen_from
from acll.packing.ownership import Narrower, TaskRecord
from acll.settings import (
    ALL_METRICS,
    MAX_TASKS,
    METRICS,
    MOST_BANDS,
    MOST_VALUES,
    refuse_large,
    refuse_odd_text,
)

# the largest networks of torchvision have 6.5e8 weights, at most 1e8 in one tensor; the deepest of
# timm has 979 tensors
MOST_WEIGHTS, MOST_IN_A_TENSOR = 2**30, 2**28
MOST_LAYERS = 5000
MOST_OWNERS = 2**18  # numbers of owned weights: one of each layer and task
MOST_PRIVATE = 2**18  # private tensors of all tasks
MOST_RUNS, MOST_INPUTS = 256, 2**20  # of input channels, in a layer and in all
MOST_DEPTH = 16  # of lists and dictionaries in each other
SMALLEST_TILE = 8  # pixels; no decoder takes smaller images
MOST_MASK_CLASSES = 255  # masks are bytes, and one means ignore
Dtype = Literal["float64", "int64", "float32", "int32", "float16", "bfloat16", "uint8"]
WeightCount = Annotated[int, Field(ge=0, le=MOST_IN_A_TENSOR)]
# FailFast: a million faults would take gigabytes to tell of
OfTasks = Annotated[list[WeightCount], Field(max_length=MAX_TASKS), FailFast()]
Numbers = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MOST_PRIVATE), FailFast()]
CodeBytes = Annotated[int, Field(ge=0, le=4 * MOST_WEIGHTS)]
Shape = Annotated[list[WeightCount], Field(max_length=8)]


def _refuse_many(value: Any) -> Any:
    """Return a dictionary by tasks. Raises ValueError, before anything in it is looked at."""
    if isinstance(value, dict) and len(value) > MAX_TASKS:
        raise ValueError(f"it says that it has {len(value):,} tasks")
    return value


class Layer(BaseModel):
    """A shared tensor: how many of its weights each task owns. The others are free.

    unread: how many weights of earlier tasks each task does not read.
    """

    name: str
    shape: Shape
    owned: OfTasks
    unread: OfTasks

    @property
    def count(self) -> int:
        """Number of its weights."""
        return math.prod(self.shape)

    @property
    def mapped(self) -> bool:
        """Whether it needs an owner map: not all of its weights have one owner, or none."""
        return sum(self.owned) > 0 and self.count not in self.owned


class PrivateTensor(BaseModel):
    """A tensor of a task's private state."""

    name: str
    dtype: Dtype
    shape: Shape

    @property
    def type(self) -> torch.dtype:
        """Type of its values."""
        known: torch.dtype = getattr(torch, self.dtype)
        return known

    @property
    def count(self) -> int:
        """Number of its values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes of its values."""
        return self.count * self.type.itemsize

    @property
    def coded(self) -> bool:
        """Whether its values are coded as weights are; others are stored as they are."""
        return self.dtype == "float32"


class PrivateLayouts(BaseModel):
    """The layouts of the private states of tasks, of which most tensors are alike.

    tensors: the different ones. of_tasks: for each task the numbers of its tensors, from 0
    on, in the order of their bytes. code_bytes: the bytes of the code of each task's float32
    values.
    """

    tensors: Annotated[list[PrivateTensor], Field(max_length=MOST_PRIVATE), FailFast()]
    of_tasks: Annotated[dict[str, Numbers], BeforeValidator(_refuse_many)]
    code_bytes: Annotated[dict[str, CodeBytes], BeforeValidator(_refuse_many)]

    @classmethod
    def of(
        cls, layouts: Mapping[str, Sequence[PrivateTensor]], code_bytes: Mapping[str, int]
    ) -> Self:
        """Return the layouts of tasks, of which the tensors of each are given.

        code_bytes: as the layouts have them, of these tasks at least.
        """
        known: dict[tuple[object, ...], tuple[int, PrivateTensor]] = {}

        def number(part: PrivateTensor) -> int:
            key = part.name, part.dtype, tuple(part.shape)
            return known.setdefault(key, (len(known), part))[0]

        of_tasks = {task: [number(part) for part in parts] for task, parts in layouts.items()}
        return cls(
            tensors=[part for _, part in known.values()],
            of_tasks=of_tasks,
            code_bytes={task: code_bytes[task] for task in layouts},
        )

    def of_task(self, task: str) -> list[PrivateTensor]:
        """Return the tensors of a task."""
        return [self.tensors[number] for number in self.of_tasks[task]]

    def nbytes(self, task: str) -> int:
        """Return the number of bytes of a task's private state in a file."""
        plain = sum(part.nbytes for part in self.of_task(task) if not part.coded)
        return self.code_bytes[task] + plain

    def only(self, tasks: Sequence[str]) -> "PrivateLayouts":
        """Return the layouts of some tasks."""
        return PrivateLayouts.of({task: self.of_task(task) for task in tasks}, self.code_bytes)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if any(max(own, default=-1) >= len(self.tensors) for own in self.of_tasks.values()):
            raise ValueError("a task has a private tensor that is not described")
        if sum(map(len, self.of_tasks.values())) > MOST_PRIVATE:
            raise ValueError("its tasks have more private tensors than any network")
        for task in self.of_tasks:
            names = {part.name for part in self.of_task(task)}
            if len(names) < len(self.of_tasks[task]):
                raise ValueError("a task has two private tensors of one name")
        return self


class NarrowerLayers(BaseModel):
    """Where the shared tensors of networks of a smaller width are: their shapes, in the order of
    the layers, and of some by name the runs of input channels that they have."""

    width: float
    shapes: Annotated[list[Shape], Field(max_length=MOST_LAYERS)]
    runs: dict[str, Annotated[list[tuple[WeightCount, WeightCount]], Field(max_length=MOST_RUNS)]]

    def corners(self, names: Sequence[str]) -> list[Corner]:
        """Return the corners of these layers. Raises ValueError where they are none."""
        if len(self.shapes) != len(names) or not self.runs.keys() <= set(names):
            raise ValueError("its widths are of other layers")
        pairs = zip(names, self.shapes, strict=True)
        return [_corner(shape, self.runs.get(name, [])) for name, shape in pairs]


def _corner(shape: Sequence[int], runs: Sequence[tuple[int, int]]) -> Corner:
    if runs:
        ends = [0, *(first + number for first, number in runs)]
        ascending = all(first >= end for (first, _), end in zip(runs, ends, strict=False))
        whole = len(shape) > 1 and sum(number for _, number in runs) == shape[1]
        if not (ascending and whole):
            raise ValueError("a layer has runs of input channels that cannot be")
    return Corner(tuple(shape), tuple(runs))


class PackedHeader(BaseModel):
    """What a header says. Raises ValidationError for one that says what it may not."""

    network: dict[str, Any]
    method: str
    seed: int
    tasks: Annotated[list[TaskRecord], Field(max_length=MAX_TASKS)]
    layers: Annotated[list[Layer], Field(max_length=MOST_LAYERS)]
    # bytes of the weights that each task owns
    weight_bytes: Annotated[list[CodeBytes], Field(max_length=MAX_TASKS)]
    private: PrivateLayouts
    # of the tasks before the network grew, by width, ascending; empty where it never has
    narrower: Annotated[list[NarrowerLayers], Field(max_length=MAX_TASKS)]

    def corners(self, width: float) -> list[Corner]:
        """Return where the shared tensors of networks of a width are, in the order of the
        layers."""
        names = [layer.name for layer in self.layers]
        for narrower in self.narrower:
            if narrower.width == width:
                return narrower.corners(names)
        return [Corner(tuple(layer.shape)) for layer in self.layers]

    def narrower_networks(self) -> tuple[Narrower, ...]:
        """Return what it says of smaller widths as a network has it."""
        names = [layer.name for layer in self.layers]
        return tuple(
            Narrower(one.width, dict(zip(names, one.corners(names), strict=True)))
            for one in self.narrower
        )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        counts = [layer.count for layer in self.layers]
        names = [record.name for record in self.tasks]
        if not all(re.fullmatch("[a-z0-9_]+", name) for name in names):
            raise ValueError("the name of a task has other characters than a-z, 0-9 and _")
        tensors: list[Layer | PrivateTensor] = [*self.layers, *self.private.tensors]
        # a side of 0 counts as 1: it would hide how large the others are
        if any(math.prod(max(1, side) for side in one.shape) > MOST_IN_A_TENSOR for one in tensors):
            raise ValueError(f"it has a tensor of more than {MOST_IN_A_TENSOR:,} values")
        if sum(counts) > MOST_WEIGHTS:
            raise ValueError(f"it says that it has {sum(counts):,} weights, more than any network")
        if not sum(counts):
            raise ValueError("it has no weights")
        if len(counts) * len(names) > MOST_OWNERS:
            raise ValueError(
                f"it says that it has {len(counts):,} layers and {len(names)} tasks, more than "
                "any network"
            )
        self._refuse_counts(len(names))
        layer_names = {layer.name for layer in self.layers}
        if len(layer_names) < len(self.layers) or len(set(names)) < len(names):
            raise ValueError("a name stands there twice")
        if layer_names & {part.name for part in self.private.tensors}:
            raise ValueError("a tensor is shared and private")
        if any(set(own) != set(names) for own in (self.private.of_tasks, self.private.code_bytes)):
            raise ValueError("its tasks are not those whose private state it has")
        _refuse_odd([self.network, self.method, [one.name for one in tensors]])
        self._refuse_widths()
        for record in self.tasks:
            _refuse_odd([getattr(record, part.name) for part in fields(record)])
            _refuse_unusable(record)
        return self

    def _refuse_counts(self, tasks: int) -> None:
        """Raise ValueError where the numbers of weights or bytes are not those of its tasks."""
        if any(
            len(layer.owned) != tasks or sum(layer.owned) > layer.count for layer in self.layers
        ):
            raise ValueError("its tasks own more weights than there are")
        for layer in self.layers:
            earlier = accumulate(layer.owned, initial=0)
            known = len(layer.unread) == tasks
            if not known or any(left > own for left, own in zip(layer.unread, earlier)):
                raise ValueError("a task leaves out more weights than earlier ones own")
        if len(self.weight_bytes) != tasks:
            raise ValueError("it does not say how many bytes the weights of each task have")

    def _refuse_widths(self) -> None:
        """Raise ValueError where the widths of its tasks do not fit each other or the tensors."""
        widths = [record.width for record in self.tasks]
        first = self.network.get("width", 1.0)
        known = isinstance(first, int | float)
        if not known or not all(SMALLEST_WIDTH <= one <= LARGEST_WIDTH for one in (first, *widths)):
            raise ValueError("a network or a task has a width that no network has")
        if widths != sorted(widths):
            raise ValueError("a task has a narrower network than the one before it")
        if [one.width for one in self.narrower] != sorted(set(widths))[:-1]:
            raise ValueError("its widths are not those of its tasks")
        if len(self.narrower) * len(self.layers) > MOST_OWNERS:
            raise ValueError("it has more widths than any network")
        runs = [own[-1] for one in self.narrower for own in one.runs.values() if own]
        if sum(first + number for first, number in runs) > MOST_INPUTS:
            raise ValueError("it has more runs of input channels than any network")
        around = [Corner(tuple(layer.shape)) for layer in self.layers]
        for narrower in reversed(self.narrower):
            own = narrower.corners([layer.name for layer in self.layers])
            count = widths.index(narrower.width) + widths.count(narrower.width)
            for layer, corner, outer in zip(self.layers, own, around, strict=True):
                seen_from(corner, outer)
                if sum(layer.owned[:count]) > math.prod(corner.shape):
                    raise ValueError(
                        f"tasks of width {narrower.width:g} own more weights than there are"
                    )
            around = own


def _refuse_odd(value: Any, depth: int = 0) -> None:
    """Raise ValueError for values that would disturb terminals, tables or JSON.

    They are text that is long or has control characters, numbers that are not finite, and values in
    too many others.
    """
    if isinstance(value, str):
        refuse_odd_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number that is not finite")
    elif isinstance(value, dict | list | tuple):
        if depth == MOST_DEPTH:
            raise ValueError("values in too many others")
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            _refuse_odd(one, depth + 1)


def _refuse_unusable(record: TaskRecord) -> None:
    """Raise ValueError where images cannot be prepared as a record says."""
    overlap, ratio = record.tile_overlap, record.choice.get("ratio")
    try:
        refuse_large(record.image_size)
    except ValueError as error:
        raise ValueError(f"{record.name}: image_size {error}") from None
    if len(record.mean) * math.prod(record.image_size) > MOST_VALUES:
        raise ValueError(f"{record.name}: images of {MOST_VALUES:,} values or more")
    if not 1 <= len(record.mean) == len(record.std) <= MOST_BANDS:
        raise ValueError(f"{record.name}: mean and std are not those of channels")
    if min(record.std) <= 0 or record.pixel not in ("uint8", "uint16", "float32"):
        raise ValueError(f"{record.name}: its images cannot be normalised")
    if overlap is not None and not (
        0 <= overlap <= min(record.image_size) // 2 and min(record.image_size) >= SMALLEST_TILE
    ):
        raise ValueError(
            f"{record.name}: tile_overlap {overlap} is more than half of image_size, or that "
            "is below 8"
        )
    if record.permute is not None and record.permute < 0:
        raise ValueError(f"{record.name}: its pixels cannot be moved")
    if not record.classes or (
        record.kind == "segmentation" and len(record.classes) > MOST_MASK_CLASSES
    ):
        raise ValueError(f"{record.name}: {len(record.classes)} classes")
    if ratio is not None and not (isinstance(ratio, int | float) and 0 <= ratio <= 1):
        raise ValueError(f"{record.name}: a ratio that is no share")
    plugged = record.metric not in ALL_METRICS and re.fullmatch("[a-z0-9_]+", record.metric)
    if record.metric not in METRICS[record.kind] and not plugged:
        raise ValueError(f"{record.name}: {record.metric} is no metric of {record.kind}")
