"""Image files as arrays, whatever their format, and files that are none."""

import io
import logging
import re
import struct
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acll.data.images import QUIET, UnreadableError, as_dtype, resized
from acll.data.reading import read_image, read_mask, size_of
from datasets import PETS, PROPERTY, bomb, changed, pets, prepare, raster, save

OFTEN = settings(max_examples=150, deadline=None)
COLOURS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def read(path):
    """The image, which a file in memory gives as well, and so does a box of all of it."""
    pixels = read_image(path)
    height, width = size_of(path)
    memory = io.BytesIO(path.read_bytes())
    assert pixels.shape[1:] == (height, width) == size_of(memory)
    for again in (
        read_image(memory),
        read_image(path, (0, 0, height, width)),
    ):
        assert again.dtype == pixels.dtype
        assert np.array_equal(again, pixels)
    return pixels


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "tiff", "webp"])
def test_colours_are_three_channels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(
        read(save(tmp_path / f"x.{suffix}", COLOURS, **options)).transpose(1, 2, 0), COLOURS
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "tif", "gif"])
def test_grey_is_one_channel(tmp_path, suffix):
    pixels = read(save(tmp_path / f"x.{suffix}", COLOURS[..., 0]))
    assert np.array_equal(pixels[0], COLOURS[..., 0])
    assert pixels.dtype == np.uint8


def test_jpeg_is_about_what_was_saved(tmp_path):
    smooth = np.mgrid[0:64, 0:48].sum(axis=0).astype(np.uint8)
    pixels = read(save(tmp_path / "x.jpg", np.stack([smooth] * 3, -1), quality=95))
    assert np.abs(pixels.astype(int) - smooth).max() < 8


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_dropped_and_the_colours_below_it_stay(tmp_path, suffix, channels):
    alpha = np.full((9, 7, 1), 128, np.uint8)
    path = save(
        tmp_path / f"x.{suffix}", np.concatenate([COLOURS[..., : channels - 1], alpha], axis=2)
    )
    assert np.array_equal(read(path).transpose(1, 2, 0), COLOURS[..., : channels - 1])


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_comes_as_three_channels(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.new("CMYK", (7, 9), (255, 0, 0, 0)).save(path)
    pixels = read(path)
    assert pixels.shape == (3, 9, 7)
    assert pixels[0].max() < 20 < 200 < pixels[1:].min()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_a_palette_comes_as_its_colours_transparent_or_not(tmp_path, transparency):
    indices = np.arange(63, dtype=np.uint8).reshape(9, 7)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "x.png", **options)
    assert np.array_equal(read(tmp_path / "x.png").transpose(1, 2, 0), palette[indices])
    assert np.array_equal(read_mask(tmp_path / "x.png"), indices)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_black_and_white_as_an_image_and_0_and_1_as_a_mask(tmp_path, suffix):
    bits = COLOURS[..., 0] > 100
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(bits).save(path)
    assert np.array_equal(read(path), bits[None] * 255)
    assert np.array_equal(read_mask(path), bits)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_stay_sixteen_bits(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    pixels = read(tmp_path / f"x.{suffix}")
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[0], values)
    assert np.array_equal(read_mask(tmp_path / f"x.{suffix}"), values)


def test_images_of_8_and_16_bits_become_16_bits_of_one_white(tmp_path):
    pets(tmp_path)
    deep = tmp_path / "pets/train/cat/deep.png"
    Image.fromarray(np.full((12, 10), 3000, np.uint16)).save(deep)
    made = prepare(PETS, tmp_path)
    assert made.summary["pixel"] == "uint16"
    assert made.summary["channels"] == 3
    for name, image in made.every().items():
        level = 3000 if "deep" in name else (10 if "cat" in name else 200) + int(name[10])
        assert image.dtype == np.uint16
        assert (image == (level if "deep" in name else level * 257)).all()


def test_grey_images_among_coloured_ones_are_grey_in_all_channels(tmp_path):
    pets(tmp_path)
    save(tmp_path / "pets/train/cat/0.png", np.full((12, 10), 50))
    image = prepare(PETS, tmp_path).every()["train/cat/0.png"]
    assert image.shape == (3, 6, 4)
    assert (image == 50).all()


