"""From a task's raw data to its prepared files, in one streaming pass over the images.

What the processes of `decoding` hand over goes to a spool, in order. Then splits are cut, copies
looked for, and the files written from the spool. Memory holds a few hundred bytes a sample,
whatever the size of the images.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data import prepared
from acll.data.buffer import PixelFormat, SampleBuffer, common_format
from acll.data.decoding import Decoder, decode_all, tiled
from acll.data.duplicates import copies
from acll.data.errors import DataError
from acll.data.faults import DataFault, counted, in_words, some, write_faults
from acll.data.images import Box, top_of
from acll.data.manifest import Manifest, Sample
from acll.data.prepared import Content, TaskInfo
from acll.data.splits import merge_groups, strata_of, stratified_group_split, subset
from acll.data.storage import SPLITS
from acll.data.task import Task
from acll.data.variants import part_of_classes
from acll.settings import MOST_VALUES, refuse_odd_text

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """All samples that can be used, in the order of the listing."""

    items: list[Sample]
    where: Positions  # [N] their places in the spool
    present: NDArray[np.bool_] | None  # [N, classes] which classes are in each mask
    digests: NDArray[np.uint8]  # [N, 16]
    thumbnails: NDArray[np.uint8]  # [N, SIDE²]
    cores: dict[str, Box]  # of tiles, by id

    def __len__(self) -> int:
        return len(self.items)

    def select(self, kept: Positions) -> "Samples":
        """Those at these positions."""
        items = [self.items[index] for index in kept]
        present = None if self.present is None else self.present[kept]
        return Samples(
            items, self.where[kept], present, self.digests[kept], self.thumbnails[kept], self.cores
        )

    def labels(self) -> NDArray[np.int64]:
        """[N] the class of each sample, of a classification task."""
        return np.array([item.label for item in self.items], np.int64)

    def strata(self) -> NDArray[np.int64]:
        """[N] what cuts are stratified by: the class, of masks the rarest one in them."""
        return self.labels() if self.present is None else strata_of(self.present)

    def with_class(self, classes: int) -> list[int]:
        """How many samples have each class."""
        if self.present is None:
            return [int(count) for count in np.bincount(self.labels(), minlength=classes)]
        return [int(count) for count in self.present.sum(axis=0)]


def prepare(
    name: str,
    task: Task,
    root: Path,
    train: Path,
    test: Path,
    report: Path,
    processes: int,
    channels: Sequence[int] = (),
) -> dict[str, Any]:
    """Write both prepared files of a task and the report of what is wrong with its raw data; return
    the summary.

    channels: those of the networks that are to learn it, so that one that cannot is found before
    anything is trained.

    Raises DataError where files cannot be used and the task says `stop`, or where what is left
    makes no task. Then the report is written and nothing else.
    """
    listing = task.listing(root)
    _refuse_labels(name, listing.classes)
    spool = SampleBuffer(train.parent, task.image_size)
    listing, samples, left_out = _read(name, task, listing, spool, report, processes)
    forms = spool.forms()
    form = common_format([forms[place] for place in samples.where])
    _refuse_channels(name, form[0], channels, task.image_size)
    samples, others = _of_form(samples, forms, form)
    left_out += others
    _refuse(name, "on_error", _not_skipped(left_out, task), report)
    splits = _cut(name, samples, task, listing.splits)
    leaks = [] if listing.trusted else _leaks(samples, splits, task)
    if task.duplicates == "stop":
        _refuse(name, "duplicates", [fault for _, fault in leaks], report)
    warnings = [] if listing.trusted else _two_labels(samples, listing)
    if task.duplicates == "skip":
        dropped = [position for position, _ in leaks]
        splits = {split: chosen[~np.isin(chosen, dropped)] for split, chosen in splits.items()}
        left_out += [fault for _, fault in leaks]
    else:
        warnings += [fault for _, fault in leaks]
    counts = {
        split: samples.select(chosen).with_class(len(listing.classes))
        for split, chosen in splits.items()
    }
    warnings += [
        DataFault("class", split, f"has no sample of {label}")
        for split in SPLITS
        for label, count in zip(listing.classes, counts[split])
        if not count
    ]
    write_faults(report, left_out=left_out, warning=warnings)
    _refuse_small(name, listing, splits, counts["train"])
    header = TaskInfo(
        name,
        listing.kind,
        tuple(listing.classes),
        task.image_size,
        *_statistics(samples, splits["train"], spool, form),
        pixel=form[1],
        tile_overlap=task.tile_overlap,
        rotate=task.rotate,
        permute=task.permute,
    )
    for path, names in ((train, ("train", "val")), (test, ("test",))):
        contents = {
            split: _content(samples.select(splits[split]), spool, form, listing) for split in names
        }
        prepared.write_prepared(path, header, contents)
    return _summary(
        header,
        task,
        form,
        counts,
        {split: len(splits[split]) for split in SPLITS},
        left_out,
        warnings,
    )


# --------------------------------------------------------------------------------------------------
# reading


def _read(
    name: str, task: Task, listing: Manifest, spool: SampleBuffer, report: Path, processes: int
) -> tuple[Manifest, Samples, list[DataFault]]:
    """Decode all samples into the spool: the listing as the task wants it, the samples, what was
    left out."""
    classes, labels = len(listing.classes), None
    if task.part is not None:
        listing, labels = part_of_classes(name, listing, task.part)
    listing, cores = tiled(listing, task, processes)
    decoder = Decoder(listing, task, classes, labels)
    items, present, digests, thumbnails, faults = [], [], [], [], list(listing.faults)
    for item, result in decode_all(decoder, processes, name):
        if isinstance(result, DataFault):
            faults.append(result)
            continue
        spool.append(result.pixels, result.mask)
        items.append(item)
        present.append(result.present)
        digests.append(np.frombuffer(result.digest, np.uint8))
        thumbnails.append(result.thumbnail)
    if not items:
        write_faults(report, refused=faults)
        lines = "\n".join(in_words(faults)) or "there is none"
        raise DataError(f"{name}: no sample can be used\n{lines}")
    where = np.arange(len(items))
    masks = [one for one in present if one is not None]
    in_masks = np.stack(masks) if masks else None
    samples = Samples(items, where, in_masks, np.stack(digests), np.stack(thumbnails), cores)
    return listing, samples, faults


def _of_form(
    samples: Samples, forms: Sequence[PixelFormat], form: PixelFormat
) -> tuple[Samples, list[DataFault]]:
    """The samples whose images can be given the form of all, and what is wrong with the others."""
    channels = np.array([forms[place][0] for place in samples.where])
    fits = (channels == form[0]) | (channels == 1)
    faults = [
        DataFault(
            "bands",
            samples.items[index].id,
            f"has {channels[index]} channels, most images have {form[0]}",
        )
        for index in np.flatnonzero(~fits)
    ]
    return samples.select(np.flatnonzero(fits)), faults


def _refuse_labels(name: str, classes: Sequence[str]) -> None:
    for label in classes:
        try:
            refuse_odd_text(label)
        except ValueError as error:
            raise DataError(f"{name}: the class {error}; rename it") from None


def _refuse_channels(name: str, own: int, channels: Sequence[int], size: tuple[int, int]) -> None:
    if own * math.prod(size) > MOST_VALUES:
        raise DataError(
            f"{name}: images of {own} channels and {list(size)} pixels; make image_size smaller"
        )
    unfit = [count for count in channels if own not in (1, count)]
    if unfit:
        raise DataError(
            f"{name}: its images have {own} channels, a network that is to learn it takes "
            f"{unfit[0]}: "
            f"set channels: {own} for that network"
        )


def _not_skipped(faults: Sequence[DataFault], task: Task) -> list[DataFault]:
    """What stops the task.

    Of tiles, and where only a part of the classes is wanted, some have to be without any.
    """
    if task.on_error == "skip":
        return [fault for fault in faults if fault.kind == "machine"]
    partly = task.tile_overlap is not None or task.part is not None
    return [fault for fault in faults if not (partly and fault.kind == "ignored")]


def _refuse(name: str, key: str, faults: Sequence[DataFault], report: Path) -> None:
    """End the task, with all faults in its report, where there are any."""
    if faults:
        write_faults(report, refused=faults)
        files = f"{len(faults)} file{'s' if len(faults) > 1 else ''}"
        skip = (
            f" ({key}: stop; `skip` leaves them out)"
            if any(fault.kind != "machine" for fault in faults)
            else ""
        )
        what = f"{files} cannot be used{skip}"
        raise DataError(
            "\n".join([f"{name}: {what}; all are named in {report.resolve()}", *in_words(faults)])
        )


# --------------------------------------------------------------------------------------------------
# splits


def _cut(name: str, samples: Samples, task: Task, there: Sequence[str]) -> dict[str, Positions]:
    """The positions of each split; what the source does not have is cut from `train`, first the
    test, then validation.

    Exact copies stay together, so that cutting cannot make a leak.
    """
    given = np.array([item.split for item in samples.items])
    splits = {split: np.flatnonzero(given == split) for split in SPLITS}
    for split, share in (("test", task.test_share), ("val", task.validation_share)):
        if (
            split not in there
        ):  # one that is there, but of which nothing can be used, is refused later
            rest = splits["train"]
            groups = merge_groups(
                [samples.items[index].group for index in rest], samples.digests[rest]
            )
            off = stratified_group_split(
                samples.select(rest).strata(), groups, share, task.split_seed
            )
            splits["train"], splits[split] = rest[~off], rest[off]
    train = splits["train"]
    if task.train_samples is not None:
        if task.train_samples > len(train):
            raise DataError(
                f"{name}: train_samples = {task.train_samples}: there are {len(train)} "
                "training samples"
            )
        splits["train"] = train[
            subset(samples.select(train).strata(), task.train_samples, task.split_seed)
        ]
    return splits


def _leaks(
    samples: Samples, splits: dict[str, Positions], task: Task
) -> list[tuple[int, DataFault]]:
    """The copies, and members of a group, across splits, each with the position of the one farther
    from the test."""
    found = copies(samples.digests, samples.thumbnails, [splits[split] for split in SPLITS])
    split_of = {int(index): split for split, chosen in splits.items() for index in chosen}
    leaks: dict[int, DataFault] = {}
    for one in found:
        other = samples.items[one.second].id
        words = "the same" if one.exact else "almost the same"
        message = f"in {split_of[one.first]}: {words} as {other} in {split_of[one.second]}"
        fault = DataFault(
            "exact copy" if one.exact else "near copy", samples.items[one.first].id, message
        )
        leaks.setdefault(one.first, fault)
    if getattr(task, "group", None) is not None:
        for index, split, other in _divided(samples, splits):
            message = (
                f"in {split}: of the group {samples.items[index].group!r}, which is in {other} too"
            )
            leaks.setdefault(index, DataFault("group", samples.items[index].id, message))
    return sorted(leaks.items())


def _divided(samples: Samples, splits: dict[str, Positions]) -> Iterator[tuple[int, str, str]]:
    """Samples whose group is also in a split that is nearer to the test: (position, split, that
    one)."""
    groups = {
        split: {samples.items[index].group for index in chosen} for split, chosen in splits.items()
    }
    for number, split in enumerate(SPLITS):
        for other in SPLITS[number + 1 :]:
            common = groups[split] & groups[other]
            yield from (
                (int(index), split, other)
                for index in splits[split]
                if samples.items[index].group in common
            )


def _two_labels(samples: Samples, listing: Manifest) -> list[DataFault]:
    """The same image under two labels."""
    if listing.kind == "segmentation":
        return []
    first: dict[bytes, int] = {}
    faults = []
    for index, item in enumerate(samples.items):
        other = samples.items[first.setdefault(samples.digests[index].tobytes(), index)]
        if other.label != item.label:
            names = listing.classes[item.label], listing.classes[other.label]
            faults.append(
                DataFault(
                    "two labels",
                    item.id,
                    f"{names[0]}, but the same image is {names[1]}: {other.id}",
                )
            )
    return faults


def _refuse_small(
    name: str, listing: Manifest, splits: dict[str, Positions], trained: Sequence[int]
) -> None:
    """A task needs two samples in each split, and to train on each class; of masks, some of which
    are rare, on two."""
    for split in SPLITS:
        if len(splits[split]) < 2:
            raise DataError(
                f"{name}: the split {split} has {len(splits[split])} samples; more images, or "
                "another share, are needed"
            )
    lacking = [label for label, count in zip(listing.classes, trained) if not count]
    if lacking and listing.kind == "classification":
        raise DataError(f"{name}: classes without a training sample: {some(lacking)}")
    if len(lacking) > len(listing.classes) - 2:
        raise DataError(
            f"{name}: the training masks hold one class, and nothing of {some(lacking)}; masks "
            "hold the indices of the "
            "classes, and 255 means ignore"
        )


# --------------------------------------------------------------------------------------------------
# writing


def _statistics(
    samples: Samples, train: Positions, spool: SampleBuffer, form: PixelFormat
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel over the training split, white being 1."""

    def images() -> Iterator[NDArray[Any]]:
        return (
            spool.image(int(place), form).reshape(form[0], -1) for place in samples.where[train]
        )

    if form[1] == "float32":
        pixels = len(train) * spool.size[0] * spool.size[1]
        means = sum(image.sum(axis=1, dtype=np.float64) for image in images()) / pixels
        squares = sum(((image - means[:, None]) ** 2).sum(axis=1) for image in images()) / pixels
    else:
        top = int(top_of(form[1]))
        counts = np.zeros((form[0], top + 1), np.int64)
        for image in images():
            for channel, values in enumerate(image):
                counts[channel] += np.bincount(values, minlength=top + 1)
        levels = np.arange(top + 1) / top
        means = np.array([np.average(levels, weights=count) for count in counts])
        squares = np.array(
            [np.average((levels - mean) ** 2, weights=count) for mean, count in zip(means, counts)]
        )
    # a channel of one level has no deviation to divide by; floats may be of any size
    least = [1e-6 * abs(float(mean)) if form[1] == "float32" else 1e-3 for mean in means]
    deviations = [float(square) ** 0.5 for square in squares]
    usable = [
        deviation if deviation > limit else limit or 1.0
        for deviation, limit in zip(deviations, least)
    ]
    return tuple(float(mean) for mean in means), tuple(usable)


