"""What the growth of a network depends on, beside its inputs."""

from acll.methods.registry import RuleOfMethod
from acll.parameters.base import Params
from acll.parameters.search import SearchParams
from acll.training.settings import Schedule


class GrowParams(Params):
    """How a network grows. rule, schedule: of the training of the dense network, at each width.
    search: of what follows it."""

    grow: float  # the factor by which its width grows, as often as is needed
    rule: RuleOfMethod
    schedule: Schedule
    search: SearchParams
