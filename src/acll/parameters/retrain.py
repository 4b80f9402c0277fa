"""What the packed network of a node depends on, beside its inputs."""

from acll.parameters.base import Params
from acll.parameters.node import NodeParams
from acll.settings import Criterion, Reuse
from acll.training.settings import Batches, Schedule


class RetrainParams(Params):
    """How a task is retrained after pruning. It learns from the dense network where it gets one.

    criterion, reuse: as the release had them.
    """

    node: NodeParams
    schedule: Schedule
    batches: Batches
    criterion: Criterion
    reuse: Reuse
