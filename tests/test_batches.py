"""Prepared files and batches."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acll.data import prepared
from acll.data.augmentation import random_flip_shift
from acll.data.batches import (
    Split,
    balanced,
    batches,
    evaluation_batches,
    normalised,
    training_batches,
)
from acll.data.errors import DataError
from acll.data.sources.generated import generate
from datasets import (
    CPU,
    PETS,
    PROPERTY,
    SPLITS,
    STREETS,
    changed,
    generated,
    picture,
    prepare,
    raster,
    save,
)

# --------------------------------------------------------------------------------------------------
# prepared files


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A generated task, prepared."""
    monkeypatch.setattr(prepared, "_allowed", {"test": False})
    return prepare(generated(), tmp_path)


def test_prepared_files_give_back_what_was_written(written, tmp_path):
    images, labels = generate(generated())
    names = [f"generated-0-{index:06d}" for index in range(40)]
    every = written.every()
    assert sorted(every) == names
    for split in written.splits.values():
        for name, image, label in zip(split.ids, split.images, split.labels, strict=True):
            assert np.array_equal(image, images[names.index(name)])
            assert label == labels[names.index(name)]
    header = written.header
    assert (header.name, header.kind, header.image_size) == ("x", "classification", (16, 24))
    assert header.classes == ("class_0", "class_1", "class_2", "class_3")


def test_each_prepared_file_holds_its_own_splits_and_the_same_header(written):
    prepared.allow_test()
    for path, names in ((written.train, ("train", "val")), (written.test, ("test",))):
        tensors, header = prepared.read_prepared(path)
        assert sorted(tensors) == sorted(
            f"{split}_{part}" for split in names for part in ("images", "labels")
        )
        assert header == written.header


def test_some_samples_can_be_read_without_the_others(written):
    split = written.splits["train"]
    images, labels, header = prepared.some_samples(written.train, "train", [3, 0])
    assert np.array_equal(images, split.images[[3, 0]])
    assert labels == split.labels[[3, 0]].tolist()
    assert header == written.header


def test_a_test_split_can_be_read_only_where_it_was_allowed(written):
    for read in (prepared.read_prepared, lambda path: prepared.ids(path, "test"),
                 lambda path: prepared.some_samples(path, "test", [0])):  # fmt: skip
        with pytest.raises(prepared.TestSplitError, match="only evaluation may read a test split"):
            read(written.test)
    prepared.allow_test()
    assert len(prepared.read_prepared(written.test)[0]["test_images"]) > 0


