"""A task's learner: its network, its data and its training settings, ready to be trained from any state."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from acll.data.batches import Split
from acll.data.prepared import Header
from acll.networks.build import TaskNetwork
from acll.settings import Training
from acll.training.loop import Fitted, Plan, Unfinished, Watch, fit


@dataclass(frozen=True)
class Learner:
    """A task's network, its data and how it is trained: what every training of a task has in common."""

    network: TaskNetwork
    train: Split
    validation: Split
    header: Header
    training: Training
    device: torch.device

    def fit(
        self,
        state: Mapping[str, Tensor],
        plan: Plan,
        masks: Mapping[str, Tensor] | None,
        unfinished: Unfinished | None = None,
        watch: Watch | None = None,
    ) -> Fitted:
        """Train from `state`; see `acll.training.loop.fit`."""
        self.network.load_state_dict(state)
        data = (self.train, self.validation, self.header)
        return fit(self.network, *data, self.training, plan, masks, self.device, unfinished, watch)
