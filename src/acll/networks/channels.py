"""How the channels of a network hang together: what pruning by channel has to know of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class ChannelGraph:
    """Which normalisation reads a layer, and which weights read nothing where some channels are always 0.

    layers: the convolutions and linear layers, by the names of their weights, each with the name of the batch
    normalisation that reads it, or None.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        """network: whatever its weights; it is left as it is. images: of the shape that it takes."""
        self._network, self._images = network, torch.ones_like(images)
        self.layers = self._look()

    @torch.no_grad()
    def _look(self) -> dict[str, str | None]:
        outputs: list[tuple[Tensor, str]] = []  # they are held, so that no two have the same identity
        found: dict[str, str | None] = {
            f"{name}.weight": None for name, module in self._network.named_modules() if isinstance(module, _LAYERS)
        }

        def hook(name: str, module: nn.Module) -> Any:
            if isinstance(module, nn.Conv2d):
                return module.register_forward_hook(
                    lambda _, inputs, output: outputs.append((output, f"{name}.weight"))
                )
            if isinstance(module, nn.BatchNorm2d):
                return module.register_forward_pre_hook(
                    lambda _, inputs: found.update({conv: name for output, conv in outputs if output is inputs[0]})
                )
            return None

        with _hooked(self._network, hook):
            self._network(self._images)
        return found

    @torch.no_grad()
    def idle(self, silent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which weights read nothing but channels that are always 0: bool [O, I/groups] by the name of a weight.

        silent: bool [O] by the name of a weight, the output channels that are 0 behind the layer's normalisation. All
        others are taken for anything but 0: what layers and normalisations give is replaced, and what then comes to
        each of them is looked at.
        """
        reads: dict[str, Tensor] = {}
        read_by = {norm: weight for weight, norm in self.layers.items() if norm is not None}

        def look(name: str, module: Any, given: Tensor, axis: int) -> None:
            idle = (given.movedim(axis, 0).flatten(1) == 0).all(dim=1).cpu()
            groups = getattr(module, "groups", 1)
            idle = idle.view(groups, -1).repeat_interleave(len(module.weight) // groups, dim=0)
            reads[name] = idle & reads.get(name, idle)  # a layer may be used more than once

        def replaced(name: str, module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
            axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
            if isinstance(module, _LAYERS):
                look(f"{name}.weight", module, given, axis)
            return _coded(output, silent.get(read_by.get(name, f"{name}.weight")), axis)

        def hook(name: str, module: nn.Module) -> Any:
            if isinstance(module, _LAYERS + _NORMS):
                return module.register_forward_hook(lambda _, given, output: replaced(name, module, given[0], output))
            return None

        with _hooked(self._network, hook):
            self._network(self._images)
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
