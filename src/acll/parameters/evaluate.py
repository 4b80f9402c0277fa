"""What scores depend on, beside the network and the test splits."""

from acll.parameters.base import Params


class EvaluateParams(Params):
    """How a network is run."""

    threads: int
