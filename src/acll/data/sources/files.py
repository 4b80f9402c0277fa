"""Samples that are files: each in an image, for segmentation with a mask beside it."""

from collections.abc import Sequence
from functools import lru_cache

from acll.data.faults import Fault
from acll.data.images import Box, Pixels, read_image, read_mask, size_of
from acll.data.listing import Item, Listing
from acll.data.places import Place
from acll.settings import Kind


def listing_of_files(
    place: Place, kind: Kind, classes: list[str], items: list[Item], faults: Sequence[Fault] = ()
) -> Listing:
    """Items whose `image` and `mask` are names of files in `place`."""

    @lru_cache(maxsize=2)  # neighbouring tiles are of one image, and most formats are decoded whole
    def whole(name: str, is_mask: bool) -> Pixels:
        return read_mask(place.open(name), name) if is_mask else read_image(place.open(name), name)

    def part(name: str, is_mask: bool, box: Box | None) -> Pixels:
        if box is None:
            return read_mask(place.open(name), name) if is_mask else read_image(place.open(name), name)
        if name.lower().endswith((".tif", ".tiff")):
            return read_mask(place.open(name), name, box) if is_mask else read_image(place.open(name), name, box)
        top, left, bottom, right = box
        return whole(name, is_mask)[..., top:bottom, left:right]

    def read(item: Item) -> tuple[Pixels, Pixels | None]:
        mask = part(item.mask, True, item.box) if item.mask is not None else None
        return part(item.image, False, item.box), mask

    def size(item: Item) -> Sequence[tuple[int, int]]:
        return [size_of(place.open(name), name) for name in (item.image, item.mask) if name is not None]

    return Listing(kind, classes, items, read, size, list(faults))
