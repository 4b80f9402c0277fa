"""Proof that nothing was forgotten, from the packed files alone: no data, no trust in what the run
said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.node import Node
from acll.packing import packed_file
from acll.packing.ownership import PackingError, digest, task_state_dict


@dataclass(frozen=True)
class Proof:
    """A task in a packed network: is its effective state, bit for bit, that of the file in which it
    was learned?"""

    node: Node
    task: str
    frozen: bool  # whether the method promises it
    equal: bool


def proofs_of(results: Path, nodes: Sequence[Node]) -> list[Proof]:
    """Every task in every one of the nodes (parents before children), compared with the file where
    it was last.

    Both states are put together anew from shared weights, owner map and private state, and compared
    by digest. Raises PackingError where a file is missing or damaged.
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
            now = digest(task_state_dict(packed, record.name))
            origin = Node(
                node.network, node.method, node.seed, node.prefix[: packed.position(record.name)]
            )
            if origin == node:
                learned[node] = now
            proofs.append(
                Proof(node, record.name, record.frozen, now == learned[origin] == record.digest)
            )
    return proofs
