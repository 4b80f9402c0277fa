"""What the dense network of a node depends on, beside its inputs."""

from acll.methods.registry import RuleOfMethod
from acll.parameters.base import Params
from acll.parameters.node import NodeParams
from acll.training.settings import Batches, Schedule


class TrainParams(Params):
    """How a task is learned, or several at once. batches: of each, in the order of their data."""

    node: NodeParams
    rule: RuleOfMethod
    schedule: Schedule
    batches: list[Batches]
