"""Preparing tasks: sources, layouts, archives, and everything that can be wrong with raw data."""

import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from acll.data import decoding, preparation
from acll.data.errors import DataError
from acll.data.reading import Opener
from acll.data.sources.digits import Digits
from acll.data.sources.generated import generate
from acll.data.sources.table import Table
from datasets import (
    PETS,
    SPLITS,
    STREETS,
    bomb,
    changed,
    cut_off,
    fault,
    faults,
    generated,
    paths,
    pets,
    picture,
    prepare,
    raster,
    report_of,
    save,
    smooth,
    streets,
)  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return pets(tmp_path)


@pytest.fixture
def masks(tmp_path):
    return streets(tmp_path)


# --------------------------------------------------------------------------------------------------
# generated tasks and digits


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_generated_tasks_depend_on_their_seed_alone(kind):
    np.random.seed(1)
    images, labels = generate(generated(kind))
    np.random.seed(2)
    again, other = generate(generated(kind)), generate(generated(kind, seed=1))
    assert images.tobytes() == again[0].tobytes()
    assert labels.tobytes() == again[1].tobytes()
    assert images.tobytes() != other[0].tobytes()


@pytest.mark.parametrize("difficulty", [0, 0.5, 1])
@pytest.mark.parametrize("classes", [2, 7, 20])
def test_generated_images_have_the_size_and_labels_asked_for(classes, difficulty):
    images, labels = generate(generated(classes=classes, difficulty=difficulty))
    assert images.shape == (40, 3, 16, 24)
    assert images.dtype == np.uint8
    counts = np.bincount(labels, minlength=classes)
    assert len(counts) == classes
    assert counts.max() - counts.min() <= 1
    masks = generate(generated("segmentation", classes=classes, difficulty=difficulty))[1]
    assert masks.shape == (40, 16, 24)
    assert masks.dtype == np.uint8
    assert masks.min() == 0
    assert 0 < masks.max() < classes


def test_most_generated_masks_have_a_shape_and_some_ground():
    masks = generate(generated("segmentation"))[1]
    share = (masks > 0).mean(axis=(1, 2))
    assert (share > 0).mean() > 0.9
    assert (share < 1).mean() > 0.9


def test_harder_textures_are_told_apart_less_well():
    """By the nearest mean image of the classes."""
    right = []
    for difficulty in (0, 0.3, 0.6, 1):
        images, labels = generate(
            generated(difficulty=difficulty, samples=400, image_size=[16, 16])
        )
        images = images.reshape(400, -1).astype(float)
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
        np.abs(
            np.diff(generate(generated(kind, difficulty=difficulty))[0].astype(float), axis=3)
        ).mean()
        for difficulty in (0, 0.5, 1)
    ]
    assert rough == sorted(rough)
    assert rough[-1] > 1.5 * rough[0]


def test_digits_are_grey_images_of_ten_classes_in_three_splits(tmp_path):
    made = prepare(Digits(source="digits", image_size=16), tmp_path)
    assert made.summary["classes"] == list("0123456789")
    assert sum(made.summary["samples"].values()) == 1797
    for split in made.splits.values():
        assert split.images.shape[1:] == (1, 16, 16)
        assert split.images.max() > 200
        assert set(split.labels) == set(range(10))


# --------------------------------------------------------------------------------------------------
# folders


def test_an_image_folder_without_val_and_test_has_them_cut_from_train(images):
    made = prepare(PETS, images)
    assert made.header.classes == ("cat", "dog")
    assert sorted(made.every()) == sorted(
        [f"train/cat/{number}.png" for number in range(8)]
        + [f"train/dog/{number}.jpg" for number in range(8)]
    )
    for split in made.splits.values():
        assert split.images.shape[1:] == (3, 6, 4)
        assert np.array_equal(split.images.mean(axis=(1, 2, 3)) > 100, split.labels == 1)
        assert set(split.labels) == {0, 1}
        assert split.ids == sorted(split.ids)


