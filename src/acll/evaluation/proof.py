"""Proof that nothing was forgotten, from the packed files alone: no data and no log is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acll.node import Node
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


def proofs_of(results: Path, nodes: Sequence[Node]) -> list[Proof]:
    """Compare every task in every node with the file of the node in which it was learned.

    nodes: parents before children. Both states are put together anew from shared weights, owner map
    and private state, and compared by digest. Raises PackingError where a file is missing or
    damaged.
    """
    learned: dict[Node, str] = {}
    proofs = []
    for node in nodes:
        if node.parent is not None and node.parent not in learned:
            raise PackingError(
                f"{results / node.parent.folder}/network.safetensors: there is no such file"
            )
        packed = packed_file.read_packed(results / node.folder / "network.safetensors")
        for record in packed.tasks:
            here = digest(task_state_dict(packed, record.name))
            origin = replace(node, prefix=node.prefix[: packed.position(record.name)])
            if origin == node:
                learned[node] = here
            equal = here == learned[origin] == record.digest
            proofs.append(Proof(node, record.name, record.frozen, equal))
    return proofs
