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
    """Which normalisation reads a layer, and which weights read nothing where some channels are
    always 0.

    layers: the convolutions and linear layers, by the names of their weights, each with the name of
    the batch normalisation that reads it, or None.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        """network: whatever its weights; it is left as it is. images: of the shape that it takes."""
        self._network, self._images = (
            network,
            torch.ones_like(images[:1]),
        )  # one is enough to see what is 0
        self.layers = self._look()

    @torch.no_grad()
    def _look(self) -> dict[str, str | None]:
        outputs: list[
            tuple[Tensor, int, str]
        ] = []  # they are held, so that no two have the same identity
        reads: Counter[str] = Counter()  # of each normalisation
        found: dict[str, str | None] = {
            f"{name}.weight": None
            for name, module in self._network.named_modules()
            if isinstance(module, _LAYERS)
        }

        def look(norm: str, given: Tensor) -> None:
            reads[norm] += 1
            # an output that has been changed in place is no longer the convolution's
            found.update(
                {
                    weight: norm
                    for output, version, weight in outputs
                    if output is given and output._version == version
                }
            )

        def hook(name: str, module: nn.Module) -> Any:
            if isinstance(module, nn.Conv2d):
                return module.register_forward_hook(
                    lambda _, inputs, output: outputs.append(
                        (output, output._version, f"{name}.weight")
                    )
                )
            if isinstance(module, nn.BatchNorm2d):
                return module.register_forward_pre_hook(lambda _, inputs: look(name, inputs[0]))
            return None

        with _hooked(self._network, hook):
            self._network(self._images)
        return {
            weight: norm if norm is not None and reads[norm] == 1 else None
            for weight, norm in found.items()
        }

    @torch.no_grad()
    def idle(self, silent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which weights read nothing but channels that are always 0: bool [O, I/groups] by the name
        of a weight.

        silent: bool [O] by the name of a weight, the output channels that are 0 behind the layer's
        normalisation. All others are taken for anything but 0: what all modules with parameters
        give is replaced, and what then comes to layers is looked at. So no weight makes a
        difference, and what is not known is taken for 0 too seldom.
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
            self._network(self._images)
        return reads


def _coded(output: Tensor, silent: Tensor | None, axis: int, generator: torch.Generator) -> Tensor:
    """Of the shape of an output, 0 in silent channels, and positive, no two alike, elsewhere."""
    values = (1 + torch.rand(output.shape, generator=generator)).to(output.device)
    if silent is not None:
        values.movedim(axis, 0)[silent.to(output.device)] = 0
    return values


@contextmanager
def _hooked(network: nn.Module, hook: Callable[[str, nn.Module], Any]) -> Iterator[None]:
    """Hooks of each module that wants one, in evaluation mode; afterwards all is as it was."""
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
