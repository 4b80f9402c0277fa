"""Who owns which weight, and the one way in which that changes: commit.

A `Packed` network is an immutable store. Training works on a copy of a task's state; `commit` takes
the newly kept weights from the copy and everything else from the store, so that no optimiser,
however it is set, can reach the weights of earlier tasks. Plain tensors and names only: this module
knows no layers, no data and no training.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from acll.errors import UserError
from acll.settings import Kind

State = dict[str, Tensor]
MAX_TASKS = 255  # owners are bytes in memory
# heads of earlier tasks that are trained on with a new one: earlier.<number>.…, from 0 on
EARLIER = "earlier."


class PackingError(UserError):
    """A packed network is not what it says it is, or a copy of it has drifted."""


@dataclass(frozen=True)
class TaskRecord:
    """What a packed network knows of one of its tasks."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    image_size: tuple[int, int]  # height, width in pixels
    mean: tuple[float, ...]  # a channel, of images scaled to [0, 1]
    std: tuple[float, ...]
    metric: str
    validation_score: float
    digest: str  # of the effective state when the task was learned
    frozen: bool = True  # whether the method promises that this state never changes
    owned: int = 0  # number of shared weights that it owns
    free_before: int = 0  # number of shared weights of its parts that were free
    choice: dict[str, Any] = field(default_factory=dict)  # ratio_searched, ratio, cap, capped
    curve: tuple[
        float, ...
    ] = ()  # validation score after each epoch of the training before it was pruned
    # type of a pixel: uint8, uint16 or float32; these four as in `acll.data.prepared.TaskInfo`
    pixel: str = "uint8"
    tile_overlap: int | None = None
    rotate: float = 0.0
    permute: int | None = None


@dataclass(frozen=True)
class Packed:
    """One network with all its tasks. Not to be changed in place.

    shared: float tensors, zero where free; owner: uint8 tensors of the same shapes, 0 free, t owned
    by the t-th task; private: for each task the rest of its state dict.
    """

    network: dict[str, Any]
    shared: State
    owner: State
    private: dict[str, State]
    tasks: tuple[TaskRecord, ...]
    method: str = ""
    seed: int = 0

    def record(self, task: str) -> TaskRecord:
        """The record of a task. Raises PackingError for one that was not learned."""
        for record in self.tasks:
            if record.name == task:
                return record
        known = ", ".join(record.name for record in self.tasks) or "none"
        raise PackingError(f"the network has not learned {task!r} (its tasks: {known})")

    def position(self, task: str) -> int:
        """1 for the first task."""
        return self.tasks.index(self.record(task)) + 1


def empty(
    network: Mapping[str, Any], shared: Mapping[str, Tensor], method: str, seed: int
) -> Packed:
    """A network in which every shared weight is free. `shared` gives names and shapes."""
    return Packed(
        network=dict(network),
        shared={name: torch.zeros(value.shape) for name, value in shared.items()},
        owner={name: torch.zeros(value.shape, dtype=torch.uint8) for name, value in shared.items()},
        private={},
        tasks=(),
        method=method,
        seed=seed,
    )


def kind_uses(kind: Kind, name: str) -> bool:
    """Whether tasks of this kind use the part of the network in which the shared weight lies."""
    return kind == "segmentation" or not name.startswith("decoder.")


def task_state_dict(packed: Packed, task: str) -> State:
    """The state dict of a task: shared weights owned by it or earlier tasks, zero elsewhere, and
    its private state."""
    record, position = packed.record(task), packed.position(task)
    state = {
        name: torch.where((owner >= 1) & (owner <= position), packed.shared[name], 0.0)
        for name, owner in packed.owner.items()
        if kind_uses(record.kind, name)
    }
    return state | packed.private[task]


def extract_task(packed: Packed, task: str, shared: State, private: State) -> Packed:
    """The network of one task by itself, with no parts but those that it uses: what is not 0 is its
    own, the rest, of which it may have owned some, is free.

    packed: says what there is to know of the task, its state is not looked at; shared and private:
    the effective state.
    """
    # -0 is not nothing: it has a bit, and the state stays what it was to the bit
    owner = {name: (value.view(torch.int32) != 0).to(torch.uint8) for name, value in shared.items()}
    own = replace(packed.record(task), owned=sum(int(owners.sum()) for owners in owner.values()))
    return replace(packed, shared=shared, owner=owner, private={task: private}, tasks=(own,))


def free(packed: Packed, kind: Kind) -> State:
    """Boolean masks of the free weights in the parts that this kind of task uses."""
    return {name: owner == 0 for name, owner in packed.owner.items() if kind_uses(kind, name)}


