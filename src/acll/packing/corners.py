"""Corners: where the weights of a narrower network lie in the tensors of a wider one.

The channels of the narrower network are the first ones of the wider. Where a layer reads several
maps that are put together, its input channels are the first ones of each map: they come in runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Corner:
    """A part of a tensor: the first entries of each dimension.

    runs: of dimension 1, the input channels, which parts it has instead: (first, number) of each,
    ascending. Empty where these are the first ones, too.
    """

    shape: tuple[int, ...]
    runs: tuple[tuple[int, int], ...] = ()

    def of(self, value: Tensor) -> Tensor:
        """Return a copy of this part of a tensor."""
        return torch.cat(self._pieces(value), dim=1) if self.runs else self._whole(value).clone()

    def filled(self, around: Tensor, value: Tensor) -> Tensor:
        """Return a copy of a tensor in which this part has other values."""
        whole = around.clone()
        if not self.runs:
            self._whole(whole).copy_(value)
            return whole
        start = 0
        for piece in self._pieces(whole):
            piece.copy_(value.narrow(1, start, piece.shape[1]))
            start += piece.shape[1]
        return whole

    def inputs(self) -> list[int]:
        """Return where its input channels are."""
        runs = self.runs or ((0, self.shape[1]),)
        return [channel for first, number in runs for channel in range(first, first + number)]

    def _whole(self, value: Tensor) -> Tensor:
        return value[tuple(slice(side) for side in self.shape)]

    def _pieces(self, value: Tensor) -> list[Tensor]:
        sides = (self.shape[0], value.shape[1], *self.shape[2:])
        whole = value[tuple(slice(side) for side in sides)]
        return [whole.narrow(1, first, number) for first, number in self.runs]


def corner_at(shape: Sequence[int], inputs: Sequence[int]) -> Corner:
    """Return the corner of a shape that has these input channels, which ascend."""
    runs: list[tuple[int, int]] = []
    for channel in inputs:
        first, number = runs[-1] if runs else (-1, 0)
        if channel == first + number and runs:
            runs[-1] = (first, number + 1)
        else:
            runs.append((channel, 1))
    leading = len(runs) <= 1 and (not runs or runs[0][0] == 0)
    return Corner(tuple(shape), () if leading else tuple(runs))


def embedded(inner: Corner, outer: Corner) -> Corner:
    """Return where a corner is once the tensor that it is a part of has become a part of another.

    outer: where that tensor is in the other.
    """
    if not outer.runs:
        return inner
    places = outer.inputs()
    return corner_at(inner.shape, [places[channel] for channel in inner.inputs()])


def seen_from(inner: Corner, outer: Corner) -> Corner:
    """Return where a corner is in another corner of the same tensor.

    Raises ValueError where it is not in it.
    """
    if not fits_in(inner.shape, outer.shape):
        raise ValueError("a corner that is larger than the one around it")
    if not outer.runs:
        if inner.runs and sum(inner.runs[-1]) > outer.shape[1]:
            raise ValueError("a corner that reads what the one around it does not")
        return inner
    places = {channel: place for place, channel in enumerate(outer.inputs())}
    if not places.keys() >= set(inner.inputs()):
        raise ValueError("a corner that reads what the one around it does not")
    return corner_at(inner.shape, [places[channel] for channel in inner.inputs()])


def fits_in(shape: Sequence[int], larger: Sequence[int]) -> bool:
    """Return whether a tensor of a shape is no larger than another in any dimension."""
    return len(shape) == len(larger) and all(
        side <= whole for side, whole in zip(shape, larger, strict=True)
    )
