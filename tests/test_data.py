"""Data: sources, splits, the identity of raw data, prepared files, batches."""

import io
import os
import shutil
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acll.data import prepared
from acll.data.batches import Split, augmented, batches, evaluation_batches, normalised, training_batches
from acll.data.generated import generate
from acll.data.sources import fingerprint, read_splits
from acll.data.splits import DataError, Samples, as_groups, cut
from acll.settings import Digits, Generated, ImageFolder, MaskFolder

PROPERTY = settings(max_examples=40, deadline=None)
CPU = torch.device("cpu")
SPLITS = ("train", "val", "test")


def generated(kind="classification", **changes) -> Generated:
    values = {"classes": 4, "samples": 40, "difficulty": 0.2, "image_size": [16, 24], "seed": 0}
    return Generated(source="generated", kind=kind, **(values | changes))


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)
    return path


def picture(level=100, channels=3, size=(12, 10)):
    return np.full(size if channels == 1 else (*size, channels), level)


@pytest.fixture
def images(tmp_path):
    """A folder of images without val and test: cats are dark, dogs are light."""
    for number in range(8):
        save(tmp_path / f"pets/train/cat/{number}.png", picture(10 + number))
        save(tmp_path / f"pets/train/dog/{number}.jpg", picture(200 + number))
    return tmp_path


@pytest.fixture
def masks(tmp_path):
    """A folder of masks without val and test; the left half of each is 0, the right half 1, the first row ignored."""
    for number in range(20):
        mask = picture(0, channels=1)
        mask[:, 5:] = 1
        mask[0] = 255
        save(tmp_path / f"streets/train/images/{number}.png", picture(10 * number))
        save(tmp_path / f"streets/train/masks/{number}.png", mask)
    return tmp_path


PETS = ImageFolder(source="image_folder", path="pets", image_size=[6, 4])
STREETS = MaskFolder(source="mask_folder", path="streets", image_size=[12, 10], classes=["road", "sky"])


def fault(task, root) -> str:
    with pytest.raises(DataError) as caught:
        read_splits(task, root)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------------
# generated tasks and digits


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_generated_tasks_depend_on_their_seed_alone(kind):
    np.random.seed(1)
    first = generate(generated(kind))
    np.random.seed(2)
    again, other = generate(generated(kind)), generate(generated(kind, seed=1))
    assert first.images.tobytes() == again.images.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


@pytest.mark.parametrize("difficulty", [0, 0.5, 1])
@pytest.mark.parametrize("classes", [2, 7, 20])
def test_generated_images_have_the_size_and_labels_asked_for(classes, difficulty):
    samples = generate(generated(classes=classes, difficulty=difficulty))
    assert samples.images.shape == (40, 3, 16, 24)
    assert samples.images.dtype == np.uint8
    counts = np.bincount(samples.labels, minlength=classes)
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1
    masks = generate(generated("segmentation", classes=classes, difficulty=difficulty)).labels
    assert masks.shape == (40, 16, 24)
    assert masks.dtype == np.uint8
    assert masks.min() == 0
    assert 0 < masks.max() < classes


def test_most_generated_masks_have_a_shape_and_some_ground():
    masks = generate(generated("segmentation")).labels
    share = (masks > 0).mean(axis=(1, 2))
    assert (share > 0).mean() > 0.9
    assert (share < 1).mean() > 0.9


def test_harder_textures_are_told_apart_less_well():
    """By the nearest mean image of the classes."""
    right = []
    for difficulty in (0, 0.3, 0.6, 1):
        samples = generate(generated(difficulty=difficulty, samples=400, image_size=[16, 16]))
        images, labels = samples.images.reshape(400, -1).astype(float), samples.labels
        means = np.stack([images[:200][labels[:200] == label].mean(axis=0) for label in range(4)])
        distances = ((images[200:, None] - means) ** 2).sum(axis=2)
        right.append((distances.argmin(axis=1) == labels[200:]).mean())
    assert right[0] == 1
    assert right == sorted(right, reverse=True)
    assert right[-1] < 0.8


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_harder_images_are_noisier(kind):
    """Neighbouring pixels differ more."""
    rough = [
        np.abs(np.diff(generate(generated(kind, difficulty=difficulty)).images.astype(float), axis=3)).mean()
        for difficulty in (0, 0.5, 1)
    ]
    assert rough == sorted(rough)
    assert rough[-1] > 1.5 * rough[0]


