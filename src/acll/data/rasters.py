"""TIFF files, and PNG files of 16 bits in colour, read by GDAL.

GDAL reads all bands and bits, and a part of an image alone. It is given open files, never names:
so what lies beside a file (`.aux.xml`, `.msk`, `.ovr`, world files) cannot change its pixels, and a
file in a folder is the same as in an archive.
"""

import struct
import warnings
from contextlib import ExitStack
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from acll.data.images import (
    LARGEST,
    ORIENTATION,
    Box,
    File,
    Pixels,
    UnreadableError,
    stored_box,
    stream_of,
    upright,
    upright_size,
)
from acll.settings import MOST_BANDS

# tags of TIFF files, and what they may say
_PHOTOMETRIC, _EXTRA_SAMPLES = 262, 338
_MINISWHITE, _PALETTE, _SEPARATED = 0, 3, 5
_PREMULTIPLIED = 1
_MOST_TAGS = 1000  # of an image; files have a few dozen
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is a TIFF file."""
    return head.startswith(_SIGNATURES)


class Raster:
    """A TIFF file. Only the parts that are asked for are decoded."""

    def __init__(self, file: File) -> None:
        with ExitStack() as opening:
            stream = opening.enter_context(stream_of(file))
            self._tags = _first_tags(stream)
            # GDAL would turn inks into colours in its own way, and less exactly
            prefix = "GTIFF_RAW:" if self._tags.get(_PHOTOMETRIC) == _SEPARATED else ""
            self._raster = _opened(opening, file, stream, "GTiff", prefix)
            self._open = opening.pop_all()
        orientation = self._tags.get(ORIENTATION, 1)
        self._orientation = orientation if 1 <= orientation <= 8 else 1
        stored = (self._raster.height, self._raster.width)
        self.size: tuple[int, int] = upright_size(stored, self._orientation)

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    @property
    def pages(self) -> int:
        """The number of its images; overviews and masks are none."""
        return len(self._raster.subdatasets) or 1

    @cached_property
    def palette(self) -> NDArray[np.uint8] | None:
        """The colours of its indices, [entries, 3]; None where it has no palette."""
        if self._tags.get(_PHOTOMETRIC) != _PALETTE:
            return None
        entries = self._raster.colormap(1)
        return np.array([entries[index][:3] for index in range(len(entries))], np.uint8)

    def pixels(self, box: Box | None) -> Pixels:
        """Return the pixels [C, H, W], or those in a box; 0 where the file says: no data.

        Palettes, inks and levels of few bits become what they show. Alpha is dropped.
        """
        raster, window = self._raster, self._window(box)
        names = [colour.name for colour in raster.colorinterp]
        kept = [index for index, name in zip(raster.indexes, names) if name != "alpha"]
        _refuse_type(raster, kept)
        values = self._shown(_read(raster, kept, window), window)
        if self._lacks_data(kept):
            top, left, bottom, right = window
            empty = raster.read_masks(kept, window=((top, bottom), (left, right))) == 0
            if len(empty) == len(values):
                values[empty] = 0
            else:
                values[:, empty.all(axis=0)] = 0
        if values.dtype not in (np.uint8, np.uint16):
            values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
        return upright(values, self._orientation)

    def indices(self, box: Box | None) -> Pixels:
        """Return the class indices [H, W] of a mask, or those in a box: levels, or of a palette.

        Every index is one, also where the file says that there are no data.
        """
        raster = self._raster
        if raster.count != 1:
            raise UnreadableError(f"a mask has one channel of class indices, not {raster.count}")
        if np.dtype(raster.dtypes[0]).kind not in "ui":
            raise UnreadableError(
                f"a mask has one channel of class indices, not of {raster.dtypes[0]}"
            )
        structure = raster.tags(ns="IMAGE_STRUCTURE")
        compression = structure.get("COMPRESSION", "")
        if (
            "JPEG" in compression
            or structure.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY")
            or float(structure.get("MAX_Z_ERROR", 0)) > 0
        ):
            raise UnreadableError(lossy(f"TIFF with {compression}"))
        values = self._levels(_read(raster, [1], self._window(box)))
        return upright(values[0], self._orientation)

    def _window(self, box: Box | None) -> Box:
        """Return where a box of the upright image is stored; None is all of it."""
        return stored_box(box or (0, 0, *self.size), self.size, self._orientation)

    def _lacks_data(self, kept: list[int]) -> bool:
        """Return whether the file says which pixels hold data, otherwise than by alpha."""
        from rasterio.enums import MaskFlags

        flags = self._raster.mask_flag_enums
        without = (MaskFlags.all_valid, MaskFlags.alpha)
        return any(not any(flag in flags[index - 1] for flag in without) for index in kept)

    @property
    def _white(self) -> int:
        """The highest level of unsigned integers."""
        own = np.dtype(self._raster.dtypes[0]).itemsize * 8
        bits = int(self._raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", own))
        return int(2**bits - 1)

    def _levels(self, values: Pixels) -> Pixels:
        """Return unsigned integers so that 0 is black; others as they are."""
        if self._tags.get(_PHOTOMETRIC) == _MINISWHITE and values.dtype.kind == "u":
            return np.subtract(self._white, values, dtype=values.dtype)
        return values

    def _shown(self, values: Pixels, window: Box) -> Pixels:
        """Return what stored values [bands, H, W] show, [C, H, W]."""
        if self.palette is not None and len(values) == 1:
            return np.ascontiguousarray(self.palette[values[0]].transpose(2, 0, 1))
        if values.dtype.kind != "u":
            return values
        values, white = self._spread(self._levels(values))
        if values.dtype not in (np.uint8, np.uint16):
            return values
        if self._tags.get(_PHOTOMETRIC) == _SEPARATED and len(values) == 4:
            return _colours_of_inks(values, white)
        if self._tags.get(_EXTRA_SAMPLES) == _PREMULTIPLIED and self._raster.count > len(values):
            alpha, _ = self._spread(_read(self._raster, [self._raster.count], window)[0])
            return _unmultiplied(values, alpha, white)
        return values

    def _spread(self, values: Pixels) -> tuple[Pixels, int]:
        """Return unsigned integers in all the levels of 8 or 16 bits, and the highest level."""
        white = self._white
        if white in (255, 65535) or values.dtype not in (np.uint8, np.uint16):
            return values, white
        highest = int(np.iinfo(values.dtype).max)
        wide = values.astype(np.uint32)
        return ((wide * highest + white // 2) // white).astype(values.dtype), highest


def lossy(what: str) -> str:
    """Return what to tell of a mask in a compression that changes pixels."""
    return (
        f"a mask in {what}, which changes pixels and so classes; make the masks anew, in PNG or "
        "another lossless format"
    )


def pixels_of_png(content: BytesIO) -> Pixels:
    """Return the pixels [C, H, W] of a PNG as it is stored, with all its bits, without alpha."""
    with ExitStack() as opening:
        raster = _opened(opening, content, content, "PNG")
        names = [colour.name for colour in raster.colorinterp]
        kept = [index for index, name in zip(raster.indexes, names) if name != "alpha"]
        return _read(raster, kept, (0, 0, raster.height, raster.width))


def _read(raster: Any, bands: list[int], window: Box) -> Pixels:
    """Return the values of bands in a box as they are stored. Raises UnreadableError."""
    top, left, bottom, right = window
    pixel_bytes = sum(np.dtype(raster.dtypes[index - 1]).itemsize for index in bands)
    size = (bottom - top) * (right - left) * pixel_bytes
    if size > LARGEST:
        raise UnreadableError(
            f"too large to be read whole ({size} bytes); cut large images with tile_overlap"
        )
    values: Pixels = raster.read(bands, window=((top, bottom), (left, right)))
    return values


def _refuse_type(raster: Any, bands: list[int]) -> None:
    """Raise UnreadableError for values that are no numbers."""
    kinds = {np.dtype(raster.dtypes[index - 1]) for index in bands}
    if any(kind.kind not in "uif" for kind in kinds):
        raise UnreadableError(
            f"has pixels of a type that is no image's ({', '.join(map(str, kinds))})"
        )


def _colours_of_inks(inks: Pixels, white: int) -> Pixels:
    """Return cyan, magenta, yellow and black as red, green and blue, as Pillow makes them."""
    light = white - inks[3].astype(np.uint32)
    colours = [(light - (ink * light + white // 2) // white) for ink in inks[:3]]
    return np.stack(colours).astype(inks.dtype)


def _unmultiplied(values: Pixels, alpha: Pixels, white: int) -> Pixels:
    """Return colours without the alpha that they were multiplied by; 0 where that is 0."""
    whole = np.maximum(alpha, 1).astype(np.uint32)
    colours = [np.minimum(band.astype(np.uint32) * white // whole, white) for band in values]
    return np.where(alpha == 0, 0, np.stack(colours)).astype(values.dtype)


def _opened(
    opening: ExitStack, file: File, stream: IO[bytes], driver: str, prefix: str = ""
) -> Any:
    """Return an open raster. Raises UnreadableError where it would need too much to be read.

    opening: closes it. stream: the file, opened. prefix: how GDAL is to take its name.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # within QUIET
    if isinstance(file, Path):
        name = f"/dev/fd/{stream.fileno()}"
    else:
        name = opening.enter_context(MemoryFile(file.getbuffer())).name
    raster = opening.enter_context(rasterio.open(f"{prefix}{name}", driver=driver))
    if raster.count > MOST_BANDS:  # asking for each takes the time of all
        raise UnreadableError(
            f"has {raster.count} bands, or says so; {MOST_BANDS} at most are read"
        )
    # GDAL decodes whole blocks (tiles or strips), however small the part that is asked for
    block = max(height * width for height, width in raster.block_shapes)
    if block * sum(np.dtype(kind).itemsize for kind in raster.dtypes) > LARGEST:
        raise UnreadableError("its tiles or strips are too large to be read, or say so")
    return raster


def _first_tags(stream: IO[bytes]) -> dict[int, int]:
    """Return the tags of the first image in a TIFF file whose values lie in their entries.

    Each with the first of its values.
    """
    head = stream.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    entry, count_format = (f"{order}HHQ8s", "Q") if big else (f"{order}HHI4s", "H")
    start = struct.unpack(f"{order}Q", head[8:16]) if big else struct.unpack(f"{order}I", head[4:8])
    stream.seek(start[0])
    count_size = struct.calcsize(f"{order}{count_format}")
    (count,) = struct.unpack(f"{order}{count_format}", stream.read(count_size))
    size = struct.calcsize(entry)
    content = stream.read(min(count, _MOST_TAGS) * size)
    tags = {}
    for tag, kind, number, value in struct.iter_unpack(
        entry, content[: len(content) // size * size]
    ):
        letter = {1: "B", 3: "H", 4: "I"}.get(kind)
        if letter and 1 <= number <= len(value) // struct.calcsize(letter):
            (tags[tag],) = struct.unpack_from(f"{order}{letter}", value)
    return tags
