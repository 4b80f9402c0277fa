"""Samples that are files: each in an image, for segmentation with a mask beside it."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from acll.data.faults import DataFault
from acll.data.images import Box, File, Pixels, read_image, read_mask, size_of, within
from acll.data.manifest import Manifest, Sample
from acll.data.storage import Storage
from acll.settings import Kind


def manifest_of_files(
    place: Storage,
    kind: Kind,
    classes: list[str],
    splits: Sequence[str],
    items: list[Sample],
    faults: Sequence[DataFault] = (),
) -> Manifest:
    """Items whose `image` and `mask` are names of files in `place`."""
    image, mask = reader(place, read_image), reader(place, read_mask)

    def read(item: Sample) -> tuple[Pixels, Pixels | None]:
        return image(item.image, item.box), None if item.mask is None else mask(item.mask, item.box)

    def size(item: Sample) -> Sequence[tuple[int, int]]:
        return [
            size_of(place.open(name), name) for name in (item.image, item.mask) if name is not None
        ]

    return Manifest(kind, classes, splits, items, read, size, list(faults))


def reader(
    place: Storage, read: Callable[[File, str, Box | None], Pixels]
) -> Callable[[str, Box | None], Pixels]:
    """A function that reads a file of `place`, or a part of it; one that is decoded whole is kept
    for its next part."""

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def whole(name: str) -> Pixels:
        return read(place.open(name), name, None)

    def part(name: str, box: Box | None) -> Pixels:
        if box is None or name.lower().endswith((".tif", ".tiff")):
            return read(place.open(name), name, box)
        return within(whole(name), box)

    return part
