"""Chosen reuse: a task learns which weights of earlier tasks it reads, while it is trained."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from acll.packing.ownership import Packed, State
from acll.training.learner import TaskLearner
from acll.training.metrics import EvalResult

PATIENCE = 12  # so many more votes against a weight than for it leave it out
REVIEW = 10  # steps from one count of the votes to the next
VOTES = "votes"  # the part of the network in training that holds the votes


class ChoosingLearner:
    """A learner whose task chooses, weight by weight, what it reads of earlier tasks.

    Each batch votes on each weight of an earlier task: against it where the loss falls if it comes
    nearer to 0, else for it. Votes begin at PATIENCE; a weight is read while they stand above 0.
    One that is left out is 0, and later votes may take it back. For these the gradient at 0 is
    taken for that of a weight that is read: a straight-through estimate, as in Mallya, Davis &
    Lazebnik 2018, who choose weights of a fixed network so.

    The votes are a part of the state dict, `votes.…`, so that a training that was killed goes on
    with them. The network is a copy of the learner's.
    """

    def __init__(self, learner: TaskLearner, packed: Packed) -> None:
        self.network = copy.deepcopy(learner.network)
        self.learner, self.device = replace(learner, network=self.network), learner.device
        self.votes = nn.Module()
        self.network.add_module(VOTES, self.votes)
        self.shared: State = {}
        for name, parameter in self.network.named_parameters():
            if name in packed.owner and bool((packed.owner[name] > 0).any()):
                # zero where free: there no vote counts
                self.shared[name] = packed.shared[name].to(self.device)
                start = torch.full(parameter.shape, float(PATIENCE))
                self.votes.register_buffer(_key(name), start)
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    self._vote(name)
                )
        self.owned = {name: packed.owner[name].to(self.device) > 0 for name in self.shared}

    def start(self, state: Mapping[str, Tensor]) -> State:
        """Return a task's state dict with the votes as they are at the beginning."""
        votes = self.network.state_dict()
        return dict(state) | {name: votes[name] for name in votes if name.startswith(f"{VOTES}.")}

    def batches(self) -> int:
        """Return how many batches an epoch has."""
        return self.learner.batches()

    def losses(self, seed: int, epoch: int) -> Iterator[Tensor]:
        """Yield the loss of each batch of an epoch; before some of them, votes are counted."""
        losses = self.learner.losses(seed, epoch)
        for step in range(self.batches()):
            if step % REVIEW == 0:
                self._count()
            yield next(losses)

    def validate(self) -> tuple[EvalResult, ...]:
        """Return what the network does on the validation split, with what it now reads."""
        self._count()
        return self.learner.validate()

    def _vote(self, name: str) -> Callable[[Tensor], None]:
        """Return what takes the votes of a batch, when the gradient of a weight is known.

        The loop multiplies it by its masks only later.
        """
        key, sign = _key(name), self.shared[name].sign()

        @torch.no_grad()
        def vote(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.votes.get_buffer(key).addcmul_(parameter.grad.sign(), sign, value=-1)

        return vote

    @torch.no_grad()
    def _count(self) -> None:
        """Put every weight of earlier tasks to what the votes say: its value, or 0."""
        for name, shared in self.shared.items():
            weight = self.network.get_parameter(name)
            read = torch.where(self.votes.get_buffer(_key(name)) > 0, shared, 0.0)
            weight.copy_(torch.where(self.owned[name], read, weight))


def without_votes(state: Mapping[str, Tensor]) -> State:
    """Return a state dict without the votes."""
    return {name: value for name, value in state.items() if not name.startswith(f"{VOTES}.")}


def _key(name: str) -> str:
    """Return the name of a weight's votes: a buffer's has no dots."""
    return name.replace(".", "/")
