"""Learning without forgetting (Li & Hoiem, IEEE TPAMI 2018).

While a new task is learned, the heads of earlier tasks are trained on, too: to give, for images of the new task, what
the network gave before it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acll.networks.build import TaskNetwork, build
from acll.packing.ownership import EARLIER, Packed, State, digest, effective
from acll.settings import LwF, Network
from acll.training.learner import TaskLearner


@dataclass(frozen=True)
class Distilling(TaskLearner):
    """A task's learner that keeps the outputs of earlier tasks.

    The network has, as `earlier`, a head for each of the teachers: the networks of the earlier tasks as they were.
    """

    teachers: tuple[TaskNetwork, ...]
    settings: LwF

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Equation 4 of the paper, without its weight decay, which the loop applies."""
        encoded = self.network.encode(images)
        features = self.network.features(encoded)
        loss = self.task_loss(self.network.head(features).float(), labels)
        if self.settings.strength == 0:
            return loss
        with torch.no_grad():
            # in fine-tuning everything but the heads has moved on for all tasks, so one encoder serves all
            before = self.teachers[-1].encode(images)
            targets = [teacher.head(teacher.features(before)) for teacher in self.teachers]
        for head, teacher, target in zip(self.network.earlier, self.teachers, targets, strict=True):  # type: ignore[arg-type]
            # a decoder that the new task does not use stays as it was
            same_parts = (teacher.decoder is None) == (self.network.decoder is None)
            outputs = head(features if same_parts else teacher.features(encoded))
            loss = loss + self.settings.strength * distillation(outputs.float(), target, self.settings.temperature)
        return loss

    def identity(self) -> str:
        """What a training depends on, beside the state of the network."""
        teachers = [digest(teacher.state_dict()) for teacher in self.teachers]
        return f"{super().identity()} {self.settings} {teachers}"


def distillation(outputs: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Equations 2 and 3: the cross-entropy of softened outputs [N, C, …] to softened targets, a mean over all but C."""
    return F.cross_entropy(outputs / temperature, (targets.float() / temperature).softmax(dim=1))


def distilling(learner: TaskLearner, before: Packed, settings: LwF, network: Network) -> Distilling:
    """The learner of a new task on a network that has learned others; `before` is not changed."""
    teachers = tuple(_teacher(before, record.name, network).to(learner.device) for record in before.tasks)
    heads = [copy.deepcopy(teacher.head).requires_grad_(True) for teacher in teachers]
    for teacher in teachers[:-1]:
        teacher.encoder = nn.Identity()  # the last one's is that of all
    learner.network.earlier = nn.ModuleList(heads)
    return Distilling(**learner.parts(), teachers=teachers, settings=settings)


def with_earlier(start: Mapping[str, Tensor], before: Packed) -> State:
    """The state from which the training starts: that of the new task, and the heads of the earlier ones."""
    heads = {
        f"{EARLIER}{number}.{name.removeprefix('head.')}": value.clone()
        for number, record in enumerate(before.tasks)
        for name, value in before.private[record.name].items()
        if name.startswith("head.")
    }
    return dict(start) | heads


def _teacher(before: Packed, task: str, spec: Network) -> TaskNetwork:
    record = before.record(task)
    network = build(spec, record.kind, len(record.classes), 0, pretrained=False)
    network.load_state_dict(effective(before, task))
    return network.eval().requires_grad_(False)
