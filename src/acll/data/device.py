"""Tensors on their way to the device."""

import torch
from torch import Tensor


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Return values on the device; a GPU gets them while this process goes on."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    # contiguous: what has been expanded cannot be pinned
    return values.contiguous().pin_memory().to(device, non_blocking=True)