def test_an_image_folder_keeps_the_splits_that_it_has(images):
    shutil.copytree(images / "pets/train", images / "pets/val")
    shutil.copytree(images / "pets/train", images / "pets/test")
    splits = prepare(PETS, images).splits
    assert [len(splits[split]) for split in SPLITS] == [16, 16, 16]
    assert all(id_.startswith(f"{split}/") for split in SPLITS for id_ in splits[split].ids)


def test_an_image_folder_with_a_test_only_has_validation_cut_from_train(images):
    shutil.copytree(images / "pets/train", images / "pets/test")
    splits = prepare(PETS, images).splits
    assert len(splits["test"]) == 16
    assert len(splits["train"]) + len(splits["val"]) == 16
    assert all(id_.startswith("train/") for id_ in splits["val"].ids)


def test_grey_images_have_one_channel_unless_one_is_in_colour(images):
    for path in images.rglob("*.*"):
        if path.is_file():
            Image.open(path).convert("L").save(path)
    assert prepare(PETS, images).splits["train"].images.shape[1] == 1
    save(images / "pets/train/cat/0.png", picture())
    assert prepare(PETS, images).splits["train"].images.shape[1] == 3


def test_hidden_and_other_files_are_passed_over(images):
    (images / "pets/train/cat/notes.txt").write_text("x")
    (images / "pets/train/cat/.hidden.png").write_text("x")
    (images / "pets/train/cat/folder.png").mkdir()
    (images / "pets/.cache/train/cat").mkdir(parents=True)
    assert len(prepare(PETS, images).every()) == 16


def test_links_are_followed_but_not_in_circles(images):
    (images / "pets/train/dog").rename(images / "dogs")
    (images / "pets/train/dog").symlink_to(images / "dogs")
    for number in range(3):
        (images / f"pets/train/cat/up{number}").symlink_to(images / "pets")
        (images / f"dogs/here{number}").symlink_to(images / "dogs")
    assert len(PETS.raw_files(images)) == len(prepare(PETS, images).every()) == 16


def test_a_mask_folder_gives_masks_beside_their_images(masks):
    made = prepare(STREETS, masks)
    assert made.header.classes == ("road", "sky")
    assert len(made.every()) == 20
    for split in made.splits.values():
        assert split.images.shape[1:] == (3, 12, 10)
        assert split.labels.dtype == np.uint8
        assert (split.labels[:, 0] == 255).all()
        assert (split.labels[:, 1:, :5] == 0).all()
        assert (split.labels[:, 1:, 5:] == 1).all()


def test_a_mask_folder_keeps_the_splits_that_it_has(masks):
    shutil.copytree(masks / "streets/train", masks / "streets/val")
    shutil.copytree(masks / "streets/train", masks / "streets/test")
    assert prepare(STREETS, masks).summary["samples"] == dict.fromkeys(SPLITS, 20)


def test_masks_are_resized_without_mixing_classes(masks):
    for split in prepare(changed(STREETS, image_size=[31, 23]), masks).splits.values():
        assert split.labels.shape[1:] == split.images.shape[2:] == (31, 23)
        assert set(np.unique(split.labels)) == {0, 1, 255}


def test_masks_with_a_palette_hold_indices(masks):
    path = masks / "streets/train/masks/3.png"
    mask = Image.open(path).convert("L")
    indexed = Image.frombytes("P", mask.size, mask.tobytes())
    indexed.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    before = prepare(STREETS, masks)
    indexed.save(path)
    assert prepare(STREETS, masks, into="after").bytes() == before.bytes()


@pytest.mark.parametrize("suffix", ["tif", "bmp"])
def test_masks_of_any_lossless_format_hold_the_same(masks, suffix):
    before = prepare(STREETS, masks)
    for path in (masks / "streets/train/masks").iterdir():
        Image.open(path).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    assert prepare(STREETS, masks, into="after").bytes() == before.bytes()


def test_the_number_of_processes_does_not_change_a_byte(tmp_path):
    for number in range(70):
        save(
            tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.png",
            smooth(number, (20, 30)),
        )
    (tmp_path / "pets/train/cat/broken.png").write_bytes(b"x")
    task = changed(PETS, on_error="skip", noise=0.1)
    made = [prepare(task, tmp_path, processes, f"by{processes}") for processes in (1, 3)]
    assert made[0].bytes() == made[1].bytes()
    assert made[0].report.read_bytes() == made[1].report.read_bytes()
    assert made[0].summary == made[1].summary


