"""What a training needs to go on from its last epoch, in one file without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acll.packing.container import load, save
from acll.packing.ownership import PackingError


def store(path: Path, key: str, network: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor],
          progress: dict[str, Any]) -> None:  # fmt: skip
    """Write network, optimiser, best state and progress (JSON); `key` names the training they belong to."""
    tensors = {f"network/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items() if value is not None
        }
    tensors, aliases = _once(tensors)
    save(path, tensors, {"key": key, "progress": progress, "aliases": aliases})


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """A copy of its state, on the CPU; what networks that are trained together share is copied once."""
    state, aliases = _once(network.state_dict())
    copies = {name: value.detach().cpu().clone() for name, value in state.items()}
    return copies | {alias: copies[name] for alias, name in aliases.items()}


def _once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor under the first of its names, and the other names with that one."""
    first: dict[tuple[int, torch.Size], str] = {}
    names = {name: first.setdefault((value.data_ptr(), value.shape), name) for name, value in tensors.items()}
    return {name: tensors[name] for name in first.values()}, {
        alias: name for alias, name in names.items() if alias != name
    }


def restore(
    path: Path, key: str, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Put back what `store` wrote and return the best state and the progress.

    None, and nothing put back, where there is no such file, it is damaged, or it belongs to another training.
    """
    try:
        tensors, header = load(path)
    except PackingError:
        return None
    if header["key"] != key:
        return None
    tensors |= {alias: tensors[name] for alias, name in header["aliases"].items()}
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    network.load_state_dict(parts["network"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        index, slot = name.split("/")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return parts["best"], header["progress"]