def test_digits_are_grey_images_of_ten_classes_in_three_splits(tmp_path):
    splits, classes = read_splits(Digits(source="digits", image_size=16), tmp_path)
    assert classes == list("0123456789")
    assert sum(map(len, splits.values())) == 1797
    for split in SPLITS:
        assert splits[split].images.shape[1:] == (1, 16, 16)
        assert splits[split].images.max() > 200
        assert set(splits[split].labels) == set(range(10))


# --------------------------------------------------------------------------------------------------------------------
# folders


def test_an_image_folder_without_val_and_test_has_them_cut_from_train(images):
    splits, classes = read_splits(PETS, images)
    assert classes == ["cat", "dog"]
    assert sorted(id_ for split in SPLITS for id_ in splits[split].ids) == sorted(
        [f"train/cat/{number}.png" for number in range(8)] + [f"train/dog/{number}.jpg" for number in range(8)]
    )
    for samples in splits.values():
        assert samples.images.shape[1:] == (3, 6, 4)
        assert np.array_equal(samples.images.mean(axis=(1, 2, 3)) > 100, samples.labels == 1)
        assert set(samples.labels) == {0, 1}


def test_an_image_folder_keeps_the_splits_that_it_has(images):
    shutil.copytree(images / "pets/train", images / "pets/val")
    shutil.copytree(images / "pets/train", images / "pets/test")
    splits, _ = read_splits(PETS, images)
    assert [len(splits[split]) for split in SPLITS] == [16, 16, 16]
    assert all(id_.startswith(f"{split}/") for split in SPLITS for id_ in splits[split].ids)


def test_an_image_folder_with_a_test_only_has_validation_cut_from_train(images):
    shutil.copytree(images / "pets/train", images / "pets/test")
    splits, _ = read_splits(PETS, images)
    assert len(splits["test"]) == 16
    assert len(splits["train"]) + len(splits["val"]) == 16
    assert all(id_.startswith("train/") for id_ in splits["val"].ids)


def test_grey_images_have_one_channel_unless_one_is_in_colour(images):
    for path in images.rglob("*.*"):
        Image.open(path).convert("L").save(path)
    assert read_splits(PETS, images)[0]["train"].images.shape[1] == 1
    save(images / "pets/train/cat/0.png", picture())
    assert read_splits(PETS, images)[0]["train"].images.shape[1] == 3


def test_hidden_and_other_files_are_passed_over(images):
    (images / "pets/train/cat/notes.txt").write_text("x")
    (images / "pets/train/cat/.hidden.png").write_text("x")
    splits, _ = read_splits(PETS, images)
    assert sum(map(len, splits.values())) == 16


def test_a_mask_folder_gives_masks_beside_their_images(masks):
    splits, classes = read_splits(STREETS, masks)
    assert classes == ["road", "sky"]
    assert sum(map(len, splits.values())) == 20
    for samples in splits.values():
        assert samples.images.shape[1:] == (3, 12, 10)
        assert samples.labels.dtype == np.uint8
        assert (samples.labels[:, 0] == 255).all()
        assert (samples.labels[:, 1:, :5] == 0).all()
        assert (samples.labels[:, 1:, 5:] == 1).all()


def test_a_mask_folder_keeps_the_splits_that_it_has(masks):
    shutil.copytree(masks / "streets/train", masks / "streets/val")
    shutil.copytree(masks / "streets/train", masks / "streets/test")
    assert [len(samples) for samples in read_splits(STREETS, masks)[0].values()] == [20, 20, 20]


