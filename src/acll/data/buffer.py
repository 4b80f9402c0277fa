"""Decoded samples on disk, one after another, on their way from raw data to a prepared file.

Images of one task may differ until all have been seen: some are grey, some in colour, some of 16
bits. So each is kept as it is, and brought to the common pixel format when it is read back. Memory
holds a few numbers for each sample.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.images import Pixels, as_dtype
from acll.files import saying_where

PixelFormat = tuple[int, str]  # channels, and the type of a pixel

_DEPTH = ("uint8", "uint16", "float32")  # each can hold the ones before


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    pixel_format: PixelFormat


class SampleBuffer:
    """Images [C, *size] and masks [*size] in a nameless file, which is gone with the process."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.size = folder, size
        # no `with`: the file lives as long as the buffer
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.entries: list[_Entry] = []

    def append(self, pixels: Pixels, mask: NDArray[np.uint8] | None) -> None:
        """Keep a sample."""
        self.entries.append(_Entry(self.file.tell(), (len(pixels), pixels.dtype.name)))
        with saying_where(self.folder):
            self.file.write(pixels.tobytes())
            if mask is not None:
                self.file.write(mask.tobytes())
            self.file.flush()  # what has no room is found here, and not when it is read

    def formats(self) -> list[PixelFormat]:
        """Return the pixel format of each sample, as it was kept."""
        return [entry.pixel_format for entry in self.entries]

    def image(self, index: int, pixel_format: PixelFormat) -> Pixels:
        """Return the image of a sample [C, *size], brought to a pixel format."""
        entry = self.entries[index]
        own_channels, own_dtype = entry.pixel_format
        channels, dtype = pixel_format
        kept = self._read(entry.offset, own_dtype, (own_channels, *self.size))
        pixels = as_dtype(kept, dtype)
        return np.repeat(pixels, channels, axis=0) if len(pixels) < channels else pixels

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the mask of a sample, [*size]."""
        entry = self.entries[index]
        channels, dtype = entry.pixel_format
        # the mask lies behind the bytes of its image
        image_bytes = channels * self.size[0] * self.size[1] * np.dtype(dtype).itemsize
        return self._read(entry.offset + image_bytes, "uint8", self.size)

    def _read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        self.file.seek(offset)
        return np.fromfile(self.file, dtype, int(np.prod(shape))).reshape(shape)


def common_format(formats: list[PixelFormat]) -> PixelFormat:
    """Return the pixel format that most images have or can be brought to.

    The number of channels is the most frequent one of images that are not grey: grey images can be
    given any number. The type is the deepest of the images that fit.
    """
    colours = Counter(channels for channels, _ in formats if channels > 1)
    channels = max(colours, key=lambda count: (colours[count], count)) if colours else 1
    depths = {dtype for count, dtype in formats if count in (1, channels)}
    return channels, max(depths, key=_DEPTH.index, default="uint8")
