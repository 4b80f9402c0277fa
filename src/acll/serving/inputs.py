"""Images as people have them → what the network of a task takes, as its images were prepared.

An image is a path, a file open for reading bytes, an image of Pillow, an array [H, W] or [H, W, C],
or a tensor [H, W] or [C, H, W]; of any size, of 8 or 16 bits, or floats in which white is 1. Files
are read as preparation reads them, and so is an image of Pillow that has only been opened. Of one
that Pillow has decoded, what it holds counts: of some files that is less (8 bits of 16, say).
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from acll.data.images import (
    Box,
    File,
    Pixels,
    as_dtype,
    bands_of,
    guarded,
    orientation_of,
    resized,
    top_of,
    upright,
    within,
)
from acll.data.prepared import TaskInfo
from acll.data.reading import OpenImage, read_image
from acll.data.storage import LARGEST_MEMBER
from acll.data.tiles import filled_up
from acll.data.variants import permuted, rotated
from acll.errors import UserError

_T = TypeVar("_T")
OneImage = str | Path | IO[bytes] | Image.Image | NDArray[Any] | Tensor
_TYPES = ("uint8", "uint16", "float32")
_STRIP = 2**24  # pixels of an image that are held at once to make it small


class ImageError(UserError):
    """An image cannot be used; the message says which and why."""


def kept(image: OneImage) -> OneImage:
    """Return an image that can be read more than once. Raises ImageError."""
    return _content(cast(IO[bytes], image)) if hasattr(image, "read") else image


def pixels_of(image: OneImage) -> Pixels:
    """Return the pixels [C, H, W] of an image, uint8, uint16 or float32. Raises ImageError."""
    file = _file_of(image)
    if file is not None:
        return _of_file(file, lambda: read_image(file))
    if isinstance(image, Image.Image):
        picture = image
        return _checked(_of_file(None, lambda: guarded(lambda: _held(picture))))
    if not hasattr(image, "__array__"):
        raise ImageError(
            f"{type(image).__name__} is no image: must be a path, an open file, an image of "
            "Pillow, an array or a tensor"
        )
    pixels = _values_of(image) if isinstance(image, Tensor) else np.asarray(image)
    if pixels.ndim == 3 and not isinstance(image, Tensor):
        pixels = pixels.transpose(2, 0, 1)
    return _checked(pixels[None] if pixels.ndim == 2 else pixels)


def _values_of(image: Tensor) -> NDArray[Any]:
    """Return the values of a tensor; floats of any width as float32. Raises ImageError."""
    odd = {
        "sparse, or of another layout": image.layout != torch.strided,
        "nested": image.is_nested,
        "quantized": image.is_quantized,
        "on the device meta, without values": image.is_meta,
        "complex": image.is_complex(),
    }
    words = next((words for words, holds in odd.items() if holds), None)
    if words is None:
        values = image.detach().cpu().resolve_neg()
        try:
            return (values.float() if values.is_floating_point() else values).numpy()
        except TypeError:  # NumPy has no such numbers
            words = f"of {str(image.dtype).removeprefix('torch.')}"
    raise ImageError(
        f"a tensor that is {words}: must be a dense one of uint8, uint16, or floats in which "
        "white is 1"
    )


def _checked(pixels: NDArray[Any]) -> Pixels:
    """Return pixels [C, H, W] in a type that the package knows. Raises ImageError."""
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ImageError(
            f"an image of the shape {list(pixels.shape)}: arrays are [height, width] or "
            "[height, width, channels], tensors [height, width] or [channels, height, width]"
        )
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ImageError("an image with values that are not finite")
    if pixels.dtype.name not in _TYPES:
        raise ImageError(
            f"an image of {pixels.dtype}: must be uint8, uint16, or floats in which white is 1"
        )
    return pixels


@dataclass(frozen=True)
class InParts:
    """An image of which a part is read at a time, so that it may be larger than memory.

    size: height and width. read: gives the pixels [C, h, w] of a box; raises ImageError.
    """

    size: tuple[int, int]
    read: Callable[[Box], Pixels]


def in_parts(image: OneImage) -> InParts:
    """Return an image whose parts are read as those of a task's large images are.

    Raises ImageError.
    """
    file = _file_of(image)
    if file is None:
        pixels = pixels_of(image)
        return InParts((pixels.shape[1], pixels.shape[2]), lambda box: within(pixels, box))
    opened = _of_file(file, lambda: OpenImage(file))
    return InParts(opened.size, lambda box: _of_file(file, lambda: opened.pixels(box)))


def _of_file(file: File | None, read: Callable[[], _T]) -> _T:
    """Return what is read of a file. Raises ImageError, which names it."""
    try:
        return read()
    except UserError as error:
        words = f"{file}: {error}" if isinstance(file, Path) else str(error)
        raise ImageError(words) from None


def _file_of(image: OneImage) -> File | None:
    """Return the file that an image is read from; None where what it holds in memory counts.

    Raises ImageError.
    """
    if isinstance(image, str | Path):
        return Path(image)
    # Pillow decodes all other formats as preparation does
    if isinstance(image, ImageFile.ImageFile) and image.format in ("PNG", "PPM", "TIFF"):
        untouched = image.tile and image.tell() == 0
        if untouched and image.fp is not None:
            return _content(image.fp)
    return _content(cast(IO[bytes], image)) if hasattr(image, "read") else None


def _content(file: IO[bytes]) -> BytesIO:
    """Return a whole file, from its beginning where it has one. Raises ImageError."""

    def read() -> bytes:
        # of what can only be read, all that is left
        position = file.tell() if hasattr(file, "seekable") and file.seekable() else None
        if position is not None:
            file.seek(0)
        content = file.read(LARGEST_MEMBER + 1)
        if position is not None:
            file.seek(position)
        return content

    content = _of_file(None, lambda: guarded(read))
    if not isinstance(content, bytes):
        raise ImageError('a file open as text: open it with "rb"')
    if len(content) > LARGEST_MEMBER:
        raise ImageError(f"a file of more than {LARGEST_MEMBER} bytes: give its path")
    return BytesIO(content)


def _held(image: Image.Image) -> Pixels:
    """Return the pixels of an image of Pillow, upright. Raises whatever there is."""
    image.load()  # which turns TIFF files
    return upright(bands_of(image), orientation_of(image))


def made_small(image: OneImage, size: tuple[int, int]) -> Pixels:
    """Return an image as [C, *size], which is no larger, to be looked at. Raises ImageError.

    Large ones are read in strips.
    """
    parts = in_parts(image)
    height, width = parts.size
    rows = max(1, _STRIP * size[0] // (height * width))  # of the small image, in a strip
    strips = []
    for begin in range(0, size[0], rows):
        end = min(begin + rows, size[0])
        box = (begin * height // size[0], 0, end * height // size[0], width)
        strips.append(resized(parts.read(box), (end - begin, size[1])))
    return np.concatenate(strips, axis=1)


def prepared_image(pixels: Pixels, info: TaskInfo) -> Pixels:
    """Return an image [C, h, w] prepared as those of a task: [channels, *image_size].

    Raises ImageError where its channels are not those of the task.
    """
    whole = resized(_alike(pixels, info), info.image_size)
    return _formed(permuted(rotated(whole, info.rotate), info.permute), info)


def prepared_tile(pixels: Pixels, info: TaskInfo) -> Pixels:
    """Return a tile [C, h, w] of a large image prepared as those of a task.

    It is not resized, but filled up at its right and bottom. Raises ImageError as `prepared_image`.
    """
    return _formed(filled_up(_alike(pixels, info), info.image_size), info)


def batch_of(images: list[Pixels]) -> Tensor:
    """Return images as a tensor [N, C, H, W], contiguous as prepared files are.

    Convolutions of other layouts differ in their last bits.
    """
    return torch.from_numpy(np.ascontiguousarray(np.stack(images)))


def _alike(pixels: Pixels, info: TaskInfo) -> Pixels:
    """Return an image as the task could have had it. Raises ImageError.

    It is grey or has the task's number of channels, and has no more bits than the task's images.
    """
    wanted, own = len(info.mean), len(pixels)
    if _TYPES.index(pixels.dtype.name) > _TYPES.index(info.pixel):
        pixels = _shallower(pixels, info)
    if wanted == 3 and own == 4:
        return pixels[:3]  # without alpha
    if wanted == 1 and own in (3, 4):
        red, green, blue = pixels[:3].astype(np.float64)
        # ITU-R BT.601, by which Pillow makes images grey
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        return np.asarray(grey if pixels.dtype == np.float32 else grey.round(), pixels.dtype)[None]
    if own not in (1, wanted):
        raise ImageError(f"an image with {own} channels: those of {info.name} have {wanted}")
    return pixels


def _shallower(pixels: Pixels, info: TaskInfo) -> Pixels:
    """Return pixels in the task's type, which has fewer bits. Raises ImageError."""
    if pixels.dtype == np.float32 and (pixels.min() < 0 or pixels.max() > 1):
        raise ImageError(
            f"an image of floats from {pixels.min():g} to {pixels.max():g}: white must be 1, "
            f"as the images of {info.name} are {info.pixel}"
        )
    values: Pixels = (pixels / np.float64(top_of(pixels.dtype)) * top_of(info.pixel)).round()
    return values.astype(info.pixel)


def _formed(pixels: Pixels, info: TaskInfo) -> Pixels:
    """Return pixels in the type and with the channels of the task's images."""
    typed = as_dtype(pixels, np.dtype(info.pixel))
    return typed if len(typed) == len(info.mean) else np.repeat(typed, len(info.mean), axis=0)