def test_masks_are_resized_without_mixing_classes(masks):
    task = STREETS.model_copy(update={"image_size": (31, 23)})
    for samples in read_splits(task, masks)[0].values():
        assert samples.labels.shape[1:] == samples.images.shape[2:] == (31, 23)
        assert set(np.unique(samples.labels)) == {0, 1, 255}


def test_masks_with_a_palette_hold_indices(masks):
    path = masks / "streets/train/masks/3.png"
    mask = Image.open(path).convert("L")
    indexed = Image.frombytes("P", mask.size, mask.tobytes())
    indexed.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    before, _ = read_splits(STREETS, masks)
    indexed.save(path)
    after, _ = read_splits(STREETS, masks)
    for split in SPLITS:
        assert np.array_equal(before[split].labels, after[split].labels)


@pytest.mark.parametrize("task", [PETS, STREETS])
def test_a_missing_folder_is_named(tmp_path, task):
    message = fault(task, tmp_path)
    assert str(tmp_path / task.path) in message
    assert "there is no such folder" in message


@pytest.mark.parametrize("task", [PETS, STREETS])
def test_a_folder_without_train_comes_with_the_layout_that_is_expected(tmp_path, task):
    (tmp_path / task.path / "test").mkdir(parents=True)
    message = fault(task, tmp_path)
    assert str(tmp_path / task.path) in message
    assert "{train,val,test}/" in message


@pytest.mark.parametrize("task", [PETS, STREETS])
def test_a_folder_without_images_is_named(tmp_path, task):
    (tmp_path / task.path / "train/cat").mkdir(parents=True)
    assert fault(task, tmp_path).startswith(f"{tmp_path / task.path}: holds no images")


def test_an_image_folder_with_one_class_is_refused(images):
    shutil.rmtree(images / "pets/train/dog")
    assert fault(PETS, images).startswith(f"{images}/pets/train: a folder for each class is expected")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_an_image_is_named(images, split):
    if split != "train":
        shutil.copytree(images / "pets/train", images / "pets" / split)
    (images / "pets/train/emu").mkdir()
    save(images / "pets/train/emu/0.png", picture())
    if split == "train":
        (images / "pets/train/emu/0.png").unlink()
    assert fault(PETS, images) == f"{images}/pets/{split}: classes without an image: emu"


def test_a_class_that_train_does_not_have_is_named(images):
    shutil.copytree(images / "pets/train", images / "pets/test")
    (images / "pets/test/dog").rename(images / "pets/test/dogs")
    assert fault(PETS, images) == f"{images}/pets/test: classes that train does not have: dogs"


def test_images_and_masks_without_a_partner_are_named(masks):
    mask = masks / "streets/train/masks/3.png"
    content = mask.read_bytes()
    mask.unlink()
    assert str(masks / "streets/train/images/3.png") in fault(STREETS, masks)
    mask.write_bytes(content)
    mask.with_name("extra.png").write_bytes(content)
    message = fault(STREETS, masks)
    assert "masks without an image" in message
    assert "extra" in message


def test_a_mask_of_another_size_than_its_image_is_named_with_both(masks):
    path = save(masks / "streets/train/masks/3.png", picture(0, 1, (10, 12)))
    assert fault(STREETS, masks) == f"{path}: the mask has 12x10 pixels, its image 10x12; they must be equal"


def test_a_mask_with_labels_outside_the_classes_is_named_with_them(masks):
    path = save(masks / "streets/train/masks/3.png", np.arange(120).reshape(12, 10) % 5)
    message = fault(STREETS, masks)
    assert message.startswith(f"{path}: has the labels 2, 3, 4, outside the 2 classes (0 to 1; 255 means ignore)")


def test_a_mask_in_colour_is_refused(masks):
    path = save(masks / "streets/train/masks/3.png", picture(0))
    assert fault(STREETS, masks) == f"{path}: a mask has one channel of class indices, not RGB"


