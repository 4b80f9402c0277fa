"""Proof that nothing was forgotten, from the packed files alone: no data and no log is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acll.node import Node, adopted
from acll.packing import packed_file
from acll.packing.ownership import PackingError, digest, task_state_dict


@dataclass(frozen=True)
class Proof:
    """Whether the state of a task in a packed network is, bit for bit, that when it was learned.

    frozen: whether the method promises it.
    """

    node: Node
    task: str
    frozen: bool
    equal: bool


def _given(results: Path, parent: Node) -> dict[Node, str]:
    """Return the digest of each task of a file that nodes go on from, by the node at which it would
    have been learned.

    parent: the node before them, which is not there. Raises PackingError where no file stands for
    it.
    """
    path = results / adopted(parent.network)
    packed = packed_file.read_packed(path) if path.is_file() else None
    if packed is None or tuple(record.name for record in packed.tasks) != parent.prefix:
        raise PackingError(f"{results / parent.folder}/network.safetensors: there is no such file")
    return {
        replace(parent, prefix=parent.prefix[:position]): digest(
            task_state_dict(packed, record.name)
        )
        for position, record in enumerate(packed.tasks, 1)
    }


def proofs_of(results: Path, nodes: Sequence[Node]) -> list[Proof]:
    """Compare every task in every node with the file of the node in which it was learned.

    nodes: parents before children. What a network had learned elsewhere is compared with the file
    from which its nodes go on. Both states are put together anew from shared weights, owner map
    and private state, and compared by digest. Raises PackingError where a file is missing or
    damaged.
    """
    learned: dict[Node, str] = {}
    proofs = []
    for node in nodes:
        if node.parent is not None and node.parent not in learned:
            learned |= _given(results, node.parent)
        packed = packed_file.read_packed(results / node.folder / "network.safetensors")
        for record in packed.tasks:
            here = digest(task_state_dict(packed, record.name))
            origin = replace(node, prefix=node.prefix[: packed.position(record.name)])
            if origin == node:
                learned[node] = here
            equal = here == learned[origin] == record.digest
            proofs.append(Proof(node, record.name, record.frozen, equal))
    return proofs
