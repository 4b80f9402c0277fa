"""Parts of the classes, permutations, rotations, noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from acll.data import prepared, variation
from acll.data.errors import DataError
from acll.data.variants import varied
from acll.data.variation import vary
from datasets import (
    PETS,
    PROPERTY,
    STREETS,
    changed,
    fault,
    generated,
    paths,
    picture,
    prepare,
    report_of,
    save,
    smooth,
)

SQUARE = changed(PETS, image_size=[32, 32])


@pytest.fixture
def animals(tmp_path):
    """Five classes of eight images."""
    for number in range(40):
        save(
            tmp_path / f"pets/train/{'abcde'[number % 5]}/{number:02d}.png",
            smooth(number, (32, 32)),
        )
    return tmp_path


def test_parts_of_the_classes_cover_all_of_them_and_count_from_0(animals):
    whole = prepare(SQUARE, animals).every()
    parts = [prepare(changed(SQUARE, part=[number, 2]), animals) for number in (1, 2)]
    assert [part.header.classes for part in parts] == [("a", "b", "c"), ("d", "e")]
    assert parts[0].every().keys() | parts[1].every().keys() == whole.keys()
    for part in parts:
        for split in part.splits.values():
            assert [part.header.classes[label] for label in split.labels] == [
                name[6] for name in split.ids
            ]
            assert set(split.labels) == set(range(len(part.header.classes)))
        assert all(np.array_equal(image, whole[name]) for name, image in part.every().items())


def test_a_part_of_less_than_two_classes_is_refused(animals):
    assert (
        fault(changed(SQUARE, part=[3, 3]), animals)
        == "x: part = [3, 3]: 5 classes make parts of less than two; at most 2 parts of two"
    )


def test_the_whole_is_the_only_part_of_one(animals):
    assert (
        prepare(changed(SQUARE, part=[1, 1]), animals).bytes()
        == prepare(SQUARE, animals, into="other").bytes()
    )


def test_masks_of_a_part_have_its_labels_and_ignore_all_others(tmp_path):
    task = changed(STREETS, classes=list("abcd"))
    masks = np.random.default_rng(0).integers(0, 5, (20, 12, 10))
    masks[masks == 4] = 255
    for number, mask in enumerate(masks):
        save(tmp_path / f"streets/train/images/{number:02d}.png", smooth(number, (12, 10)))
        save(tmp_path / f"streets/train/masks/{number:02d}.png", mask)
    for number in (1, 2):
        table = np.full(256, 255)
        table[[2 * number - 2, 2 * number - 1]] = 0, 1
        made = prepare(changed(task, part=[number, 2]), tmp_path)
        assert made.header.classes == (("a", "b"), ("c", "d"))[number - 1]
        assert len(made.every()) == 20
        for split in made.splits.values():
            for name, mask in zip(split.ids, split.labels, strict=True):
                expected = table[masks[int(name[13:15])]]
                assert np.array_equal(mask, expected)


def test_masks_without_a_pixel_of_the_part_are_left_out_without_a_word(tmp_path):
    task = changed(STREETS, classes=list("abcd"), part=[2, 2])
    for number in range(24):
        save(tmp_path / f"streets/train/images/{number:02d}.png", smooth(number, (12, 10)))
        save(tmp_path / f"streets/train/masks/{number:02d}.png", picture(number % 4, 1))
    made = prepare(task, tmp_path)
    assert made.summary["left_out"] == {"ignored": 12}
    assert {int(name[13:15]) % 4 for name in made.every()} == {2, 3}
    assert {row[1] for row in report_of(tmp_path)} == {"ignored"}


@PROPERTY
@given(
    st.integers(0, 99),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_a_permutation_is_one_order_of_the_pixels_of_all_images_and_bands(seed, bands, dtype):
    task = changed(SQUARE, permute=seed)
    places = np.arange(35).reshape(1, 5, 7).repeat(bands, axis=0).astype(dtype)
    order, _ = varied(places, None, task, "a")
    assert sorted(order[0].ravel()) == list(range(35))
    assert all(np.array_equal(band, order[0]) for band in order)
    pixels = np.random.default_rng(seed).integers(0, 200, (bands, 5, 7)).astype(dtype)
    made, _ = varied(pixels, None, task, "b")
    assert made.dtype == dtype
    back = np.empty_like(pixels).reshape(bands, -1)
    back[:, order[0].ravel().astype(int)] = made.reshape(bands, -1)
    assert np.array_equal(back.reshape(pixels.shape), pixels)


def test_all_splits_are_permuted_in_the_same_order_which_depends_on_the_seed(animals):
    whole = prepare(SQUARE, animals).every()
    first, other = (prepare(changed(SQUARE, permute=seed), animals).every() for seed in (0, 1))
    order = np.random.default_rng(0).permutation(32 * 32)
    for name, image in whole.items():
        assert np.array_equal(first[name].reshape(3, -1), image.reshape(3, -1)[:, order])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_quarter_turn_is_against_the_clock_and_exact(turns, bands, dtype):
    generator = np.random.default_rng(0)
    pixels, mask = (
        generator.integers(0, 200, (bands, 9, 9)).astype(dtype),
        generator.integers(0, 3, (9, 9), np.uint8),
    )
    made, turned = varied(pixels, mask, changed(STREETS, rotate=90.0 * turns), "a")
    assert made.dtype == dtype
    assert np.array_equal(made, np.rot90(pixels, turns, (1, 2)))
    assert np.array_equal(turned, np.rot90(mask, turns))


def test_what_a_rotation_brings_in_is_black_and_ignored():
    pixels, mask = np.full((3, 20, 20), 200, np.uint8), np.ones((20, 20), np.uint8)
    made, turned = varied(pixels, mask, changed(STREETS, rotate=45.0), "a")
    assert (made[:, 0, 0] == 0).all()
    assert turned[0, 0] == 255
    assert (made[:, 8:12, 8:12] == 200).all()
    assert set(np.unique(turned)) == {1, 255}


@pytest.mark.parametrize("noise", [0.05, 0.1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_noise_has_the_deviation_asked_for(noise, dtype):
    white = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    pixels = np.full((3, 64, 64), white * 0.5).astype(dtype)
    made, _ = varied(pixels, None, changed(SQUARE, noise=noise), "a")
    assert made.dtype == dtype
    change = (made.astype(float) - pixels.astype(float)) / white
    assert abs(change.std() - noise) < 0.05 * noise
    assert abs(change.mean()) < 0.05 * noise


def test_noise_depends_on_the_image_and_the_seed_of_the_splits_alone(animals):
    task = changed(SQUARE, noise=0.1)
    grey = np.full((3, 32, 32), 128, np.uint8)
    np.random.seed(1)
    made = varied(grey, None, task, "a")[0]
    np.random.seed(2)
    assert np.array_equal(varied(grey, None, task, "a")[0], made)
    assert not np.array_equal(varied(grey, None, task, "b")[0], made)
    assert not np.array_equal(varied(grey, None, changed(task, split_seed=1), "a")[0], made)
    whole = prepare(task, animals).every()
    (animals / "pets/train/a/00.png").unlink()
    rest = prepare(task, animals).every()
    assert all(np.array_equal(image, whole[name]) for name, image in rest.items())


def test_copies_are_found_below_noise(tmp_path):
    for number in range(12):
        save(tmp_path / f"pets/train/{'ab'[number % 2]}/{number}.png", smooth(number, (32, 32)))
        save(tmp_path / f"pets/test/{'ab'[number % 2]}/{number}.png", smooth(number + 11, (32, 32)))
    assert prepare(changed(SQUARE, noise=0.3), tmp_path).summary["warnings"]["exact copy"] == 1


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_generated_tasks_can_be_varied_too(tmp_path, kind):
    plain = prepare(generated(kind), tmp_path)
    varied_ = prepare(generated(kind, noise=0.1, rotate=10.0, part=[1, 2]), tmp_path)
    assert varied_.header.classes == plain.header.classes[:2]
    assert varied_.every().keys() <= plain.every().keys()


# --------------------------------------------------------------------------------------------------
# tasks of a series, made from what is prepared of the task that the series is of


def made_from(whole, root, task):
    """The bytes of both files of a variant of prepared files, and its summary."""
    results = paths(root, "varied")[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_allowed", {"test": True})
        summary = vary("x", task, (whole.train, whole.test), whole.summary, results)
    return [path.read_bytes() for path in results], summary


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("classification", {"permute": 3}),
        ("classification", {"noise": 0.2, "permute": 1}),
        ("classification", {"rotate": 30.0}),
        ("classification", {"train_samples": 9}),
        ("classification", {"train_samples": 11, "rotate": -5.0, "noise": 0.1, "permute": 2}),
        ("segmentation", {"noise": 0.1}),
        ("segmentation", {"train_samples": 7}),
    ],
)
def test_a_variant_is_what_it_would_be_if_it_had_been_decoded(
    tmp_path, monkeypatch, kind, changes, chunk
):
    monkeypatch.setattr(variation, "_CHUNK_BYTES", chunk)
    own = prepare(generated(kind, **changes), tmp_path, into="decoded")
    whole = prepare(generated(kind), tmp_path)
    files, summary = made_from(whole, tmp_path, generated(kind, **changes))
    assert files == own.bytes()
    assert summary == own.summary


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_variant_of_deep_pixels_is_what_it_would_be_if_it_had_been_decoded(tmp_path, dtype):
    for number in range(24):
        image = smooth(number, (12, 10))[..., 0].astype(dtype)
        place = tmp_path / f"pets/train/{'ab'[number % 2]}/{number:02d}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    for changes in ({"noise": 0.01}, {"train_samples": 6}):
        own = prepare(changed(PETS, **changes), tmp_path, into="decoded")
        assert own.header.pixel == np.dtype(dtype).name
        whole = prepare(PETS, tmp_path)
        assert made_from(whole, tmp_path, changed(PETS, **changes))[0] == own.bytes()


def test_tiles_stay_those_of_their_images_where_a_variant_has_fewer(tmp_path):
    task = changed(STREETS, tile_overlap=2)
    for number in range(9):
        image = smooth(number, (30, 20))
        save(tmp_path / f"streets/train/images/{number:02d}.png", image)
        save(tmp_path / f"streets/train/masks/{number:02d}.png", image[..., 0] % 2)
    fewer = changed(task, train_samples=12)
    own = prepare(fewer, tmp_path, into="decoded")
    assert len(set(own.splits["train"].tile_image_index)) > 1
    assert made_from(prepare(task, tmp_path), tmp_path, fewer)[0] == own.bytes()


def test_a_variant_with_more_training_samples_than_there_are_is_refused(tmp_path):
    whole = prepare(generated(), tmp_path)
    words = "^x: train_samples = 999: there are [0-9]+ training samples$"
    with pytest.raises(DataError, match=words):
        made_from(whole, tmp_path, generated(train_samples=999))
    assert not any((tmp_path / "varied").iterdir())


def test_few_of_many_samples_take_no_more_memory_than_all(tmp_path, monkeypatch):
    monkeypatch.setattr(variation, "_CHUNK_BYTES", 3 * 32 * 32 * 4)
    whole = prepare(generated(samples=400, image_size=[32, 32]), tmp_path)
    read = []
    images = prepared.OpenSplit.images
    monkeypatch.setattr(
        prepared.OpenSplit,
        "images",
        lambda split, part: read.append(int(part[-1] - part[0])) or images(split, part),
    )
    made_from(whole, tmp_path, generated(samples=400, image_size=[32, 32], train_samples=9))
    assert read
    assert max(read) < 4


def test_a_variant_says_which_classes_its_training_split_lacks(tmp_path):
    task = changed(STREETS, classes=list("abc"))
    for number in range(20):
        save(tmp_path / f"streets/train/images/{number:02d}.png", smooth(number, (12, 10)))
        mask = np.full((12, 10), number % 2, np.uint8)
        mask[0, 0] = 2 if number < 10 else mask[0, 0]
        save(tmp_path / f"streets/train/masks/{number:02d}.png", mask)
    fewer = changed(task, train_samples=2)
    own = prepare(fewer, tmp_path, into="decoded")
    _, summary = made_from(prepare(task, tmp_path), tmp_path, fewer)
    assert summary == own.summary
    assert summary["warnings"]["class"] == 1
