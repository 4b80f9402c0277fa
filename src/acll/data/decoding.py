"""Raw samples → pixels of one size, checked, by several processes; what comes out is in order whatever their number.

A file that makes its decoder crash, or a process that runs out of memory, costs that file and not the run.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from acll.data.duplicates import FLAT, thumbnail
from acll.data.faults import Fault, some
from acll.data.images import Pixels, UnreadableError, resized, resized_mask
from acll.data.listing import Item, Listing
from acll.data.prepared import IGNORE
from acll.data.tiles import tiles
from acll.data.variants import relabelled, varied
from acll.data.workers import Lost, workers
from acll.settings import Task

_CHUNK = 16  # samples that a process is handed at a time


@dataclass(frozen=True, slots=True)
class Decoded:
    """A sample as it will be used, and what is needed to compare it with others."""

    pixels: Pixels  # [C, *image_size]
    mask: NDArray[np.uint8] | None  # [*image_size]
    present: NDArray[np.bool_]  # [classes] that are in it
    digest: bytes  # of the pixels before noise and permutation
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Decoder:
    """How the samples of a task are decoded. labels: for a part of the classes of masks, old → new labels."""

    listing: Listing
    task: Task
    classes: int  # that masks may hold, before a part of them is taken
    labels: dict[int, int] | None

    def decode(self, item: Item) -> Decoded | Fault:
        """One sample, or what is wrong with it."""
        try:
            return self._decode(item)
        except MemoryError:
            return Fault("memory", item.id, "there is not enough memory to read it; give it more, or fewer threads")

    def _decode(self, item: Item) -> Decoded | Fault:
        try:
            pixels, mask = self.listing.read(item)
        except (UnreadableError, OSError) as error:
            return _unreadable(item, error)
        if mask is None:
            return self._finished(item, pixels, None)
        if mask.shape != pixels.shape[1:]:
            sizes = [f"{width}x{height} pixels" for height, width in (mask.shape, pixels.shape[1:])]
            return Fault("size", item.id, f"the mask has {sizes[0]}, its image {sizes[1]}; they must be equal")
        values = np.unique(mask)
        outside = [int(value) for value in values if not 0 <= value < self.classes and value != IGNORE]
        if outside:
            return Fault(
                "label", item.id, f"its mask has the labels {some([str(value) for value in outside])}, outside the "
                f"{self.classes} classes (0 to {self.classes - 1}; {IGNORE} means ignore)"
            )  # fmt: skip
        return self._finished(item, pixels, mask.astype(np.uint8))

    def _finished(self, item: Item, pixels: Pixels, mask: NDArray[np.uint8] | None) -> Decoded | Fault:
        if item.box is not None:
            pixels, mask = _padded(pixels, mask, self.task.image_size)
        pixels = resized(pixels, self.task.image_size)
        if mask is not None:
            mask = resized_mask(mask, self.task.image_size)
            mask = relabelled(mask, self.labels) if self.labels is not None else mask
        small = thumbnail(pixels)
        # tiles of one colour, such as those beyond the border of a satellite image, are no copies of each other
        own = item.id if item.box is not None and small.std() <= FLAT else ""
        digest = hashlib.sha256(pixels.tobytes() + own.encode()).digest()[:16]
        pixels, mask = varied(pixels, mask, self.task, item.whole or item.id)
        present = np.zeros(max(256, len(self.listing.classes)), bool)
        present[item.label if mask is None else np.unique(mask)] = True
        present = present[: len(self.listing.classes)]
        if not present.any():
            return Fault("ignored", item.id, "its mask has no pixel of any class")
        return Decoded(pixels, mask, present, digest, small)


def _unreadable(item: Item, error: UnreadableError | OSError) -> Fault:
    words = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
    return Fault("unreadable", item.id, words)


def tiled(listing: Listing, task: Task) -> tuple[Listing, dict[str, tuple[int, int, int, int]]]:
    """The listing with a sample for each tile, and the core of each tile by its id; see `acll.data.tiles`."""
    if task.tile_overlap is None:
        return listing, {}
    items, faults, cores = [], list(listing.faults), {}
    for item in listing.items:
        try:
            sizes = listing.size(item)
        except (UnreadableError, OSError) as error:
            faults.append(_unreadable(item, error))
            continue
        if len(set(sizes)) > 1:
            of_image, of_mask = (f"{width}x{height} pixels" for height, width in sizes)
            faults.append(Fault("size", item.id, f"the mask has {of_mask}, its image {of_image}; they must be equal"))
            continue
        for box, core in tiles(sizes[0], task.image_size, task.tile_overlap):
            name = f"{item.id}#{box[0]},{box[1]}"
            items.append(replace(item, id=name, whole=item.id, box=box))
            cores[name] = core
    return replace(listing, items=items, faults=faults), cores


def decode_all(decoder: Decoder, processes: int, label: str) -> Iterator[tuple[Item, Decoded | Fault]]:
    """Every sample of the listing in turn, decoded or with what is wrong."""
    items = decoder.listing.items
    here = ((item, decoder.decode(item)) for item in items)
    results = here if decoder.listing.trusted else _in_processes(decoder, processes)
    return _watched(results, len(items), label)


def _in_processes(decoder: Decoder, processes: int) -> Iterator[tuple[Item, Decoded | Fault]]:
    items = decoder.listing.items
    chunks = [items[begin : begin + _CHUNK] for begin in range(0, len(items), _CHUNK)]
    with workers(decoder.decode, processes) as pool:
        for chunk, results in zip(chunks, pool.map(chunks)):
            yield from zip(chunk, (_or_fault(item, result) for item, result in zip(chunk, results)))


def _or_fault(item: Item, result: Decoded | Fault | Lost) -> Decoded | Fault:
    if isinstance(result, Lost):
        return Fault("unreadable", item.id, f"{result.why}: a damaged file, or one too large for memory")
    return result


def _padded(
    pixels: Pixels, mask: NDArray[np.uint8] | None, size: tuple[int, int]
) -> tuple[Pixels, NDArray[np.uint8] | None]:
    """A tile of an image that is smaller than a tile: black, and ignored, where there is no image."""
    margins = [(0, side - have) for side, have in zip(size, pixels.shape[1:])]
    if not any(margin for _, margin in margins):
        return pixels, mask
    padded = np.pad(pixels, [(0, 0), *margins])
    return padded, None if mask is None else np.pad(mask, margins, constant_values=IGNORE)


def _watched(
    results: Iterator[tuple[Item, Decoded | Fault]], total: int, label: str
) -> Iterator[tuple[Item, Decoded | Fault]]:
    """With a progress bar where a person is watching, a line for each tenth in a log."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(results, label, total, leave=False, unit="image")
        return
    for number, result in enumerate(results, 1):
        yield result
        if total >= 1000 and number * 10 // total > (number - 1) * 10 // total:
            print(f"{label}: {number * 100 // total}% of {total} images", flush=True)