# orientation → how an upright image [H, W, …] is stored
UNDONE = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", UNDONE)
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_images_and_masks_stand_upright_whatever_their_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"x.{suffix}", UNDONE[orientation](COLOURS), exif=exif, **options)
    assert np.array_equal(read(path).transpose(1, 2, 0), COLOURS)
    mask = save(tmp_path / "mask.png", UNDONE[orientation](COLOURS[..., 0]), exif=exif)
    assert np.array_equal(read_mask(mask), COLOURS[..., 0])


@pytest.mark.parametrize("orientation", UNDONE)
def test_whole_tiff_images_stand_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.tif", UNDONE[orientation](COLOURS), exif=exif)
    assert np.array_equal(read_image(path).transpose(1, 2, 0), COLOURS)


DAMAGED = [b"rubbish", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_exif_loses_no_image(tmp_path, content):
    exif = b"Exif\0\0" + content
    assert np.array_equal(
        read(save(tmp_path / "x.png", COLOURS, exif=exif)).transpose(1, 2, 0), COLOURS
    )
    assert read(save(tmp_path / "x.jpg", COLOURS, exif=exif)).shape == (3, 9, 7)


# --------------------------------------------------------------------------------------------------
# rasters


def bands(count, dtype):
    values = np.random.default_rng(count).integers(1, 250, (count, 9, 7))
    return (values / 7).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_rasters_keep_all_their_bands(tmp_path, count, dtype):
    values = bands(count, dtype)
    pixels = read(raster(tmp_path / "x.tif", values, photometric="MINISBLACK"))
    assert pixels.dtype == dtype
    assert np.array_equal(pixels, values)


def test_a_fourth_band_beside_colours_is_kept_where_it_is_no_alpha(tmp_path):
    values = bands(4, np.uint8)
    assert np.array_equal(
        read(raster(tmp_path / "x.tif", values, photometric="RGB", alpha="NO")), values
    )
    assert np.array_equal(
        read(raster(tmp_path / "y.tif", values, photometric="RGB", alpha="YES")), values[:3]
    )


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_without_data_become_0(tmp_path, count, dtype):
    values = bands(count, dtype)
    values[:, 2:4, 1] = 251
    expected = np.where(values == 251, 0, values)
    if dtype == np.float32:
        values[0, 8], expected[0, 8] = np.nan, 0
        values[1, 8], expected[1, 8] = np.inf, 0
    assert np.array_equal(read(raster(tmp_path / "x.tif", values, nodata=251)), expected)


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float64])
def test_other_numbers_come_as_floats(tmp_path, dtype):
    values = bands(2, dtype)
    values[0, 0, 0] = -5 if dtype == np.int16 else 5
    pixels = read(raster(tmp_path / "x.tif", values))
    assert pixels.dtype == np.float32
    assert np.allclose(pixels, values)


