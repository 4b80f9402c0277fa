"""Which task owns which weight.

A `Packed` network is an immutable store. Training works on a copy of a task's state. `commit` adds
a task: it takes the newly kept weights from the copy and everything else from the store, and raises
PackingError where a weight of an earlier task differs in the copy. So no optimiser, however it is
set, can reach the weights of earlier tasks. `commit_finetuned` is for methods that may change
everything. This module knows tensors and names, but no data and no training.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from pydantic import FailFast, Field
from torch import Tensor

from acll.errors import UserError
from acll.packing.corners import Corner, corner_at, embedded, fits_in
from acll.settings import MAX_TASKS, Kind, Reuse

State = dict[str, Tensor]
# FailFast: a million faults in a header would take gigabytes to tell of
_Texts = Annotated[tuple[str, ...], FailFast()]
_Floats = Annotated[tuple[float, ...], FailFast()]
Inputs = Mapping[str, Sequence[int]]  # channels that each layer reads, by its name
_TASKS_THAT_RANK = 16  # so that a rank, and what sizes add to it, fit into the 24 bits of a float
_LEAST = 2.0**-_TASKS_THAT_RANK
# heads of earlier tasks that are trained on with a new one: earlier.<number>.…, from 0 on
EARLIER = "earlier."


class PackingError(UserError):
    """A packed network is not what it says it is, or a copy of it has changed where it may not."""


@dataclass(frozen=True)
class TaskRecord:
    """What a packed network knows of one of its tasks."""

    name: str
    kind: Kind
    classes: _Texts
    image_size: tuple[int, int]  # height, width in pixels
    mean: _Floats  # of each channel, of images scaled to [0, 1]
    std: _Floats
    metric: str  # of `acll.settings.METRICS`, or a plug-in
    validation_score: float
    digest: str  # of the task's state dict when the task was learned
    frozen: bool = True  # whether the method promises that this state never changes
    owned: int = 0  # number of shared weights that it owns
    # number of free shared weights in the parts that it uses, before it was learned
    free_before: int = 0
    # what was chosen: the keys CHOICE_KEYS of `acll.steps._setup`
    choice: dict[str, Any] = field(default_factory=dict)
    # validation score after each epoch of the training before it was pruned
    curve: _Floats = ()
    # uint8, uint16 or float32; pixel to permute are those of `acll.data.prepared.TaskInfo`
    pixel: str = "uint8"
    tile_overlap: int | None = None
    rotate: float = 0.0
    permute: int | None = None
    width: float = 1.0  # factor of the channels of its network; a network may have grown since
    # its logits are divided by it before their softmax; fitted when the task was learned
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0


@dataclass(frozen=True)
class Narrower:
    """Where the shared tensors of tasks of a smaller width are in those of the network."""

    width: float
    corners: dict[str, Corner]


@dataclass(frozen=True)
class Packed:
    """One network with all its tasks. Not to be changed in place.

    shared: float tensors, zero where free; owner: uint8 tensors of the same shapes, 0 free, t owned
    by the t-th task; private: for each task the rest of its state dict. unread: for tasks that do
    not read all weights of earlier ones, bool tensors by the names of shared ones, True where not,
    of the shapes that these have in the task's state dict.

    A network that has grown has tensors of the size of its widest task, and a narrower task has a
    corner of each. narrower: these corners, by width, ascending.
    """

    network: dict[str, Any]
    shared: State
    owner: State
    private: dict[str, State]
    tasks: tuple[TaskRecord, ...]
    method: str = ""
    seed: int = 0
    narrower: tuple[Narrower, ...] = ()
    unread: dict[str, State] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """Width of the latest task's network, the widest so far."""
        return self.tasks[-1].width if self.tasks else float(self.network.get("width", 1.0))

    def grew(self, task: str) -> bool:
        """Return whether the network became wider for a task."""
        return grew(self.tasks, self.position(task), self.network)

    def corners(self, width: float) -> dict[str, Corner]:
        """Return where the shared tensors of networks of a width are."""
        for narrower in self.narrower:
            if narrower.width == width:
                return narrower.corners
        return {name: Corner(tuple(value.shape)) for name, value in self.shared.items()}

    def record(self, task: str) -> TaskRecord:
        """Return the record of a task. Raises PackingError for one that was not learned."""
        for record in self.tasks:
            if record.name == task:
                return record
        known = ", ".join(record.name for record in self.tasks) or "none"
        raise PackingError(f"the network has not learned {task!r} (its tasks: {known})")

    def position(self, task: str) -> int:
        """Return the position of a task, 1 for the first.

        Raises PackingError for one that was not learned.
        """
        return self.tasks.index(self.record(task)) + 1


