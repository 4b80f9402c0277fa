"""Scores of a packed network on test splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acll.data import prepared
from acll.data.batches import split_of
from acll.packing import packed_file
from acll.packing.accounting import bytes_alone
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed, digest
from acll.settings import Kind
from acll.training.evaluate import evaluated
from acll.training.metrics import score


@dataclass(frozen=True)
class TaskScore:
    """The score of one task of a network, and what it has of the network.

    bit_exact: whether its state is, bit for bit, what it was when the task was learned.
    owned_share: of all shared weights of the network; None where tasks own none. choice: of the
    search, as in `choice.json`. curve: validation score after each epoch of its training.
    alone_bytes: of a network of this task alone.
    """

    task: str
    position: int
    kind: Kind
    metric: str
    score: float
    samples: int
    bit_exact: bool
    owned_share: float | None
    choice: dict[str, Any]
    curve: tuple[float, ...]
    alone_bytes: int


@dataclass(frozen=True)
class Evaluated:
    """The scores of all tasks of a network, and how much of it is left.

    free_share: of all shared weights; None where tasks own none. bytes: of the file. layers: for
    each shared tensor, from the input on, how many weights are free, owned by task 1, 2, ….
    """

    method: str
    seed: int
    device: str
    free_share: float | None
    bytes: int
    layers: dict[str, list[int]]
    rows: tuple[TaskScore, ...]


def evaluate(packed: Packed, tests: Mapping[str, Path], device: torch.device) -> Evaluated:
    """Score every task of a network on its test split.

    tests: the prepared test split of each task.
    """
    header = packed_file.header_of(packed)
    alone = {record.name: bytes_alone(header, record.name) for record in packed.tasks}
    layers = {layer.name: [layer.count - sum(layer.owned), *layer.owned] for layer in header.layers}
    total = sum(layer.count for layer in header.layers)
    shares = [sum(counts) / total for counts in zip(*layers.values(), strict=True)]
    rows = [
        _evaluate(packed, name, tests[name], device, share, size)
        for share, (name, size) in zip(shares[1:], alone.items(), strict=True)
    ]
    # a weight that later tasks may change is owned by none
    owning = all(record.frozen for record in packed.tasks)
    return Evaluated(
        method=packed.method,
        seed=packed.seed,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        free_share=shares[0] if owning else None,
        bytes=packed_file.packed_size_of(header),
        layers=layers,
        rows=tuple(rows),
    )


def _evaluate(
    packed: Packed, task: str, test: Path, device: torch.device, share: float, alone_bytes: int
) -> TaskScore:
    """Build the network of a task from the store and score it on the task's test split.

    share: of the shared weights that the task owns.
    """
    record = packed.record(task)
    network, state = restore_network(packed, task)
    split = split_of(prepared.read_prepared(test)[0], "test")
    result = evaluated(network.to(device), split, task_info_of(record), device)
    return TaskScore(
        task=task,
        position=packed.position(task),
        kind=record.kind,
        metric=record.metric,
        score=score(result),
        samples=split.image_count(),
        bit_exact=digest(state) == record.digest,
        owned_share=share if record.frozen else None,
        choice=record.choice,
        curve=record.curve,
        alone_bytes=alone_bytes,
    )
