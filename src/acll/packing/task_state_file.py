"""A task on its way into the store: its dense state, or its pruned state with its masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acll.packing import packed_file, tensor_file
from acll.packing.ownership import State


def save_state(path: Path, state: State, header: dict[str, Any], keep: State | None = None) -> None:
    """Write a task's state dict, the masks of what it keeps (once pruned), and a JSON header.

    What networks that are trained together share is written once, under its first name.
    """
    tensors = {f"state/{name}": value for name, value in _once(state).items()}
    tensors |= {f"keep/{name}": value for name, value in (keep or {}).items()}
    tensor_file.save_tensors(path, tensors, header)


def _once(state: State) -> State:
    """Return each tensor once, under the first of its names."""
    first: dict[tuple[int, torch.Size], str] = {}
    for name, value in state.items():
        first.setdefault((value.data_ptr() or id(value), value.shape), name)
    return {name: state[name] for name in first.values()}


def load_state(path: Path) -> tuple[State, State, dict[str, Any]]:
    """Return (state, masks, header) as `save_state` wrote them. Raises PackingError."""
    tensors, header = tensor_file.load_tensors(path)
    parts: dict[str, State] = {"state": {}, "keep": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts[part][key] = value
    return parts["state"], parts["keep"], header


def free_of(parent: Path | None, state: Mapping[str, Tensor], shared: Sequence[str]) -> State:
    """Return boolean masks of what a task could train, of the weights named in `shared`.

    parent: the packed file of the tasks before it, which left these weights free; without one, all
    weights are free.
    """
    if parent is None:
        return {name: torch.ones(state[name].shape, dtype=torch.bool) for name in shared}
    owner = packed_file.read_packed(parent).owner
    return {name: owner[name] == 0 for name in shared}
