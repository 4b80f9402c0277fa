"""Networks that read a part of their weights, and learn which: a mask for each task."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from acll.networks.build import TaskNetwork
from acll.packing.layers import layer_shares
from acll.packing.ownership import State
from acll.packing.prune import kept_count

SCORES, MASKS = "scores", "masks"  # the parts of a network in training that hold them
SAMPLE = 2**14  # weights of a tensor, of which a limit is estimated in training
FEWEST = 50  # of them have to lie above it: a count of n varies by its root
# name of a tensor, what its weights are worth [N], and whether counts have to be exact → a boolean
# mask of what is read [N]
Choose = Callable[[str, Tensor, bool], Tensor]


class MaskedNetwork(TaskNetwork):
    """A task's network that reads some weights as they are and the others as 0.

    Each weight of the tensors that `scores` names has a score, which is trained with the network:
    the gradient of a weight's mask, which is 0 or 1, is taken for that of its score. So the score
    falls where the loss would fall without the weight, and rises where it would fall with it: a
    straight-through estimate (Bengio, Léonard & Courville 2013).

    What a weight is worth is the magnitude of its score, or the score itself (`signed`). `choose`
    makes the masks of that, anew in each forward pass of a training, and in the first one after the
    network was put in evaluation mode. Only then are counts exact: to find the largest of all
    weights in every step would take as long as the step.

    The state dict is that of `network`, with all weights whether they are read or not, and beside
    it `scores.…` and `masks.…`, the masks of the latest pass. So a training that was killed goes on
    with them. Parts are those of `network`, not copies.
    """

    def __init__(
        self,
        network: TaskNetwork,
        scores: Mapping[str, Tensor],
        choose: Choose,
        signed: bool = False,
    ) -> None:
        super().__init__(network.encoder, network.decoder, network.head, network.channels)
        self.built_from = network.built_from
        self.choose, self.signed = choose, signed
        self._stale = True  # whether the masks are to be made anew
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

    def train(self, mode: bool = True) -> "MaskedNetwork":
        """Put the network in training or evaluation mode; the next pass makes new masks."""
        self._stale = True
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images [N, C, H, W], with masks of the scores."""
        (network,) = self._network
        if self._stale:
            self.make_masks(exact=not self.training)
        self._stale = self.training  # the optimiser is about to move the scores
        logits: Tensor = functional_call(network, dict(self._read()), (images,))
        return logits

    @torch.no_grad()
    def make_masks(self, exact: bool = True) -> None:
        """Make new masks of the scores."""
        for name in self._masked:
            mask = self.masks.get_buffer(_key(name))
            mask.copy_(self.choose(name, self._worth(name), exact).view_as(mask))

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that have masks, with 0 where a weight is not read."""
        for name in self._masked:
            mask = self.masks.get_buffer(_key(name))
            scores = self.scores.get_parameter(_key(name))
            # as floats: products with booleans take several times as long
            weight, numbers = self.get_parameter(name), mask.float()
            read: Tensor = _Masked.apply(weight, scores, numbers, self.signed)
            yield name, read

    def _worth(self, name: str) -> Tensor:
        """Return what the weights of a tensor are worth [N]."""
        scores = self.scores.get_parameter(_key(name))
        return scores if self.signed else scores.abs()


class _Masked(torch.autograd.Function):
    """A weight where its mask is 1, else 0. scores: [N]; signed: as of `MaskedNetwork`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor, signed: bool) -> Tensor:
        ctx.save_for_backward(weight, scores, mask)
        ctx.signed = signed
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, scores, mask = ctx.saved_tensors
        (gradient,) = gradients
        of_scores = (gradient * weight).flatten()
        if not ctx.signed:  # a score is worth its magnitude
            of_scores *= scores.sgn()
        return gradient * mask, of_scores, None, None


