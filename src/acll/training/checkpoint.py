"""What a training needs to go on from its last epoch, in one file."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acll.files import written

_DIGEST = 32  # bytes of the SHA-256 in front of the rest


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its last epoch. key: all that its bits depend on; another key is
    another training."""

    path: Path
    key: str

    def write(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: dict[str, Tensor],
        progress: dict[str, Any],
    ) -> None:
        """Write network, optimiser, best state and progress (plain data), whole or not at all."""
        content = {
            "key": self.key,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": best,
            "progress": progress,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        payload = buffer.getvalue()
        with written(self.path) as beside, beside.open("wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)

    def restore(
        self, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Put back what `write` wrote; return the best state and the progress.

        None, and nothing put back, where there is no such file, it is damaged, or it belongs to
        another training.
        """
        try:
            stored = self.path.read_bytes()
        except OSError:
            return None
        digest, payload = stored[:_DIGEST], stored[_DIGEST:]
        if hashlib.sha256(payload).digest() != digest:
            print(f"{self.path}: damaged, so the training begins again", flush=True)
            return None
        # weights_only: tensors and plain data, no code
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if content["key"] != self.key:
            return None
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        return content["best"], content["progress"]


def snapshot(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state dict, on the CPU; what networks that are trained together share is
    copied once."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    for value in state.values():
        if (value.data_ptr(), value.shape) not in copies:
            copies[value.data_ptr(), value.shape] = value.detach().cpu().clone()
    return {name: copies[value.data_ptr(), value.shape] for name, value in state.items()}
