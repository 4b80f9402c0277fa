"""Large images as overlapping tiles, whose middles put together again are the whole image.

Each pixel of an image is answered for by one tile alone, the one in which it lies farthest from a
border that cuts through the image (the overlap-tile strategy of Ronneberger et al. 2015). So a
score over the cores of all tiles is the score of the stitched image, and no pixel counts twice.
"""

from itertools import pairwise

import numpy as np

from acll.data.images import Box, Pixels

TilePosition = tuple[
    int, int, int
]  # where a tile begins, and the part of the image that it answers for


def tiles(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> list[tuple[Box, Box]]:
    """The tiles of an image, row by row: (box in the image, core in the tile), both as top, left,
    bottom, right.

    A box is never larger than the image, and smaller than a tile only where the image is. The
    overlap is as asked for but at the end, where the last tile is moved back into the image.
    overlap < tile.
    """
    rows, columns = (_places(side, length, overlap) for side, length in zip(size, tile))
    return [
        ((top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1])),
         (first - top, start - left, last - top, end - left))
        for top, first, last in rows
        for left, start, end in columns
    ]  # fmt: skip


def filled_up(values: Pixels, tile: tuple[int, int], value: int = 0) -> Pixels:
    """An image [C, h, w] or a mask [h, w], which is no larger than a tile, as large as one: `value`
    at its right and bottom."""
    missing = [(0, side - have) for side, have in zip(tile, values.shape[-2:])]
    return np.pad(values, [(0, 0)] * (values.ndim - 2) + missing, constant_values=value)


def _places(side: int, tile: int, overlap: int) -> list[TilePosition]:
    begins = [*range(0, max(side - tile, 0), tile - overlap), max(side - tile, 0)]
    between = [(before + tile + after) // 2 for before, after in pairwise(begins)]
    return list(zip(begins, [0, *between], [*between, side]))
