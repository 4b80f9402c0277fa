"""Scores of a packed network on test splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acll.data import prepared
from acll.data.batches import split_of
from acll.evaluation.answers import (
    Answers,
    ClassCounts,
    answers_of,
    class_counts,
    confused,
    worst,
)
from acll.packing import packed_file
from acll.packing.accounting import bytes_alone, unread_share
from acll.packing.header import PackedHeader
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed, TaskRecord, digest
from acll.settings import ALL_METRICS, Kind
from acll.training.calibration import Calibrated
from acll.training.metrics import value_of


@dataclass(frozen=True)
class Mistake:
    """A test sample that is among the worst of a network.

    position: in the split. image: the file, or the part of one, that it comes from. truth,
    predicted: classes; None for segmentation. badness: as `acll.evaluation.answers` defines it.
    """

    position: int
    image: str
    truth: str | None
    predicted: str | None
    badness: float


@dataclass(frozen=True)
class TaskScore:
    """The score of one task of a network, and what it has of the network.

    score: None where its test images are not here, since the network had learned it elsewhere: then
    samples are 0, and measures, classes, confused and mistakes empty. measures: see
    `acll.evaluation.measures`. bit_exact: whether its state is, bit for bit, what it was when the
    task was learned. owned_share: of all shared weights of the network; None where
    tasks own none. unread_share: of the weights of earlier tasks, those that it does not read; None
    likewise. width: factor of the
    channels of its network, which may have grown since. grew: whether it grew for this task.
    choice: of the search, as in `choice.json`. curve: validation score after each epoch of its
    training. alone_bytes: of a network of this task alone. confused: (truth, predicted, count) by
    positions of classes. mistakes: the worst first.
    """

    task: str
    position: int
    kind: Kind
    metric: str
    score: float | None
    measures: Mapping[str, float]
    samples: int
    bit_exact: bool
    owned_share: float | None
    unread_share: float | None
    width: float
    grew: bool
    choice: dict[str, Any]
    curve: tuple[float, ...]
    alone_bytes: int
    classes: tuple[ClassCounts, ...]
    confused: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Evaluated:
    """The scores of all tasks of a network, and how much of it is left.

    free_share: of all shared weights; None where tasks own none. bytes: of the file. layers: for
    each shared tensor, from the input on, its name, and how many of its weights are free, owned by
    task 1, 2, ….
    """

    method: str
    seed: int
    device: str
    free_share: float | None
    bytes: int
    layers: tuple[tuple[str, tuple[int, ...]], ...]  # JSON would sort the keys of a dict
    rows: tuple[TaskScore, ...]


def evaluate(packed: Packed, tests: Mapping[str, Path], device: torch.device) -> Evaluated:
    """Score the tasks of a network on their test splits.

    tests: the prepared test split of each task; none of those that the network learned elsewhere.
    """
    header = packed_file.header_of(packed)
    layers = tuple(
        (layer.name, (layer.count - sum(layer.owned), *layer.owned)) for layer in header.layers
    )
    total = sum(layer.count for layer in header.layers)
    shares = [sum(counts) / total for counts in zip(*(own for _, own in layers), strict=True)]
    rows = [
        _evaluate(packed, header, record, tests.get(record.name), device, share)
        for record, share in zip(packed.tasks, shares[1:], strict=True)
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
    packed: Packed,
    header: PackedHeader,
    record: TaskRecord,
    test: Path | None,
    device: torch.device,
    share: float,
) -> TaskScore:
    """Build the network of a task from the store and score it on the task's test split, if any.

    share: of the shared weights that the task owns.
    """
    task, position = record.name, packed.position(record.name)
    network, state = restore_network(packed, task)
    answered: dict[str, Any] = {"score": None, "measures": {}, "samples": 0}
    answered |= dict.fromkeys(("classes", "confused", "mistakes"), ())
    if test is not None:
        calibrated = Calibrated(network.to(device), record.temperature)
        answered = _answered(calibrated, record, test, device)
    return TaskScore(
        task=task,
        position=position,
        kind=record.kind,
        metric=record.metric,
        bit_exact=digest(state) == record.digest,
        owned_share=share if record.frozen else None,
        unread_share=unread_share(header, position) if record.frozen else None,
        width=record.width,
        grew=packed.grew(task),
        choice=record.choice,
        curve=record.curve,
        alone_bytes=bytes_alone(header, task),
        **answered,
    )


def _answered(
    network: Calibrated, record: TaskRecord, test: Path, device: torch.device
) -> dict[str, Any]:
    """Return what the answers of a network on a test split tell, by the names of `TaskScore`."""
    split = split_of(prepared.read_prepared(test)[0], "test")
    answers = answers_of(network, split, task_info_of(record), device)
    measures = dict(answers.measures)
    if record.metric not in ALL_METRICS:  # a plug-in
        measures[record.metric] = value_of(record.metric, answers.confusion)
    return {
        "score": measures[record.metric],
        "measures": measures,
        "samples": split.image_count(),
        "classes": class_counts(answers.confusion, record.classes),
        "confused": confused(answers.confusion),
        "mistakes": _mistakes(record, test, answers),
    }


def _mistakes(record: TaskRecord, test: Path, answers: Answers) -> tuple[Mistake, ...]:
    """Return the samples of a test split that are answered worst."""
    positions = worst(answers.badness)
    images, labels = prepared.ids(test, "test"), prepared.labels(test, "test")
    found = []
    for position in positions:
        truth = predicted = None
        if answers.labels is not None:
            truth = record.classes[int(labels[position])]
            predicted = record.classes[int(answers.labels[position])]
        badness = float(answers.badness[position])
        found.append(Mistake(position, images[position], truth, predicted, badness))
    return tuple(found)
