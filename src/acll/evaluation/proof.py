"""Proof that nothing was forgotten, from the packed files alone: no data, no scores, no trust in the run."""

from dataclasses import dataclass
from pathlib import Path

from acll.errors import UserError
from acll.packing import file
from acll.packing.ownership import digest, effective


@dataclass(frozen=True)
class Proof:
    """A task in a packed network: is its effective state, bit for bit, that of the file in which it was learned?"""

    network: str  # network/method/seed/tasks
    method: str
    task: str
    packs: bool  # whether the method promises that nothing changes
    equal: bool


def prove(results: Path) -> list[Proof]:
    """Every task in every packed network below `results`, compared with the file of the node where it was last.

    Both states are put together anew from shared weights, owner map and private state, and compared by digest.
    Raises UserError where there are no networks, PackingError where a file is damaged.
    """
    root = results / "nodes"
    paths = sorted(root.rglob("network.safetensors"), key=lambda path: (len(path.parts), path))
    if not paths:
        raise UserError(f"{root}: holds no packed networks; has the run ended?")
    learned: dict[Path, str] = {}  # folder of a node → digest of its last task
    proofs = []
    for path in paths:
        packed = file.read(path)
        for record in packed.tasks:
            now = digest(effective(packed, record.name))
            above = len(packed.tasks) - packed.position(record.name)
            node = path.parent if above == 0 else path.parents[above]
            learned.setdefault(node, now)
            name = path.parent.relative_to(root).as_posix()
            equal = now == learned[node] == record.digest
            proofs.append(Proof(name, packed.method, record.name, bool(record.choice), equal))
    return proofs
