"""How the channels of a network's layers hang together: which normalisation reads a convolution, and which weights read
nothing but channels that are always 0."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Layers = Mapping[str, str | None]
_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def layers_of(network: nn.Module, images: Tensor) -> dict[str, str | None]:
    """The convolutions and linear layers of a network, by the names of their weights, each with the name of the batch
    normalisation that reads it, or None.

    images: any that the network takes; it is run once, in evaluation mode, and left in the mode that it was in.
    """
    outputs: list[tuple[Tensor, str]] = []  # they are held, so that no two have the same identity
    found: dict[str, str | None] = {
        f"{name}.weight": None for name, module in network.named_modules() if isinstance(module, _LAYERS)
    }

    def hook(name: str, module: nn.Module) -> Any:
        if isinstance(module, nn.Conv2d):
            return module.register_forward_hook(lambda _, inputs, output: outputs.append((output, name)))
        if isinstance(module, nn.BatchNorm2d):
            return module.register_forward_pre_hook(
                lambda _, inputs: found.update(
                    {f"{conv}.weight": name for output, conv in outputs if output is inputs[0]}
                )
            )
        return None

    with _hooked(network, hook):
        network(images)
    return found


@torch.no_grad()
def idle_weights(network: nn.Module, images: Tensor, layers: Layers, silent: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which weights read nothing but channels that are always 0: bool [O, I/groups] by the name of a layer's weight.

    layers: those of `layers_of`; silent: bool [O] by the name of a layer's weight, the output channels that are 0
    behind its normalisation. All others are taken for anything but 0: what a layer or normalisation gives is replaced,
    so that the weights of the network make no difference. images: of the shape that it takes.
    """
    reads: dict[str, Tensor] = {}
    follows = {norm: weight for weight, norm in layers.items() if norm is not None}

    def hook(name: str, module: nn.Module) -> Any:
        if isinstance(module, _LAYERS):
            own = silent.get(f"{name}.weight")
            return module.register_forward_hook(lambda _, inputs, output: given(name, module, inputs[0], output, own))
        if isinstance(module, _NORMS):
            own = silent.get(follows.get(name, ""))
            return module.register_forward_hook(lambda _, inputs, output: _coded(output, own, 1))
        return None

    def given(name: str, module: Any, values: Tensor, output: Tensor, own: Tensor | None) -> Tensor:
        axis = 1 if isinstance(module, nn.Conv2d) else values.dim() - 1
        idle = (values.movedim(axis, 0).flatten(1) == 0).all(dim=1).cpu()
        groups = getattr(module, "groups", 1)
        idle = idle.view(groups, -1).repeat_interleave(len(module.weight) // groups, dim=0)
        reads[f"{name}.weight"] = idle & reads.get(f"{name}.weight", idle)
        return _coded(output, own, axis)

    with _hooked(network, hook):
        network(torch.ones_like(images))
    return reads


def _coded(output: Tensor, silent: Tensor | None, axis: int) -> Tensor:
    """Of the shape of an output, 0 in silent channels, and positive but not constant elsewhere."""
    values = torch.linspace(1, 2, output.numel(), device=output.device).view(output.shape)
    if silent is not None:
        values.movedim(axis, 0)[silent.to(output.device)] = 0
    return values


@contextmanager
def _hooked(network: nn.Module, hook: Callable[[str, nn.Module], Any]) -> Iterator[None]:
    """Hooks of each module that wants one, in evaluation mode; afterwards all is as it was."""
    handles = [handle for name, module in network.named_modules() if (handle := hook(name, module)) is not None]
    training = [module for module in network.modules() if module.training]
    try:
        network.eval()
        yield
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