@pytest.mark.parametrize("broken", [b"", b"not an image", None])
def test_all_unreadable_images_are_named_at_once(images, broken):
    paths = [images / "pets/train/cat/3.png", images / "pets/train/dog/3.jpg"]
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if broken is None else broken)
    lines = fault(PETS, images).split("\n")
    assert len(lines) == 2
    for line, path in zip(lines, paths):
        assert line.startswith(f"{path}: not a readable image: ")


def test_an_unreadable_mask_is_named(masks):
    path = masks / "streets/train/masks/3.png"
    path.write_bytes(path.read_bytes()[:45])
    assert fault(STREETS, masks).startswith(f"{path}: not a readable image")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_file_that_is_cut_off_anywhere_is_never_a_crash(images, suffix):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)).save(
        buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    )
    content, path = buffer.getvalue(), images / f"pets/train/cat/x.{suffix}"

    def refused(length):
        path.write_bytes(content[:length])
        try:
            read_splits(PETS, images)
        except DataError as error:
            return str(path) in str(error)
        return False  # such as a PNG without its last few bytes, which mean nothing

    lengths = range(0, len(content), 7)
    assert sum(map(refused, lengths)) >= 0.9 * len(lengths)


@pytest.mark.parametrize(
    ("values", "suffix"),
    [(np.full((12, 10), 3000, np.uint16), "png"), (np.full((12, 10), 0.5, np.float32), "tif")],
)
def test_an_image_of_more_than_8_bits_is_refused_rather_than_turned_white(images, values, suffix):
    path = images / f"pets/train/cat/deep.{suffix}"
    Image.fromarray(values).save(path)
    assert fault(PETS, images).startswith(f"{path}: has more than 8 bits a channel")


def test_too_few_images_for_three_splits_are_refused(masks):
    for number in range(2, 20):
        for folder in ("images", "masks"):
            (masks / f"streets/train/{folder}/{number}.png").unlink()
    assert "more images, or another share, are needed" in fault(STREETS, masks)


# --------------------------------------------------------------------------------------------------------------------
# cutting splits


def labelled(labels, groups=None) -> Samples:
    ids = tuple(f"{index:05d}" for index in range(len(labels)))
    return Samples(np.zeros((len(labels), 1, 1, 1), np.uint8), np.asarray(labels), ids, groups or ids)


@st.composite
def stratified(draw):
    """Labels of classes of ten samples or more, in any order or sorted by class."""
    sizes = draw(st.lists(st.integers(10, 60), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if draw(st.booleans()):
        labels = np.random.default_rng(draw(st.integers(0, 9))).permutation(labels)
    return labels, sizes


shares = st.floats(0.1, 0.5)
seeds = st.integers(0, 2**32)


@PROPERTY
@given(stratified(), shares, seeds)
def test_a_cut_takes_the_share_asked_for_of_the_whole_and_of_each_class(drawn, share, seed):
    labels, sizes = drawn
    rest, off = cut(labelled(labels), share, len(sizes), seed)
    assert abs(len(off) - share * len(labels)) <= 1
    for label, size in enumerate(sizes):
        assert abs((off.labels == label).sum() - share * size) <= 1
        assert (rest.labels == label).any()


@PROPERTY
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), shares, seeds)
def test_a_cut_loses_and_doubles_nothing_and_keeps_the_order(labels, share, seed):
    samples = labelled(labels)
    rest, off = cut(samples, share, 5, seed)
    assert sorted(rest.ids + off.ids) == list(samples.ids)
    for part in (rest, off):
        assert list(part.ids) == sorted(part.ids)
        assert len(part) > 0
        assert list(part.labels) == [labels[int(id_)] for id_ in part.ids]


@PROPERTY
@given(stratified(), shares, seeds)
def test_a_cut_depends_on_its_seed_alone(drawn, share, seed):
    labels, sizes = drawn
    np.random.seed(seed % 1000)
    first = cut(labelled(labels), share, len(sizes), seed)[1].ids
    assert cut(labelled(labels), share, len(sizes), seed)[1].ids == first


def test_another_seed_cuts_others():
    labels = np.arange(100) % 3
    assert cut(labelled(labels), 0.2, 3, 0)[1].ids != cut(labelled(labels), 0.2, 3, 1)[1].ids


