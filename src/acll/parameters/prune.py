"""What a pruned network depends on, beside its inputs."""

from acll.networks.spec import Network
from acll.parameters.base import Params
from acll.settings import Scope


class PruneParams(Params):
    """How weights are released."""

    ratio: float | None  # fixed; None: the choice of the search
    scope: Scope
    network: Network  # what it is built from
