"""Image files → arrays, as they are: grey, colour, palette, 16 bit, rasters of many bands.

Pixels are uint8, uint16 or float32 [C, H, W]. Alpha is dropped; pixels of a raster that hold no
data become 0.
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
from acll.settings import MOST_BANDS

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
Pixels = NDArray[Any]
File = Path | BytesIO
_T = TypeVar("_T")
Box = tuple[int, int, int, int]  # top, left, bottom, right, in pixels

# not those for which Pillow runs programs
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "PPM", "TIFF")
_LARGEST = 2**29  # bytes of a raster that is read whole; Pillow's own limit comes to about as many
# EXIF orientation → what undoes it
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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


def read_image(file: File, name: str, box: Box | None = None) -> Pixels:
    """Return the pixels [C, H, W] of a file, or of the part in a box. Raises UnreadableError."""
    return guarded(lambda: _read(file, name, box))


def read_mask(file: File, name: str, box: Box | None = None) -> Pixels:
    """Return the class indices [H, W] of a file: grey levels, or the indices of a palette.

    Raises UnreadableError.
    """
    return guarded(lambda: _read_mask(file, name, box))


def size_of(file: File, name: str) -> tuple[int, int]:
    """Return height and width of an image, from its header alone. Raises UnreadableError."""
    return guarded(lambda: _size(file, name))


def bands_of(image: Image.Image) -> Pixels:
    """Return the pixels [C, H, W] of an image: one channel where it is grey, else three."""
    if image.mode in ("1", "L", "LA", "La"):
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


def _is_raster(name: str) -> bool:
    return name.lower().endswith((".tif", ".tiff"))


def _read(file: File, name: str, box: Box | None) -> Pixels:
    """Return the pixels of a file, by GDAL where Pillow would lose bands or bits."""
    if _is_raster(name) and not _turned(file) and (pixels := _read_raster(file, box)) is not None:
        return pixels
    if _is_deep_png(file):  # of which Pillow gives 8 bits
        pixels = _read_raster(file, box, "PNG")
        assert pixels is not None
        return pixels
    return within(bands_of(_picture(file)), box)


def _is_deep_png(file: File) -> bool:
    """Return whether it is a PNG of 16 bits with more than one channel."""
    with _stream(file) as stream:
        head = stream.read(26)
    # byte 24 is the depth, byte 25 the type of colours, of which 0 is grey
    return head.startswith(b"\x89PNG\r\n") and len(head) == 26 and head[24] == 16 and head[25] != 0


def _stream(file: File) -> IO[bytes]:
    return file.open("rb") if isinstance(file, Path) else BytesIO(file.getbuffer())


def _turned(file: File) -> bool:
    """Return whether an image does not stand upright; False where Pillow cannot open it."""
    try:
        with _stream(file) as stream, Image.open(stream, formats=_FORMATS) as image:
            return _turn(image) is not None
    except Exception:
        return False


def within(pixels: Pixels, box: Box | None) -> Pixels:
    """Return the part of pixels [..., H, W] in a box; all of them where there is none."""
    if box is None:
        return pixels
    top, left, bottom, right = box
    return pixels[..., top:bottom, left:right]


def _picture(file: File) -> Image.Image:
    with _stream(file) as stream, Image.open(stream, formats=_FORMATS) as image:
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned upright; damaged EXIF data are ignored."""
    image.load()
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright; None where it is, or its EXIF data are damaged."""
    try:
        return _UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:
        return None


def _read_raster(file: File, box: Box | None, driver: str = "GTiff") -> Pixels | None:
    """Return the bands of a raster, [C, H, W]; of the part in a box, which alone is decoded.

    Return None for a whole image in grey or colours of 8 bits: Pillow knows colours and orientation
    better. Others are read here, because Pillow would drop a fourth band that is no alpha, such as
    infrared. Raises UnreadableError, and whatever rasterio raises.
    """
    from rasterio.enums import MaskFlags

    with _opened(file, driver) as raster:
        names = [colour.name for colour in raster.colorinterp]
        kept = [index for index, name in zip(raster.indexes, names) if name != "alpha"]
        special = names[0] in ("palette", "cyan")
        colours = [names[index - 1] for index in kept]
        plain = colours in (["gray"], ["red", "green", "blue"]) and raster.nodata is None
        if set(raster.dtypes) == {"uint8"} and (special or (plain and box is None)):
            return None
        top, left, bottom, right = box or (0, 0, raster.height, raster.width)
        kinds = {np.dtype(raster.dtypes[index - 1]) for index in kept}
        pixel_bytes = sum(np.dtype(raster.dtypes[index - 1]).itemsize for index in kept)
        size = (bottom - top) * (right - left) * pixel_bytes
        if size > _LARGEST:
            raise UnreadableError(
                f"too large to be read whole ({size} bytes); cut large images with tile_overlap"
            )
        if any(kind.kind not in "uif" for kind in kinds):
            raise UnreadableError(
                f"has pixels of a type that is no image's ({', '.join(map(str, kinds))})"
            )
        window = ((top, bottom), (left, right))
        values: Pixels = raster.read(kept, window=window)
        if any(MaskFlags.all_valid not in raster.mask_flag_enums[index - 1] for index in kept):
            values[raster.read_masks(kept, window=window) == 0] = 0
    if values.dtype in (np.uint8, np.uint16):
        return values
    return np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)


def _opened(file: File, driver: str = "GTiff") -> Any:
    """Return an open raster. Raises UnreadableError where it would need too much to be read."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    if isinstance(file, Path):
        file.stat()  # says better than GDAL that there is no such file
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # within QUIET
    raster = rasterio.open(
        file if isinstance(file, Path) else BytesIO(file.getbuffer()), driver=driver
    )
    if raster.count > MOST_BANDS:  # asking for each takes the time of all
        raster.close()
        raise UnreadableError(
            f"has {raster.count} bands, or says so; {MOST_BANDS} at most are read"
        )
    # GDAL decodes whole blocks (tiles or strips), however small the part that is asked for
    block = max(height * width for height, width in raster.block_shapes)
    if block * sum(np.dtype(kind).itemsize for kind in raster.dtypes) > _LARGEST:
        raster.close()
        raise UnreadableError("its tiles or strips are too large to be read, or say so")
    return raster


def _read_mask(file: File, name: str, box: Box | None) -> Pixels:
    # a part of a TIFF file is read alone: a mask may be as large as a map
    if box is not None and _is_raster(name) and not _turned(file):
        with _opened(file) as raster:
            if raster.count != 1:
                raise UnreadableError(
                    f"a mask has one channel of class indices, not {raster.count}"
                )
            if np.dtype(raster.dtypes[0]).kind not in "ui":
                raise UnreadableError(
                    f"a mask has one channel of class indices, not of {raster.dtypes[0]}"
                )
            return np.asarray(raster.read(1, window=((box[0], box[2]), (box[1], box[3]))))
    image = _picture(file)
    if image.mode not in ("1", "L", "P") and image.mode[0] != "I":
        raise UnreadableError(f"a mask has one channel of class indices, not {image.mode}")
    return within(np.asarray(image).astype(np.int64), box)


def _size(file: File, name: str) -> tuple[int, int]:
    if _is_raster(name) and not _turned(file):
        with _opened(file) as raster:
            return raster.height, raster.width
    with _stream(file) as stream, Image.open(stream, formats=_FORMATS) as image:
        lies = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]
        turned = image.format != "TIFF" and _turn(image) in lies  # Pillow turns TIFF files itself
        width, height = image.size
        return (width, height) if turned else (height, width)