def grew(tasks: Sequence[TaskRecord], position: int, network: Mapping[str, Any]) -> bool:
    """Return whether a network became wider for one of its tasks.

    position: of the task, 1 for the first. network: what the network was built from.
    """
    before = tasks[position - 2].width if position > 1 else network.get("width", 1.0)
    return tasks[position - 1].width > float(before)


def empty(
    network: Mapping[str, Any], shared: Mapping[str, Tensor], method: str, seed: int
) -> Packed:
    """Return a network in which every shared weight is free. `shared` gives names and shapes."""
    return Packed(
        network=dict(network),
        shared={name: torch.zeros(value.shape) for name, value in shared.items()},
        owner={name: torch.zeros(value.shape, dtype=torch.uint8) for name, value in shared.items()},
        private={},
        tasks=(),
        method=method,
        seed=seed,
    )


def widened(packed: Packed, shapes: Mapping[str, Sequence[int]], inputs: Inputs) -> Packed:
    """Return a network with larger shared tensors, in which what is new is free.

    shapes: of all its shared tensors. inputs: of each, which of the input channels are those that
    it has now. The next task to be committed is the first of a larger width. Raises PackingError
    where a tensor would lose weights.
    """
    sizes = {name: tuple(value.shape) for name, value in packed.shared.items()}
    if shapes.keys() != sizes.keys() or not all(
        fits_in(sizes[name], shapes[name]) for name in sizes
    ):
        raise PackingError("a network can only become wider, and keeps its layers")
    corners = {name: corner_at(sizes[name], inputs[name]) for name in sizes}
    narrower = [
        Narrower(
            before.width,
            {name: embedded(before.corners[name], corners[name]) for name in sizes},
        )
        for before in packed.narrower
    ]
    if packed.tasks:
        narrower.append(Narrower(packed.width, corners))

    def around(state: State) -> State:
        return {
            name: corners[name].filled(value.new_zeros(*shapes[name]), value)
            for name, value in state.items()
        }

    shared, owner = around(packed.shared), around(packed.owner)
    return replace(packed, shared=shared, owner=owner, narrower=tuple(narrower))


def kind_uses(kind: Kind, name: str) -> bool:
    """Return whether tasks of this kind use a shared weight: all but the decoder's, or all."""
    return kind == "segmentation" or not name.startswith("decoder.")


def task_state_dict(packed: Packed, task: str) -> State:
    """Return the state dict of a task.

    It has the shared weights that it or earlier tasks own, but those that it does not read, zero
    for the others, and its private state. Where the network has grown since, its tensors are the
    corners that it was learned with.
    """
    state = {
        name: torch.where(read, corner.of(packed.shared[name]), 0.0)
        for name, corner, read in reading_masks(packed, task)
    }
    return state | packed.private[task]


def reading_ranks(packed: Packed, kind: Kind) -> State:
    """Return in what order a new task begins with earlier weights: the largest ranks first.

    A rank is in [0, 1], and 0 for a free weight. What the latest task reads counts 1/2, what the
    one before it reads 1/4, and so on, over the _TASKS_THAT_RANK latest that have the tensor. What
    is left to 1 is given by the size of a weight, against the largest of its tensor. So weights
    that the latest task reads come before all others; among these and among the others, those that
    the task before it reads come first; and so on. The larger comes first where all that is equal.
    """
    ranks = {
        name: torch.zeros(owner.shape)
        for name, owner in packed.owner.items()
        if kind_uses(kind, name)
    }
    left = dict.fromkeys(ranks, 1.0)
    for record in reversed(packed.tasks):
        if max(left.values(), default=_LEAST) == _LEAST:
            break
        for name, corner, read in reading_masks(packed, record.name):
            if name in ranks and left[name] > _LEAST:
                left[name] /= 2
                mask = corner.filled(torch.zeros_like(ranks[name]), read)
                ranks[name] += left[name] * mask
    for name, rank in ranks.items():
        size = torch.where(packed.owner[name] == 0, 0.0, packed.shared[name].abs())
        rank += left[name] * size / size.max().clamp(min=torch.finfo(size.dtype).tiny)
    return ranks


def reading_masks(packed: Packed, task: str) -> Iterator[tuple[str, Corner, Tensor]]:
    """Yield the shared tensors of a task's network: their names, where they are, and bool masks, of
    the shapes that the task has, of what it reads there."""
    record, position = packed.record(task), packed.position(task)
    unread = packed.unread.get(task, {})
    for name, corner in packed.corners(record.width).items():
        if kind_uses(record.kind, name):
            owner = corner.of(packed.owner[name])
            read = (owner >= 1) & (owner <= position)
            yield name, corner, read & ~unread[name] if name in unread else read