# --------------------------------------------------------------------------------------------------
# what is wrong with a folder as a whole


@pytest.mark.parametrize("task", [PETS, STREETS])
def test_a_missing_folder_is_named(tmp_path, task):
    message = fault(task, tmp_path)
    assert str(tmp_path / task.path) in message
    assert "there is no such file or folder" in message


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


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "pets.png").write_bytes(b"x")
    assert fault(changed(PETS, path="pets.png"), tmp_path).startswith(
        f"{tmp_path}/pets.png: neither a folder nor an archive (.zip, .tar, .tar.gz, .tgz)"
    )


def test_folders_of_the_other_kind_are_refused(images):
    streets(images)
    assert "not the layout of mask_folder" in fault(changed(STREETS, path="pets"), images)
    assert "not the layout of image_folder" in fault(changed(PETS, path="streets"), images)


def test_an_image_folder_with_one_class_is_refused(images):
    shutil.rmtree(images / "pets/train/dog")
    assert fault(PETS, images).startswith(
        f"{images}/pets/train: a folder for each class is expected"
    )


def test_a_class_with_control_characters_is_refused(images):
    (images / "pets/train/dog").rename(images / "pets/train/dog\x1b[31m")
    assert fault(PETS, images) == r"x: the class 'dog\x1b[31m' has control characters; rename it"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_without_an_image_is_named(images, split):
    if split != "train":
        shutil.copytree(images / "pets/train", images / "pets" / split)
    (images / "pets/train/emu").mkdir()
    save(images / "pets/train/emu/0.png", picture())
    if split == "train":
        (images / "pets/train/emu/0.png").unlink()
        assert fault(PETS, images) == f"{images}/pets/train: classes without an image: emu"
        return
    made = prepare(PETS, images)  # elsewhere a warning, as with other sources
    assert ("warning", "class", split, "has no sample of emu") in report_of(images)
    assert made.summary["with_class"][split][2] == 0


def test_a_class_that_train_does_not_have_is_named(images):
    shutil.copytree(images / "pets/train", images / "pets/test")
    (images / "pets/test/dog").rename(images / "pets/test/dogs")
    assert fault(PETS, images) == f"{images}/pets/test: classes that train does not have: dogs"


@pytest.mark.parametrize("name", [b"\xff.png", b"two\nlines.png"])
def test_files_whose_names_cannot_be_ids_are_named(images, name):
    path = os.fsencode(images / "pets/train/cat")
    os.rename(path + b"/3.png", path + b"/" + name)  # noqa: PTH104 - no str can name it
    assert "names that are not UTF-8, or of more than one line: 'train/cat/" in fault(PETS, images)


def test_names_may_be_in_any_script(images):
    (images / "pets/train/cat/3.png").rename(images / "pets/train/cat/кот 猫 é.png")
    assert "train/cat/кот 猫 é.png" in prepare(PETS, images).every()


def test_too_few_images_for_three_splits_are_refused(masks):
    for number in range(2, 20):
        for folder in ("images", "masks"):
            (masks / f"streets/train/{folder}/{number}.png").unlink()
    assert "needs two images at least" in fault(STREETS, masks)


def test_a_task_without_a_single_usable_image_is_refused_and_all_are_named_in_the_report(images):
    for path in (images / "pets").rglob("*.*"):
        path.write_bytes(b"x")
    head, *lines = fault(changed(PETS, on_error="skip"), images).split("\n")
    assert head == "x: no sample can be used"
    assert len(lines) == 4
    assert len(report_of(images)) == 16


def test_a_class_of_which_no_image_is_left_is_named(images):
    for path in (images / "pets/train/cat").iterdir():
        path.write_bytes(b"x")
    assert "classes without a training sample: cat" in fault(
        changed(PETS, on_error="skip", validation_share=0.3, test_share=0.3), images
    )


# --------------------------------------------------------------------------------------------------
# what is wrong with single files


def overwritten(content):
    return lambda path: path.write_bytes(content)


