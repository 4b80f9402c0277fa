"""Decoded samples on disk, one after another, on their way from raw data to a prepared file.

Images of one task need not be alike until all have been seen: some are grey, some in colour, some
of 16 bits. So each is kept as it is, and given the form of all when it is read back. Memory holds a
few numbers for each sample.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.images import Pixels, as_dtype

PixelFormat = tuple[int, str]  # channels, and the type of a pixel

_DEPTH = ("uint8", "uint16", "float32")  # each can hold the ones before


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    form: PixelFormat


class SampleBuffer:
    """Images [C, *size] and masks [*size] in a nameless file, which is gone with the process."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.size = size
        # it lives as long as the spool
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.entries: list[_Entry] = []

    def append(self, pixels: Pixels, mask: NDArray[np.uint8] | None) -> None:
        """Keep a sample."""
        self.entries.append(_Entry(self.file.tell(), (len(pixels), pixels.dtype.name)))
        self.file.write(pixels.tobytes())
        if mask is not None:
            self.file.write(mask.tobytes())

    def forms(self) -> list[PixelFormat]:
        """The form of each sample."""
        return [entry.form for entry in self.entries]

    def image(self, index: int, form: PixelFormat) -> Pixels:
        """The image of a sample, in the form of all."""
        entry = self.entries[index]
        channels, dtype = form
        pixels = as_dtype(
            self._read(entry.offset, entry.form[1], (entry.form[0], *self.size)), dtype
        )
        return np.repeat(pixels, channels, axis=0) if len(pixels) < channels else pixels

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The mask of a sample."""
        entry = self.entries[index]
        image = entry.form[0] * self.size[0] * self.size[1] * np.dtype(entry.form[1]).itemsize
        return self._read(entry.offset + image, "uint8", self.size)

    def _read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        self.file.seek(offset)
        return np.fromfile(self.file, dtype, int(np.prod(shape))).reshape(shape)


def common_format(forms: list[PixelFormat]) -> PixelFormat:
    """The form that most images have or can be given: grey images can be given any number of
    channels."""
    colours = Counter(channels for channels, _ in forms if channels > 1)
    channels = max(colours, key=lambda count: (colours[count], count)) if colours else 1
    depths = {dtype for count, dtype in forms if count in (1, channels)}
    return channels, max(depths, key=_DEPTH.index, default="uint8")
