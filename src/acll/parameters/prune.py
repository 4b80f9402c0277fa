"""What a pruned network depends on, beside its inputs."""

from acll.parameters.base import Params
from acll.parameters.node import NodeParams
from acll.settings import Criterion, Reuse, Scope
from acll.training.settings import Batches, Schedule


class PruneParams(Params):
    """How weights are released. schedule, batches: of a gradual release, or None."""

    node: NodeParams
    ratio: float | None  # fixed; None: the choice of the search
    criterion: Criterion
    scope: Scope
    reuse: Reuse
    schedule: Schedule | None
    batches: Batches | None
    distill: bool
