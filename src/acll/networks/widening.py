"""Which input channels of a wider network are those of a narrower one."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from acll.seeds import derived

_SIDE = 32  # pixels of the image that networks are run on
_ALIKE = 1e-9  # means of equal numbers may differ by rounding


def inputs_in_wider(narrow: nn.Module, wide: nn.Module, channels: int) -> dict[str, list[int]]:
    """Return for each layer which input channels of the wider network are those of the narrower.

    By the name of the layer's weight. channels: of the images. A layer whose input is not made
    channel by channel has the first ones.

    Both networks run once. The output of each module with parameters is replaced by numbers that
    stand for the module and the channel. Two input channels of a layer are the same where the
    numbers that arrive are.
    """
    before, after = (_arriving(network, channels) for network in (narrow, wide))
    return {name: _matched(before[name], after[name]) for name in before}


def _matched(before: list[float], after: list[float]) -> list[int]:
    """Return the places of some numbers among others; the first ones where some are not there."""
    places: list[int] = []
    start = 0
    for value in before:
        found = next(
            (at for at in range(start, len(after)) if abs(after[at] - value) < _ALIKE), None
        )
        if found is None:
            return list(range(len(before)))
        places.append(found)
        start = found + 1
    return places


@torch.no_grad()
def _arriving(network: nn.Module, channels: int) -> dict[str, list[float]]:
    """Return the number that arrives at each input channel of each layer, by the layer's weight."""
    arrived: dict[str, list[float]] = {}

    def hook(name: str) -> Any:
        def replaced(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            if isinstance(module, nn.Conv2d | nn.Linear):
                numbers = given[0][0].flatten(1) if given[0].dim() > 2 else given[0].T
                arrived.setdefault(f"{name}.weight", numbers[:, 0].tolist())
            return _coded(name, output)

        return replaced

    network.double().eval()
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                stack.callback(module.register_forward_hook(hook(name)).remove)
        network(torch.ones(1, channels, _SIDE, _SIDE, dtype=torch.double))
    return arrived


def _coded(name: str, output: Tensor) -> Tensor:
    """Return a tensor like an output, with a number for each channel: of all networks the same."""
    generator = torch.Generator().manual_seed(derived(0, "channel", name))
    # one by one: how many are drawn together must not change them
    numbers = [
        1 + torch.rand(1, generator=generator, dtype=torch.double).item()
        for _ in range(output.shape[1])
    ]
    shape = (1, -1, *[1] * (output.dim() - 2))
    return torch.tensor(numbers, dtype=torch.double).view(shape).expand_as(output).clone()