def test_the_training_file_holds_nothing_of_the_test_split(written):
    content = written.train.read_bytes()
    for id_, image in zip(written.splits["test"].ids, written.splits["test"].images):
        assert id_.encode() not in content
        assert image.tobytes() not in content
    assert written.splits["train"].ids[0].encode() in content
    assert written.splits["train"].images[0].tobytes() in content


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_statistics_are_those_of_the_training_split_alone(written, tmp_path, dtype):
    if dtype != np.uint8:
        for number, image in enumerate(generate(generated())[0]):
            values = (
                image.astype(np.uint16) * 257
                if dtype == np.uint16
                else (image / np.float32(255)).astype(dtype)
            )
            raster(tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.tif", values)
        written = prepare(changed(PETS, image_size=[16, 24]), tmp_path)
    images, header = written.splits["train"].images, written.header
    assert images.dtype == dtype
    scaled = images / {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    assert np.allclose(header.mean, scaled.mean(axis=(0, 2, 3)))
    assert np.allclose(header.std, scaled.std(axis=(0, 2, 3)))
    images = normalised(torch.from_numpy(images), header, CPU)
    assert np.allclose(images.mean(dim=(0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(images.std(dim=(0, 2, 3)), 1, atol=1e-3)


def test_the_same_task_gives_the_same_bytes_and_nothing_beside_them(written, tmp_path):
    again = prepare(generated(), tmp_path, into="again")
    assert again.bytes() == written.bytes()
    assert again.report.read_bytes() == written.report.read_bytes()
    names = {"x.train.safetensors", "x.test.safetensors", "x.faults.csv"}
    assert {path.name for path in again.train.parent.iterdir()} == names


def test_prepared_files_are_read_by_the_library_of_their_format(written):
    from safetensors.numpy import load_file

    for path, names in ((written.train, ("train", "val")), (written.test, ("test",))):
        tensors = load_file(path)
        for name in names:
            assert np.array_equal(tensors[f"{name}_images"], written.splits[name].images)
            assert tensors[f"{name}_ids"].tobytes().decode().split("\n") == written.splits[name].ids


def test_images_of_one_level_are_normalised_to_numbers(tmp_path):
    for number in range(6):
        for split in SPLITS:
            save(tmp_path / f"streets/{split}/images/{number}.png", picture(7, channels=1))
            save(tmp_path / f"streets/{split}/masks/{number}.png", picture(number % 2, channels=1))
    made = prepare(STREETS, tmp_path)
    images = normalised(torch.from_numpy(made.splits["train"].images), made.header, CPU)
    assert images.shape == (6, 1, 12, 10)
    assert torch.allclose(images, torch.zeros(()), atol=1e-3)


def test_a_damaged_prepared_file_says_what_to_do(written):
    written.train.write_bytes(written.train.read_bytes()[:50])
    for read in (prepared.read_prepared, lambda path: prepared.ids(path, "train")):
        with pytest.raises(DataError, match="delete it to have it made anew"):
            read(written.train)


# --------------------------------------------------------------------------------------------------
# batches


PLAIN = prepared.TaskInfo("x", "classification", ("a", "b"), (1, 1), (0.0,), (1 / 255,))


def numbered(count) -> Split:
    """Image i is one pixel of level i, of label i."""
    return Split(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count))


def order(count, batch_size=8, seed=0, epoch=0):
    taken = []
    for images, labels in training_batches(
        numbered(count), PLAIN, batch_size, [], seed, epoch, CPU
    ):
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 1, 1)
        assert images[:, 0, 0, 0].round().long().tolist() == labels.tolist()
        taken.append(labels.tolist())
    return taken


@PROPERTY
@given(st.integers(2, 255), st.integers(2, 64), st.integers(0, 2**31), st.integers(0, 100))
def test_every_sample_comes_exactly_once_an_epoch_and_never_alone(count, batch_size, seed, epoch):
    taken = order(count, batch_size, seed, epoch)
    assert sorted(chain(*taken)) == list(range(count))
    assert all(2 <= len(batch) <= batch_size + 1 for batch in taken)
    assert len(taken) == batches(count, batch_size)


def test_batches_depend_on_seed_and_epoch_and_on_nothing_that_ran_before():
    first = order(100)
    torch.manual_seed(5)
    np.random.seed(5)
    assert order(100) == first
    assert order(100, epoch=1) != first
    assert order(100, seed=1) != first


def test_batches_are_not_in_the_order_of_the_split():
    assert sorted(order(100)[0]) != list(range(len(order(100)[0])))


@PROPERTY
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.integers(0, 2**31))
def test_a_balanced_epoch_has_as_many_images_and_equally_many_of_each_class(labels, seed):
    labels = np.array(labels)
    taken = balanced(labels, np.random.default_rng(seed))
    assert len(taken) == len(labels)
    each = Counter(labels[taken].tolist())
    assert set(each) == set(labels.tolist())
    assert max(each.values()) - min(each.values()) <= 1
    times = Counter(taken.tolist())
    for one in each:  # none again before all of its class were taken
        of_class = [times[index] for index in np.flatnonzero(labels == one)]
        assert max(of_class) - min(of_class) <= 1


def test_balanced_epochs_are_repeated_by_the_same_seed_and_epoch_and_see_each_image_in_time():
    labels = torch.tensor([0] * 20 + [1] * 4)
    split = Split(torch.arange(24, dtype=torch.uint8).view(-1, 1, 1, 1), labels)

    def epoch(number, seed=0):
        made = training_batches(split, PLAIN, 8, [], seed, number, CPU, "balanced")
        return torch.cat([images.flatten() for images, _ in made]).round().long().tolist()

    assert epoch(0) == epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)
    assert len(epoch(0)) == 24
    assert sum(image >= 20 for image in epoch(0)) == 12
    assert set(chain(*map(epoch, range(10)))) == set(range(24))


def test_augmentation_is_repeated_by_the_same_seed_and_epoch_only():
    split = Split(
        torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(20, 1, 1, 1), torch.arange(20)
    )

    def epoch(number):
        made = training_batches(split, PLAIN, 8, ["flip", "shift", "brightness"], 0, number, CPU)
        return torch.cat([images for images, _ in made])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


def test_evaluation_takes_fewer_large_images_at_once():
    for size, expected in (
        ((256, 256), [64, 2]),
        ((512, 256), [32, 32, 2]),
        ((512, 4096), [2] * 33),
    ):
        images = torch.zeros(1, 1, *size, dtype=torch.uint8).expand(66, 1, *size)
        header = prepared.TaskInfo("x", "classification", ("a", "b"), size, (0.5,), (0.3,))
        found = evaluation_batches(Split(images, torch.zeros(66, dtype=torch.int64)), header, CPU)
        assert [len(batch) for batch, _ in found] == expected


def test_evaluation_takes_the_split_in_order():
    made = list(evaluation_batches(numbered(200), PLAIN, CPU))
    assert torch.cat([labels for _, labels in made]).tolist() == list(range(200))
    assert torch.cat([images for images, _ in made])[:, 0, 0, 0].round().long().tolist() == list(
        range(200)
    )


def moved(names, count=16, size=(16, 24), seed=0):
    """(images and masks before, after): the first channel of an image equals its mask."""
    generator = np.random.default_rng(seed)
    masks = torch.from_numpy(generator.integers(0, 255, (count, *size), dtype=np.uint8))
    others = torch.from_numpy(generator.integers(0, 255, (count, 2, *size), dtype=np.uint8))
    images = torch.cat([masks[:, None], others], dim=1)
    return (images, masks), random_flip_shift(
        images, masks, names, torch.Generator().manual_seed(seed)
    )


MOVES = ["flip", "vertical_flip", "shift"]


@PROPERTY
@given(st.lists(st.sampled_from(MOVES), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_are_moved_with_their_images(names, seed):
    _, (images, masks) = moved(names, seed=seed)
    assert images.dtype == masks.dtype == torch.uint8
    assert torch.equal(images[:, 0], masks)


@pytest.mark.parametrize("name", MOVES)
def test_each_augmentation_changes_some_images(name):
    (before, _), (after, _) = moved([name])
    assert not torch.equal(before, after)
    assert after.shape == before.shape


@pytest.mark.parametrize(("name", "axis"), [("flip", 3), ("vertical_flip", 2)])
def test_flips_mirror_some_images_and_leave_the_others(name, axis):
    (before, _), (after, _) = moved([name])
    turned = [torch.equal(new, old.flip(axis - 1)) for old, new in zip(before, after)]
    same = [torch.equal(new, old) for old, new in zip(before, after)]
    assert any(turned)
    assert any(same)
    assert all(one != other for one, other in zip(turned, same))


@PROPERTY
@given(st.lists(st.sampled_from(["flip", "vertical_flip"]), max_size=3), st.integers(0, 99))
def test_flips_keep_the_values_of_each_image(names, seed):
    (before, _), (after, _) = moved(names, count=4, seed=seed)
    for old, new in zip(before, after):
        assert Counter(old.flatten().tolist()) == Counter(new.flatten().tolist())


def test_a_shift_moves_the_middle_of_an_image_by_an_eighth_at_most():
    (before, _), (after, _) = moved(["shift"])
    found = set()
    for old, new in zip(before, after):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if torch.equal(new[:, 2:-2, 3:-3], old[:, 2 + down : 14 + down, 3 + right : 21 + right])
        ]
        assert len(fits) == 1
        found |= set(fits)
    assert len(found) > 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_brightness_is_the_same_whatever_the_range_of_the_pixels(dtype):
    """12 bits in 16, or floats up to 3000, are neither turned black nor left as they are."""
    levels = {torch.uint8: 100, torch.uint16: 1500, torch.float32: 3000}
    images = (torch.rand(64, 1, 8, 8) * levels[dtype]).to(dtype)
    white = {torch.uint8: 255, torch.uint16: 65535, torch.float32: 1}[dtype]
    scaled = images.double() / white
    header = prepared.TaskInfo(
        "x", "classification", ("a", "b"), (8, 8), (float(scaled.mean()),), (float(scaled.std()),)
    )
    (batch, _), *_ = training_batches(
        Split(images, torch.zeros(64)), header, 64, ["brightness"], 0, 0, CPU
    )
    assert 0.15 < batch.mean(dim=(1, 2, 3)).std() < 0.4
    assert batch.std(dim=(1, 2, 3)).min() > 0.5


def test_labels_of_classes_are_not_moved():
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    _, labels = random_flip_shift(images, torch.arange(6), MOVES, torch.Generator().manual_seed(0))
    assert labels.tolist() == list(range(6))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
@pytest.mark.parametrize("bands", [1, 5])
def test_images_of_any_type_and_number_of_bands_are_augmented(dtype, bands):
    white = 65535 if dtype == torch.uint16 else 1.0
    images = (torch.rand(8, bands, 16, 16) * white).to(dtype)
    split = Split(images, torch.arange(8))
    header = prepared.TaskInfo(
        "x", "classification", tuple("abcdefgh"), (16, 16), (0.5,) * bands, (0.3,) * bands
    )
    plain = torch.cat([batch for batch, _ in evaluation_batches(split, header, CPU)])
    assert torch.allclose(plain, (images.float() / white - 0.5) / 0.3, atol=1e-5)
    for name in (*MOVES, "brightness"):
        (batch, labels), *_ = training_batches(split, header, 8, [name], 0, 0, CPU)
        assert batch.shape == (8, bands, 16, 16)
        assert batch.isfinite().all()
        assert sorted(labels.tolist()) == list(range(8))
        assert not torch.equal(batch, plain[labels])
