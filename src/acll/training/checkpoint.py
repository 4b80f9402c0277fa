"""What a training needs to go on from its last epoch, in one file without pickle."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acll.packing.file import load, save
from acll.packing.ownership import PackingError


def store(path: Path, key: str, network: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor],
          progress: dict[str, Any]) -> None:  # fmt: skip
    """Write network, optimiser, best state and progress (JSON); `key` names the training they belong to."""
    # copies, since networks that are trained together share tensors, which the format does not allow
    tensors = {f"network/{name}": value.clone() for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items() if value is not None
        }
    save(path, tensors, {"key": key, "progress": progress})


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
