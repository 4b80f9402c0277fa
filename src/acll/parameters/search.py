"""What the choice of a ratio depends on, beside its inputs."""

from acll.parameters.base import Params
from acll.parameters.node import NodeParams
from acll.search.settings import Search
from acll.settings import Criterion, Release, Reuse, Scope
from acll.training.settings import Batches, Schedule


class SearchParams(Params):
    """How a ratio is searched. schedule: of release and retraining, as trials and what follows the
    search have it."""

    node: NodeParams
    search: Search
    criterion: Criterion
    scope: Scope
    reuse: Reuse
    release: Release
    distill: bool
    cap: float | None  # the largest share of the free weights that the task may own; None: no bound
    dense_epochs: int  # the length of the task's training, in which the budget is counted
    schedule: Schedule
    batches: Batches