def frozen_private(packed: Packed, state: Mapping[str, Tensor]) -> State:
    """Masks that keep the features of earlier tasks as they are: of all private state that one of
    them has had, but for the head. state: that of a new task's network."""
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
    """Where a new task's training starts.

    fresh: the state dict of a newly built network of the task, which gives its head and the free
    weights (with `start_zero` these are 0). Weights owned by earlier tasks come from the store.
    Private state comes from the latest task that has it: normalisations and biases fit the weights
    that they were trained with.
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
                        state[name] = packed.private[record.name][name].clone()
                        break
    return state


def commit(
    packed: Packed, record: TaskRecord, state: Mapping[str, Tensor], keep: Mapping[str, Tensor]
) -> Packed:
    """The network with one more task.

    state: the trained copy, a full state dict; keep: boolean masks, True where the task keeps a
    free weight. Raises PackingError where the copy has drifted: a weight of an earlier task that
    changed, a weight kept that was not free, a released weight that is not zero. `owned`,
    `free_before` and `digest` of the record are filled in here.
    """
    if len(packed.tasks) >= MAX_TASKS:
        raise PackingError(f"a network can hold {MAX_TASKS} tasks at most")
    used = {name for name in packed.owner if kind_uses(record.kind, name)}
    if set(keep) != used:
        names = ", ".join(sorted(set(keep) ^ used)[:3])
        raise PackingError(
            f"{record.name}: its network does not have the shared weights of the store: {names} …"
        )
    position = len(packed.tasks) + 1
    shared, owner = dict(packed.shared), dict(packed.owner)
    free_before = owned = 0
    for name in sorted(used):
        was_free, kept, value = packed.owner[name] == 0, keep[name], state[name]
        if not torch.equal(torch.where(was_free, 0.0, value), packed.shared[name]):
            raise PackingError(
                f"{name}: weights of earlier tasks have changed while {record.name} was trained"
            )
        if bool((kept & ~was_free).any()):
            raise PackingError(f"{name}: {record.name} keeps weights that belong to earlier tasks")
        if bool((value[was_free & ~kept] != 0).any()):
            raise PackingError(f"{name}: weights that {record.name} has released are not zero")
        if not bool(torch.isfinite(value).all()):
            raise PackingError(f"{name}: has weights that are not finite")
        shared[name] = torch.where(kept, value, packed.shared[name])
        owner[name] = torch.where(
            kept, torch.tensor(position, dtype=torch.uint8), packed.owner[name]
        )
        free_before += int(was_free.sum())
        owned += int(kept.sum())
    private = {name: value.clone() for name, value in state.items() if name not in packed.owner}
    record = replace(record, owned=owned, free_before=free_before, digest="")
    return _recorded(packed, shared, owner, packed.private | {record.name: private}, record)


def commit_finetuned(packed: Packed, record: TaskRecord, state: Mapping[str, Tensor]) -> Packed:
    """The network after plain fine-tuning: every weight has moved on, and of private state only the
    heads stay.

    Every shared weight is the first task's as far as ownership goes, so that each task sees all
    weights as they now are, and earlier tasks are given the new normalisations and biases: what
    forgetting really is. Heads of earlier tasks that `state` has as `earlier.…` take the place of
    the old ones.
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
    moved = {
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
            name: value for name, value in moved.items() if not name.startswith("head.")
        } | heads
        private[earlier.name] = {
            name: newer.get(name, value).clone()
            for name, value in packed.private[earlier.name].items()
        }
    free_before = sum(int((packed.owner[name] == 0).sum()) for name in used)
    record = replace(record, owned=free_before, free_before=free_before, digest="", frozen=False)
    return _recorded(packed, shared, owner, private | {record.name: moved}, record)


def _recorded(
    packed: Packed, shared: State, owner: State, private: dict[str, State], record: TaskRecord
) -> Packed:
    """The network with its new state, and the digest of the new task's effective state in its
    record."""
    tasks = packed.tasks
    after = replace(packed, shared=shared, owner=owner, private=private, tasks=(*tasks, record))
    record = replace(record, digest=digest(task_state_dict(after, record.name)))
    return replace(after, tasks=(*tasks, record))


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names, types, shapes and bytes, whatever the order."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(raw_bytes(value))
    return total.hexdigest()


def raw_bytes(value: Tensor) -> memoryview:
    """The bytes of a contiguous tensor in main memory, without a copy."""
    content: memoryview = (
        value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else memoryview(b"")
    )
    return content
