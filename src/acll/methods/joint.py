"""Joint training (multitask learning, Caruana 1997): one network, all tasks at once, in turns of a
batch.

All weights that packing shares are shared; head, biases and normalisations are each task's own, as
they are there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from acll.methods.base import Before, Method, Stage, Start
from acll.node import TOGETHER

if TYPE_CHECKING:
    from acll.networks.spec import Network
    from acll.packing.ownership import Packed, State, TaskRecord
    from acll.training.learner import TaskLearner


class Joint(Method):
    """Train one network on all tasks of a sequence at once (Caruana 1997), in turns of a batch; all
    weights are shared, heads, biases and normalisations are each task's own, as in packing. It
    needs all data at the same time. `epochs`, learning rate, optimiser and schedule are those of
    `training`, whatever a task overrides."""

    type: Literal["joint"] = Field(description="`joint`")

    def shared_first(self, network: "Network") -> str | None:
        """Return None: no task is the first."""
        return None

    def stages(self, tasks: tuple[str, ...]) -> tuple[Stage, ...]:
        """Return the one network that serves all tasks, which depends on their set alone."""
        return (*[()] * (len(tasks) - 1), ((TOGETHER.join(sorted(tasks)),),))

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return the training of all tasks, which are tied here: they share the store's weights."""
        from acll.training.joint import JointLearner

        joint = JointLearner(tuple(learners), tuple(before.packed.shared))
        return Start(joint, joint.network.state_dict())

    @classmethod
    def commit(cls, packed: "Packed", records: "Sequence[TaskRecord]", state: "State") -> "Packed":
        """Return the network of all tasks. state: of `JointLearner.network`, `<number>.<name>`."""
        from dataclasses import replace

        import torch

        from acll.packing.ownership import digest, task_state_dict

        states: list[State] = [
            {
                name.removeprefix(f"{number}."): value
                for name, value in state.items()
                if name.startswith(f"{number}.")
            }
            for number in range(len(records))
        ]
        shared = {
            name: next((own[name].clone() for own in states if name in own), value)
            for name, value in packed.shared.items()
        }
        private = {
            record.name: {name: value.clone() for name, value in own.items() if name not in shared}
            for record, own in zip(records, states, strict=True)
        }
        used = {name for own in states for name in own}  # a decoder that no task uses stays free
        owner = {
            name: torch.ones_like(value) if name in used else value
            for name, value in packed.owner.items()
        }
        joined = replace(packed, shared=shared, owner=owner, private=private, tasks=tuple(records))
        after = (
            replace(one, digest=digest(task_state_dict(joined, one.name)), frozen=False)
            for one in records
        )
        return replace(joined, tasks=tuple(after))
