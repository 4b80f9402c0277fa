"""From a task's raw data to its prepared files, in one streaming pass over the images.

1. `decoding` reads the samples with several processes; a buffer on disk takes them in order.
2. Splits are cut, and duplicates looked for.
3. The files are written from the buffer.

Memory holds a few hundred bytes a sample, whatever the size of the images.
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
from acll.data.channels import channel_statistics
from acll.data.decoding import Decoder, decode_all, tiled
from acll.data.duplicates import duplicates
from acll.data.errors import DataError
from acll.data.faults import DataFault, counted, in_words, some, write_faults
from acll.data.images import Box
from acll.data.manifest import Manifest, Sample
from acll.data.names import alike, as_class, in_one_form
from acll.data.palettes import PaletteCheck
from acll.data.prepared import IGNORE, Content, TaskInfo
from acll.data.splits import (
    absent_classes,
    fewer,
    merge_groups,
    refuse_small,
    strata_of,
    stratified_group_split,
)
from acll.data.storage import SPLITS
from acll.data.task import Task
from acll.data.variants import part_of_classes
from acll.settings import MOST_VALUES, refuse_odd_text

Positions = NDArray[np.int64]
# Data would depend on the machine; and which of two palettes is the right one, nobody knows.
_NEVER_SKIPPED = ("machine", "palette")


@dataclass(frozen=True)
class DecodedSamples:
    """All samples that can be used, in the order of the manifest."""

    samples: list[Sample]
    where: Positions  # [N] their positions in the buffer
    present: NDArray[np.bool_] | None  # [N, classes] which classes are in each mask
    digests: NDArray[np.uint8]  # [N, 16]
    thumbnails: NDArray[np.uint8]  # [N, SIDE²]
    valid_boxes: dict[str, Box]  # of tiles, by id

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, kept: Positions) -> "DecodedSamples":
        """Return the samples at these positions."""
        return DecodedSamples(
            [self.samples[index] for index in kept],
            self.where[kept],
            None if self.present is None else self.present[kept],
            self.digests[kept],
            self.thumbnails[kept],
            self.valid_boxes,
        )

    def labels(self) -> NDArray[np.int64]:
        """Return the class of each sample of a classification task, [N]."""
        return np.array([sample.label for sample in self.samples], np.int64)

    def strata(self) -> NDArray[np.int64]:
        """Return what splits are stratified by, [N]: the class, or the rarest class in a mask."""
        return self.labels() if self.present is None else strata_of(self.present)

    def with_class(self, classes: int) -> list[int]:
        """Return the number of samples that have each class."""
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
    """Write the prepared files of a task and the report of its faults; return a summary.

    root: the folder of raw data. train, test, report: what is written. channels: those of the
    networks that are to learn the task; one that cannot take its images is found here, before
    anything is trained.

    Raises DataError where files cannot be used and the task says `stop`, or where what is left
    makes no task. Then the report is written and nothing else.
    """
    manifest = task.manifest(root)
    _refuse_labels(name, manifest.classes)
    buffer = SampleBuffer(train.parent, task.image_size)
    manifest, decoded, left_out, doubtful = _read(name, task, manifest, buffer, report, processes)
    formats = buffer.formats()
    pixel_format = common_format([formats[index] for index in decoded.where])
    _refuse_channels(name, pixel_format[0], channels, task.image_size)
    decoded, others = _of_format(decoded, formats, pixel_format)
    left_out += others
    _refuse(name, "on_error", _not_skipped(left_out, task), report)

    splits = _cut(name, decoded, task, manifest.splits)
    # what this package makes holds no leaks: it is neither damaged nor copied
    leaks = [] if manifest.trusted else _leaks(decoded, splits, task)
    leak_faults = [fault for _, fault in leaks]
    if task.duplicates == "stop":
        _refuse(name, "duplicates", leak_faults, report)
    warnings = [*manifest.warnings, *_alike_classes(manifest.classes), *doubtful]
    warnings += [] if manifest.trusted else _two_labels(decoded, manifest)
    if task.duplicates == "skip":
        dropped = [position for position, _ in leaks]
        splits = {split: chosen[~np.isin(chosen, dropped)] for split, chosen in splits.items()}
        left_out += leak_faults
    else:
        warnings += leak_faults
    counts = {
        split: decoded.select(chosen).with_class(len(manifest.classes))
        for split, chosen in splits.items()
    }
    warnings += absent_classes(manifest.classes, counts)
    write_faults(report, left_out=left_out, warning=warnings)
    sizes = {split: len(splits[split]) for split in SPLITS}
    refuse_small(name, manifest.kind, manifest.classes, sizes, counts["train"])

    def training_images() -> Iterator[NDArray[Any]]:
        for index in decoded.where[splits["train"]]:
            yield buffer.image(int(index), pixel_format)

    info = TaskInfo(
        name,
        manifest.kind,
        tuple(manifest.classes),
        task.image_size,
        *channel_statistics(training_images, *pixel_format),
        pixel=pixel_format[1],
        tile_overlap=task.tile_overlap,
        rotate=task.rotate,
        permute=task.permute,
    )
    for path, names in ((train, ("train", "val")), (test, ("test",))):
        contents = {}
        for split in names:
            own = decoded.select(splits[split])
            contents[split] = _content(own, buffer, pixel_format, manifest)
        prepared.write_prepared(path, info, contents)
    return _summary(info, task, pixel_format, counts, sizes, left_out, warnings)


# --------------------------------------------------------------------------------------------------
# reading


def _read(
    name: str, task: Task, manifest: Manifest, buffer: SampleBuffer, report: Path, processes: int
) -> tuple[Manifest, DecodedSamples, list[DataFault], list[DataFault]]:
    """Decode all samples into the buffer.

    Return the manifest with the task's part of the classes and its tiles, the samples that can be
    used, what is wrong with the others, and what deserves a look. Raises DataError where no sample
    is left.
    """
    classes, labels = len(manifest.classes), None
    if task.part is not None:
        manifest, labels = part_of_classes(name, manifest, task.part)
    manifest, valid_boxes = tiled(manifest, task, processes)
    decoder = Decoder(manifest, task, classes, labels)
    samples, present, digests, thumbnails = [], [], [], []
    faults = list(manifest.faults)
    palettes = PaletteCheck()
    pages: dict[str, int] = {}
    mixed: dict[str, DataFault] = {}
    labels_of: dict[str, set[int]] = {}  # of each file of a mask, in all its tiles
    for sample, result in decode_all(decoder, processes, name):
        if isinstance(result, DataFault):
            faults.append(result)
            continue
        fault = palettes.fault(sample, result.used, result.notes.palette)
        if fault is not None:
            mixed.setdefault(fault.file, fault)  # one for all tiles of an image
            continue
        if isinstance(sample.mask, str):  # a file, and no list of outlines
            labels_of.setdefault(sample.mask, set()).update(result.used)
        pages.update({file: count for file, count in result.notes.pages.items() if count > 1})
        buffer.append(result.pixels, result.mask)
        samples.append(sample)
        present.append(result.present)
        digests.append(np.frombuffer(result.digest, np.uint8))
        thumbnails.append(result.thumbnail)
    faults += mixed.values()
    if not samples:
        write_faults(report, refused=faults)
        lines = "\n".join(in_words(faults)) or "there is none"
        raise DataError(f"{name}: no sample can be used\n{lines}")
    in_masks = [one for one in present if one is not None]
    decoded = DecodedSamples(
        samples,
        np.arange(len(samples)),
        np.stack(in_masks) if in_masks else None,
        np.stack(digests),
        np.stack(thumbnails),
        valid_boxes,
    )
    doubtful = [
        DataFault("pages", file, f"holds {count} images (pages, frames); the first is used")
        for file, count in pages.items()
    ]
    if any(used - {0, IGNORE} for used in labels_of.values()):
        words = f"holds 0 and {IGNORE} alone, which is ignored; did it mean a class (such as 1)?"
        odd = sorted(file for file, used in labels_of.items() if used == {0, IGNORE})
        doubtful += [DataFault("label", file, words) for file in odd]
    return manifest, decoded, faults, doubtful + palettes.warnings()


def _of_format(
    decoded: DecodedSamples, formats: Sequence[PixelFormat], pixel_format: PixelFormat
) -> tuple[DecodedSamples, list[DataFault]]:
    """Return the samples whose images can be given a format, and what is wrong with the others."""
    channels = np.array([formats[index][0] for index in decoded.where])
    fits = (channels == pixel_format[0]) | (channels == 1)
    faults = []
    for index in np.flatnonzero(~fits):
        message = f"has {channels[index]} channels, most images have {pixel_format[0]}"
        faults.append(DataFault("bands", decoded.samples[index].id, message))
    return decoded.select(np.flatnonzero(fits)), faults


def _refuse_labels(name: str, classes: Sequence[str]) -> None:
    """Raise DataError for a class whose name would disturb terminals, tables or JSON, and for
    classes whose names look the same."""
    for label in classes:
        try:
            refuse_odd_text(label)
        except ValueError as error:
            raise DataError(f"{name}: the class {error}; rename it") from None
    for group in alike(classes):
        if len({in_one_form(label) for label in group}) < len(group):
            raise DataError(
                f"{name}: classes that differ only by blanks, letters that are not seen or their "
                f"Unicode form: {', '.join(map(ascii, group))}; give them one name"
            )


def _alike_classes(classes: Sequence[str]) -> list[DataFault]:
    """Return a fault for each class whose name differs from another one by its case, by quotes
    around it or by zeros before a number alone."""
    return [
        DataFault("likeness", label, f"a class, and so is {some([*group[:at], *group[at + 1 :]])}")
        for group in alike(classes, as_class)
        for at, label in enumerate(group)
    ]


def _refuse_channels(name: str, own: int, channels: Sequence[int], size: tuple[int, int]) -> None:
    """Raise DataError for images that are too large, or that a network cannot take.

    own: channels of the images. channels: those of the networks.
    """
    if own * math.prod(size) > MOST_VALUES:
        raise DataError(
            f"{name}: images of {own} channels and {list(size)} pixels; make image_size smaller"
        )
    unfit = [count for count in channels if own not in (1, count)]
    if unfit:
        raise DataError(
            f"{name}: its images have {own} channels, a network that is to learn it takes "
            f"{unfit[0]}: set channels: {own} for that network"
        )


def _not_skipped(faults: Sequence[DataFault], task: Task) -> list[DataFault]:
    """Return the faults that stop the task.

    Masks without any class are expected, and stop nothing, where images are cut into tiles or only
    a part of the classes is used.
    """
    if task.on_error == "skip":
        return [fault for fault in faults if fault.kind in _NEVER_SKIPPED]
    partly = task.tile_overlap is not None or task.part is not None
    return [fault for fault in faults if not (partly and fault.kind == "ignored")]


def _refuse(name: str, key: str, faults: Sequence[DataFault], report: Path) -> None:
    """Write all faults into the report and raise DataError, where there are any."""
    if not faults:
        return
    write_faults(report, refused=faults)
    files = f"{len(faults)} file{'s' if len(faults) > 1 else ''}"
    can_skip = any(fault.kind not in _NEVER_SKIPPED for fault in faults)
    skip = f" ({key}: stop; `skip` leaves them out)" if can_skip else ""
    what = f"{files} cannot be used{skip}"
    raise DataError(
        "\n".join([f"{name}: {what}; all are named in {report.resolve()}", *in_words(faults)])
    )


# --------------------------------------------------------------------------------------------------
# splits


def _cut(
    name: str, decoded: DecodedSamples, task: Task, there: Sequence[str]
) -> dict[str, Positions]:
    """Return the positions of each split.

    there: the splits that the source has. The others are cut from `train`, first the test, then
    validation. Exact copies stay together, so that cutting cannot make a leak.
    """
    given = np.array([sample.split for sample in decoded.samples])
    splits = {split: np.flatnonzero(given == split) for split in SPLITS}
    for split, share in (("test", task.test_share), ("val", task.validation_share)):
        # a split of the source of which nothing can be used is not cut, but refused later
        if split in there:
            continue
        rest = splits["train"]
        groups = [decoded.samples[index].group for index in rest]
        groups = merge_groups(groups, decoded.digests[rest])
        strata = decoded.select(rest).strata()
        off = stratified_group_split(strata, groups, share, task.split_seed)
        splits["train"], splits[split] = rest[~off], rest[off]
    train = splits["train"]
    if task.train_samples is not None:
        strata = decoded.select(train).strata()
        splits["train"] = train[fewer(name, strata, task.train_samples, task.split_seed)]
    return splits


def _leaks(
    decoded: DecodedSamples, splits: dict[str, Positions], task: Task
) -> list[tuple[int, DataFault]]:
    """Return the duplicates, and the members of a group, that lie in two splits.

    Each comes with the position of the sample that lies farther from the test.
    """
    found = duplicates(decoded.digests, decoded.thumbnails, [splits[split] for split in SPLITS])
    split_at = {int(index): split for split, chosen in splits.items() for index in chosen}
    leaks: dict[int, DataFault] = {}
    for one in found:
        other = decoded.samples[one.second].id
        words = "the same" if one.exact else "almost the same"
        message = f"in {split_at[one.first]}: {words} as {other} in {split_at[one.second]}"
        fault = DataFault(
            "exact copy" if one.exact else "near copy", decoded.samples[one.first].id, message
        )
        leaks.setdefault(one.first, fault)
    if getattr(task, "group", None) is not None:
        for index, split, other in _divided(decoded, splits):
            sample = decoded.samples[index]
            message = f"in {split}: of the group {sample.group!r}, which is in {other} too"
            leaks.setdefault(index, DataFault("group", sample.id, message))
    return sorted(leaks.items())


def _divided(
    decoded: DecodedSamples, splits: dict[str, Positions]
) -> Iterator[tuple[int, str, str]]:
    """Yield each sample whose group is in a split nearer to the test, too.

    As (position, split, the other split).
    """
    groups = {
        split: {decoded.samples[index].group for index in chosen}
        for split, chosen in splits.items()
    }
    for number, split in enumerate(SPLITS):
        for other in SPLITS[number + 1 :]:
            common = groups[split] & groups[other]
            for index in splits[split]:
                if decoded.samples[index].group in common:
                    yield int(index), split, other


def _two_labels(decoded: DecodedSamples, manifest: Manifest) -> list[DataFault]:
    """Return a fault for each image that also comes with another label."""
    if manifest.kind == "segmentation":
        return []
    first: dict[bytes, int] = {}
    faults = []
    for index, sample in enumerate(decoded.samples):
        other = decoded.samples[first.setdefault(decoded.digests[index].tobytes(), index)]
        if other.label != sample.label:
            own_name, other_name = manifest.classes[sample.label], manifest.classes[other.label]
            message = f"{own_name}, but the same image is {other_name}: {other.id}"
            faults.append(DataFault("two labels", sample.id, message))
    return faults


# --------------------------------------------------------------------------------------------------
# writing


def _content(
    decoded: DecodedSamples, buffer: SampleBuffer, pixel_format: PixelFormat, manifest: Manifest
) -> Content:
    """Return what is written of a split; images and masks are read as they are asked for."""
    has_masks = manifest.kind == "segmentation"
    valid_box, image_index = None, None
    if decoded.valid_boxes:
        boxes = [decoded.valid_boxes[sample.id] for sample in decoded.samples]
        valid_box = np.array(boxes, np.int32)
        image_ids = [sample.image_id for sample in decoded.samples]
        image_index = np.unique(image_ids, return_inverse=True)[1].astype(np.int32)
    return Content(
        ids=[sample.id for sample in decoded.samples],
        images=(buffer.image(int(index), pixel_format) for index in decoded.where),
        dtype=pixel_format[1],
        channels=pixel_format[0],
        labels=None if has_masks else decoded.labels(),
        masks=(buffer.mask(int(index)) for index in decoded.where) if has_masks else None,
        tile_valid_box=valid_box,
        tile_image_index=image_index,
    )


def _summary(
    info: TaskInfo,
    task: Task,
    pixel_format: PixelFormat,
    with_class: dict[str, list[int]],
    sizes: dict[str, int],
    left_out: Sequence[DataFault],
    warnings: Sequence[DataFault],
) -> dict[str, Any]:
    """Return what people want to know of a prepared task, as plain data."""
    return {
        "name": info.name,
        "source": task.source,
        "kind": info.kind,
        "classes": list(info.classes),
        "channels": pixel_format[0],
        "pixel": pixel_format[1],
        "image_size": list(info.image_size),
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
