"""What differs between two packed networks: two versions of one, or those of two methods."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import zip_longest
from typing import Any

from acll.packing.ownership import TaskRecord, digest
from acll.packing.packed_file import PackedFile
from acll.serving.model import LearnedTask, PackedNetwork

_SHOWN: dict[str, tuple[Callable[[LearnedTask], float | None], str]] = {
    "validation": (lambda task: task.score, ".4f"),
    "ratio": (lambda task: task.ratio, ".3f"),
    "owns": (lambda task: task.owned_share, ".1%"),
    "uses": (lambda task: task.used_share, ".1%"),
}
_OF_WEIGHTS = {"digest", "owned", "free_before"}  # which the table shows
_MOST_SAID = 8  # values of a list that is said whole
_ABSENT = object()  # a value of one network that the other does not have


def tasks_compared(files: Sequence[PackedFile]) -> list[dict[str, Any]]:
    """Return a row for each task of either of two networks.

    It says whether the task's weights are equal bit for bit, and what is known of the task.
    """
    known = [{task.name: task for task in PackedNetwork(opened).tasks} for opened in files]
    rows = []
    for name in dict.fromkeys([*known[0], *known[1]]):
        tasks = [own.get(name) for own in known]
        if all(tasks):
            states = [digest(opened.state(name)) for opened in files]
            weights = "equal" if states[0] == states[1] else "differ"
        else:
            weights = f"only in {'the first' if tasks[0] else 'the second'}"
        row: dict[str, Any] = {"task": name, "weights": weights}
        for label, (read, pattern) in _SHOWN.items():
            found = [None if task is None else read(task) for task in tasks]
            values = ["" if value is None else format(value, pattern) for value in found]
            if values[0] == values[1]:
                row[label] = values[0]
            else:
                row[label] = " → ".join(value or "-" for value in values)
        rows.append(row)
    return rows


def differences(files: Sequence[PackedFile]) -> list[str]:
    """Return a line for each thing besides the tasks' weights that is not the same."""
    lines: list[str] = []
    for key in ("network", "method", "seed"):
        lines += _changed(key, *(getattr(opened.header, key) for opened in files))
    names = [[record.name for record in opened.header.tasks] for opened in files]
    common = [name for name in names[0] if name in names[1]]
    if common != [name for name in names[1] if name in names[0]]:
        lines.append(f"order of tasks: {', '.join(names[0])} → {', '.join(names[1])}")
    for task in common:
        records = [opened.record(task) for opened in files]
        for part in fields(TaskRecord):
            if part.name not in _OF_WEIGHTS:
                lines += _changed(
                    f"{task}.{part.name}", *(getattr(record, part.name) for record in records)
                )
    return lines


def _changed(name: str, before: Any, after: Any) -> Iterator[str]:
    """Yield a line for each part of a value, at any depth, that is not the same."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _changed(f"{name}.{key}", before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif _is_list(before) and _is_list(after) and max(len(before), len(after)) > _MOST_SAID:
        # of a long list only the first difference is said
        pairs = enumerate(zip_longest(before, after, fillvalue=_ABSENT))
        others = [(index, *pair) for index, pair in pairs if pair[0] != pair[1]]
        if others:
            (index, one, other), more = others[0], len(others) - 1
            counted = f" (and {more} more)" if more else ""
            yield f"{name}[{index}]: {_said(one)} → {_said(other)}{counted}"
    elif before != after:
        yield f"{name}: {_said(before)} → {_said(after)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _said(value: Any) -> str:
    if value is _ABSENT:
        return "-"
    return ", ".join(map(str, value)) or "none" if _is_list(value) else str(value)
