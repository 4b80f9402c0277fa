"""One way to read a pixel: the same in a file, its parts, an archive, and for a prediction."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from acll.data.images import UnreadableError
from acll.data.reading import Opener, OpenImage, read_image, read_mask, size_of
from acll.data.storage import storage_of
from acll.data.tiles import tiles
from acll.serving.inputs import ImageError, pixels_of
from datasets import (
    PETS,
    STREETS,
    changed,
    fault,
    faults,
    pack,
    pets,
    prepare,
    raster,
    report_of,
    save,
    streets,
)

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH = 9, 7
GREY = RANDOM.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (3, HEIGHT, WIDTH), dtype=np.uint16)
ALPHA = RANDOM.integers(0, 256, (1, HEIGHT, WIDTH), dtype=np.uint8)
ALPHA[0, :2, :2] = 0
TABLE = RANDOM.permutation(256 * 3).reshape(256, 3).astype(np.uint8)
ORIENTATION = 0x0112
CASES = {}  # name of a file → what writes it; returns what it shows and the indices of a mask


def case(function):
    CASES[function.__name__] = function
    return function


# --------------------------------------------------------------------------------------------------
# writers of files that libraries do not write


def tiff(path, values, photometric, extra=(), orientation=1, table=None):
    """A TIFF file of bands [C, H, W], pixel by pixel in one strip."""
    count, height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = values.dtype.itemsize * 8
    entries = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * count), 259: (3, [1]),
        262: (3, [photometric]), 274: (3, [orientation]), 277: (3, [count]), 278: (3, [height]),
        339: (3, [kind] * count),
    }  # fmt: skip
    if extra:
        entries[338] = (3, list(extra))
    if table is not None:
        entries[320] = (3, (table.T.astype(np.uint16) * 257).ravel().tolist())
    data = values.transpose(1, 2, 0).tobytes()
    entries |= {273: (4, [8]), 279: (4, [len(data)])}
    body = struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(data) % 2) + data
    body += bytes(len(data) % 2)
    after = len(body) + 2 + 12 * len(entries) + 4
    head, beyond = struct.pack("<H", len(entries)), b""
    for tag, (form, numbers) in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}{'H' if form == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", after + len(beyond)), beyond + packed
        head += struct.pack("<HHI4s", tag, form, len(numbers), packed)
    path.write_bytes(body + head + bytes(4) + beyond)


def chunk(name, content):
    size, checksum = len(content), zlib.crc32(name + content)
    return struct.pack(">I", size) + name + content + struct.pack(">I", checksum)


def png(path, samples, depth, colours, *extra):
    """A PNG of samples [H, W, channels]; colours: 0 grey, 2 RGB, 3 palette, 4 and 6 with alpha."""
    height, width, _ = samples.shape
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        shifts = np.arange(depth)[::-1]
        bits = (samples.reshape(height, -1, 1) >> shifts) & 1
        rows = [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


def last(bands):
    """Bands [C, H, W] as Pillow and PNG files have them."""
    return np.ascontiguousarray(bands.transpose(1, 2, 0))


def with_alpha(bands, top=1):
    return np.concatenate([bands, ALPHA.astype(bands.dtype) * top])


def turned(values):
    """How an upright image is stored in orientation 6."""
    return np.ascontiguousarray(np.rot90(values, axes=(-2, -1)))


def exif(orientation):
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


# --------------------------------------------------------------------------------------------------
# TIFF


def _one_bit(**options):
    def write(path):
        bits = GREY > 100
        Image.fromarray(bits).save(path, **options)
        return bits[None] * np.uint8(255), bits

    return write


for compression in (None, "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"):
    CASES[f"one_bit_{compression}.tif"] = _one_bit(compression=compression)
CASES["one_bit_white_is_0.tif"] = _one_bit(tiffinfo={262: 0})


def _grey(**options):
    def write(path):
        Image.fromarray(GREY).save(path, **options)
        return GREY[None], GREY

    return write


for suffix in ("tif", "png", "bmp", "pgm"):
    CASES[f"grey.{suffix}"] = _grey()
CASES["grey.gif"] = _grey(optimize=False)
for compression in ("tiff_lzw", "tiff_adobe_deflate", "zstd", "packbits"):
    CASES[f"grey_{compression}.tif"] = _grey(compression=compression)
CASES["grey_white_is_0.tif"] = _grey(tiffinfo={262: 0})


def _few_bits(bits, white_is_0):
    def write(path):
        white, deep = 2**bits - 1, bits > 8
        values = DEEP[0] & np.uint16(white) if deep else GREY & np.uint8(white)
        stored = white - values if white_is_0 else values
        photometric = "MINISWHITE" if white_is_0 else "MINISBLACK"
        raster(path, stored[None], nbits=bits, photometric=photometric)
        levels = np.rint(values * ((65535 if deep else 255) / white)).astype(values.dtype)
        return levels[None], values

    return write


for bits in (1, 2, 4, 7, *range(9, 16)):
    for white_is_0 in (False, True):
        CASES[f"{bits}_bits_{white_is_0}.tif"] = _few_bits(bits, white_is_0)


def _colour_of_few_bits(bits, **options):
    def write(path):
        white = 2**bits - 1
        values = with_alpha(DEEP, 257) & np.uint16(white)
        raster(path, values, nbits=bits, photometric="RGB", **options)
        return np.rint(values[:3] * (65535 / white)).astype(np.uint16), None

    return write


for bits in (10, 12):
    CASES[f"colour_of_{bits}_bits.tif"] = _colour_of_few_bits(bits, alpha="YES")
CASES["colour_of_12_bits_tiled.tif"] = _colour_of_few_bits(
    12, alpha="YES", tiled=True, blockxsize=16, blockysize=16, compress="deflate"
)


@case
def multiplied_alpha_of_12_bits(path):
    alpha = np.full((1, HEIGHT, WIDTH), 2047, np.uint16)
    alpha[0, 0] = 0
    raster(
        path, np.concatenate([DEEP % 2048, alpha]), nbits=12, photometric="RGB",
        alpha="PREMULTIPLIED",
    )  # fmt: skip
    spread = [np.rint(one * (65535 / 4095)).astype(int) for one in (DEEP % 2048, alpha)]
    colours = np.where(alpha == 0, 0, spread[0] * 65535 // np.maximum(spread[1], 1))
    return colours.clip(0, 65535).astype(np.uint16), None


def _numbers(dtype, **options):
    def write(path):
        info = np.iinfo(dtype) if np.dtype(dtype).kind in "ui" else None
        low, high = (info.min, info.max) if info else (-9, 9)
        values = np.random.default_rng(1).uniform(low, high, (HEIGHT, WIDTH)).astype(dtype)
        stored = values
        if options.get("photometric") == "MINISWHITE":
            stored = high - values
        raster(path, stored[None], **options)
        kept = dtype in (np.uint8, np.uint16)
        shown = values if kept else values.astype(np.float32)
        return shown[None], values if info else None

    return write


for dtype in (np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64):
    CASES[f"{np.dtype(dtype)}.tif"] = _numbers(dtype)
CASES["uint16_white_is_0.tif"] = _numbers(np.uint16, photometric="MINISWHITE")
CASES["uint16_tiled_lzw.tif"] = _numbers(
    np.uint16, tiled=True, blockxsize=16, blockysize=16, compress="lzw", predictor=2
)
CASES["float32_predictor.tif"] = _numbers(np.float32, compress="deflate", predictor=3)


def _colour(**options):
    def write(path):
        raster(path, COLOUR, photometric="RGB", **options)
        return COLOUR, None

    return write


CASES["colour.tif"] = _colour()
CASES["colour_planes.tif"] = _colour(interleave="band")
CASES["colour_big.tif"] = _colour(bigtiff="YES")
CASES["colour_motorola.tif"] = _colour(endianness="BIG")
CASES["colour_lossless_webp.tif"] = _colour(compress="webp", webp_lossless=True)
CASES["colour_lerc.tif"] = _colour(compress="lerc")
CASES["colour_tiles.tif"] = _colour(tiled=True, blockxsize=16, blockysize=16, compress="deflate")


@case
def jpeg_inside(path):
    raster(path, COLOUR, photometric="YCbCr", compress="jpeg")
    return None, None


@case
def jpeg_inside_grey(path):
    raster(path, GREY[None], compress="jpeg")
    return None, UnreadableError


@case
def ycbcr(path):
    Image.fromarray(last(COLOUR)).convert("YCbCr").save(path)
    return None, None


@case
def lab(path):
    Image.frombytes("LAB", (WIDTH, HEIGHT), last(COLOUR).tobytes()).save(path)
    return None, None


@case
def inks(path):
    image = Image.frombytes("CMYK", (WIDTH, HEIGHT), last(with_alpha(COLOUR)).tobytes())
    image.save(path)
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1), None


@case
def inks_of_16_bits(path):
    raster(path, with_alpha(COLOUR).astype(np.uint16) * 257, photometric="CMYK")
    return None, None


def _alpha(bands, extra, top=1):
    def write(path):
        tiff(path, with_alpha(bands, top), 2 if len(bands) == 3 else 1, (extra,))
        return bands, None

    return write


CASES["alpha.tif"] = _alpha(COLOUR, 2)
CASES["alpha_of_16_bits.tif"] = _alpha(DEEP, 2, 257)
CASES["alpha_grey.tif"] = _alpha(GREY[None], 2)


@case
def alpha_multiplied(path):
    multiplied = (COLOUR.astype(int) * ALPHA // 255).astype(np.uint8)
    wide = multiplied.astype(int)
    tiff(path, with_alpha(multiplied), 2, (1,))
    colours = np.where(ALPHA == 0, 0, wide * 255 // np.maximum(ALPHA.astype(int), 1))
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), last(colours))
    return colours.astype(np.uint8), None


@case
def fourth_band(path):
    tiff(path, with_alpha(COLOUR), 2, (0,))
    return with_alpha(COLOUR), None


@case
def many_bands(path):
    values = RANDOM.integers(0, 65536, (5, HEIGHT, WIDTH), dtype=np.uint16)
    raster(path, values)
    return values, None


def _palette(**options):
    def write(path):
        tiff(path, GREY[None], 3, table=TABLE, **options)
        return TABLE[GREY].transpose(2, 0, 1), GREY

    return write


CASES["palette.tif"] = _palette()


@case
def palette_turned(path):
    tiff(path, turned(GREY[None]), 3, orientation=6, table=TABLE)
    return TABLE[GREY].transpose(2, 0, 1), GREY


@case
def without_data_by_value(path):
    raster(path, COLOUR, photometric="RGB", nodata=int(COLOUR[0, 3, 3]))
    return np.where(COLOUR[0, 3, 3] == COLOUR, 0, COLOUR), None


@case
def without_data_by_value_grey(path):
    raster(path, GREY[None], nodata=int(GREY[3, 3]))
    return np.where(GREY[3, 3] == GREY, 0, GREY)[None], GREY


@case
def without_data_of_floats(path):
    values = COLOUR.astype(np.float32)
    values[:, 2], values[0, 3, 3], values[1, 3, 3] = -9999, np.nan, np.inf
    raster(path, values, nodata=-9999)
    shown = np.where(np.isfinite(values), values, 0)
    shown[:, 2] = 0
    return shown, None


@case
def mask_inside(path):
    import rasterio

    shown = COLOUR.copy()
    shown[:, 4:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        raster(path, COLOUR, photometric="RGB")
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.arange(HEIGHT)[:, None].repeat(WIDTH, 1) < 4)
    return shown, None


@case
def overviews_inside(path):
    import rasterio

    raster(path, COLOUR, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    return COLOUR, None


def _turned(bands, photometric, orientation, extra=()):
    def write(path):
        undone = {
            2: lambda a: a[..., ::-1],
            3: lambda a: a[..., ::-1, ::-1],
            4: lambda a: a[..., ::-1, :],
            5: lambda a: a.swapaxes(-1, -2),
            6: lambda a: np.rot90(a, axes=(-2, -1)),
            7: lambda a: a[..., ::-1, ::-1].swapaxes(-1, -2),
            8: lambda a: np.rot90(a, -1, axes=(-2, -1)),
        }
        stored = np.ascontiguousarray(undone[orientation](bands))
        tiff(path, stored, photometric, extra, orientation)
        return bands, bands[0] if len(bands) == 1 else None

    return write


for number in range(2, 9):
    CASES[f"turned_{number}.tif"] = _turned(COLOUR, 2, number)
CASES["turned_grey.tif"] = _turned(GREY[None], 1, 6)
CASES["turned_bands.tif"] = _turned(np.concatenate([DEEP, DEEP[:2]]), 1, 8, (0,) * 4)


@case
def several_pages(path):
    image = Image.fromarray(GREY)
    image.save(path, save_all=True, append_images=[image.resize((5, 5))])
    return GREY[None], GREY


# --------------------------------------------------------------------------------------------------
# PNG


def _png(samples, depth, colours, shown, indices, *extra):
    def write(path):
        png(path, samples, depth, colours, *extra)
        return shown, indices

    return write


for depth in (1, 2, 4):
    small = GREY % 2**depth
    spread = (small * (255 // (2**depth - 1))).astype(np.uint8)[None]
    CASES[f"grey_{depth}_bits.png"] = _png(small[..., None], depth, 0, spread, small)
    table = chunk(b"PLTE", TABLE[: 2**depth].tobytes())
    CASES[f"palette_{depth}_bits.png"] = _png(
        small[..., None], depth, 3, TABLE[small].transpose(2, 0, 1), small, table
    )
CLEAR = chunk(b"PLTE", TABLE.tobytes()) + chunk(b"tRNS", bytes(range(256)))
TURN = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
CASES["palette_clear.png"] = _png(
    GREY[..., None], 8, 3, TABLE[GREY].transpose(2, 0, 1), GREY, CLEAR
)
CASES["colour.png"] = _png(last(COLOUR), 8, 2, COLOUR, None)
CASES["alpha.png"] = _png(last(with_alpha(COLOUR)), 8, 6, COLOUR, None)
CASES["alpha_grey.png"] = _png(last(with_alpha(GREY[None])), 8, 4, GREY[None], None)
CASES["deep_grey.png"] = _png(last(DEEP[:1]), 16, 0, DEEP[:1], DEEP[0])
CASES["deep.png"] = _png(last(DEEP), 16, 2, DEEP, None)
CASES["deep_alpha.png"] = _png(last(with_alpha(DEEP, 257)), 16, 6, DEEP, None)
CASES["deep_alpha_grey.png"] = _png(last(with_alpha(DEEP[:1], 257)), 16, 4, DEEP[:1], None)
CASES["deep_clear.png"] = _png(
    last(DEEP), 16, 2, DEEP, None, chunk(b"tRNS", DEEP[:, 0, 0].astype(">u2").tobytes())
)
CASES["turned.png"] = _png(last(turned(COLOUR)), 8, 2, COLOUR, None, TURN)
CASES["deep_turned.png"] = _png(last(turned(DEEP)), 16, 2, DEEP, None, TURN)
LONG = b"Description\0\0" + zlib.compress(bytes(2**23))
CASES["long_text.png"] = _png(
    GREY[..., None], 8, 0, GREY[None], GREY, chunk(b"zTXt", LONG), chunk(b"tEXt", bytes(2**21))
)
CASES["large_profile.png"] = _png(
    last(COLOUR), 8, 2, COLOUR, None, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**23)))
)
CASES["deep_long_text.png"] = _png(last(DEEP), 16, 2, DEEP, None, chunk(b"zTXt", LONG))


@case
def animation_png(path):
    first, second = Image.fromarray(last(COLOUR)), Image.fromarray(last(COLOUR[::-1]))
    first.save(path, format="PNG", save_all=True, append_images=[second])
    return COLOUR, None


# --------------------------------------------------------------------------------------------------
# other formats


def _saved(image, shown, indices=None, **options):
    def write(path):
        image.save(path, **options)
        return shown, indices

    return write


RGB = Image.fromarray(last(COLOUR))
RGBA = Image.fromarray(last(with_alpha(COLOUR)))
INDEXED = Image.fromarray(GREY).convert("P")
INDEXED.putpalette(TABLE.tobytes())
for suffix in ("bmp", "ppm"):
    CASES[f"colour.{suffix}"] = _saved(RGB, COLOUR)
CASES["colour.webp"] = _saved(RGB, COLOUR, lossless=True)
CASES["alpha.webp"] = _saved(RGBA, COLOUR, lossless=True, exact=True)
CASES["turned.webp"] = _saved(
    Image.fromarray(last(turned(COLOUR))), COLOUR, lossless=True, exif=exif(6)
)
CASES["palette.bmp"] = _saved(INDEXED, TABLE[GREY].transpose(2, 0, 1), GREY)
CASES["palette.gif"] = _saved(INDEXED, TABLE[GREY].transpose(2, 0, 1), GREY, optimize=False)
CASES["one_bit.bmp"] = _one_bit()
for name, mode in (("jpg", "RGB"), ("jpeg", "L"), ("jpe", "CMYK"), ("jfif", "RGB")):
    CASES[f"{mode}.{name}"] = _saved(RGB.convert(mode), None, UnreadableError, format="JPEG")
CASES["turned.jpg"] = _saved(RGB, None, UnreadableError, format="JPEG", exif=exif(6))


@case
def few_levels(path):
    path.write_bytes(b"P5 # a remark\n7 9\n# more\n15\n" + (GREY % 16).tobytes())
    return (GREY % 16 * 17)[None], GREY % 16


@case
def two_levels(path):
    path.write_bytes(b"P5\n7 9\n1\n" + (GREY % 2).tobytes())
    return (GREY % 2 * 255)[None], GREY % 2


@case
def levels_of_16_bits(path):
    path.write_bytes(b"P5\n7 9\n65535\n" + DEEP[0].astype(">u2").tobytes())
    return DEEP[:1], DEEP[0]


@case
def levels_of_10_bits(path):
    values = DEEP[0] % 1024
    path.write_bytes(b"P5\n7 9\n1023\n" + values.astype(">u2").tobytes())
    return np.rint(values * (65535 / 1023)).astype(np.uint16)[None], values


def _deep_ppm(white):
    def write(path):
        values = DEEP.astype(int) % (white + 1)
        head = f"P6\n# a remark\n7 9\n{white}\n".encode()
        path.write_bytes(head + last(values).astype(">u2").tobytes())
        return np.rint(values * (65535 / white)).astype(np.uint16), None

    return write


CASES["deep.ppm"] = _deep_ppm(65535)
CASES["of_10_bits.ppm"] = _deep_ppm(1023)


@case
def black_is_1(path):
    path.write_bytes(b"P4\n7 9\n" + np.packbits(GREY <= 100, axis=1).tobytes())
    return ((GREY > 100) * np.uint8(255))[None], GREY > 100


# --------------------------------------------------------------------------------------------------
# all ways in


@pytest.fixture(scope="module")
def external_mask(tmp_path_factory):
    """A file of which GDAL takes a mask, if it lies beside an image of that size."""
    import rasterio

    path = tmp_path_factory.mktemp("mask") / "x.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="NO"):
        raster(path, GREY[None])
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.zeros((HEIGHT, WIDTH), bool))
    return path.with_name("x.tif.msk").read_bytes()


def add_side_files(path, external_mask):
    """Write what GDAL and other programs would read beside an image."""
    path.with_name(f"{path.name}.msk").write_bytes(external_mask)
    path.with_name(f"{path.name}.ovr").write_bytes(external_mask)
    path.with_suffix(f"{path.suffix[:2]}{path.suffix[-1]}w").write_text("2\n0\n0\n-2\n0\n0\n")
    nodata = "".join(
        f'<PAMRasterBand band="{band}"><NoDataValue>{value}</NoDataValue>'
        "<ColorInterp>Alpha</ColorInterp></PAMRasterBand>"
        for band, value in enumerate((GREY[3, 3], COLOUR[1, 3, 3], COLOUR[2, 3, 3]), 1)
    )
    aux = f"<PAMDataset><Metadata><MDI key='NBITS'>1</MDI></Metadata>{nodata}</PAMDataset>"
    path.with_name(f"{path.name}.aux.xml").write_text(aux)


def stitched(path, read, size):
    """What tiles of 4x3 pixels that overlap by one give, put together."""
    parts = [(box, read(box)) for box, _ in tiles(size, (4, 3), 1)]
    whole = np.zeros((*parts[0][1].shape[:-2], *size), parts[0][1].dtype)
    for (top, left, bottom, right), part in parts:
        whole[..., top:bottom, left:right] = part
    return whole


def archives(path):
    """Readers of the file in an archive of each kind, and in its folder."""
    folder = path.parent / "folder"
    folder.mkdir()
    (folder / path.name).write_bytes(path.read_bytes())
    yield Opener(storage_of(folder))
    for ending in ("zip", "tar", "tar.gz", "tgz"):
        yield Opener(storage_of(pack(folder, path.parent / f"archive.{ending}")))


def for_prediction(path):
    """What predictions get of the file, by each way to give it."""
    yield pixels_of(path)
    yield pixels_of(str(path))
    yield pixels_of(io.BytesIO(path.read_bytes()))
    with path.open("rb") as file:
        file.read(5)
        yield pixels_of(file)
        assert file.tell() == 5
    try:
        image = Image.open(path)
    except (OSError, ValueError):  # Pillow cannot read all files that we can
        return
    with image:
        yield pixels_of(image)
    with path.open("rb") as file, Image.open(file) as image:
        yield pixels_of(image)
        if image.format not in ("PNG", "PPM", "TIFF"):
            image.load()
            yield pixels_of(image)


def named(name, folder):
    return folder / (name if "." in name else f"{name}.{SUFFIX.get(name, 'tif')}")


SUFFIX = {"few_levels": "pgm", "two_levels": "pgm", "levels_of_16_bits": "pgm"}
SUFFIX |= {"levels_of_10_bits": "pgm", "black_is_1": "ppm", "animation_png": "png"}


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_all_ways_in_give_the_same_pixels_and_the_right_ones(name, tmp_path, external_mask):
    path = named(name, tmp_path)
    shown, _ = CASES[name](path)
    whole = read_image(path)
    if shown is not None:
        same(whole, shown)
    with OpenImage(path) as image:
        same(stitched(path, image.pixels, image.size), whole)
    same(stitched(path, lambda box: read_image(path, box), size_of(path)), whole)
    add_side_files(path, external_mask)
    for found in (read_image(path), read_image(io.BytesIO(path.read_bytes()))):
        same(found, whole)
    for found in for_prediction(path):
        same(found, whole)
    for opener in archives(path):
        opened = opener.open(path.name)
        same(opened.pixels(), whole)
        same(stitched(path, opened.pixels, opened.size), whole)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_masks_hold_the_same_indices_whole_in_parts_and_in_archives(name, tmp_path, external_mask):
    path = named(name, tmp_path)
    _, indices = CASES[name](path)
    if not isinstance(indices, np.ndarray):
        for box in (None, (0, 0, 3, 3)):
            with pytest.raises(UnreadableError, match="a mask "):
                read_mask(path, box)
        return
    whole = read_mask(path)
    assert np.array_equal(whole, indices)
    with OpenImage(path) as image:
        same(stitched(path, image.indices, image.size), whole)
    add_side_files(path, external_mask)
    same(stitched(path, lambda box: read_mask(path, box), size_of(path)), whole)
    same(read_mask(io.BytesIO(path.read_bytes())), whole)
    for opener in archives(path):
        same(opener.open(path.name).indices(), whole)


def test_there_are_at_least_thirty_formats():
    assert len(CASES) >= 90


@pytest.mark.filterwarnings("ignore")
def test_the_side_files_of_these_tests_mean_something_to_gdal(tmp_path, external_mask):
    import rasterio

    path = raster(tmp_path / "x.tif", GREY[None])
    path.with_name("x.tif.msk").write_bytes(external_mask)
    with rasterio.open(path) as file:
        assert not file.read_masks(1).any()
    add_side_files(path, external_mask)
    with rasterio.open(path) as file:
        assert (file.nodata, file.colorinterp[0].name) == (GREY[3, 3], "alpha")


def test_files_beside_images_change_no_byte_in_a_folder_or_an_archive(tmp_path, external_mask):
    for number in range(12):
        for part, values in (("images", GREY + np.uint8(number)), ("masks", GREY % 2)):
            raster(tmp_path / f"streets/train/{part}/{number}.tif", values[None])
    task = changed(STREETS, image_size=[4, 3], tile_overlap=1)
    before = prepare(task, tmp_path)
    for path in [*(tmp_path / "streets").rglob("*.tif")]:
        add_side_files(path, external_mask)
    assert prepare(task, tmp_path, into="after").bytes() == before.bytes()
    for ending in ("zip", "tar.gz"):
        archive = pack(tmp_path / "streets", tmp_path / f"streets.{ending}")
        made = prepare(changed(task, path=archive.name), tmp_path, into=f"from_{ending}")
        assert made.bytes() == before.bytes()


def test_the_name_of_a_file_does_not_say_how_it_is_read(tmp_path):
    raster(tmp_path / "x.tif", DEEP)
    save(tmp_path / "y.png", last(COLOUR))
    for name, other, expected in (("x.tif", "x.png", DEEP), ("y.png", "y.tif", COLOUR)):
        (tmp_path / name).rename(tmp_path / other)
        same(read_image(tmp_path / other), expected)


@pytest.mark.parametrize("name", ["GTIFF_DIR:2:x.tif", "a!b.tif", "ü\udcff.tif", "vsi.zip"])
def test_names_that_mean_something_to_gdal_are_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    several_pages(tmp_path / "x.tif")
    raster(tmp_path / "y.tif", DEEP)
    (tmp_path / "y.tif").rename(tmp_path / name)
    same(read_image(Path(name)), DEEP)


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "JPE"])
def test_jpeg_files_of_other_names_are_images(tmp_path, suffix):
    pets(tmp_path)
    for path in [*(tmp_path / "pets/train/dog").iterdir()]:
        path.rename(path.with_suffix(f".{suffix}"))
    assert len(prepare(PETS, tmp_path).every()) == 16


def test_an_image_of_pillow_that_was_changed_is_what_it_holds(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as image:
        image.putpixel((0, 0), 77)
        found = pixels_of(image)
    expected = GREY.copy()
    expected[0, 0] = 77
    same(found, expected[None])


def test_another_page_of_an_image_of_pillow_is_that_page(tmp_path):
    several_pages(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        image.seek(1)
        assert pixels_of(image).shape == (1, 5, 5)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
             "I", "I;16", "I;16B", "F"]
)  # fmt: skip
def test_every_mode_of_pillow_is_an_image(mode):
    assert pixels_of(Image.new(mode, (WIDTH, HEIGHT))).shape[1:] == (HEIGHT, WIDTH)


def test_a_file_open_as_text_is_refused(tmp_path):
    save(tmp_path / "x.png", last(COLOUR))
    with (
        (tmp_path / "x.png").open(encoding="latin-1") as file,
        pytest.raises(ImageError, match='open it with "rb"'),
    ):
        pixels_of(file)


# --------------------------------------------------------------------------------------------------
# palettes


def indexed(path, values, colours):
    """A mask with a palette."""
    image = Image.fromarray(np.asarray(values, np.uint8)).convert("P")
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    if path.suffix == ".tif":
        table = np.zeros((256, 3), np.uint8)
        table[: len(colours)] = colours
        tiff(path, np.asarray(values, np.uint8)[None], 3, table=table)
    else:
        image.save(path, **({"optimize": False} if path.suffix == ".gif" else {}))


RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)
HALVES = np.arange(10)[None].repeat(12, 0) // 5


def with_palettes(root, first, second, suffix="png"):
    """Streets whose masks have a palette, those of numbers from 10 on another one."""
    streets(root)
    for number in range(20):
        path = root / f"streets/train/masks/{number}.png"
        path.unlink()
        colours = first if number < 10 else second
        if colours is None:
            save(path, HALVES)
        else:
            indexed(path.with_suffix(f".{suffix}"), HALVES, colours)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_masks_whose_palettes_differ_are_refused(tmp_path, suffix):
    with_palettes(tmp_path, [BLACK, RED], [RED, BLACK], suffix=suffix)
    for task in (STREETS, changed(STREETS, on_error="skip")):
        head, line, *_ = fault(task, tmp_path).split("\n")
        assert "skip" not in head
        # in the order of names, 1.png is followed by 10.png
        assert line == (
            "train/images/10.png: index 0 is #ff0000 in its mask, but #000000 in "
            f"train/masks/0.{suffix}: classes would be mixed; save all masks with one palette, or "
            "all as grey levels"
        )
    assert sum(kind == "palette" for _, kind, _, _ in report_of(tmp_path)) == 10


def test_a_colour_at_another_index_is_refused_too(tmp_path):
    streets(tmp_path)
    for number in range(20):
        path = tmp_path / f"streets/train/masks/{number}.png"
        indexed(path, HALVES, [BLACK, RED])
    indexed(tmp_path / "streets/train/masks/3.png", HALVES * 2, [BLACK, WHITE, RED])
    task = changed(STREETS, classes=["road", "sky", "tram"])
    (line,) = fault(task, tmp_path).split("\n")[1:]
    assert line.startswith(
        "train/images/3.png: index 2 is #ff0000 in its mask, but #ff0000 is index 1 in train/mask"
    )


def test_tiles_of_a_mask_with_another_palette_are_named_once(tmp_path):
    with_palettes(tmp_path, [BLACK, RED], [BLACK, GREEN])
    task = changed(STREETS, image_size=[4, 3], tile_overlap=1)
    _, *lines = fault(task, tmp_path).split("\n")
    assert lines[-1] == "… and 7 more (masks whose palettes do not fit)"
    assert len(report_of(tmp_path)) == 10


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([BLACK, RED, GREEN, WHITE], [BLACK, RED]),  # cut off behind the last that is used
        ([BLACK, RED, GREEN, WHITE], [BLACK, RED, WHITE, GREEN]),  # others are not used
        ([BLACK, BLACK], [BLACK, BLACK]),
        (None, [BLACK, RED]),
        ([WHITE, RED], None),
    ],
)
def test_masks_whose_palettes_agree_where_they_are_used_are_taken(tmp_path, first, second):
    streets(tmp_path)
    for number in range(20):
        save(tmp_path / f"streets/train/masks/{number}.png", HALVES)
    before = prepare(STREETS, tmp_path, into="before")
    with_palettes(tmp_path, first, second)
    made = prepare(STREETS, tmp_path)
    assert made.bytes() == before.bytes()
    mixed = None in (first, second)
    assert made.summary["warnings"] == ({"palette": 1} if mixed else {})
    if mixed:
        file, other = ("10", "0") if first is None else ("0", "10")
        assert report_of(tmp_path)[0][1:] == (
            "palette",
            f"train/images/{file}.png",
            f"its mask has a palette, train/masks/{other}.png has grey levels: an index and an "
            "equal level are taken for one class; save all masks with one palette, or all as grey "
            "levels",
        )


@pytest.mark.parametrize("order", [1, -1])
def test_palettes_of_grey_levels_in_another_order_beside_grey_masks_are_refused(tmp_path, order):
    with_palettes(tmp_path, *[None, [(1, 1, 1), BLACK]][::order])
    lines = fault(STREETS, tmp_path).split("\n")
    assert "has a palette of grey levels in another order, train/masks/" in lines[1]


# --------------------------------------------------------------------------------------------------
# masks in compressions that change pixels


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "tif"])
@pytest.mark.parametrize("overlap", [None, 1])
def test_masks_in_lossy_formats_are_refused_even_where_their_noise_is_classes(
    tmp_path, suffix, overlap
):
    streets(tmp_path)
    path = tmp_path / "streets/train/masks/3.png"
    path.unlink()
    if suffix == "tif":
        raster(path.with_suffix(".tif"), HALVES[None].astype(np.uint8), compress="jpeg")
    else:
        Image.fromarray(HALVES.astype(np.uint8)).save(path.with_suffix(f".{suffix}"), format="JPEG")
    size = [12, 10] if overlap is None else [4, 3]
    lines = faults(changed(STREETS, image_size=size, tile_overlap=overlap), tmp_path)
    what = "TIFF with JPEG" if suffix == "tif" else "JPEG"
    assert lines[0].endswith(
        f": a mask in {what}, which changes pixels and so classes; make the masks anew, in PNG or "
        "another lossless format"
    )


# --------------------------------------------------------------------------------------------------
# pages and frames


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_further_pages_and_frames_are_mentioned(tmp_path, suffix):
    pets(tmp_path)
    path = tmp_path / "pets/train/cat/3.png"
    path.unlink()
    pages = [Image.fromarray(last(COLOUR) // np.uint8(n)) for n in (1, 2, 3)]
    pages[0].save(path.with_suffix(f".{suffix}"), save_all=True, append_images=pages[1:])
    made = prepare(PETS, tmp_path)
    assert made.summary["warnings"] == {"pages": 1}
    words = "holds 3 images (pages, frames); the first is used"
    assert report_of(tmp_path) == [("warning", "pages", f"train/cat/3.{suffix}", words)]


@pytest.mark.parametrize("name", ["overviews_inside", "mask_inside"])
def test_overviews_and_masks_are_no_pages(tmp_path, name):
    CASES[name](tmp_path / "x.tif")
    with OpenImage(tmp_path / "x.tif") as image:
        assert image.pages() == 1


def test_frames_that_are_damaged_lose_no_image(tmp_path):
    pages = [Image.fromarray(last(COLOUR) // np.uint8(n)) for n in (1, 2, 3)]
    pages[0].save(tmp_path / "x.gif", save_all=True, append_images=pages[1:])
    with OpenImage(tmp_path / "x.gif") as image:
        whole = image.pixels()
    content = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(content[: len(content) * 2 // 3])
    with OpenImage(tmp_path / "x.gif") as image:
        same(image.pixels(), whole)
        assert image.pages() in (1, 2, 3)


# --------------------------------------------------------------------------------------------------
# PNG


def test_long_texts_cost_neither_the_image_nor_memory(tmp_path):
    import tracemalloc

    text = zlib.compress(bytes(2**25))
    png(tmp_path / "x.png", last(COLOUR), 8, 2, *[chunk(b"zTXt", b"a\0\0" + text)] * 20)
    tracemalloc.start()
    try:
        same(read_image(tmp_path / "x.png"), COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_chunk_that_claims_a_gigabyte_costs_no_memory(tmp_path):
    import tracemalloc

    save(tmp_path / "x.png", last(COLOUR))
    content = bytearray((tmp_path / "x.png").read_bytes())
    place = content.index(b"IDAT") - 4
    content[place : place + 4] = struct.pack(">I", 2**30 - 100)
    tracemalloc.start()
    try:
        same(read_image(io.BytesIO(content)), COLOUR)
        (tmp_path / "x.png").write_bytes(content)
        same(read_image(tmp_path / "x.png"), COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_orientation_that_a_text_holds_counts(tmp_path, orientation):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(
        "XML:com.adobe.xmp",
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>',
    )
    stored = COLOUR if orientation == 1 else turned(COLOUR)
    save(tmp_path / "x.png", last(stored), pnginfo=info)
    same(read_image(tmp_path / "x.png"), COLOUR)
    with Image.open(tmp_path / "x.png") as image:
        same(pixels_of(image), COLOUR)


def test_a_long_text_that_should_hold_the_orientation_loses_no_image(tmp_path):
    text = b"Raw profile type exif\0\0" + zlib.compress(bytes(2**23))
    png(tmp_path / "x.png", last(COLOUR), 8, 2, chunk(b"zTXt", text))
    same(read_image(tmp_path / "x.png"), COLOUR)
