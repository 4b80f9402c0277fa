"""Which normalisation reads the output of which convolution."""

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def norms_after(network: nn.Module, images: Tensor) -> dict[str, str]:
    """The name of the batch normalisation that follows a convolution, by the name of its weight.

    images: any that the network takes; it is run once, in evaluation mode, and left in the mode that it was in.
    """
    outputs: list[tuple[Tensor, str]] = []  # they are held, so that no two have the same identity
    found: dict[str, str] = {}

    def remember(name: str) -> Any:
        return lambda module, inputs, output: outputs.append((output, name))

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.update({f"{conv}.weight": name for output, conv in outputs if output is inputs[0]})

        return hook

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(remember(name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(look(name)))
    training = [module for module in network.modules() if module.training]
    try:
        network.eval()(images)
    finally:
        for module in training:
            module.training = True
        for handle in hooks:
            handle.remove()
    return found
