"""Large images cut into tiles: what each answers for, and the scores of whole images."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from acll.data.batches import Split, evaluation_batches
from acll.data.prepared import TaskInfo
from acll.data.tiles import tiles
from acll.training.evaluate import evaluated
from datasets import CPU, PROPERTY, STREETS, changed, faults, picture, prepare, raster, save, smooth

TILED = changed(STREETS, image_size=[16, 12], tile_overlap=5, classes=["road", "sky", "tram"])


@st.composite
def cuts(draw):
    """Sizes of an image and of a tile, and an overlap."""
    size = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    tile = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return size, tile, draw(st.integers(0, min(tile) - 1))


@PROPERTY
@given(cuts())
def test_the_cores_of_tiles_cover_each_pixel_once(drawn):
    size, tile, overlap = drawn
    times = np.zeros(size, int)
    for (top, left, _, _), (first, start, last, end) in tiles(size, tile, overlap):
        times[top + first : top + last, left + start : left + end] += 1
    assert (times == 1).all()


@PROPERTY
@given(cuts())
def test_tiles_lie_in_the_image_and_their_cores_in_them(drawn):
    size, tile, overlap = drawn
    for box, core in tiles(size, tile, overlap):
        for axis in (0, 1):
            begin, end = box[axis], box[axis + 2]
            assert 0 <= begin < end <= size[axis]
            assert end - begin == min(tile[axis], size[axis])
            assert 0 <= core[axis] < core[axis + 2] <= end - begin


@PROPERTY
@given(cuts())
def test_a_core_keeps_half_the_overlap_from_borders_that_cut_through_the_image(drawn):
    size, tile, overlap = drawn
    for box, core in tiles(size, tile, overlap):
        for axis in (0, 1):
            assert core[axis] >= (overlap // 2 if box[axis] > 0 else 0)
            assert box[axis + 2] - box[axis] - core[axis + 2] >= (
                overlap // 2 if box[axis + 2] < size[axis] else 0
            )


@PROPERTY
@given(cuts())
def test_no_more_tiles_than_needed(drawn):
    size, tile, overlap = drawn
    needed = [
        1 if side <= length else 1 + -(-(side - length) // (length - overlap))
        for side, length in zip(size, tile)
    ]
    assert len(tiles(size, tile, overlap)) == needed[0] * needed[1]


def mask_of(number, size):
    """Three classes in soft spots, ignored here and there."""
    mask = (smooth(number + 100, size)[..., 0] // 86).astype(np.uint8)
    mask[smooth(number + 200, size)[..., 0] > 220] = 255
    return mask


# also such that are smaller than a tile
SIZES = [
    (40, 50),
    (16, 12),
    (10, 33),
    (33, 9),
    (7, 8),
    (17, 13),
]


@pytest.fixture(params=["png", "tif"])
def large(request, tmp_path):
    """The root and the masks, by the id of their image."""
    masks = {}
    for number in range(12):
        size = SIZES[number % len(SIZES)]
        name = f"train/images/{number:02d}.{request.param}"
        save(tmp_path / "streets" / name, smooth(number, size))
        masks[name] = mask_of(number, size)
        save(tmp_path / f"streets/train/masks/{number:02d}.{request.param}", masks[name])
    return tmp_path, masks


def test_the_cores_of_tiles_put_together_are_the_image_and_its_mask(large):
    root, masks = large
    made = prepare(TILED, root)
    stitched = {name: np.full(mask.shape, 99, np.uint8) for name, mask in masks.items()}
    images = {name: np.zeros((3, *mask.shape), np.uint8) for name, mask in masks.items()}
    for split in made.splits.values():
        for index, name in enumerate(split.ids):
            whole, _, place = name.partition("#")
            row, column = map(int, place.split(","))
            top, left, bottom, right = split.tile_valid_box[index]
            here = slice(row + top, row + bottom), slice(column + left, column + right)
            stitched[whole][here] = split.labels[index, top:bottom, left:right]
            images[whole][:, *here] = split.images[index, :, top:bottom, left:right]
    for name, mask in masks.items():
        left_out = stitched[name] == 99  # tiles without a single pixel of a class
        assert (mask[left_out] == 255).all()
        assert np.array_equal(stitched[name][~left_out], mask[~left_out])
        number = int(name[-6:-4])
        assert np.array_equal(
            images[name][:, ~left_out], smooth(number, mask.shape).transpose(2, 0, 1)[:, ~left_out]
        )


def test_tiles_of_an_image_stay_in_one_split_and_are_known_as_such(large):
    root, masks = large
    made = prepare(TILED, root)
    where = defaultdict(set)
    for name, split in made.splits.items():
        wholes = defaultdict(set)
        for tile, number in zip(split.ids, split.tile_image_index, strict=True):
            where[tile.partition("#")[0]].add(name)
            wholes[int(number)].add(tile.partition("#")[0])
        assert sorted(wholes) == list(range(len(wholes)))
        assert all(len(images) == 1 for images in wholes.values())
    assert where.keys() == masks.keys()
    assert all(len(splits) == 1 for splits in where.values())


def test_tiles_beyond_a_small_image_are_black_and_ignored(large):
    root, masks = large
    made = prepare(TILED, root)
    for split in made.splits.values():
        for name, image, mask in zip(split.ids, split.images, split.labels, strict=True):
            height, width = masks[name.partition("#")[0]].shape
            assert not image[:, height:].any()
            assert not image[:, :, width:].any()
            assert (mask[height:] == 255).all()
            assert (mask[:, width:] == 255).all()


def test_evaluation_ignores_what_a_tile_does_not_answer_for():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (130, 9, 7), generator=generator, dtype=torch.uint8)
    cores = torch.tensor([[0, 0, 9, 7], [2, 1, 8, 5], [3, 0, 4, 7]] * 44, dtype=torch.int32)[:130]
    split = Split(
        torch.zeros(130, 3, 9, 7, dtype=torch.uint8),
        masks,
        cores,
        torch.arange(130, dtype=torch.int32),
    )
    header = TaskInfo("x", "segmentation", tuple("abc"), (9, 7), (0.5,) * 3, (0.3,) * 3)
    made = torch.cat([labels for _, labels in evaluation_batches(split, header, CPU)])
    for mask, label, (top, left, bottom, right) in zip(masks, made, cores.tolist(), strict=True):
        expected = torch.full((9, 7), 255)
        expected[top:bottom, left:right] = mask[top:bottom, left:right].long()
        assert torch.equal(label, expected)


class Threshold(nn.Module):
    """The class of each pixel, by its own level: what is beside it does not matter."""

    def __init__(self, header):
        super().__init__()
        self.header = header

    def forward(self, images):
        mean, std = torch.tensor(self.header.mean)[0], torch.tensor(self.header.std)[0]
        level = ((images[:, 0] * std + mean) * 255).round().long()
        return torch.nn.functional.one_hot((level // 86).clamp(0, 2), 3).permute(0, 3, 1, 2).float()


def confusion(image, mask):
    """[truth, prediction] of a whole image."""
    matrix, predicted = np.zeros((3, 3), int), image[..., 0].astype(int) // 86
    np.add.at(matrix, (mask[mask != 255], predicted[mask != 255]), 1)
    return matrix


def test_scores_of_tiles_are_those_of_the_whole_images(large):
    root, masks = large
    made = prepare(TILED, root)
    for split in made.splits.values():
        tensors = (split.images, split.labels, split.tile_valid_box, split.tile_image_index)
        found = evaluated(
            Threshold(made.header), Split(*map(torch.from_numpy, tensors)), made.header, CPU
        ).counts
        names = sorted({name.partition("#")[0] for name in split.ids})
        assert len(found) == len(names)
        for name, matrix in zip(names, found, strict=True):
            assert np.array_equal(
                matrix, confusion(smooth(int(name[-6:-4]), masks[name].shape), masks[name])
            )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rasters_of_many_bands_are_cut_into_tiles(tmp_path, dtype):
    values = np.random.default_rng(0).integers(1, 200, (8, 6, 30, 25))
    for number, bands in enumerate(values):
        raster(
            tmp_path / f"streets/train/images/{number}.tif",
            bands.astype(dtype),
            tiled=True,
            blockxsize=16,
            blockysize=16,
        )
        save(tmp_path / f"streets/train/masks/{number}.png", picture(number % 2, 1, (30, 25)))
    made = prepare(TILED, tmp_path)
    assert made.summary["channels"] == 6
    for name, image in made.every().items():
        row, column = map(int, name.partition("#")[2].split(","))
        whole = values[int(name[13])]
        assert image.dtype == dtype
        assert np.array_equal(image, whole[:, row : row + 16, column : column + 12])


def test_tiles_without_a_pixel_of_any_class_are_left_out_without_a_word(tmp_path):
    for number in range(8):
        save(tmp_path / f"streets/train/images/{number}.png", smooth(number, (32, 12)))
        mask = picture(number % 3, 1, (32, 12))
        mask[:16] = 255
        save(tmp_path / f"streets/train/masks/{number}.png", mask)
    made = prepare(changed(TILED, tile_overlap=0), tmp_path)
    assert made.summary["left_out"] == {"ignored": 8}
    assert sorted(made.every()) == [f"train/images/{number}.png#16,0" for number in range(8)]


def test_files_that_cannot_be_cut_are_named(large):
    root, _ = large
    images, masks = (
        sorted((root / f"streets/train/{part}").iterdir()) for part in ("images", "masks")
    )
    images[0].write_bytes(b"x")
    masks[1].write_bytes(b"x")
    save(masks[2], picture(0, 1, (9, 9)))
    images[3].unlink()
    images[3].symlink_to("nothing")
    lines = faults(TILED, root)
    ids = [path.relative_to(root / "streets").as_posix() for path in images[:4]]
    assert [line.split(":")[0] for line in lines] == [ids[0], ids[1], ids[3], ids[2]]
    assert lines[2].endswith("cannot be read: No such file or directory")
    assert lines[3].endswith("the mask has 9x9 pixels, its image 33x10 pixels; they must be equal")


def test_black_tiles_are_no_copies_that_would_tie_all_images_together(tmp_path):
    for number in range(16):
        image = smooth(number, (32, 12)).copy()
        image[:16] = 0
        save(tmp_path / f"streets/train/images/{number}.png", image)
        save(tmp_path / f"streets/train/masks/{number}.png", picture(number % 3, 1, (32, 12)))
    made = prepare(changed(TILED, tile_overlap=0), tmp_path)
    assert made.summary["warnings"] == {}
    assert all(count >= 4 for count in made.summary["samples"].values())
