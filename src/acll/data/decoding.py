"""Raw samples → pixels of one size, checked, by several processes.

Results come in order, whatever the number of processes. A file that makes its decoder crash, or a
process that runs out of memory, costs that file and not the run.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from acll.data.duplicates import thumbnail
from acll.data.faults import DataFault, some
from acll.data.images import Box, Pixels, UnreadableError, resized, resized_mask, why_unreadable
from acll.data.manifest import FileNotes, Manifest, Sample
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
    notes: FileNotes
    used: Sequence[int]  # the indices in its mask, before a part of the classes is taken


@dataclass(frozen=True)
class Decoder:
    """How the samples of a task are decoded."""

    manifest: Manifest
    task: Task
    classes: int  # that masks may hold, before a part of them is taken
    labels: dict[int, int] | None  # old → new labels, where masks keep a part of the classes

    def decode(self, sample: Sample) -> Decoded | DataFault:
        """Return a sample decoded, or what is wrong with it."""
        try:
            return self._decode(sample)
        except MemoryError:
            return DataFault(
                "machine",
                sample.id,
                "there is not enough memory to read it; give it more, or fewer threads",
            )

    def _decode(self, sample: Sample) -> Decoded | DataFault:
        try:
            pixels, mask = self.manifest.read(sample)
            notes = self.manifest.notes(sample)
        except (UnreadableError, OSError) as error:
            return _unreadable(sample, error)
        if mask is None:
            return self._finished(sample, pixels, None, notes, ())
        if mask.shape != pixels.shape[1:]:
            return _sizes_differ(sample, pixels.shape[1:], mask.shape)
        used = [int(value) for value in np.unique(mask)]
        outside = [
            str(value) for value in used if not 0 <= value < self.classes and value != IGNORE
        ]
        if outside:
            return DataFault(
                "label",
                sample.id,
                f"its mask has the labels {some(outside)}, outside the {self.classes} classes "
                f"(0 to {self.classes - 1}; {IGNORE} means ignore)",
            )
        return self._finished(sample, pixels, mask.astype(np.uint8), notes, used)

    def _finished(
        self,
        sample: Sample,
        pixels: Pixels,
        mask: NDArray[np.uint8] | None,
        notes: FileNotes,
        used: Sequence[int],
    ) -> Decoded | DataFault:
        """Bring a sample that could be read to the size and the variant of the task."""
        if sample.box is not None:
            pixels = filled_up(pixels, self.task.image_size)
            mask = None if mask is None else filled_up(mask, self.task.image_size, IGNORE)
        pixels = resized(pixels, self.task.image_size)
        if mask is not None:
            mask = resized_mask(mask, self.task.image_size)
            mask = relabelled(mask, self.labels) if self.labels is not None else mask
        # Images of one colour, such as what lies beyond the border of a scan, are no duplicates of
        # each other: their id makes their digests differ.
        one_colour = (pixels == pixels[:, :1, :1]).all()
        own = sample.id if one_colour else ""
        digest = hashlib.sha256(pixels.tobytes() + own.encode()).digest()[:16]
        small = thumbnail(pixels)
        pixels, mask = varied(pixels, mask, self.task, sample.id)
        present = None if mask is None else np.isin(np.arange(len(self.manifest.classes)), mask)
        if present is not None and not present.any():
            return DataFault("ignored", sample.id, "its mask has no pixel of any class")
        return Decoded(pixels, mask, present, digest, small, notes, used)


def _sizes_differ(sample: Sample, image: Sequence[int], mask: Sequence[int]) -> DataFault:
    """Return the fault of a mask and an image of unlike [height, width]."""
    of_image, of_mask = (f"{width}x{height} pixels" for height, width in (image, mask))
    return DataFault(
        "size", sample.id, f"the mask has {of_mask}, its image {of_image}; they must be equal"
    )


def _unreadable(sample: Sample, error: UnreadableError | OSError) -> DataFault:
    """Return the fault of a file that cannot be read."""
    return DataFault("unreadable", sample.id, why_unreadable(error))


def tiled(manifest: Manifest, task: Task, processes: int) -> tuple[Manifest, dict[str, Box]]:
    """Return the manifest with a sample for each tile, and the valid box of each tile by its id.

    Where the task wants no tiles, the manifest stays as it is. See `acll.data.tiles`.
    """
    if task.tile_overlap is None:
        return manifest, {}

    def size(sample: Sample) -> tuple[int, int] | DataFault:
        try:
            of_image, *of_mask = manifest.size(sample)
        except (UnreadableError, OSError) as error:
            return _unreadable(sample, error)
        if of_mask in ([], [of_image]):
            return of_image
        return _sizes_differ(sample, of_image, of_mask[0])

    samples, faults, valid_boxes = [], list(manifest.faults), {}
    for sample, found in _each(manifest, size, processes):
        if isinstance(found, DataFault):
            faults.append(found)
            continue
        for box, valid_box in tiles(found, task.image_size, task.tile_overlap):
            name = f"{sample.id}#{box[0]},{box[1]}"
            samples.append(replace(sample, id=name, image_id=sample.id, box=box))
            valid_boxes[name] = valid_box
    return replace(manifest, samples=samples, faults=faults), valid_boxes


def decode_all(
    decoder: Decoder, processes: int, label: str
) -> Iterator[tuple[Sample, Decoded | DataFault]]:
    """Yield every sample of the manifest in turn, decoded or with what is wrong.

    label: what lines about the progress begin with.
    """
    results = _each(decoder.manifest, decoder.decode, processes)
    return _watched(results, len(decoder.manifest.samples), label)


def _each(
    manifest: Manifest, function: Callable[[Sample], Result | DataFault], processes: int
) -> Iterator[tuple[Sample, Result | DataFault]]:
    """Yield each sample with what a function gives for it, in order."""
    samples = manifest.samples
    if manifest.trusted:  # nothing can crash or hang, so no processes are needed
        yield from ((sample, function(sample)) for sample in samples)
        return
    chunks = [samples[begin : begin + _CHUNK] for begin in range(0, len(samples), _CHUNK)]
    with workers(function, processes) as pool:
        for chunk, results in zip(chunks, pool.map(chunks)):
            for sample, result in zip(chunk, results):
                yield sample, _lost(sample, result) if isinstance(result, Lost) else result


def _lost(sample: Sample, result: Lost) -> DataFault:
    """Return the fault of a sample whose process did not come back."""
    if result.by_machine:
        return DataFault(
            "machine", sample.id, f"{result.why}; is there enough memory for {sample.image}?"
        )
    return DataFault(
        "unreadable", sample.id, f"{result.why}; a damaged file that its decoder does not survive"
    )


def _watched(
    results: Iterator[tuple[Sample, Decoded | DataFault]], total: int, label: str
) -> Iterator[tuple[Sample, Decoded | DataFault]]:
    """Yield the results, and print a line for each tenth of many."""
    for number, result in enumerate(results, 1):
        yield result
        if total >= 1000 and number * 10 // total > (number - 1) * 10 // total:
            print(f"{label}: {number * 100 // total}% of {total} images", flush=True)
