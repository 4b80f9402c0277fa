"""A node of the tree of prefixes, and a run, which is a way through it."""

from dataclasses import dataclass

TOGETHER = (
    "+"  # between the names of tasks that are learned at once, and of those of a prefix in one word
)
# stand for a method where methods share a training, that of first tasks: the plain one, and the one
# that learns a score of each weight
DENSE, LEARNED = "dense", "learned"
Prefix = tuple[str, ...]


def adopted(network: str) -> str:
    """Return where the copy of a packed network lies that sequences go on from. network: its name
    in the configuration."""
    return f"given/{network}.safetensors"


@dataclass(frozen=True, order=True)
class Node:
    """A place in the tree."""

    network: str
    method: str
    seed: int
    prefix: tuple[str, ...]

    @property
    def task(self) -> str:
        """The task that is learned here, or all that are learned here at once, in one word."""
        return self.prefix[-1]

    @property
    def new_tasks(self) -> tuple[str, ...]:
        """The tasks that are learned here: more than one where a method learns them at once."""
        return tuple(self.task.split(TOGETHER))

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
        return (
            Node(self.network, self.method, self.seed, self.prefix[:-1])
            if self.position > 1
            else None
        )

    @property
    def folder(self) -> str:
        """Where its files lie; folders nest as prefixes do."""
        return f"nodes/{self.name}"

    @property
    def word(self) -> str:
        """Its prefix in one word, as tables have it."""
        return TOGETHER.join(self.prefix)

    @property
    def name(self) -> str:
        """Its name in the workflow: `network/method/seed<n>/task/…`."""
        return "/".join((self.network, self.method, f"seed{self.seed}", *self.prefix))

    @classmethod
    def of(cls, name: str) -> "Node":
        """Return the node of a name."""
        network, method, seed, *prefix = name.split("/")
        return cls(network, method, int(seed.removeprefix("seed")), tuple(prefix))

    def shared(self, training: str) -> "Node":
        """Return the node under which a training lies that methods share.

        training: DENSE or LEARNED.
        """
        return Node(self.network, training, self.seed, self.prefix)


@dataclass(frozen=True)
class Run:
    """One method's way through the tasks of a sequence, in one order, from one seed.

    type: of the method. stages: for each number of tasks learned the prefixes of the networks that
    serve these tasks together; none where the method has no network for fewer than all, or where
    the network had learned them before.
    """

    sequence: str
    network: str
    method: str
    type: str
    seed: int
    tasks: tuple[str, ...]
    stages: tuple[tuple[Prefix, ...], ...]

    @property
    def order(self) -> str:
        """The tasks in the order of learning, in one word."""
        return TOGETHER.join(self.tasks)

    def nodes(self, stage: int) -> tuple[Node, ...]:
        """Return the nodes whose networks serve the first tasks together. stage: how many; from 1
        on."""
        return tuple(
            Node(self.network, self.method, self.seed, prefix) for prefix in self.stages[stage - 1]
        )