def as_truncated(suffix, **options):
    def damage(path):
        new = path.with_suffix(f".{suffix}")
        path.unlink()
        save(new, smooth(0), **options)
        cut_off(new)

    return damage


def as_link_to_nothing(path):
    path.unlink()
    path.symlink_to("nothing.png")


def as_raster(count):
    return lambda path: (
        path.unlink(),
        raster(path.with_suffix(".tif"), np.ones((count, 12, 10), np.uint8)),
    )


def mask_of(values, **options):
    return lambda path: save(path, values, **options)


NOT_READABLE = "not a readable image: "
IMAGE, MASK = "train/cat/3.png", "train/masks/3.png"
BROKEN = {
    "empty": (IMAGE, overwritten(b""), "unreadable", NOT_READABLE + "of no known format"),
    "text": (
        IMAGE,
        overwritten(b"not an image"),
        "unreadable",
        NOT_READABLE + ("of no known format"),
    ),
    "html": (
        IMAGE,
        overwritten(b"<html>404</html>" * 99),
        "unreadable",
        NOT_READABLE + ("of no known format"),
    ),
    "cut png": (IMAGE, as_truncated("png"), "unreadable", NOT_READABLE),
    "cut jpg": (IMAGE, as_truncated("jpg"), "unreadable", NOT_READABLE),
    "cut tif": (IMAGE, as_truncated("tif"), "unreadable", NOT_READABLE),
    "cut bmp": (IMAGE, as_truncated("bmp"), "unreadable", NOT_READABLE),
    "cut webp": (IMAGE, as_truncated("webp"), "unreadable", NOT_READABLE),
    "bomb": (
        IMAGE,
        overwritten(bomb()),
        "unreadable",
        "too large to be read whole, or says so; cut large images",
    ),
    "link": (IMAGE, as_link_to_nothing, "unreadable", "cannot be read: No such file or directory"),
    "bands": (IMAGE, as_raster(5), "bands", "has 5 channels, most images have 3"),
    "no mask": (
        MASK,
        lambda path: path.unlink(),
        "partner",
        "an image without a mask of the same name",
    ),
    "mask cut": (MASK, lambda path: cut_off(path, 0.7), "unreadable", NOT_READABLE),
    "mask empty": (MASK, overwritten(b""), "unreadable", NOT_READABLE + "of no known format"),
    "mask size": (
        MASK,
        mask_of(picture(0, 1, (10, 12))),
        "size",
        "the mask has 12x10 pixels, its image 10x12 pixels; they must be equal",
    ),
    "mask labels": (
        MASK,
        mask_of(np.arange(120).reshape(12, 10) % 5),
        "label",
        "its mask has the labels 2, 3, 4, outside the 2 classes (0 to 1; 255 means ignore)",
    ),
    "mask colour": (
        MASK,
        mask_of(picture(0)),
        "unreadable",
        "a mask has one channel of class indices, not RGB",
    ),
    "mask ignored": (
        MASK,
        mask_of(picture(255, 1)),
        "ignored",
        "its mask has no pixel of any class",
    ),
}


def test_masks_in_black_and_white_are_mended_as_a_message_says(tmp_path):
    root = streets(tmp_path)
    path = root / STREETS.path / MASK
    black_and_white = Image.fromarray(255 * (np.arange(120).reshape(12, 10) % 2).astype(np.uint8))
    black_and_white.convert("RGB").save(path)
    (line,) = faults(STREETS, root)
    assert "Pillow makes it by `mask.convert('L').point(lambda value: value > 127)`" in line
    Image.open(path).convert("L").point(lambda value: value > 127).save(path)
    assert prepare(STREETS, root).summary["left_out"] == {}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_stops_a_task_or_is_left_out_and_is_named_with_what_is_wrong(tmp_path, name):
    file, damage, kind, words = BROKEN[name]
    task = PETS if file == IMAGE else STREETS
    root = pets(tmp_path) if task is PETS else streets(tmp_path)
    damage(root / task.path / file)
    (line,) = faults(task, root)
    named, message = line.split(": ", 1)
    assert named.rpartition(".")[0] == file.replace("masks", "images").rpartition(".")[0]
    if task is STREETS and kind == "unreadable":
        words = f"its mask {file}: {words}"
    assert message.startswith(words)
    assert str(root) not in message
    assert report_of(root) == [("refused", kind, named, message)]
    made = prepare(changed(task, on_error="skip"), root)
    assert made.summary["left_out"] == {kind: 1}
    assert len(made.every()) == (15 if task is PETS else 19)
    assert named not in made.every()
    assert report_of(root) == [("left out", kind, named, message)]


