"""Networks that read a part of their weights, and learn which: a mask for each task."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from acll.networks.build import TaskNetwork
from acll.packing.ownership import State

SCORES, MASKS = "scores", "masks"  # the parts of a network in training that hold them
# makes a mask of the scores [N] of a tensor: 0 or 1 for each weight, with a gradient
Choose = Callable[[Tensor], Tensor]


class MaskedNetwork(TaskNetwork):
    """A task's network that reads some weights as they are and the others as 0.

    Each weight of the tensors that `scores` names has a score, which is trained with the network.
    `choose` makes a mask of the scores of a tensor, anew in each forward pass.

    The state dict is that of `network`, with all weights whether they are read or not, and beside
    it `scores.…` and `masks.…`, the masks of the latest pass. So a training that was killed goes on
    with them. Parts are those of `network`, not copies.
    """

    def __init__(self, network: TaskNetwork, scores: Mapping[str, Tensor], choose: Choose) -> None:
        super().__init__(network.encoder, network.decoder, network.head, network.channels)
        self.built_from = network.built_from
        self.choose = choose
        self._network = (network,)  # in a tuple: its parts are registered here already
        self.scores, self.masks = nn.Module(), nn.Module()
        for name, value in scores.items():
            # flat: the loop lets no parameter of one dimension decay
            own = nn.Parameter(value.flatten().clone())
            self.scores.register_parameter(_key(name), own)
            self.masks.register_buffer(_key(name), torch.ones(value.shape, dtype=torch.bool))
        self._masked = tuple(scores)

    def start(self, state: Mapping[str, Tensor]) -> State:
        """Return a task's state dict with the scores and masks as they are at the beginning."""
        own = self.state_dict()
        return dict(state) | {name: own[name].clone() for name in own if _beside(name)}

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images [N, C, H, W], with masks of the scores as they are now."""
        (network,) = self._network
        logits: Tensor = functional_call(network, dict(self._read()), (images,))
        return logits

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that have masks, with 0 where a weight is not read."""
        for name in self._masked:
            weight = self.get_parameter(name)
            mask = self.choose(self.scores.get_parameter(_key(name))).view_as(weight)
            self.masks.get_buffer(_key(name)).copy_(mask.detach())
            yield name, weight * mask


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor) -> Tensor:
        return mask.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def straight_through(scores: Tensor, mask: Tensor) -> Tensor:
    """Return a boolean mask as 0 and 1, whose gradient is taken for that of the scores.

    So the score of a weight falls where the loss would fall without it, and rises where it would
    fall with it (Bengio, Léonard & Courville 2013).
    """
    chosen: Tensor = _StraightThrough.apply(scores, mask)
    return chosen


def largest(share: float) -> Choose:
    """Return what chooses this share of the weights of a tensor: those with the largest scores,
    whatever their sign. Of equal ones at the limit all are chosen."""

    def choose(scores: Tensor) -> Tensor:
        strengths = scores.abs()
        count = max(1, round(share * strengths.numel()))
        limit = strengths.detach().topk(count, sorted=False).values.min()
        return straight_through(strengths, strengths >= limit)

    return choose


def positive(scores: Tensor) -> Tensor:
    """Return a mask of the scores that are above 0."""
    return straight_through(scores, scores > 0)


def drawn_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return scores of a tensor, drawn as PyTorch draws the weights of a layer: evenly between
    ±1/√n, n being the inputs of an output."""
    bound = 1 / math.sqrt(weight[0].numel())
    return (torch.rand(weight.shape, generator=generator) * 2 - 1) * bound


def starts_from_weights(network: TaskNetwork, name: str) -> bool:
    """Return whether a tensor starts from weights that the configuration names."""
    assert network.built_from is not None
    return network.built_from.weights != "none" and name.startswith("encoder.")


def masked_state(state: Mapping[str, Tensor]) -> State:
    """Return the state dict of a task: what its masks leave out is 0, and there are no scores.

    state: of a `MaskedNetwork`; of another network it is returned as it is.
    """
    after = {name: value for name, value in state.items() if not _beside(name)}
    for name, mask in _parts(state, MASKS):
        after[name] = torch.where(mask, after[name], 0.0)
    return after


def scores_of(state: Mapping[str, Tensor]) -> State:
    """Return the scores [N] in the state dict of a `MaskedNetwork`, by the names of the weights."""
    return dict(_parts(state, SCORES))


def _parts(state: Mapping[str, Tensor], part: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if name.startswith(f"{part}."):
            yield name.removeprefix(f"{part}.").replace("/", "."), value


def _beside(name: str) -> bool:
    """Return whether a name of the state dict is none of the network that is masked."""
    return name.startswith((f"{SCORES}.", f"{MASKS}."))


def _key(name: str) -> str:
    """Return the name of a weight's scores: a parameter's has no dots."""
    return name.replace(".", "/")
