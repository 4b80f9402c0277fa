"""What the copy of a packed network depends on that was made elsewhere."""

from acll.networks.spec import Network
from acll.parameters.base import Params


class AdoptParams(Params):
    """A packed network, and what the plan has read in it.

    packed: its file, below the data root. network: what it is built from. tasks: those that it has
    learned. Where the file is not here, the record of the copy says so.
    """

    packed: str
    network: Network
    tasks: list[str]
