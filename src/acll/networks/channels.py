"""How the channels of a network hang together: what pruning by channel has to know of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class ChannelGraph:
    """Which layers write and read which channels, found out by running the network.

    network: with any weights; it is left as it is. images: of the shape that it takes.
    layers: the convolutions and linear layers, by the names of their weights, each with the name of
    the batch normalisation that reads it, or None.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._network = network
        self._images = torch.ones_like(images[:1])  # one is enough to see what is 0
        self.layers = self._layers()

    @torch.no_grad()
    def _layers(self) -> dict[str, str | None]:
        """Return each layer with the one batch normalisation that reads it unchanged, or None."""
        # the outputs of convolutions, with their version and the name of the weight; holding them
        # keeps Python from giving another tensor the same identity
        outputs: list[tuple[Tensor, int, str]] = []
        reads: Counter[str] = Counter()  # of each normalisation
        found: dict[str, str | None] = {
            f"{name}.weight": None
            for name, module in self._network.named_modules()
            if isinstance(module, _LAYERS)
        }

        def note(norm: str, given: Tensor) -> None:
            reads[norm] += 1
            for output, version, weight in outputs:
                # a higher version: something has changed the convolution's output in place
                if output is given and output._version == version:
                    found[weight] = norm

        def hook(name: str, module: nn.Module) -> Any:
            if isinstance(module, nn.Conv2d):
                return module.register_forward_hook(
                    lambda _, inputs, output: outputs.append(
                        (output, output._version, f"{name}.weight")
                    )
                )
            if isinstance(module, nn.BatchNorm2d):
                return module.register_forward_pre_hook(lambda _, inputs: note(name, inputs[0]))
            return None

        with _hooked(self._network, hook):
            self._run()
        # a normalisation that is used more than once belongs to no single layer
        return {
            weight: norm if norm is not None and reads[norm] == 1 else None
            for weight, norm in found.items()
        }

    @torch.no_grad()
    def idle(self, silent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which weights read nothing but channels that are always 0.

        silent: bool [O] by the name of a weight, the output channels that are 0 behind the layer's
        normalisation. Returned are bool [O, I/groups] by the name of a weight.

        The network runs once, and the output of every module with parameters is replaced by 0 in
        silent channels and by random positive numbers elsewhere. A channel that a layer then finds
        to be 0 is always 0, whatever the weights are. An operation that is not known can only hide
        such a channel, so too little is found and never too much.
        """
        reads: dict[str, Tensor] = {}
        values = torch.Generator().manual_seed(0)
        read_by = {norm: weight for weight, norm in self.layers.items() if norm is not None}

        def look(name: str, module: Any, given: Tensor, axis: int) -> None:
            idle = (given.movedim(axis, 0).flatten(1) == 0).all(dim=1).cpu()
            groups = getattr(module, "groups", 1)
            idle = idle.view(groups, -1).repeat_interleave(len(module.weight) // groups, dim=0)
            reads[name] = idle & reads.get(name, idle)  # a layer may be used more than once

        def replaced(name: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output
            if not isinstance(module, _LAYERS):
                return _coded(output, silent.get(read_by.get(name, "")), 1, values)
            axis = output.dim() - 1 if isinstance(module, nn.Linear) else 1
            look(f"{name}.weight", module, given[0], axis)
            return _coded(output, silent.get(f"{name}.weight"), axis, values)

        def hook(name: str, module: nn.Module) -> Any:
            if (
                isinstance(module, _LAYERS + _NORMS)
                or next(module.parameters(recurse=False), None) is not None
            ):
                return module.register_forward_hook(
                    lambda _, given, output: replaced(name, module, given, output)
                )
            return None

        with _hooked(self._network, hook):
            self._run()
        return reads

    def _run(self) -> None:
        """Run the network where it is now: a training between two calls may have moved it."""
        device = next((value.device for value in self._network.parameters()), self._images.device)
        self._network(self._images.to(device))


def _coded(output: Tensor, silent: Tensor | None, axis: int, generator: torch.Generator) -> Tensor:
    """Return a tensor like an output: 0 in silent channels, random in [1, 2) elsewhere."""
    values = (1 + torch.rand(output.shape, generator=generator)).to(output.device)
    if silent is not None:
        values.movedim(axis, 0)[silent.to(output.device)] = 0
    return values


@contextmanager
def _hooked(network: nn.Module, hook: Callable[[str, nn.Module], Any]) -> Iterator[None]:
    """Put hooks on modules and set evaluation mode, and undo both when the block ends.

    hook: gives the handle of a module's hook, or None where it wants none.
    """
    handles = [
        handle
        for name, module in network.named_modules()
        if (handle := hook(name, module)) is not None
    ]
    training = [module for module in network.modules() if module.training]
    try:
        network.eval()
        yield
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
