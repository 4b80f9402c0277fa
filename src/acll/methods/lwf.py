"""Learning without forgetting (Li & Hoiem, IEEE TPAMI 2018).

While a new task is learned, the heads of earlier tasks are trained on, too: to give, for images of
the new task, what the network gave before it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from acll.methods.base import Before, Method, Start

if TYPE_CHECKING:
    from torch import Tensor

    from acll.networks.build import TaskNetwork
    from acll.packing.ownership import Packed, State
    from acll.training.learner import TaskLearner


class LwF(Method):
    """Learning without forgetting (Li & Hoiem 2016): fine-tuning in which the heads of earlier
    tasks keep, on images of the new one, the outputs that they had before it. Without the paper's
    warm-up of the new head alone."""

    type: Literal["lwf"] = Field(description="`lwf`")
    strength: float = Field(
        1.0, ge=0, description="weight of these losses (λ of equation 4); 0 is fine-tuning"
    )
    temperature: float = Field(
        2.0, gt=0, description="by which outputs are softened before they are compared (T)"
    )

    def begin(self, learners: "Sequence[TaskLearner]", start: "State", before: Before) -> Start:
        """Return a training with the loss of equation 4, without its weight decay, which the loop
        applies."""
        import copy

        import torch
        from torch import nn

        (learner,) = learners
        network = learner.network
        teachers = [
            teacher_of(before.packed, record.name, network).to(learner.device)
            for record in before.packed.tasks
        ]
        heads = [copy.deepcopy(teacher.head).requires_grad_(True) for teacher in teachers]
        for teacher in teachers[:-1]:
            teacher.encoder = nn.Identity()  # the last one's is that of all
        network.earlier = nn.ModuleList(heads)

        def loss(images: "Tensor", labels: "Tensor") -> "Tensor":
            encoded = network.encode(images)
            features = network.features(encoded)
            total = learner.task_loss(network.head(features).float(), labels)
            if self.strength == 0:
                return total
            with torch.no_grad():
                # in fine-tuning all but the heads has moved on for all tasks, so one encoder serves
                # all
                encoded_before = teachers[-1].encode(images)
                targets = [teacher.head(teacher.features(encoded_before)) for teacher in teachers]
            for head, teacher, target in zip(network.earlier, teachers, targets, strict=True):  # type: ignore[arg-type]
                # a decoder that the new task does not use stays as it was
                same_parts = (teacher.decoder is None) == (network.decoder is None)
                outputs = head(features if same_parts else teacher.features(encoded))
                total = total + self.strength * distillation(
                    outputs.float(), target, self.temperature
                )
            return total

        return Start(replace(learner, batch_loss=loss), start | earlier_heads(before.packed))


def distillation(outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
    """Return the cross-entropy of softened outputs [N, C, …] to softened targets (equations 2 and
    3).

    It is a mean over all but C.
    """
    import torch.nn.functional as F

    return F.cross_entropy(outputs / temperature, (targets.float() / temperature).softmax(dim=1))


def earlier_heads(packed: "Packed") -> "State":
    """Return the heads of earlier tasks, by the names that they have beside that of a new task."""
    from acll.packing.ownership import EARLIER

    return {
        f"{EARLIER}{number}.{name.removeprefix('head.')}": value.clone()
        for number, record in enumerate(packed.tasks)
        for name, value in packed.private[record.name].items()
        if name.startswith("head.")
    }


def teacher_of(packed: "Packed", task: str, network: "TaskNetwork") -> "TaskNetwork":
    """Return the network of an earlier task as it is now, not to be trained. network: any that is
    built alike."""
    from acll.networks.build import build
    from acll.packing.ownership import task_state_dict

    assert network.built_from is not None
    record = packed.record(task)
    teacher = build(network.built_from, record.kind, len(record.classes), 0, pretrained=False)
    teacher.load_state_dict(task_state_dict(packed, task))
    return teacher.eval().requires_grad_(False)
