"""The place of a network among others, as the steps that build it need it."""

from acll.networks.spec import Network, at_width
from acll.parameters.base import Params
from acll.seeds import derived


class NodeParams(Params):
    """A node of the tree of prefixes: what its network is built from, and what its seeds are
    derived from."""

    network: Network
    method: str  # its name in the configuration
    seed: int
    prefix: list[str]
    threads: int  # results depend on it bit for bit

    def seed_for(self, what: str) -> int:
        """Return the seed of one of the node's random draws."""
        return derived(self.seed, what, *self.prefix)

    def at_width(self, width: float) -> "NodeParams":
        """Return the same node, with a network of this width."""
        return self.model_copy(update={"network": at_width(self.network, width)})
