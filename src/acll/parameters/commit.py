"""What a committed network and a method's memory depend on, beside their inputs."""

from acll.parameters.base import Params
from acll.parameters.node import NodeParams
from acll.training.settings import Batches


class CommitParams(Params):
    """How a trained task joins its network. type: the method's, which says how."""

    node: NodeParams
    type: str


class RememberParams(Params):
    """What the next task will need to know. type: the method's, which says what that is."""

    node: NodeParams
    type: str
    batches: Batches