def extract_task(packed: Packed, task: str, shared: State, private: State) -> Packed:
    """Return the network of one task by itself, with only the parts that it uses.

    The task owns every shared weight that is not 0, whoever owned it before; all others are free.
    packed: gives the record of the task; its weights are not looked at. shared, private: the two
    parts of the task's state dict.
    """
    # by bits: -0.0 is owned, too, so that the state stays the same to the bit
    owner = {name: (value.view(torch.int32) != 0).to(torch.uint8) for name, value in shared.items()}
    own = replace(packed.record(task), owned=sum(int(owners.sum()) for owners in owner.values()))
    return replace(
        packed,
        network=network_at(packed.network, own.width),
        shared=shared,
        owner=owner,
        private={task: private},
        tasks=(own,),
        narrower=(),
        unread={},
    )


def network_at(network: Mapping[str, Any], width: float) -> dict[str, Any]:
    """Return what a network is built from, at another width where it has one."""
    return {**network, "width": width} if "width" in network else dict(network)


def free(packed: Packed, kind: Kind) -> State:
    """Return boolean masks of the free weights in the parts that this kind of task uses."""
    return {name: owner == 0 for name, owner in packed.owner.items() if kind_uses(kind, name)}


def frozen_private(packed: Packed, state: Mapping[str, Tensor]) -> State:
    """Return masks, False throughout, for the private state that earlier tasks have, but the head.

    Training under them leaves the features of earlier tasks as they are. state: that of a new
    task's network.
    """
    had = {
        name
        for private in packed.private.values()
        for name in private
        if not name.startswith("head.")
    }
    return {name: torch.zeros(state[name].shape, dtype=torch.bool) for name in state if name in had}


def starting_state(
    packed: Packed, kind: Kind, fresh: Mapping[str, Tensor], start_zero: bool = False
) -> State:
    """Return the state dict from which a new task's training starts.

    fresh: the state dict of a newly built network of the task. It gives the head and the free
    weights; with `start_zero` these are 0. Weights owned by earlier tasks come from the store.
    Private state comes from the latest task that has it: normalisations and biases fit the weights
    that they were trained with. Where the network has grown since, channels that are new have fresh
    values.
    """
    state = {}
    for name, value in fresh.items():
        if name in packed.owner:
            unowned = torch.zeros_like(value) if start_zero else value
            state[name] = torch.where(packed.owner[name] == 0, unowned, packed.shared[name])
        else:
            state[name] = value.clone()
            if not name.startswith("head."):
                for record in reversed(packed.tasks):
                    if name in packed.private[record.name]:
                        before = packed.private[record.name][name]
                        state[name] = Corner(tuple(before.shape)).filled(value, before)
                        break
    return state


def commit(
    packed: Packed,
    record: TaskRecord,
    state: Mapping[str, Tensor],
    keep: Mapping[str, Tensor],
    reuse: Reuse = "all",
) -> Packed:
    """Return the network with one more task.

    state: the trained copy, a full state dict. keep: boolean masks, True where the task keeps a
    free weight. reuse: `chosen`: weights of earlier tasks may be 0 in the copy; then the task does
    not read them. `owned`, `free_before` and `digest` of the record are filled in here.

    Raises PackingError where the copy has changed what it may not: a weight of an earlier task
    differs, a kept weight was not free, a released weight is not zero, a weight is not finite.
    """
    if len(packed.tasks) >= MAX_TASKS:
        raise PackingError(f"a network can hold {MAX_TASKS} tasks at most")
    used = {name for name in packed.owner if kind_uses(record.kind, name)}
    if set(keep) != used:
        names = ", ".join(sorted(set(keep) ^ used)[:3])
        raise PackingError(
            f"{record.name}: its network does not have the shared weights of the store: {names} …"
        )
    odd = [name for name in sorted(used) if state[name].shape != packed.shared[name].shape]
    if odd:
        raise PackingError(f"{record.name}: {odd[0]} does not have the shape that the store has")
    position = len(packed.tasks) + 1
    shared, owner = dict(packed.shared), dict(packed.owner)
    free_before = owned = 0
    unread = {}
    for name in sorted(used):
        was_free, kept, value = packed.owner[name] == 0, keep[name], state[name]
        of_earlier, expected = torch.where(was_free, 0.0, value), packed.shared[name]
        left_out = (of_earlier == 0) & (expected != 0)
        if reuse == "chosen" and bool(left_out.any()):
            unread[name] = left_out
            expected = torch.where(left_out, 0.0, expected)
        if not torch.equal(of_earlier, expected):
            raise PackingError(
                f"{name}: weights of earlier tasks have changed while {record.name} was trained"
            )
        if bool((kept & ~was_free).any()):
            raise PackingError(f"{name}: {record.name} keeps weights that belong to earlier tasks")
        if bool((value[was_free & ~kept] != 0).any()):
            raise PackingError(f"{name}: weights that {record.name} has released are not zero")
        shared[name] = torch.where(kept, value, packed.shared[name])
        owner[name] = torch.where(
            kept, torch.tensor(position, dtype=torch.uint8), packed.owner[name]
        )
        free_before += int(was_free.sum())
        owned += int(kept.sum())
    private = {name: value.clone() for name, value in state.items() if name not in packed.owner}
    record = replace(record, owned=owned, free_before=free_before, digest="")
    if unread:
        packed = replace(packed, unread=packed.unread | {record.name: unread})
    return _recorded(packed, shared, owner, packed.private | {record.name: private}, record)


