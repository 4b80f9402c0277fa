"""What a method of lifelong learning is: how a task's training starts, what may move in it, its
loss, what comes after.

A method is one file in this folder, with its settings and its behaviour; its name is that of the
file. A class derives from `Method`, has `type: Literal["<name>"]`, its settings as fields, and
overrides what it does otherwise than plain fine-tuning. See CONTRIBUTING.md for an example.

A configuration is read without torch, whose import takes seconds: hooks that compute import it
themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from acll.node import DENSE, Prefix
from acll.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from acll.networks.spec import Network
    from acll.packing.ownership import Packed, State, TaskRecord
    from acll.training.learner import TaskLearner
    from acll.training.loop import Learner

Stage = tuple[Prefix, ...]  # the prefixes of the networks that serve some tasks together
FreeWeights = Literal["fresh", "zero", "pretrained"]


@dataclass(frozen=True)
class Start:
    """A training that is about to begin.

    learner: what is trained. state: its first state dict. masks: by name in the state dict, True
    where a parameter may move; what has no mask moves freely.
    """

    learner: "Learner"
    state: "Mapping[str, Tensor]"
    masks: "Mapping[str, Tensor]" = field(default_factory=dict)


@dataclass(frozen=True)
class Before:
    """What earlier tasks left: their packed network, and what the method remembers besides (empty
    for most). seed: of what the method draws for the task."""

    packed: "Packed"
    memory: "State"
    seed: int


class TrainingRule(Settings):
    """The part of a method that the training of a task depends on.

    Here: all weights move, as in fine-tuning.
    """

    def free_from(self, position: int) -> FreeWeights:
        """Return where weights that nobody owns start. position: 1 for a first task."""
        return "pretrained" if position == 1 else "fresh"

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return the training of the task, before its first step.

        learners: of the task, or of all tasks that are learned at once. start: the state dict of
        the (first) learner's network with the owned weights of earlier tasks in their places.
        """
        (learner,) = learners
        return Start(learner, start)


RuleClass = type[TrainingRule]  # by another name, since `type` is a field of methods


class Method(TrainingRule):
    """A way to learn a sequence of tasks."""

    type: str

    # whether `remember` is called after each task, and its result handed to the training of the
    # next
    remembers: ClassVar[bool] = False
    # whether it can go on from a packed network alone, of whose tasks there are no data: it changes
    # no weight of theirs, and needs nothing of them beside the network
    goes_on: ClassVar[bool] = False
    # the class of what `training_rule` returns; None: this one
    rule_class: "ClassVar[RuleClass | None]" = None

    def rules(self) -> tuple[str, ...]:
        """Return the rules of the workflow that make the network of a node, in their order.

        The last one is `commit`, which calls `commit` below, or `retrain`. A method with `search`,
        `prune` and `retrain` derives from `Packing`.
        """
        return ("train", "commit")

    def training_rule(self) -> TrainingRule:
        """Return what the training of a task depends on: all settings, or a part of them."""
        return self

    def shared_first(self, network: "Network") -> str | None:
        """Return which training of a first task it shares with other methods.

        DENSE, the plain one, or LEARNED; None: it has its own. network: as the configuration has
        it.
        """
        return DENSE

    def stages(self, tasks: tuple[str, ...]) -> tuple[Stage, ...]:
        """Return, for each number of tasks learned, the prefixes of the networks that serve these
        tasks together.

        An empty tuple stands where no network serves so few tasks.
        """
        return tuple((tasks[:count],) for count in range(1, len(tasks) + 1))

    @classmethod
    def commit(cls, packed: "Packed", records: "Sequence[TaskRecord]", state: "State") -> "Packed":
        """Return the network with one more task. state: the trained state dict.

        Here as after fine-tuning: every weight has moved on, and of earlier tasks only the heads
        stay.
        """
        from acll.packing.ownership import commit_finetuned

        (record,) = records
        return commit_finetuned(packed, record, state)

    @classmethod
    def remember(
        cls, learner: "TaskLearner", trained: "State", memory: "State", seed: int
    ) -> "State":
        """Return what the next task needs to know of the tasks so far, beside their network.

        learner: of the task just learned, its network in its final state. trained: the state dict
        that its training ended with, as `commit` gets it. memory: of the tasks before it.
        """
        raise NotImplementedError
