"""A task on its way into the store: its dense state, or its pruned state with its masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from acll.packing import tensor_file
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


def final_of(dense: Sequence[Path], held: Sequence[Path]) -> tuple[Path, Path | None]:
    """Return the dense network that a task goes on from, and the trial that goes with it, if any.

    dense: the network, and for a method that grows the wider one, which has no state where the
    network did not grow. held: for each, what the search has held; empty without a search.
    """
    grown = len(dense) > 1 and bool(tensor_file.open_tensors(dense[-1]).names())
    last = -1 if grown else 0
    return dense[last], held[last] if held else None
