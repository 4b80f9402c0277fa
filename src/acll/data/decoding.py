"""Raw samples → pixels of one size, checked, by several processes; what comes out is in order
whatever their number.

A file that makes its decoder crash, or a process that runs out of memory, costs that file and not
the run.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from acll.data.duplicates import thumbnail
from acll.data.faults import DataFault, some
from acll.data.images import Box, Pixels, UnreadableError, resized, resized_mask
from acll.data.manifest import Manifest, Sample
from acll.data.prepared import IGNORE
from acll.data.task import Task
from acll.data.tiles import filled_up, tiles
from acll.data.variants import relabelled, varied
from acll.data.workers import Lost, workers

Result = TypeVar("Result")
_CHUNK = 16  # samples that a process is handed at a time


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample as it will be used, and what is needed to compare it with others."""

    pixels: Pixels  # [C, *image_size]
    mask: NDArray[np.uint8] | None  # [*image_size]
    present: NDArray[np.bool_] | None  # [classes] that are in the mask
    digest: bytes  # of the pixels before noise and permutation
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Decoder:
    """How the samples of a task are decoded. labels: for a part of the classes of masks, old → new
    labels."""

    listing: Manifest
    task: Task
    classes: int  # that masks may hold, before a part of them is taken
    labels: dict[int, int] | None

    def decode(self, item: Sample) -> Decoded | DataFault:
        """One sample, or what is wrong with it."""
        try:
            return self._decode(item)
        except MemoryError:
            return DataFault(
                "machine",
                item.id,
                "there is not enough memory to read it; give it more, or fewer threads",
            )

    def _decode(self, item: Sample) -> Decoded | DataFault:
        try:
            pixels, mask = self.listing.read(item)
        except (UnreadableError, OSError) as error:
            return _unreadable(item, error)
        if mask is None:
            return self._finished(item, pixels, None)
        if mask.shape != pixels.shape[1:]:
            return _sizes_differ(item, pixels.shape[1:], mask.shape)
        values = np.unique(mask)
        outside = [
            int(value) for value in values if not 0 <= value < self.classes and value != IGNORE
        ]
        if outside:
            return DataFault(
                "label", item.id, "its mask has the labels "
                                  f"{some([str(value) for value in outside])}, outside the "
                f"{self.classes} classes (0 to {self.classes - 1}; {IGNORE} means ignore)"
            )  # fmt: skip
        return self._finished(item, pixels, mask.astype(np.uint8))

    def _finished(
        self, item: Sample, pixels: Pixels, mask: NDArray[np.uint8] | None
    ) -> Decoded | DataFault:
        if item.box is not None:
            pixels = filled_up(pixels, self.task.image_size)
            mask = None if mask is None else filled_up(mask, self.task.image_size, IGNORE)
        pixels = resized(pixels, self.task.image_size)
        if mask is not None:
            mask = resized_mask(mask, self.task.image_size)
            mask = relabelled(mask, self.labels) if self.labels is not None else mask
        # images of one colour, such as what lies beyond the border of a scan, are no copies of each
        # other
        own = item.id if (pixels == pixels[:, :1, :1]).all() else ""
        digest = hashlib.sha256(pixels.tobytes() + own.encode()).digest()[:16]
        small = thumbnail(pixels)
        pixels, mask = varied(pixels, mask, self.task, item.id)
        present = None if mask is None else np.isin(np.arange(len(self.listing.classes)), mask)
        if present is not None and not present.any():
            return DataFault("ignored", item.id, "its mask has no pixel of any class")
        return Decoded(pixels, mask, present, digest, small)


def _sizes_differ(item: Sample, image: Sequence[int], mask: Sequence[int]) -> DataFault:
    of_image, of_mask = (f"{width}x{height} pixels" for height, width in (image, mask))
    return DataFault(
        "size", item.id, f"the mask has {of_mask}, its image {of_image}; they must be equal"
    )


def _unreadable(item: Sample, error: UnreadableError | OSError) -> DataFault:
    words = (
        f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
    )
    return DataFault("unreadable", item.id, words)


def tiled(listing: Manifest, task: Task, processes: int) -> tuple[Manifest, dict[str, Box]]:
    """The listing with a sample for each tile, and the core of each tile by its id; see
    `acll.data.tiles`."""
    if task.tile_overlap is None:
        return listing, {}
    items, faults, cores = [], list(listing.faults), {}

    def size(item: Sample) -> tuple[int, int] | DataFault:
        try:
            of_image, *of_mask = listing.size(item)
        except (UnreadableError, OSError) as error:
            return _unreadable(item, error)
        return (
            of_image if of_mask in ([], [of_image]) else _sizes_differ(item, of_image, of_mask[0])
        )

    for item, found in _each(listing, size, processes):
        if isinstance(found, DataFault):
            faults.append(found)
            continue
        for box, core in tiles(found, task.image_size, task.tile_overlap):
            name = f"{item.id}#{box[0]},{box[1]}"
            items.append(replace(item, id=name, whole=item.id, box=box))
            cores[name] = core
    return replace(listing, items=items, faults=faults), cores


def decode_all(
    decoder: Decoder, processes: int, label: str
) -> Iterator[tuple[Sample, Decoded | DataFault]]:
    """Every sample of the listing in turn, decoded or with what is wrong."""
    results = _each(decoder.listing, decoder.decode, processes)
    return _watched(results, len(decoder.listing.items), label)


def _each(
    listing: Manifest, function: Callable[[Sample], Result | DataFault], processes: int
) -> Iterator[tuple[Sample, Result | DataFault]]:
    """What a function gives for each sample, in order."""
    items = listing.items
    if listing.trusted:
        yield from ((item, function(item)) for item in items)
        return
    chunks = [items[begin : begin + _CHUNK] for begin in range(0, len(items), _CHUNK)]
    with workers(function, processes) as pool:
        for chunk, results in zip(chunks, pool.map(chunks)):
            for item, result in zip(chunk, results):
                yield item, _lost(item, result) if isinstance(result, Lost) else result


def _lost(item: Sample, result: Lost) -> DataFault:
    if result.by_machine:
        return DataFault(
            "machine", item.id, f"{result.why}; is there enough memory for {item.image}?"
        )
    return DataFault(
        "unreadable", item.id, f"{result.why}; a damaged file that its decoder does not survive"
    )


def _watched(
    results: Iterator[tuple[Sample, Decoded | DataFault]], total: int, label: str
) -> Iterator[tuple[Sample, Decoded | DataFault]]:
    """Yield the results, with a line in the log for each tenth of many."""
    for number, result in enumerate(results, 1):
        yield result
        if total >= 1000 and number * 10 // total > (number - 1) * 10 // total:
            print(f"{label}: {number * 100 // total}% of {total} images", flush=True)