def test_complex_numbers_are_no_pixels(tmp_path):
    path = raster(tmp_path / "x.tif", bands(2, np.complex64))
    with pytest.raises(UnreadableError, match=r"pixels of a type that is no image's \(complex64\)"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("box", [(0, 0, 4, 4), (3, 2, 9, 7), (8, 6, 9, 7)])
def test_a_box_is_read_as_a_part_of_the_whole(tmp_path, suffix, box):
    top, left, bottom, right = box
    path = save(tmp_path / f"x.{suffix}", COLOURS)
    whole = read_image(path)
    assert np.array_equal(read_image(path, box), whole[:, top:bottom, left:right])
    path = save(tmp_path / f"mask.{suffix}", COLOURS[..., 0])
    assert np.array_equal(read_mask(path, box), COLOURS[top:bottom, left:right, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_resizing_keeps_the_type_the_bands_and_a_level(dtype, count):
    levels = np.arange(count * 10, count * 20, 10)[:count]
    pixels = np.broadcast_to(levels[:, None, None], (count, 30, 20)).astype(dtype)
    small = resized(pixels, (7, 9))
    assert small.dtype == dtype
    assert small.shape == (count, 7, 9)
    assert np.allclose(small, levels[:, None, None])


def test_a_wider_type_keeps_black_and_white():
    ends = np.array([[[0, 255]]], np.uint8)
    assert as_dtype(ends, np.uint16).tolist() == [[[0, 65535]]]
    assert as_dtype(ends, np.uint8).tolist() == ends.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rasters_are_prepared_with_all_their_bands(tmp_path, dtype):
    images = {}
    for number in range(12):
        values = (bands(13, np.float32) + number).astype(dtype)
        path = raster(
            tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.tif", values
        )
        images[path.relative_to(tmp_path / "pets").as_posix()] = values
    made = prepare(changed(PETS, image_size=[9, 7]), tmp_path)
    assert (made.summary["channels"], made.summary["pixel"]) == (13, dtype)
    assert len(made.header.mean) == len(made.header.std) == 13
    every = made.every()
    assert every.keys() == images.keys()
    assert all(np.array_equal(every[name], images[name]) for name in images)


# --------------------------------------------------------------------------------------------------
# files that are no images


def test_a_header_that_claims_billions_of_pixels_costs_no_memory(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(bomb())
    with pytest.raises(UnreadableError, match="too large to be read whole"):
        read_image(path)


def valid() -> dict[str, bytes]:
    """A small file of each kind."""
    made = {}
    for suffix, kind in (
        ("png", "png"),
        ("jpg", "jpeg"),
        ("bmp", "bmp"),
        ("webp", "webp"),
        ("gif", "gif"),
        ("ppm", "ppm"),
        ("tif", "tiff"),
    ):
        buffer = io.BytesIO()
        Image.fromarray(COLOURS).save(buffer, kind)
        made[f"x.{suffix}"] = buffer.getvalue()
    for name, options in (
        ("deflated", {"compress": "deflate"}),
        ("tiled", {"tiled": True, "blockxsize": 16, "blockysize": 16}),
    ):
        made[f"{name}.tif"] = _raster_bytes(bands(5, np.uint16), options)
    return made


def _raster_bytes(values, options) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return raster(Path(folder) / "x.tif", values, **options).read_bytes()


VALID = valid()


def survive(content: bytes, name: str) -> bool:
    """Each way to read gives an array or says why not, soon; whether the image could be read."""
    readable = False
    for way in (
        lambda file: read_image(file),
        lambda file: read_image(file, (1, 1, 5, 6)),
        lambda file: read_mask(file),
        lambda file: read_mask(file, (1, 1, 5, 6)),
        lambda file: size_of(file),
    ):
        begin = time.monotonic()
        try:
            found = way(io.BytesIO(content))
        except UnreadableError as error:
            message = str(error)
        else:
            message = "read"
            if isinstance(found, np.ndarray):
                assert found.ndim in (2, 3)
                readable |= found.ndim == 3
        assert message
        assert not re.search(r"0x|/vsimem|PosixPath", message)  # which differ from run to run
        assert time.monotonic() - begin < 5
    return readable


@pytest.mark.parametrize("name", VALID)
def test_small_files_of_each_kind_are_readable(name):
    assert survive(VALID[name], name)


NAMES = st.sampled_from(sorted(VALID))


@pytest.mark.filterwarnings("ignore")
@PROPERTY
@given(NAMES, st.binary(max_size=200), st.integers(0, 16))
def test_any_bytes_are_an_image_or_unreadable(name, content, kept):
    survive(VALID[name][:kept] + content, name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VALID)
def test_a_file_that_is_cut_off_anywhere_is_hardly_ever_taken_for_an_image(name):
    """A PNG without its last few bytes, which mean nothing, is one."""
    lengths = range(0, len(VALID[name]), 1 + len(VALID[name]) // 40)
    whole = sum(survive(VALID[name][:length], name) for length in lengths)
    assert whole <= 0.1 * len(lengths)


@pytest.mark.filterwarnings("ignore")
@OFTEN
@given(
    NAMES,
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_files_with_changed_bytes_are_images_or_unreadable(name, flips):
    content = bytearray(VALID[name])
    for where, value in flips:
        content[int(where * len(content))] = value
    survive(bytes(content), name)


@pytest.mark.filterwarnings("ignore")
@OFTEN
@given(NAMES, st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=4))
def test_files_with_changed_headers_are_images_or_unreadable(name, flips):
    """Where sizes, offsets and counts stand: at the beginning, in TIFF files also at the end."""
    content = bytearray(VALID[name])
    for where, value in flips:
        content[(where if where < 128 else -(where - 127)) % len(content)] = value
    survive(bytes(content), name)


def test_a_header_that_claims_huge_tiles_costs_no_memory(tmp_path):
    content = bytearray(VALID["tiled.tif"])
    for tag in (322, 323):  # width and length of tiles
        place = content.index(struct.pack("<HHI", tag, 3, 1))
        content[place + 8 : place + 10] = struct.pack("<H", 65520)
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="its tiles or strips are too large to be read"):
        read_image(path)


def test_thousands_of_bands_are_refused_before_they_cost_time(tmp_path):
    path = raster(tmp_path / "x.tif", np.ones((1001, 1, 1), np.uint8))
    with pytest.raises(UnreadableError, match="has 1001 bands, or says so; 1000 at most are read"):
        read_image(path)


@pytest.mark.parametrize("box", [None, (2, 1, 7, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_tiff_files_are_turned_as_their_tag_says_whole_and_in_parts(tmp_path, mode, box):
    values = np.arange(8 * 16).reshape(8, 16).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = (
        Image.fromarray(values)
        if mode != "RGB"
        else Image.fromarray(np.stack([values] * 3, axis=2))
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.tif", exif=exif)
    pixels = read_image(tmp_path / "x.tif", box)
    expected = np.rot90(values, -1)
    assert size_of(tmp_path / "x.tif") == (16, 8)
    assert np.array_equal(pixels[0], expected if box is None else expected[2:7, 1:5])


@pytest.mark.parametrize("photometric", [("RGB", 3), ("RGBA", 4)])
def test_png_of_16_bits_in_colour_keep_them(tmp_path, photometric):
    import rasterio

    _, count = photometric
    values = np.random.default_rng(0).integers(0, 4096, (count, 8, 6), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "x.png", "w", driver="PNG", height=8, width=6, count=count, dtype="uint16"
    ) as file:
        file.write(values)
    pixels = read_image(tmp_path / "x.png")
    assert pixels.dtype == np.uint16
    assert pixels.shape == (3, 8, 6)


# --------------------------------------------------------------------------------------------------
# the settings of the program that uses this library

HOST = """
import logging, sys, warnings
from PIL import Image
import rasterio, torch, torchvision  # what they do to the process is not ours
logging.getLogger("rasterio").setLevel(logging.INFO)
def state():
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    log = levels["rasterio"], logging.root.level, logging.root.manager.disable
    return *log, Image.MAX_IMAGE_PIXELS
def shown(category):
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("x", category)
    return len(caught)
before = state()
import acll
acll.load
from acll.data.reading import read_image, size_of
from pathlib import Path
for path in map(Path, sys.argv[1:]):
    try:
        size_of(path)
        if path.name != "large.png":
            read_image(path)
    except ValueError:
        pass
assert state() == before, (state(), before)
assert shown(Image.DecompressionBombWarning) == 1
assert shown(rasterio.errors.NotGeoreferencedWarning) == 1
"""


def of_many_pixels(path):
    """An image of which Pillow warns."""
    Image.new("1", (10_000, 10_000)).save(path)


@pytest.mark.slow
def test_the_library_leaves_warnings_and_logs_of_its_host_as_they_were(tmp_path):
    of_many_pixels(tmp_path / "large.png")
    raster(tmp_path / "plain.tif", np.zeros((5, 8, 8), np.uint16))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0" + bytes(100))
    command = [sys.executable, "-c", HOST, *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("always")
def test_what_decoders_say_is_not_shown_while_images_are_read(tmp_path, recwarn, caplog):
    of_many_pixels(tmp_path / "large.png")
    raster(tmp_path / "plain.tif", np.zeros((5, 8, 8), np.uint16))
    recwarn.clear()
    assert size_of(tmp_path / "large.png") == (10_000, 10_000)
    assert len(read_image(tmp_path / "plain.tif")) == 5
    (tmp_path / "damaged.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:-500])
    with pytest.raises(UnreadableError):
        read_image(tmp_path / "damaged.tif")
    assert not recwarn.list
    assert not caplog.records


def test_threads_that_read_at_once_put_all_back_when_the_last_has_done():
    def state():
        return list(warnings.filters), logging.getLogger("rasterio").level

    before, first_is_in, second_is_in = state(), threading.Event(), threading.Event()

    def second():
        first_is_in.wait()
        with QUIET:
            second_is_in.set()
            first.join()
            assert state() != before

    def of_first():
        with QUIET:
            first_is_in.set()
            second_is_in.wait()

    first, other = threading.Thread(target=of_first), threading.Thread(target=second)
    other.start()
    first.start()
    other.join()
    assert state() == before
