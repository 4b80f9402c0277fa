"""From the prepared files of a task to those of a variant of it, without its raw data.

A series has many tasks of one source: ten orders of its pixels, or five angles. The source is
decoded once, for the task that the series is made of. Its variants have its splits and its faults.
They vary its images as these were written: all with as many channels and of one type.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from acll.data.channels import channel_statistics
from acll.data.faults import DataFault, counted
from acll.data.prepared import Content, OpenSplit, TaskInfo, opened, write_prepared
from acll.data.splits import absent_classes, fewer, refuse_small, strata_of
from acll.data.variants import Variation, permuted, varied_image
from acll.errors import harmless

_CHUNK_BYTES = 2**24  # of images or masks that are in memory at a time


class SeriesVariation(Variation, Protocol):
    """How a task of a series differs from the one that the series is made of."""

    @property
    def train_samples(self) -> int | None:
        """Number of training samples; None: all."""


@dataclass(frozen=True)
class VariedSplit:
    """The samples of a split that a variant has, and how it varies them."""

    of: OpenSplit
    pixel: str  # type of a pixel
    positions: NDArray[np.int64]  # [N], ascending
    how: SeriesVariation

    def parts(self) -> Iterator[NDArray[np.int64]]:
        """Yield the positions in parts of which each lies within so much of the file."""
        values = int(np.prod(self.of.sample_shape))
        count = max(1, _CHUNK_BYTES // (values * np.dtype(self.pixel).itemsize))
        of_part = self.positions // count
        yield from np.split(self.positions, np.flatnonzero(np.diff(of_part)) + 1)

    def images(self) -> Iterator[NDArray[Any]]:
        """Yield each image, [C, H, W]."""
        for part in self.parts():
            images = self.of.images(part)
            if self.how.rotate or self.how.noise:
                pairs = zip(images, part, strict=True)
                images = np.stack(
                    [varied_image(image, self.how, self.of.ids[index]) for image, index in pairs]
                )
            yield from permuted(images, self.how.permute)

    def labels(self) -> Iterator[NDArray[Any]]:
        """Yield the labels, or the masks, in parts [n, …]."""
        return (self.of.labels(part) for part in self.parts())

    def present(self, classes: int) -> NDArray[np.bool_]:
        """Return which classes are in each sample, [N, classes]."""
        every = np.arange(classes)
        if not self.of.has_masks:
            one_hot: NDArray[np.bool_] = np.concatenate(list(self.labels()))[:, None] == every
            return one_hot
        return np.stack([np.isin(every, mask) for part in self.labels() for mask in part])

    def content(self) -> Content:
        """Return what is written of the split."""
        box, image = self.of.tile_valid_box, self.of.tile_image_index
        own = self.positions
        if image is not None:  # counted from 0 on, whatever was left out
            image = np.unique(image[own], return_inverse=True)[1].astype(np.int32)
        return Content(
            ids=[self.of.ids[index] for index in own],
            images=self.images(),
            dtype=self.pixel,
            channels=self.of.sample_shape[0],
            labels=None if self.of.has_masks else np.concatenate(list(self.labels())),
            masks=(mask for part in self.labels() for mask in part) if self.of.has_masks else None,
            tile_valid_box=None if box is None else box[own],
            tile_image_index=image,
        )


def vary(
    name: str,
    how: SeriesVariation,
    sources: tuple[Path, Path],
    summary: dict[str, Any],
    results: tuple[Path, Path],
) -> dict[str, Any]:
    """Write the prepared files of a variant, called `name`; return its summary.

    sources: the files of the task that it is made from, training and test. summary: of that task.
    results: what is written. Raises DataError where there are too few training samples.
    """
    (splits, info), (tests, _) = map(opened, sources)
    varied = {
        split: VariedSplit(of, info.pixel, np.arange(len(of)), how)
        for split, of in {**splits, **tests}.items()
    }
    if how.train_samples is not None:
        varied["train"], summary = _with_fewer(name, info, varied["train"], summary)
    sizes = {split: len(own.positions) for split, own in varied.items()}
    refuse_small(name, info.kind, info.classes, sizes, summary["with_class"]["train"])
    described = _described(name, info, varied["train"])
    for path, own in zip(results, (splits, tests), strict=True):
        write_prepared(path, described, {split: varied[split].content() for split in own})
    return summary | {"name": name, "samples": sizes}


def _with_fewer(
    name: str, info: TaskInfo, train: VariedSplit, summary: dict[str, Any]
) -> tuple[VariedSplit, dict[str, Any]]:
    """Return the training split with as many samples as the variant has, and the summary with
    their classes."""
    present, how = train.present(len(info.classes)), train.how
    assert how.train_samples is not None
    strata = strata_of(present) if info.kind == "segmentation" else present.argmax(axis=1)
    kept = np.flatnonzero(fewer(name, strata, how.train_samples, how.split_seed))
    counts = summary["with_class"] | {"train": [int(n) for n in present[kept].sum(axis=0)]}
    faults = summary["faults"]
    dropped = {harmless(train.of.ids[index]) for index in np.setdiff1d(train.positions, kept)}
    warnings = [
        DataFault(**fault)
        for fault in faults["warnings"]
        if fault["kind"] != "class" and fault["file"] not in dropped
    ]
    warnings += absent_classes(info.classes, counts)
    told = [asdict(fault) for fault in sorted(warnings)]
    changed = {"with_class": counts, "warnings": counted(warnings)}
    return replace(train, positions=kept), summary | changed | {
        "faults": faults | {"warnings": told}
    }


def _described(name: str, info: TaskInfo, train: VariedSplit) -> TaskInfo:
    """Return the description of a variant. info: of the task that it is made from."""
    how = train.how
    mean, std = info.mean, info.std  # an order of the pixels changes neither
    if how.rotate or how.noise or how.train_samples is not None:
        mean, std = channel_statistics(train.images, train.of.sample_shape[0], info.pixel)
    return replace(info, name=name, mean=mean, std=std, rotate=how.rotate, permute=how.permute)