def commit_read(packed: Packed, record: TaskRecord, state: Mapping[str, Tensor]) -> Packed:
    """Return the network with a task that owns the free weights it reads, all that are not 0.

    state: as of `commit`. Weights of earlier tasks that are 0 in it are left out.
    """
    keep = {name: mask & (state[name] != 0) for name, mask in free(packed, record.kind).items()}
    return commit(packed, record, state, keep, "chosen")


def commit_finetuned(packed: Packed, record: TaskRecord, state: Mapping[str, Tensor]) -> Packed:
    """Return the network after plain fine-tuning, which may change every weight.

    All shared weights that the task uses become owned by the first task. So every task sees them as
    fine-tuning left them. Earlier tasks also get the new normalisations and biases, and keep only
    their heads: that is forgetting. Heads of earlier tasks that `state` has as `earlier.<number>.…`
    replace the old ones.
    """
    used = {name for name in packed.owner if kind_uses(record.kind, name)}
    shared = {
        name: state[name].clone() if name in used else value
        for name, value in packed.shared.items()
    }
    owner = {
        name: torch.ones_like(value) if name in used else value
        for name, value in packed.owner.items()
    }
    trained = {
        name: value
        for name, value in state.items()
        if name not in packed.owner and not name.startswith(EARLIER)
    }
    private = {}
    for number, earlier in enumerate(packed.tasks):
        heads = {
            name.replace(f"{EARLIER}{number}.", "head.", 1): value
            for name, value in state.items()
            if name.startswith(f"{EARLIER}{number}.")
        }
        newer = {
            name: value for name, value in trained.items() if not name.startswith("head.")
        } | heads
        private[earlier.name] = {
            name: newer.get(name, value).clone()
            for name, value in packed.private[earlier.name].items()
        }
    free_before = sum(int((packed.owner[name] == 0).sum()) for name in used)
    record = replace(record, owned=free_before, free_before=free_before, digest="", frozen=False)
    return _recorded(packed, shared, owner, private | {record.name: trained}, record)


def _recorded(
    packed: Packed, shared: State, owner: State, private: dict[str, State], record: TaskRecord
) -> Packed:
    """Return the network with its new state, and the digest of the new task's in its record."""
    tasks = packed.tasks
    after = replace(packed, shared=shared, owner=owner, private=private, tasks=(*tasks, record))
    record = replace(record, digest=digest(task_state_dict(after, record.name)))
    return replace(after, tasks=(*tasks, record))


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, types, shapes and bytes, whatever the order."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(raw_bytes(value))
    return total.hexdigest()


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    if not state:
        return []
    # read together: a GPU answers each question by itself only when all before is done
    finite = torch.stack([torch.isfinite(value).all() for value in state.values()]).tolist()
    return [name for name, is_finite in zip(state, finite, strict=True) if not is_finite]


def refuse_not_finite(what: object, state: Mapping[str, Tensor]) -> None:
    """Raise PackingError where a tensor holds NaN or infinity. what: the file, for the message."""
    found = not_finite(state)
    if found:
        raise PackingError(
            f"{what}: not written: values of {', '.join(found[:3])}{' …' if found[3:] else ''} are "
            "not finite; lower the learning rate"
        )


def raw_bytes(value: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor in main memory, without a copy."""
    if not value.numel():
        return memoryview(b"")
    content: memoryview = value.reshape(-1).view(torch.uint8).numpy().data
    return content