def test_a_cut_is_shuffled_within_a_class():
    _, off = cut(labelled(np.zeros(1000, int)), 0.2, 1, 0)
    assert 400 < np.mean([int(id_) for id_ in off.ids]) < 600


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=4, max_size=80), shares, seeds)
def test_groups_stay_whole(members, share, seed):
    groups = tuple(f"g{group}" for group, _ in members)
    samples = labelled([label for _, label in members], groups)
    rest, off = cut(samples, share, 3, seed)
    assert not set(rest.groups) & set(off.groups)
    if len(set(groups)) > 1:
        assert len(off) > 0
        assert len(rest) > 0


@PROPERTY
@given(st.integers(10, 40), st.integers(1, 5), shares, seeds)
def test_the_share_is_right_for_groups_of_one_size(count, size, share, seed):
    groups = tuple(f"g{index // size:02d}" for index in range(count * size))
    _, off = cut(labelled(np.zeros(count * size, int), groups), share, 1, seed)
    assert abs(len(set(off.groups)) - share * count) <= 1


@PROPERTY
@given(st.integers(2, 12), shares, seeds)
def test_masks_are_stratified_by_the_rarest_class_present(rare, share, seed):
    """All masks have class 0, half have class 1, few have class 2: those are on both sides."""
    masks = np.zeros((80, 2, 2), np.uint8)
    masks[:40, 0, 0] = 1
    masks[:rare, 1, 1] = 2
    masks[-1] = 255
    rest, off = cut(labelled(masks), share, 3, seed)
    for part in (rest, off):
        assert (part.labels == 2).any()
        assert (part.labels == 1).any()
    assert abs((off.labels == 2).any(axis=(1, 2)).sum() - share * rare) <= 1


def test_groups_are_what_the_pattern_matches():
    ids = ("train/a/seq01_3.png", "train/a/seq01_4.png", "train/a/seq02_3.png", "train/a/alone.png")
    assert as_groups(ids, r"seq\d+") == ("seq01", "seq01", "seq02", "train/a/alone.png")
    assert as_groups(ids, None) == ids


def test_a_pattern_keeps_neighbouring_files_in_one_split(images):
    task = PETS.model_copy(update={"group": r"(cat|dog)/[0-3]|(cat|dog)/[4-7]", "test_share": 0.5})
    for path in sorted((images / "pets/train/cat").iterdir()):
        for letter in "abc":
            shutil.copy(path, path.with_name(f"{path.stem}{letter}.png"))
    splits, _ = read_splits(task, images)
    groups = {split: {id_.split("/", 1)[1][:5] for id_ in splits[split].ids} for split in SPLITS}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))


# --------------------------------------------------------------------------------------------------------------------
# the identity of raw data


def identity(root, cache="cache.json"):
    return fingerprint(PETS, root, root / cache)


def later(path, seconds=10):
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime + seconds))


def test_the_identity_of_data_without_files_is_empty(tmp_path):
    for task in (generated(), Digits(source="digits", image_size=8)):
        assert fingerprint(task, tmp_path, tmp_path / "cache.json") == ""
    assert not (tmp_path / "cache.json").exists()


def test_the_identity_is_the_same_with_and_without_a_cache(images):
    first = identity(images)
    assert identity(images) == first
    assert identity(images, "other.json") == first
    (images / "cache.json").write_text('{"cut off')
    assert identity(images) == first


def test_a_touched_file_does_not_change_the_identity(images):
    first = identity(images)
    for path in images.rglob("*.png"):
        later(path)
    assert identity(images) == first


@pytest.mark.parametrize("seconds", [10, -10_000])
def test_a_changed_file_of_the_same_size_changes_the_identity(images, seconds):
    first, path = identity(images), images / "pets/train/cat/0.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    stamp = path.stat()
    path.write_bytes(content)
    os.utime(path, (stamp.st_atime, stamp.st_mtime + seconds))
    assert identity(images) != first