def test_a_mask_without_an_image_is_a_fault_of_the_mask(masks):
    shutil.copy(masks / "streets" / MASK, masks / "streets/train/masks/extra.png")
    assert faults(STREETS, masks) == [
        "train/masks/extra.png: a mask without an image of the same name"
    ]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_two_files_of_one_name_but_for_the_ending_are_refused(masks, part):
    save(masks / f"streets/train/{part}/3.bmp", picture(0, 1))
    name = f"train/{part}/3.bmp: has the name of train/{part}/3.png but for the ending"
    assert faults(STREETS, masks) == [name]
    assert len(prepare(changed(STREETS, on_error="skip"), masks).every()) == 19


@pytest.mark.parametrize("broken", [b"", b"not an image", None])
def test_all_unreadable_images_are_named_at_once(images, broken):
    names = ["train/cat/3.png", "train/dog/3.jpg"]
    for name in names:
        path = images / "pets" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if broken is None else broken)
    assert [line.split(": ")[:2] for line in faults(PETS, images)] == [
        [name, "not a readable image"] for name in names
    ]


def test_messages_name_a_few_files_of_each_kind_and_the_report_all(images):
    for number in range(6):
        (images / f"pets/train/cat/{number}.png").write_bytes(b"x")
    raster(images / "pets/train/dog/deep.tif", np.ones((4, 12, 10), np.uint8), alpha="NO")
    lines = faults(PETS, images)
    named = [f"train/cat/{number}.png" for number in range(3)]
    assert [line.split(":")[0] for line in lines] == [
        *named,
        "… and 3 more (files that cannot be read)",
        "train/dog/deep.tif",
    ]
    assert [row[2] for row in report_of(images)] == [
        "train/dog/deep.tif", *(f"train/cat/{number}.png" for number in range(6))
    ]  # fmt: skip


def test_files_that_are_left_out_have_no_say_in_the_type_of_the_others(images):
    path = images / "pets/train/cat/3.png"
    path.unlink()
    raster(path.with_suffix(".tif"), np.ones((5, 12, 10), np.float32))
    made = prepare(changed(PETS, on_error="skip"), images)
    assert made.summary["left_out"] == {"bands": 1}
    assert (made.summary["pixel"], made.summary["channels"]) == ("uint8", 3)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("dying", [{"train/cat/20.png"}, {"train/cat/0.png", "train/dog/49.png"}])
def test_a_file_at_which_its_process_dies_is_reported_and_all_others_are_prepared(
    tmp_path, monkeypatch, dying, processes
):
    monkeypatch.setattr(decoding, "_CHUNK", 4)
    opened = Opener.open
    monkeypatch.setattr(
        Opener, "open", lambda self, name: os._exit(9) if name in dying else opened(self, name)
    )
    for number in range(50):
        save(
            tmp_path / f"pets/train/{'cat' if number % 2 == 0 else 'dog'}/{number}.png",
            smooth(number, (12, 10)),
        )
    made = prepare(changed(PETS, on_error="skip"), tmp_path, processes)
    words = "its process died with exit code 9; a damaged file that its decoder does not survive"
    assert report_of(tmp_path) == [
        ("left out", "unreadable", name, words) for name in sorted(dying)
    ]
    assert len(made.every()) == 50 - len(dying)
    assert not dying & made.every().keys()


def test_a_process_that_is_killed_from_outside_is_no_fault_of_a_file_and_never_skipped(
    images, monkeypatch
):
    opened, deadly = Opener.open, "train/cat/3.png"
    monkeypatch.setattr(
        Opener,
        "open",
        lambda self, name: (
            os.kill(os.getpid(), signal.SIGKILL) if name == deadly else opened(self, name)
        ),
    )
    message = fault(changed(PETS, on_error="skip"), images)
    assert f"{deadly}: its process died of SIGKILL; is there enough memory" in message