def _content(
    samples: Samples, spool: SampleBuffer, form: PixelFormat, listing: Manifest
) -> Content:
    """What is written of a split."""
    masks = listing.kind == "segmentation"
    cores, wholes = None, None
    if samples.cores:
        cores = np.array([samples.cores[item.id] for item in samples.items], np.int32)
        wholes = np.unique([item.whole for item in samples.items], return_inverse=True)[1].astype(
            np.int32
        )
    return Content(
        ids=[item.id for item in samples.items],
        images=(spool.image(int(place), form) for place in samples.where),
        dtype=form[1],
        channels=form[0],
        labels=None if masks else samples.labels(),
        masks=(spool.mask(int(place)) for place in samples.where) if masks else None,
        cores=cores,
        wholes=wholes,
    )


def _summary(
    header: TaskInfo,
    task: Task,
    form: PixelFormat,
    with_class: dict[str, list[int]],
    sizes: dict[str, int],
    left_out: Sequence[DataFault],
    warnings: Sequence[DataFault],
) -> dict[str, Any]:
    """What people want to know of a prepared task, as plain data."""
    return {
        "name": header.name,
        "source": task.source,
        "kind": header.kind,
        "classes": list(header.classes),
        "channels": form[0],
        "pixel": form[1],
        "image_size": list(header.image_size),
        "tile_overlap": task.tile_overlap,
        "samples": sizes,
        "with_class": with_class,
        "left_out": counted(left_out),
        "warnings": counted(warnings),
        "faults": {
            "left_out": [asdict(fault) for fault in sorted(left_out)],
            "warnings": [asdict(fault) for fault in sorted(warnings)],
        },
    }
