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
    """How one task of a network does now."""

    task: str
    position: int
    kind: Kind
    metric: str
    score: float
    samples: int
    bit_exact: bool  # its effective state is what it was when the task was learned
    owned_share: (
        float | None
    )  # of all shared weights of the network; None where ownership means nothing
    choice: dict[str, Any]  # ratio_searched, ratio, cap, capped
    curve: tuple[float, ...]  # validation score after each epoch of its training
    alone_bytes: int  # of a network for this task alone


@dataclass(frozen=True)
class Evaluated:
    """How all tasks of a network do now; what is left free: a share of all shared weights, or None
    as above; how many bytes the file of all its tasks has; and who owns what."""

    method: str
    seed: int
    device: str
    free_share: float | None
    bytes: int
    layers: dict[
        str, list[int]
    ]  # of each shared tensor, from the input on: how many are free, owned by task 1, 2, …
    rows: tuple[TaskScore, ...]


def evaluate(packed: Packed, tests: Mapping[str, Path], device: torch.device) -> Evaluated:
    """Score every task of a network. tests: the prepared test split of each task."""
    header = packed_file.header_of(packed)
    alone = {record.name: bytes_alone(header, record.name) for record in packed.tasks}
    layers = {layer.name: [layer.count - sum(layer.owned), *layer.owned] for layer in header.layers}
    total = sum(layer.count for layer in header.layers)
    shares = [sum(counts) / total for counts in zip(*layers.values(), strict=True)]
    rows = [
        _evaluate(packed, name, tests[name], device, share, size)
        for share, (name, size) in zip(shares[1:], alone.items(), strict=True)
    ]
    owning = all(record.frozen for record in packed.tasks)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    left = shares[0] if owning else None
    return Evaluated(
        packed.method,
        packed.seed,
        name,
        left,
        packed_file.packed_size_of(header),
        layers,
        tuple(rows),
    )


def _evaluate(
    packed: Packed, task: str, test: Path, device: torch.device, share: float, alone_bytes: int
) -> TaskScore:
    """Build the network of a task from the store and run it over the task's test split. share: that
    it owns."""
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