def test_a_changed_file_of_another_size_changes_the_identity_though_its_time_is_the_same(images):
    first, path = identity(images), images / "pets/train/cat/0.png"
    stamp = path.stat()
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert identity(images) != first


def test_files_added_removed_and_renamed_change_the_identity(images):
    folder = images / "pets/train/cat"
    found = [identity(images)]
    shutil.copy(folder / "0.png", folder / "new.png")
    found.append(identity(images))
    (folder / "new.png").rename(folder / "newer.png")
    found.append(identity(images))
    (folder / "newer.png").unlink()
    assert len(set(found)) == 3
    assert identity(images) == found[0]


def test_a_moved_root_does_not_change_the_identity(images, tmp_path_factory):
    first, elsewhere = identity(images), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(images / "pets", elsewhere / "pets")
    assert identity(elsewhere) == first
    assert fingerprint(PETS, elsewhere, images / "cache.json") == first


def test_files_that_are_known_are_not_read_again(images):
    first, path = identity(images), images / "pets/train/cat/0.png"
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert identity(images) == first


def test_a_missing_folder_has_no_identity(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        identity(tmp_path)


# --------------------------------------------------------------------------------------------------------------------
# prepared files


@pytest.fixture
def written(tmp_path, monkeypatch):
    """(train path, test path, splits, header) of a generated task."""
    monkeypatch.setattr(prepared, "_allowed", {"test": False})
    task = generated()
    splits, classes = read_splits(task, tmp_path)
    train, test = tmp_path / "deep/easy.train.safetensors", tmp_path / "deep/easy.test.safetensors"
    prepared.write("easy", task.kind, splits, classes, train, test)
    return train, test, splits, prepared.read(train)[1]


def test_prepared_files_give_back_what_was_written(written):
    train, test, splits, header = written
    prepared.allow_test()
    for path, names in ((train, ("train", "val")), (test, ("test",))):
        tensors, read = prepared.read(path)
        assert sorted(tensors) == sorted(f"{split}_{part}" for split in names for part in ("images", "labels"))
        for split in names:
            assert np.array_equal(tensors[f"{split}_images"].numpy(), splits[split].images)
            assert np.array_equal(tensors[f"{split}_labels"].numpy(), splits[split].labels)
            assert tuple(read.ids[split]) == splits[split].ids
        assert set(read.ids) == set(names)
        for field in ("name", "kind", "classes", "image_size", "mean", "deviation"):
            assert getattr(read, field) == getattr(header, field)
    assert (header.name, header.kind, header.image_size) == ("easy", "classification", (16, 24))
    assert header.classes == ("class_0", "class_1", "class_2", "class_3")


def test_a_test_split_can_be_read_only_where_it_was_allowed(written):
    _, test, _, _ = written
    with pytest.raises(prepared.TestSplitError, match="only evaluation may read a test split"):
        prepared.read(test)
    prepared.allow_test()
    assert len(prepared.read(test)[0]["test_images"]) > 0


def test_the_training_file_holds_nothing_of_the_test_split(written):
    train, _, splits, _ = written
    content = train.read_bytes()
    for id_, image in zip(splits["test"].ids, splits["test"].images):
        assert id_.encode() not in content
        assert image.tobytes() not in content
    assert splits["train"].ids[0].encode() in content
    assert splits["train"].images[0].tobytes() in content


def test_statistics_are_those_of_the_training_split_alone(written):
    _, _, splits, header = written
    scaled = splits["train"].images / 255
    assert np.allclose(header.mean, scaled.mean(axis=(0, 2, 3)))
    assert np.allclose(header.deviation, scaled.std(axis=(0, 2, 3)))
    images = normalised(torch.from_numpy(splits["train"].images), header, CPU)
    assert np.allclose(images.mean(dim=(0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(images.std(dim=(0, 2, 3)), 1, atol=1e-3)


def test_the_same_splits_give_the_same_bytes(written, tmp_path):
    train, test, splits, header = written
    again = tmp_path / "again.train.safetensors", tmp_path / "again.test.safetensors"
    prepared.write("easy", "classification", splits, list(header.classes), *again)
    assert [path.read_bytes() for path in again] == [train.read_bytes(), test.read_bytes()]
    assert sorted(path.name for path in train.parent.iterdir()) == [test.name, train.name]


def test_images_of_one_level_are_normalised_to_numbers(tmp_path):
    samples = Samples(np.full((4, 1, 8, 8), 7, np.uint8), np.array([0, 1, 0, 1]), tuple("abcd"), tuple("abcd"))
    paths = tmp_path / "x.train.safetensors", tmp_path / "x.test.safetensors"
    prepared.write("x", "classification", dict.fromkeys(SPLITS, samples), ["a", "b"], *paths)
    header = prepared.read(paths[0])[1]
    images = normalised(torch.from_numpy(samples.images), header, CPU)
    assert images.shape == (4, 1, 8, 8)
    assert torch.allclose(images, torch.zeros(()), atol=1e-3)


# --------------------------------------------------------------------------------------------------------------------
# batches


PLAIN = prepared.Header("x", "classification", ("a", "b"), (1, 1), (0.0,), (1 / 255,), {})


def numbered(count) -> Split:
    """Image i is one pixel of level i, of label i."""
    return Split(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count))


def order(count, batch_size=8, seed=0, epoch=0):
    taken = []
    for images, labels in training_batches(numbered(count), PLAIN, batch_size, [], seed, epoch, CPU):
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


def test_augmentation_is_repeated_by_the_same_seed_and_epoch_only():
    split = Split(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(20, 1, 1, 1), torch.arange(20))

    def epoch(number):
        made = training_batches(split, PLAIN, 8, ["flip", "shift", "brightness"], 0, number, CPU)
        return torch.cat([images for images, _ in made])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


def test_evaluation_takes_the_split_in_order():
    made = list(evaluation_batches(numbered(200), PLAIN, CPU))
    assert torch.cat([labels for _, labels in made]).tolist() == list(range(200))
    assert torch.cat([images for images, _ in made])[:, 0, 0, 0].round().long().tolist() == list(range(200))


def moved(names, count=16, size=(16, 24), seed=0):
    """(images and masks before, after): the first channel of an image equals its mask."""
    generator = np.random.default_rng(seed)
    masks = torch.from_numpy(generator.integers(0, 255, (count, *size), dtype=np.uint8))
    others = torch.from_numpy(generator.integers(0, 255, (count, 2, *size), dtype=np.uint8))
    images = torch.cat([masks[:, None], others], dim=1)
    return (images, masks), augmented(images, masks, names, torch.Generator().manual_seed(seed))


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


def test_brightness_leaves_masks_and_labels_alone():
    (before, masks), (after, left) = moved(["brightness"])
    assert torch.equal(masks, left)
    assert not torch.equal(before, after)
    change = (after.float() - before.float()).mean(dim=(1, 2, 3))
    assert change.std() > 3
    assert change.abs().max() < 30


def test_labels_of_classes_are_not_moved():
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    _, labels = augmented(images, torch.arange(6), MOVES, torch.Generator().manual_seed(0))
    assert labels.tolist() == list(range(6))


def test_a_damaged_prepared_file_says_what_to_do(written):
    train = written[0]
    train.write_bytes(train.read_bytes()[:50])
    with pytest.raises(DataError, match="delete it to have it made anew"):
        prepared.read(train)


def test_two_images_of_one_name_but_for_the_ending_are_refused(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "x/train" / part).mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "x/train/images/1.png")
    Image.new("L", (8, 8)).save(tmp_path / "x/train/images/1.jpg")
    Image.new("L", (8, 8)).save(tmp_path / "x/train/masks/1.png")
    task = MaskFolder(source="mask_folder", path="x", image_size=8, classes=["p", "q"])
    with pytest.raises(DataError, match=r"files of the same name but for their ending: .*1\.jpg, .*1\.png"):
        read_splits(task, tmp_path)
