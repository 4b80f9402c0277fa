"""A network without one of its tasks, for good: all others stay as they are, to the bit.

What nobody else reads becomes free. A weight that others read stays: its owner is the first task
that reads it. That no other owner would do: a task reads what it owns, and nothing of later owners.
So the tasks that are left are numbered anew, without a gap, and what they do not read of earlier
tasks is noted anew. Nothing in the file says that there was one more.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from acll.files import written
from acll.packing import packed_file
from acll.packing.corners import seen_from
from acll.packing.load import naming
from acll.packing.ownership import (
    Narrower,
    Packed,
    PackingError,
    State,
    digest,
    reading_masks,
)


@dataclass(frozen=True)
class Dropped:
    """What became of the weights of a task that was dropped.

    freed: how many nobody else reads. stayed: how many of its own others read; readers: of these,
    how many each of the other tasks reads, of those that read any.
    """

    freed: int
    stayed: int
    readers: dict[str, int]


def without_task(packed: Packed, task: str) -> tuple[Packed, Dropped]:
    """Return the network without a task, and what became of its weights.

    Where it was the only task of the largest width, the network becomes as narrow as the others
    need. Raises PackingError for a task that was not learned, and for the only one.
    """
    position = packed.position(task)
    left = tuple(record for record in packed.tasks if record.name != task)
    if not left:
        raise PackingError(f"{task} is its only task: delete the file instead")
    owner = {name: torch.zeros_like(value) for name, value in packed.owner.items()}
    unread: dict[str, State] = {}
    readers = dict.fromkeys((record.name for record in left), 0)
    for number, record in enumerate(left, 1):
        for name, corner, read in reading_masks(packed, record.name):
            earlier = corner.of(owner[name])
            left_out = (earlier > 0) & ~read
            if bool(left_out.any()):
                unread.setdefault(record.name, {})[name] = left_out
            own = torch.where(read & (earlier == 0), number, earlier)
            owner[name] = corner.filled(owner[name], own)
            readers[record.name] += int((read & (corner.of(packed.owner[name]) == position)).sum())
    owned = _counts(owner, len(left))
    after = replace(
        packed,
        shared={
            name: value.masked_fill(owner[name] == 0, 0.0) for name, value in packed.shared.items()
        },
        owner=owner,
        private={record.name: packed.private[record.name] for record in left},
        tasks=tuple(
            replace(record, owned=count) for record, count in zip(left, owned, strict=True)
        ),
        unread=unread,
    )
    before = _counts(packed.owner, len(packed.tasks))
    dropped = Dropped(
        freed=sum(before) - sum(owned),
        stayed=sum(
            int(((packed.owner[name] == position) & (owner[name] > 0)).sum()) for name in owner
        ),
        readers={name: count for name, count in readers.items() if count},
    )
    return _as_narrow_as_needed(after), dropped


def _counts(owner: State, tasks: int) -> list[int]:
    """Return how many weights each task owns."""
    total = torch.zeros(tasks + 1, dtype=torch.int64)
    for owners in owner.values():
        total += torch.bincount(owners.flatten(), minlength=tasks + 1)
    counts: list[int] = total[1:].tolist()
    return counts


def _as_narrow_as_needed(packed: Packed) -> Packed:
    """Return the network with tensors of the size of its widest task, and no widths but theirs."""
    corners = packed.corners(packed.width)
    needed = {record.width for record in packed.tasks} - {packed.width}
    return replace(
        packed,
        shared={name: corners[name].of(value) for name, value in packed.shared.items()},
        owner={name: corners[name].of(value) for name, value in packed.owner.items()},
        narrower=tuple(
            Narrower(
                one.width,
                {name: seen_from(inner, corners[name]) for name, inner in one.corners.items()},
            )
            for one in packed.narrower
            if one.width in needed
        ),
    )


def write_without(opened: packed_file.PackedFile, task: str, path: Path) -> Dropped:
    """Write the network of a file without a task to another file, whole or not at all.

    What is written is read again and compared with the network, task by task. Raises PackingError
    as `without_task`, and where a task differs by a bit.
    """
    opened.refuse_itself(path)
    with naming(opened):
        packed, dropped = without_task(opened.whole(), task)
    with written(path) as beside:
        packed_file.write_packed(beside, packed)
        again = packed_file.open_packed(beside)
        for record in packed.tasks:
            if digest(again.state(record.name)) != digest(opened.state(record.name)):
                raise PackingError(f"{path}: not written: {record.name} would not stay as it is")
    return dropped