class LargestScores:
    """Chooses a share of the weights of a network: of each tensor those with the largest scores.

    share: in (0, 1]; it may be set anew. free: boolean masks; of all that is free that share is
    chosen, which `layer_shares` divides among tensors. Of the rest, the weights of earlier tasks,
    as large a share of each tensor is, or `earlier` where that is more. None: that share of each
    tensor, at least one weight.

    Exactly as many are chosen, or, of a tensor with many more than SAMPLE weights, about as many:
    the limit is then that of a sample, where the share of it is FEWEST weights or more.
    """

    def __init__(
        self, share: float, free: Mapping[str, Tensor] | None = None, earlier: float = 0.0
    ) -> None:
        self.earlier = earlier
        self._free: dict[str, _Group] = {}
        self._others: dict[str, _Group] = {}
        for name, mask in (free or {}).items():
            flat = mask.flatten().cpu()
            self._free[name], self._others[name] = _Group(flat), _Group(~flat)
        self.share = share

    @property
    def share(self) -> float:
        """The share of all that may be chosen."""
        return self._share

    @share.setter
    def share(self, share: float) -> None:
        counts = {name: len(group.positions) for name, group in self._free.items()}
        self._share, self._of_free = share, layer_shares(counts, share)

    def __call__(self, name: str, worth: Tensor, exact: bool) -> Tensor:
        """Return a boolean mask [N] of what is chosen of a tensor. worth: [N]."""
        if name not in self._others:
            self._others[name] = _Group(torch.ones(worth.shape, dtype=torch.bool), fewest=1)
        groups = [(self._others[name], max(self.share, self.earlier))]
        if name in self._free:
            groups.append((self._free[name], self._of_free[name]))
        parts = [
            group.largest(worth, share, exact) for group, share in groups if len(group.positions)
        ]
        return parts[0] if len(parts) == 1 else parts[0] | parts[1]


class _Group:
    """Weights of a tensor of which a share is chosen.

    members: bool [N]. fewest: how many are chosen at least.
    """

    def __init__(self, members: Tensor, fewest: int = 0) -> None:
        self.members, self.fewest = members, fewest
        self.positions = members.nonzero().flatten()
        stride = max(1, len(self.positions) // SAMPLE)
        self.sample = self.positions[::stride]

    def largest(self, worth: Tensor, share: float, exact: bool) -> Tensor:
        """Return a mask [N] of the members that are chosen. worth: [N]."""
        self._move(worth.device)
        if share >= 1:
            return self.members
        if not exact and len(self.sample) < len(self.positions):
            count = kept_count(len(self.sample), 1 - share)
            if count >= FEWEST:
                # `index_select`: a fifth of the time of an index in brackets
                some = worth.index_select(0, self.sample)
                limit = some.topk(count, sorted=False).values.min()
                return (worth >= limit) & self.members
        count = max(self.fewest, kept_count(len(self.positions), 1 - share))
        own = worth.index_select(0, self.positions)
        largest = own.topk(count, sorted=False).indices
        positions = self.positions.index_select(0, largest)
        return torch.zeros_like(self.members).index_fill_(0, positions, True)

    def _move(self, device: torch.device) -> None:
        if self.members.device != device:
            self.members, self.positions, self.sample = (
                own.to(device) for own in (self.members, self.positions, self.sample)
            )


def positive(name: str, worth: Tensor, exact: bool) -> Tensor:
    """Return a mask of what is above 0."""
    return worth > 0


def first_scores(
    network: TaskNetwork, name: str, weight: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the scores of a tensor at the beginning, of its shape.

    They are its values where it starts from weights that the configuration names, and newly drawn
    elsewhere. Where a value is 0 they are drawn, too: a score of 0 has no gradient.
    """
    drawn = drawn_scores(weight, generator)
    if starts_from_weights(network, name):
        return torch.where(weight == 0, drawn, weight)
    return drawn


def ranked_scores(
    network: TaskNetwork, name: str, weight: Tensor, ranks: Tensor, scores: Tensor
) -> Tensor:
    """Return the first scores of a tensor with those of earlier tasks' weights by their ranks.

    A rank of 1 is the largest score that can be drawn. ranks: in [0, 1], 0 for free weights.
    scores: the first ones of all weights; they stay where a weight is free or 0, and where they are
    values that the configuration names.
    """
    if starts_from_weights(network, name):
        return scores
    known = (ranks > 0) & (weight != 0)
    return torch.where(known, ranks * weight.sign() * _bound(weight), scores)


def drawn_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return scores of a tensor, drawn as PyTorch draws the weights of a layer: evenly between
    ±1/√n, n being the inputs of an output."""
    return (torch.rand(weight.shape, generator=generator) * 2 - 1) * _bound(weight)


def _bound(weight: Tensor) -> float:
    return 1 / math.sqrt(weight[0].numel())


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


def masks_of(state: Mapping[str, Tensor]) -> State:
    """Return the masks in the state dict of a `MaskedNetwork`, by the names of the weights."""
    return dict(_parts(state, MASKS))


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