def test_an_error_of_the_package_is_no_fault_of_a_file(images, monkeypatch):
    monkeypatch.setattr(decoding, "resized", lambda pixels, size: pixels.no_such_thing)
    with pytest.raises(RuntimeError, match="no_such_thing"):
        prepare(changed(PETS, on_error="skip"), images)


def test_a_split_of_which_nothing_can_be_used_is_not_cut_anew(images):
    shutil.copytree(images / "pets/train", images / "pets/test")
    for path in (images / "pets/test").rglob("*.*"):
        path.write_bytes(b"broken")
    assert "the split test needs two images at least, and has 0" in fault(
        changed(PETS, on_error="skip"), images
    )


def test_a_part_of_the_classes_that_a_given_test_lacks_has_no_test(tmp_path):
    rows = ["path,label,split"]
    for number in range(40):
        save(tmp_path / f"{number}.png", smooth(number))
        rows.append(f"{number}.png,{number % 4},train")
    for number in range(40, 46):
        save(tmp_path / f"{number}.png", smooth(number))
        rows.append(f"{number}.png,{number % 2},test")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    task = Table(source="table", path="t.csv", image_size=8)
    assert "the split test needs two images at least, and has 0" in fault(
        changed(task, part=[2, 2]), tmp_path
    )
    assert len(prepare(changed(task, part=[1, 2]), tmp_path).splits["test"]) == 6


def test_too_little_memory_is_no_fault_of_a_file_and_never_skipped(images, monkeypatch):
    def greedy(pixels, size):
        raise MemoryError

    monkeypatch.setattr(decoding, "resized", greedy)
    message = fault(changed(PETS, on_error="skip"), images)
    assert "there is not enough memory to read it" in message


@pytest.mark.parametrize("name", ["train/8.png", "train/cat/more/9.png"])
def test_images_at_another_depth_are_not_passed_over_silently(images, name):
    save(images / "pets" / name, picture())
    assert f"{name}: an image that lies in no class, or too deep" in fault(PETS, images)
    assert prepare(changed(PETS, on_error="skip"), images).summary["left_out"] == {"elsewhere": 1}


def test_a_task_may_have_more_classes_than_a_byte_can_count(tmp_path):
    rows = ["path,label"]
    for number in range(270 * 4):
        save(tmp_path / f"{number}.png", [[number % 256]])
        rows.append(f"{number}.png,class{number % 270:03d}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    made = prepare(Table(source="table", path="t.csv", image_size=1, duplicates="warn"), tmp_path)
    assert len(made.header.classes) == 270
    assert made.splits["train"].labels.max() == 269


def test_masks_that_hold_one_class_are_refused_with_what_masks_hold(masks):
    for path in (masks / "streets/train/masks").iterdir():
        mask = np.asarray(Image.open(path))
        save(path, np.where(mask == 1, 255, mask))
    message = fault(STREETS, masks)
    assert "the training masks hold one class, and nothing of sky" in message
    assert "255 means ignore: where it marks an object, make it 1" in message


def test_masks_of_another_convention_than_others_are_named(masks):
    """Where some have 255 for an object and others 1, the former lose it without a word."""
    first, *_ = sorted((masks / "streets/train/masks").iterdir())
    mask = np.asarray(Image.open(first))
    save(first, np.where(np.arange(mask.size).reshape(mask.shape) % 2, 255, 0))
    prepare(STREETS, masks)
    words = "holds 0 and 255 alone, which is ignored; did it mean a class (such as 1)?"
    named = f"train/masks/{first.name}"
    assert ("warning", "label", named, words) in report_of(masks)


@pytest.mark.parametrize(("channels", "fits"), [((3,), True), ((1, 3), False), ((13,), False)])
def test_images_that_a_network_cannot_take_are_refused_before_anything_is_trained(
    images, channels, fits
):
    train, test, report = paths(images)
    arguments = ("x", PETS, images, train, test, report, 1, channels)
    if fits:
        preparation.prepare(*arguments)
        return
    with pytest.raises(DataError, match="its images have 3 channels"):
        preparation.prepare(*arguments)
    assert not train.exists()
