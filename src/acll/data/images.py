"""What pixels are, and how libraries that decode them are held: types, sizes, errors.

Pixels are uint8, uint16 or float32 [C, H, W]. Files are read in `acll.data.reading`.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from acll.errors import UserError
from acll.files import refuse_special

IMAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif",
    ".tiff",
}  # fmt: skip
LARGEST = 2**29  # bytes of pixels that are read at once; Pillow's own limit comes to about as many
Pixels = NDArray[Any]
File = Path | BytesIO
_T = TypeVar("_T")
Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels

# EXIF orientation → what makes a stored image [..., H, W] stand upright: whether to swap its axes,
# then whether to turn rows and columns round
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
ORIENTATION = 0x0112  # the tag in EXIF data and in TIFF files

Image.init()  # all plugins, or asking for formats that no file has needed yet fails


class Quiet:
    """A context in which decoders neither warn nor log; faults come as exceptions anyway.

    Filters of warnings and levels of loggers belong to the process, and so to the program that
    uses this library. The first of several threads that enter changes them, and the last one that
    leaves puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._begin()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()

    def _begin(self) -> None:
        self._undo.enter_context(warnings.catch_warnings())
        # of Pillow; twice that size is an error
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        logger = logging.getLogger("rasterio")
        self._undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)


QUIET = Quiet()


class UnreadableError(UserError):
    """The file is no image, is damaged, or is too large.

    The message says which, without the file's name.
    """


def guarded(read: Callable[[], _T]) -> _T:
    """Return what `read` returns; what libraries warn of or log meanwhile is not shown.

    Raises UnreadableError for whatever `read` raises, but MemoryError as it is.
    """
    try:
        with QUIET:
            return read()
    except (UnreadableError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnreadableError(
            "too large to be read whole, or says so; cut large images with tile_overlap"
        ) from None
    except Exception as error:  # damaged files make decoders raise whatever there is
        raise UnreadableError(_in_words(error)) from None


def why_unreadable(error: UnreadableError | OSError) -> str:
    """Return in words why a file cannot be read."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error)


def _in_words(error: Exception) -> str:
    """Return a message that is the same on all machines: without paths and addresses."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        words = "of no known format"
    elif type(error).__module__.startswith("rasterio"):
        words = "no TIFF file, or a damaged one"
    else:
        words = " ".join(str(error).split()) or type(error).__name__
    return f"not a readable image: {words}"


def bands_of(image: Image.Image) -> Pixels:
    """Return the pixels [C, H, W] of an image: one channel where it is grey, else three."""
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[None]
    if image.mode == "F":
        return np.nan_to_num(np.asarray(image, np.float32), posinf=0, neginf=0)[None]
    if image.mode[0] == "I":  # of 16 or 32 bits
        values = np.asarray(image)
        fits = int(values.min()) >= 0 and int(values.max()) <= 65535
        return values.astype(np.uint16 if fits else np.float32)[None]
    # a view: an image of many megapixels is not copied before it is made small
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return pixels [C, h, w] as [C, *size], bilinear with anti-aliasing."""
    if pixels.shape[1:] == size:
        return pixels
    return each_band(pixels, lambda image: image.resize(size[::-1], Image.Resampling.BILINEAR))


def resized_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask [h, w] as [*size], by nearest neighbours, so that classes do not mix."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def each_band(pixels: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Return pixels [C, H, W] changed by a function of Pillow's images.

    It gets images of one or three bytes a pixel as a whole, and others band by band.
    """
    if pixels.dtype == np.uint8 and len(pixels) in (1, 3):
        whole = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        made = np.asarray(change(Image.fromarray(whole)))
        return made[None] if len(pixels) == 1 else np.ascontiguousarray(made.transpose(2, 0, 1))
    # Pillow cannot resize or rotate 16 bits well, so these go through floats
    kind = np.uint8 if pixels.dtype == np.uint8 else np.float32
    bands = np.stack([np.asarray(change(Image.fromarray(band.astype(kind)))) for band in pixels])
    return bands.round().clip(0, 65535).astype(np.uint16) if pixels.dtype == np.uint16 else bands


def top_of(dtype: Any) -> float:
    """Return the value of a white pixel."""
    return {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[np.dtype(dtype).name]


def as_dtype(pixels: Pixels, dtype: Any) -> Pixels:
    """Return an image in a type of more bits.

    uint16 holds 257 levels for each of uint8, and in floats white is 1.
    """
    if pixels.dtype == dtype:
        return pixels
    if np.dtype(dtype) == np.uint16:
        return pixels.astype(np.uint16) * 257
    return pixels.astype(np.float32) / np.float32(top_of(pixels.dtype))


def within(pixels: Pixels, box: Box | None) -> Pixels:
    """Return the part of pixels [..., H, W] in a box; all of them where there is none."""
    if box is None:
        return pixels
    top, left, bottom, right = box
    return pixels[..., top:bottom, left:right]


def stream_of(file: File) -> IO[bytes]:
    """Return a file opened for reading from its beginning; one in memory is not copied.

    Raises OSError, also for a path of a pipe or a device, before it is opened.
    """
    if not isinstance(file, Path):
        return BytesIO(file.getvalue())
    refuse_special(file)
    return file.open("rb")


def orientation_of(image: Image.Image) -> int:
    """Return how an image of Pillow has to be turned, 1 to 8; damaged EXIF data are ignored."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return found if found in _UPRIGHT else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels [..., H, W] that are stored in an orientation as they stand upright."""
    swapped, rows, columns = _UPRIGHT[orientation]
    if swapped:
        pixels = pixels.swapaxes(-1, -2)
    return pixels[..., :: -1 if rows else 1, :: -1 if columns else 1]


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return height and width of an image that is stored with this size in an orientation."""
    return size[::-1] if _UPRIGHT[orientation][0] else size


def stored_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Return where a box of an upright image of this size is stored."""
    swapped, rows, columns = _UPRIGHT[orientation]
    top, left, bottom, right = box
    if rows:
        top, bottom = size[0] - bottom, size[0] - top
    if columns:
        left, right = size[1] - right, size[1] - left
    return (left, top, right, bottom) if swapped else (top, left, bottom, right)
