"""The tree of prefixes: which nodes a configuration asks for, and where their files lie.

A node is (network, method, seed, prefix): the tasks learned so far, in order. The parent of prefix a/b/c is a/b, so
sequences and orders that begin alike share their work and appending a task adds one node a method and seed. What is no
prefix is keyed by what it depends on: tasks that are learned together by their set, networks of single tasks by the
task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from random import Random

from acll.settings import DENSE, Configuration, Individual, Joint, Method, Packing

TOGETHER = "+"  # between the names of tasks that are learned at once


@dataclass(frozen=True, order=True)
class Node:
    """A place in the tree."""

    network: str
    method: str
    seed: int
    prefix: tuple[str, ...]

    @property
    def task(self) -> str:
        """The task that is learned here."""
        return self.prefix[-1]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that its network has learned."""
        return tuple(task for step in self.prefix for task in step.split(TOGETHER))

    @property
    def position(self) -> int:
        """1 for a first task."""
        return len(self.prefix)

    @property
    def parent(self) -> "Node | None":
        """The node before, or None for a first task."""
        return Node(self.network, self.method, self.seed, self.prefix[:-1]) if self.position > 1 else None

    @property
    def folder(self) -> str:
        """Where its files lie; folders nest as prefixes do."""
        return "/".join(("nodes", self.network, self.method, f"seed{self.seed}", *self.prefix))

    @property
    def dense(self) -> str:
        """Its dense network. That of a first task depends on no method, so all methods share it."""
        owner = self if self.position > 1 else Node(self.network, DENSE, self.seed, self.prefix)
        return f"{owner.folder}/dense.safetensors"


@dataclass(frozen=True)
class Run:
    """One method's way through the tasks of a sequence, in one order, from one seed.

    stages: for each number of tasks learned the nodes whose networks serve these tasks together; none where the method
    has no network for fewer than all.
    """

    sequence: str
    network: str
    method: str
    seed: int
    tasks: tuple[str, ...]
    stages: tuple[tuple[Node, ...], ...]


def orders(tasks: Sequence[str], which: str) -> list[tuple[str, ...]]:
    """The orders in which tasks are learned. which: `given`, `all`, or `<n> random`, all different; the same for the
    same tasks, and all where there are no more than n."""
    if which == "given":
        return [tuple(tasks)]
    count = factorial(len(tasks))
    if which == "all" or int(which.split()[0]) >= count:
        return list(permutations(tasks))
    generator = Random(f"{sorted(tasks)}")  # noqa: S311 - no secret
    drawn: dict[tuple[str, ...], None] = {}  # a set that keeps its order
    while len(drawn) < int(which.split()[0]):
        drawn[tuple(generator.sample(sorted(tasks), len(tasks)))] = None
    return list(drawn)


def runs(configuration: Configuration) -> list[Run]:
    """Every run of a configuration."""
    return [
        Run(name, sequence.network, method, seed, tasks, _stages(configuration, sequence.network, method, seed, tasks))
        for name, sequence in configuration.sequences.items()
        for tasks in orders(sequence.tasks, configuration.orders)
        for method in configuration.methods
        for seed in configuration.seeds
    ]


def _stages(
    configuration: Configuration, network: str, method: str, seed: int, tasks: tuple[str, ...]
) -> tuple[tuple[Node, ...], ...]:
    settings, lengths = configuration.methods[method], range(1, len(tasks) + 1)
    if isinstance(settings, Individual):
        return tuple(tuple(Node(network, method, seed, (task,)) for task in tasks[:length]) for length in lengths)
    if isinstance(settings, Joint):
        return (*[()] * (len(tasks) - 1), (Node(network, method, seed, (TOGETHER.join(sorted(tasks)),)),))
    return tuple((Node(network, method, seed, tasks[:length]),) for length in lengths)


def nodes(configuration: Configuration) -> list[Node]:
    """Every node of every run, each once, parents before children."""
    found = {node for run in runs(configuration) for stage in run.stages for node in stage}
    return sorted(found, key=lambda node: (node.network, node.method, node.seed, node.position, node.prefix))


def searches(configuration: Configuration, node: Node) -> bool:
    """Whether the ratio of this node is searched."""
    return is_search(configuration.methods.get(node.method))


def is_search(method: Method | None) -> bool:
    """Whether a method searches its ratios."""
    return isinstance(method, Packing) and not isinstance(method.ratio, float | int)
