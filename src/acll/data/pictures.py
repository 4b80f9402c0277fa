"""Images of all formats but TIFF, decoded by Pillow: always as a whole."""

import os
import re
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acll.data.images import (
    LARGEST,
    Box,
    File,
    Pixels,
    UnreadableError,
    bands_of,
    orientation_of,
    stream_of,
    upright,
    upright_size,
    within,
)
from acll.data.rasters import lossy, pixels_of_png

# not those for which Pillow runs programs
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "PPM")
_HEAD_BYTES = 2**12  # in which what is looked for at the beginning of a file lies
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PNG = 2**30  # bytes; more than any has whose pixels are read
# texts in a PNG, and the beginnings of those that hold the orientation
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_LONGEST_TEXT, _MOST_TEXTS = 2**20, 8  # bytes; Pillow refuses more than 64 such texts
# the head of a PGM or PPM; its last number is the highest level
_HEAD = re.compile(rb"P([2356])(?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}\s")


class Picture:
    """An image file that Pillow reads. It is decoded once, when it is first asked for."""

    def __init__(self, file: File) -> None:
        self._file, self._stream = file, stream_of(file)
        try:
            head = self._stream.read(_HEAD_BYTES)
            self._png = _Png(self._stream) if head.startswith(_PNG) else None
            self._image: Image.Image | None = self._opened()
            self._format, self._white = self._image.format, _white(head)
            self._deep_ppm = head.startswith(b"P6") and (self._white or 0) > 255
            # for PNG files without it, Pillow would decode the image to look behind it
            oriented = self._png is None or self._png.oriented
            self._orientation = orientation_of(self._image) if oriented else 1
        except BaseException:
            self.close()
            raise
        width, height = self._image.size
        self.size = upright_size((height, width), self._orientation)
        self.palette: NDArray[np.uint8] | None = None  # [entries, 3], once it was read as a mask
        self._pixels: Pixels | None = None
        self._indices: Pixels | None = None

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @property
    def pages(self) -> int:
        """The number of its frames; previews in JPEG files are none."""
        if self._png is not None:
            return self._png.frames
        # frames that are damaged do not matter: they are not read
        if self._format in ("GIF", "WEBP"):
            with suppress(Exception), stream_of(self._file) as stream:
                return int(getattr(Image.open(stream, formats=_FORMATS), "n_frames", 1))
        return 1

    def pixels(self, box: Box | None) -> Pixels:
        """Return the pixels [C, H, W], or those in a box. Alpha is dropped."""
        if self._pixels is None:
            if self._png is not None and self._png.deep:
                stored = pixels_of_png(self._png.content)
            elif self._deep_ppm:
                stored = self._pixels_of_ppm()
            else:
                stored = bands_of(self._loaded())
            self._pixels = upright(stored, self._orientation)
        return within(self._pixels, box)

    def indices(self, box: Box | None) -> Pixels:
        """Return the class indices [H, W] of a mask, or those in a box: levels, or of a palette."""
        if self._indices is None:
            if self._format in ("JPEG", "MPO"):
                raise UnreadableError(lossy("JPEG"))
            self._indices = upright(self._stored_indices(), self._orientation)
        return within(self._indices, box)

    def _stored_indices(self) -> Pixels:
        image = self._loaded()
        if image.mode not in ("1", "L", "P") and image.mode[0] != "I":
            raise UnreadableError(
                f"a mask has one channel of class indices, not {image.mode}; of black and white "
                "Pillow makes it by `mask.convert('L').point(lambda value: value > 127)`"
            )
        values = np.asarray(image)
        if image.mode == "1":
            return values.astype(np.uint8)
        if image.mode == "P":
            colours = image.getpalette("RGB") or []
            self.palette = np.array(colours, np.uint8).reshape(-1, 3)
            return values
        # Pillow spreads few levels over all that there are
        spread = 255 if image.mode == "L" else 65535
        if self._white is None or self._white == spread:
            return values
        return np.rint(values * (self._white / spread)).astype(np.int64)

    def _pixels_of_ppm(self) -> Pixels:
        """Return the pixels of a PPM of more than 8 bits, white being 65535."""
        height, width = self.size
        if 6 * height * width > LARGEST:
            raise UnreadableError(f"too large to be read ({6 * height * width} bytes)")
        self._stream.seek(0)
        head = _HEAD.match(self._stream.read(_HEAD_BYTES))
        assert head is not None
        assert self._white is not None
        self._stream.seek(head.end())
        content = self._stream.read(6 * height * width)
        values = np.frombuffer(content, ">u2").reshape(height, width, 3).transpose(2, 0, 1)
        if self._white < 65535:
            values = np.rint(values.clip(0, self._white) * (65535 / self._white))
        return values.astype(np.uint16)

    def _opened(self) -> Image.Image:
        content = self._stream if self._png is None else self._png.content
        content.seek(0)
        return Image.open(content, formats=_FORMATS)

    def _loaded(self) -> Image.Image:
        """Return the image decoded. It is not kept: its pixels are."""
        image, self._image = self._image or self._opened(), None
        image.load()
        return image


class _Png:
    """What means something in a PNG file: its image, and how it has to be turned.

    The rest is left out, as Pillow and GDAL refuse files in which it is long: text, profiles of
    colours. Of an animation the still image stays.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.frames, self.oriented = 1, False
        kept, size, texts = [_PNG], 0, 0
        end = stream.seek(0, os.SEEK_END)
        position = stream.seek(len(_PNG))
        while len(head := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            position += 8 + length + 4  # with the checksum
            # the first letter of what no image can do without is large
            meant = name[:1].isupper() or name in (b"tRNS", b"eXIf")
            text = name in _TEXTS and length <= _LONGEST_TEXT and texts < _MOST_TEXTS
            if meant or text or name == b"acTL":
                if size + length > _LARGEST_PNG:
                    raise UnreadableError(f"too large to be read, or says so ({length} bytes)")
                # what a file only claims to have asks for no memory
                content = stream.read(min(length + 4, end))
                text = text and content.startswith(_ORIENTED) and _is_short(name, content[:-4])
                if name == b"acTL" and len(content) >= 4:
                    (self.frames,) = struct.unpack(">I", content[:4])
                if meant or text:
                    kept += [head, content]
                    size += length
                texts += text
                self.oriented |= text or name == b"eXIf"
            if name == b"IEND":
                break
            stream.seek(position)
        header = kept[2] if len(kept) > 2 else b""
        # byte 8 is the depth, byte 9 the type of colours, of which 0 is grey
        self.deep = len(header) > 9 and header[8] == 16 and header[9] != 0
        self.content = BytesIO(b"".join(kept))


def _is_short(name: bytes, content: bytes) -> bool:
    """Return whether the text in a chunk of a PNG is as short as Pillow wants it, expanded."""
    _, _, rest = content.partition(b"\0")
    if name == b"tEXt" or (name == b"iTXt" and rest[:1] == b"\0"):
        return len(rest) <= _LONGEST_TEXT
    packed = rest[1:] if name == b"zTXt" else b"".join(rest[2:].split(b"\0", 2)[2:])
    decoder = zlib.decompressobj()
    try:
        decoder.decompress(packed, _LONGEST_TEXT)
    except zlib.error:
        return False
    return not decoder.unconsumed_tail


def _white(head: bytes) -> int | None:
    """Return the highest level of a grey PNG or PGM, from its first bytes; None of others."""
    if head.startswith(_PNG):
        return 2 ** head[24] - 1 if len(head) > 25 and head[24] <= 16 else None
    found = _HEAD.match(head)
    return int(found[2]) if found else None
