"""Samples that are files: each in an image, for segmentation with a mask beside it."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from acll.data.faults import DataFault
from acll.data.images import Box, File, Pixels, read_image, read_mask, size_of, within
from acll.data.manifest import Manifest, Sample
from acll.data.storage import Storage
from acll.settings import Kind


def manifest_of_files(
    storage: Storage,
    kind: Kind,
    classes: list[str],
    splits: Sequence[str],
    samples: list[Sample],
    faults: Sequence[DataFault] = (),
) -> Manifest:
    """Return the manifest of samples whose `image` and `mask` are names of files in `storage`."""
    image, mask = reader(storage, read_image), reader(storage, read_mask)

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        own_mask = None if sample.mask is None else mask(sample.mask, sample.box)
        return image(sample.image, sample.box), own_mask

    def size(sample: Sample) -> Sequence[tuple[int, int]]:
        names = [sample.image] if sample.mask is None else [sample.image, sample.mask]
        return [size_of(storage.open(name), name) for name in names]

    return Manifest(kind, classes, splits, samples, read, size, list(faults))


def reader(
    storage: Storage, read: Callable[[File, str, Box | None], Pixels]
) -> Callable[[str, Box | None], Pixels]:
    """Return a function that reads a file of `storage`, or the part of it in a box.

    A file that can only be decoded as a whole is kept for its next part.
    """

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def whole(name: str) -> Pixels:
        return read(storage.open(name), name, None)

    def part(name: str, box: Box | None) -> Pixels:
        if box is None or name.lower().endswith((".tif", ".tiff")):
            return read(storage.open(name), name, box)
        return within(whole(name), box)

    return part
