"""Large images as overlapping tiles, whose middles put together again are the whole image.

Each pixel counts in one tile alone: the one in which it lies farthest from a border that cuts
through the image (the overlap-tile strategy of Ronneberger et al. 2015). The pixels that count in a
tile are its valid box. So a score over the valid boxes of all tiles is the score of the stitched
image, and no pixel counts twice.
"""

from itertools import pairwise

import numpy as np

from acll.data.images import Box, Pixels

# along one side: where a tile begins, and where in the image its valid part begins and ends
TilePosition = tuple[int, int, int]


def tiles(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> list[tuple[Box, Box]]:
    """Return the tiles of an image, row by row: (box in the image, valid box in the tile).

    Boxes are top, left, bottom, right, in pixels. A box is never larger than the image, and smaller
    than a tile only where the image is. The overlap, less than a tile, is as asked for; only the
    last tile is moved back into the image.
    """
    rows, columns = (_positions(side, length, overlap) for side, length in zip(size, tile))
    found = []
    for top, first, last in rows:
        for left, start, end in columns:
            box = (top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1]))
            valid_box = (first - top, start - left, last - top, end - left)
            found.append((box, valid_box))
    return found


def filled_up(values: Pixels, tile: tuple[int, int], value: int = 0) -> Pixels:
    """Return an image [C, h, w] or a mask [h, w] made as large as a tile.

    It is no larger than one; `value` fills what is missing at its right and bottom.
    """
    missing = [(0, side - have) for side, have in zip(tile, values.shape[-2:])]
    return np.pad(values, [(0, 0)] * (values.ndim - 2) + missing, constant_values=value)


def _positions(side: int, tile: int, overlap: int) -> list[TilePosition]:
    """Return where tiles lie along one side; valid parts meet in the middle of an overlap."""
    begins = [*range(0, max(side - tile, 0), tile - overlap), max(side - tile, 0)]
    between = [(before + tile + after) // 2 for before, after in pairwise(begins)]
    return list(zip(begins, [0, *between], [*between, side]))
