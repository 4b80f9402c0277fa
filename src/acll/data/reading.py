"""Image files → pixels, one way for all who ask: preparation, whole or in tiles, and prediction.

TIFF files are read by GDAL, all others by Pillow; which of them it is, the content says and not the
name. Pixels are uint8, uint16 or float32 [C, H, W], and stand upright. Grey images have one
channel, and alpha is dropped. Of a TIFF file, pixels without data (by a value or a mask in the file
itself) are 0. Files that lie beside an image mean nothing.
"""

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from acll.data.images import Box, File, Pixels, guarded, stream_of
from acll.data.pictures import Picture
from acll.data.rasters import Raster, is_tiff
from acll.data.storage import Storage


class _Format(Protocol):
    """What a reader of a format has; it raises whatever there is."""

    size: tuple[int, int]

    def close(self) -> None: ...
    @property
    def pages(self) -> int: ...
    @property
    def palette(self) -> NDArray[np.uint8] | None: ...
    def pixels(self, box: Box | None) -> Pixels: ...
    def indices(self, box: Box | None) -> Pixels: ...


class OpenImage:
    """An image file that is open. Its methods raise UnreadableError.

    size: height and width of the image as it stands upright.
    """

    def __init__(self, file: File) -> None:
        self._format = guarded(lambda: _format(file))
        self.size: tuple[int, int] = self._format.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._format.close()

    def pixels(self, box: Box | None = None) -> Pixels:
        """Return the pixels [C, H, W], or those in a box."""
        return guarded(lambda: self._format.pixels(box))

    def indices(self, box: Box | None = None) -> Pixels:
        """Return the class indices [H, W] of a mask, or those in a box.

        They are the grey levels (0 is black) or the indices of a palette.
        """
        return guarded(lambda: self._format.indices(box))

    def pages(self) -> int:
        """Return the number of images, pages or frames in the file, of which the first is read."""
        return guarded(lambda: self._format.pages)

    def palette(self) -> NDArray[np.uint8] | None:
        """Return the colours [entries, 3] of the indices of a mask; None where they are levels."""
        return guarded(lambda: self._format.palette)


def _format(file: File) -> _Format:
    with stream_of(file) as stream:
        tiff = is_tiff(stream.read(4))
    return Raster(file) if tiff else Picture(file)


def read_image(file: File, box: Box | None = None) -> Pixels:
    """Return the pixels [C, H, W] of a file, or those in a box. Raises UnreadableError."""
    with OpenImage(file) as image:
        return image.pixels(box)


def read_mask(file: File, box: Box | None = None) -> Pixels:
    """Return the class indices [H, W] of a file, or those in a box. Raises UnreadableError."""
    with OpenImage(file) as image:
        return image.indices(box)


def size_of(file: File) -> tuple[int, int]:
    """Return height and width of an image, from its header alone. Raises UnreadableError."""
    with OpenImage(file) as image:
        return image.size


class Opener:
    """The image files of a storage. The last one stays open for its next part."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._last: tuple[str, OpenImage] | None = None

    def open(self, name: str) -> OpenImage:
        """Return a file, open until another one is asked for.

        Raises UnreadableError and OSError.
        """
        if self._last is None or self._last[0] != name:
            if self._last is not None:
                self._last[1].close()
                self._last = None
            self._last = name, OpenImage(self._storage.open(name))
        return self._last[1]
