"""What tables and figures depend on, beside the scores: which files belong to what, in the order of
the inputs."""

from acll.node import Run
from acll.parameters.base import Params
from acll.settings import Settings


class TablesParams(Params):
    """What is tabulated."""

    nodes: list[str]  # network/method/seed/prefix of each node
    runs: list[Run]
    searches: list[str]  # of each node with trials
    budgets: dict[str, float]  # of each method that searches
    fixed: dict[str, str]  # of each method with a fixed ratio: the front that it belongs to


class LastPacked(Settings):
    """The packed network that a method ends with, and its tasks in the order of learning."""

    sequence: str
    method: str
    tasks: list[str]


class FiguresParams(Params):
    """What is drawn of all runs together."""

    searches: list[str]  # network/method/seed/prefix of each search that tried something
    packed: list[LastPacked]
    fronts: list[str]  # those with at least two fixed ratios


class TraceParams(Params):
    """The search that is drawn."""

    node: str  # network/method/seed/prefix


class MasksParams(Params):
    """A segmentation task of a sequence, and what networks make of it.

    methods: the names of the methods; networks: of how many networks each has examples, when the
    task was learned and at the end, or at the end alone.
    """

    sequence: str
    task: str
    methods: list[str]
    networks: list[int]


class MistakesParams(Params):
    """A task of a sequence, and the worst mistakes of the network that each method ends with."""

    sequence: str
    task: str
    methods: list[str]


class SheetsParams(Params):
    """Contact sheets depend on their inputs alone."""
