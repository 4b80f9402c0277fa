"""Sound files of many formats, to be damaged."""

import io
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

SIZE = (20, 24)


@cache
def images() -> list[tuple[str, bytes]]:
    """Return (suffix, content) of images, each of another form."""
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 65536, SIZE, dtype=np.uint16))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "words")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = [
        (".png", _saved(colours, "PNG")),
        (".png", _saved(colours.convert("L"), "PNG", pnginfo=text)),
        (".png", _saved(colours.convert("RGBA"), "PNG")),
        (".png", _saved(colours.convert("LA"), "PNG")),
        (".png", _saved(colours.quantize(16), "PNG", transparency=3)),
        (".png", _saved(colours.convert("1"), "PNG")),
        (".png", _saved(deep, "PNG")),
        (".jpg", _saved(colours, "JPEG", exif=exif)),
        (".jpg", _saved(colours.convert("L"), "JPEG", progressive=True)),
        (".jpg", _saved(colours.convert("CMYK"), "JPEG")),
        (".bmp", _saved(colours, "BMP")),
        (".bmp", _saved(colours.quantize(4), "BMP")),
        (".gif", _saved(colours, "GIF", save_all=True, append_images=[colours.rotate(90)])),
        (".webp", _saved(colours, "WEBP", lossless=True)),
        (".webp", _saved(colours.convert("RGBA"), "WEBP")),
        (".ppm", _saved(colours, "PPM")),
        (".pgm", _saved(colours.convert("L"), "PPM")),
        (".tif", _saved(colours, "TIFF")),
        (".tif", _saved(colours, "TIFF", compression="tiff_lzw")),
        (".tif", _saved(colours, "TIFF", compression="jpeg")),
        (".tif", _saved(colours.convert("1"), "TIFF", compression="group4")),
        (".tif", _saved(colours.convert("L"), "TIFF", exif=exif)),
    ]
    values = draw.integers(0, 256, (4, *SIZE))
    for options in (
        {"dtype": "uint8", "count": 4},
        {"dtype": "uint16", "count": 3, "compress": "deflate", "predictor": 2},
        {"dtype": "float32", "count": 1, "nodata": 7.0},
        {"dtype": "uint8", "count": 3, "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"dtype": "int16", "count": 2, "interleave": "pixel", "compress": "zstd"},
        {"dtype": "uint8", "count": 1, "nbits": 4},
    ):
        found.append((".tif", _raster(values, **options)))
    return found


@cache
def plain() -> list[tuple[str, bytes]]:
    """Return (suffix, content) of images in colours, all different."""
    draw = np.random.default_rng(2)
    return [
        (".png", _saved(Image.fromarray(draw.integers(0, 256, (*SIZE, 3), dtype=np.uint8)), "PNG"))
        for _ in range(32)
    ]


@cache
def masks() -> list[tuple[str, bytes]]:
    """Return (suffix, content) of masks of two classes."""
    labels = np.random.default_rng(1).integers(0, 2, SIZE, dtype=np.uint8)
    grey = Image.fromarray(labels)
    palette = grey.copy()
    palette.putpalette([0, 0, 0, 255, 0, 0])
    return [
        (".png", _saved(grey, "PNG")),
        (".png", _saved(palette, "PNG")),
        (".png", _saved(Image.fromarray(labels * 255).convert("1"), "PNG")),
        (".tif", _saved(grey, "TIFF", compression="tiff_lzw")),
        (".tif", _raster(labels[None], dtype="uint8", count=1, tiled=True, blockxsize=16,
                         blockysize=16)),
        (".gif", _saved(palette, "GIF")),
    ]  # fmt: skip


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    into = io.BytesIO()
    image.save(into, form, **options)
    return into.getvalue()


def _raster(values: NDArray, **options: object) -> bytes:
    import rasterio
    from rasterio.io import MemoryFile

    height, width = SIZE
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with memory.open(driver="GTiff", height=height, width=width, **options) as file:
            file.write(values[: int(str(options["count"]))].astype(str(options["dtype"])))
        return bytes(memory.read())
