"""An exponential moving average of a network while it is trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """The exponential moving average of parameters, and of the statistics of normalisations.

    After step n it moves by 1 − min(decay, n / (9 + n)) of the way to the network: at the beginning
    it would otherwise stay near weights that nothing has learned yet (TensorFlow's
    `ExponentialMovingAverage` has this rule). Polyak & Juditsky 1992 is where averages come from.

    masks: by name, True where a parameter may move; elsewhere what is shown has the bits of the
    network. still: modules whose statistics do not move.
    """

    def __init__(
        self,
        network: nn.Module,
        decay: float,
        masks: Mapping[str, Tensor],
        still: Sequence[nn.Module],
    ) -> None:
        self.network, self.decay, self.steps = network, decay, 0
        others = {id(buffer) for module in still for buffer in module.buffers()}
        named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self.names = [
            name
            for name, value in named.items()
            if value.is_floating_point() and id(value) not in others and _moves(masks.get(name))
        ]
        self.values = [named[name].detach() for name in self.names]
        self.averages = [value.clone() for value in self.values]
        self.masks = [masks.get(name) for name in self.names]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network after a step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (9 + self.steps))
        if self.averages:
            torch._foreach_lerp_(self.averages, self.values, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the network; afterwards the network is what it was, to the bit."""
        whole = [value.detach() for value in (*self.network.parameters(), *self.network.buffers())]
        before = [value.clone() for value in whole]
        for value, average, mask in zip(self.values, self.averages, self.masks, strict=True):
            # not by arithmetic: the mean of −0 and −0 may be +0
            value.copy_(
                average if mask is None else torch.where(mask.to(value.device), average, value)
            )
        try:
            yield
        finally:
            for value, own in zip(whole, before, strict=True):
                value.copy_(own)

    def progress(self) -> dict[str, Any]:
        """Return what `go_on` needs, for a checkpoint."""
        return {"steps": self.steps, "averages": dict(zip(self.names, self.averages, strict=True))}

    def go_on(self, progress: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = progress["steps"]
        for name, average in zip(self.names, self.averages, strict=True):
            average.copy_(progress["averages"][name])


def _moves(mask: Tensor | None) -> bool:
    return mask is None or bool(mask.any())
