"""The tree of prefixes: which nodes a configuration asks for, and where their files lie.

A node is (network, method, seed, prefix): the tasks learned so far, in order. The parent of prefix a/b/c is a/b, so
sequences that begin alike share their work and appending a task adds one node a method and seed.
"""

from dataclasses import dataclass

from acll.settings import DENSE, Configuration, Packing


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


def nodes(configuration: Configuration) -> list[Node]:
    """Every node of every sequence, method and seed, each once, parents before children."""
    found = {
        Node(sequence.network, method, seed, tuple(sequence.tasks[:length]))
        for sequence in configuration.sequences.values()
        for method in configuration.methods
        for seed in configuration.seeds
        for length in range(1, len(sequence.tasks) + 1)
    }
    return sorted(found, key=lambda node: (node.network, node.method, node.seed, node.position, node.prefix))


def searches(configuration: Configuration, node: Node) -> bool:
    """Whether the ratio of this node is searched."""
    method = configuration.methods.get(node.method)
    return isinstance(method, Packing) and not isinstance(method.ratio, float | int)
