"""Images that are there and would not be used: counted and named, or refused with what was meant;
names that look alike; names that would disturb a terminal; links to folders."""

import csv
import shutil
import unicodedata
import zipfile

import pytest

from acll.cli.main import main
from acll.data.errors import DataError
from acll.data.faults import DataFault, write_faults
from acll.data.names import part_meant, split_like, split_meant
from acll.data.sources.table import Table
from acll.data.storage import storage_of, walk
from acll.errors import UserError, harmless, quoted
from datasets import (
    PETS,
    STREETS,
    changed,
    fault,
    faults,
    pack,
    pets,
    picture,
    prepare,
    report_of,
    save,
    streets,
)

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def images(tmp_path):
    return pets(tmp_path)


@pytest.fixture
def masks(tmp_path):
    return streets(tmp_path)


def unused(root):
    """The files that the report says are not used."""
    return [row[2] for row in report_of(root) if row[:2] == ("warning", "unused")]


# --------------------------------------------------------------------------------------------------
# files that are not used


@pytest.mark.parametrize(
    "name",
    [
        "train/cat/x.avif",
        "train/cat/x.heic",
        "train/cat/x.jp2",
        "train/cat/x.TGA",
        "train/cat/x.psd",
        "train/cat/without_an_ending",
        "train/cat/x.png.bak",
        "train/cat/more.zip",
        "train/cat/.hidden.png",
        "train/cat/.hidden/x.png",
        "train/.c/x.png",
        "train/.c/deep/.x.png",
        ".val/cat/x.JPG",
        "extra/cat/x.png",
        "train/x.avif",
        "loose.png",
    ],
)
def test_a_file_that_an_image_folder_does_not_use_is_counted_and_named(images, name):
    before = prepare(PETS, images).bytes()
    save(images / "x.png", picture())
    (images / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(images / "x.png", images / "pets" / name)
    made = prepare(PETS, images)
    assert made.bytes() == before
    assert made.summary["warnings"] == {"unused": 1}
    assert unused(images) == [name]


def test_files_that_an_archive_holds_in_vain_are_counted_and_named(images):
    before = prepare(PETS, images).bytes()
    names = ["extra/cat/x.png", "loose.png", "train/.c/deep/.x.png", "train/cat/.hidden.png",
             "train/cat/more.zip", "train/cat/without_an_ending", "train/cat/x.avif"]  # fmt: skip
    for name in names:
        (images / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        save(images / "x.png", picture())
        shutil.copy(images / "x.png", images / "pets" / name)
    pack(images / "pets", images / "pets.zip")
    made = prepare(changed(PETS, path="pets.zip"), images)
    assert made.bytes() == before
    assert made.summary["warnings"] == {"unused": len(names)}
    assert sorted(unused(images)) == names


@pytest.mark.parametrize(
    "name",
    ["README", "train/cat/notes.txt", "LICENSE.md", "train/Thumbs.db", "._x.png", "labels.csv",
     "__MACOSX/train/cat/x.png", ".git/x.png", "train/cat/0.tfw", "train/.DS_Store",
     "train/.ipynb_checkpoints/x.png", "train/cat/.ipynb_checkpoints/x.png", "train/.c/notes.txt",
     ".Trash-1000/x.png", ".more/._x.png"],
)  # fmt: skip
def test_what_lies_beside_images_and_is_none_is_no_matter(images, name):
    path = images / "pets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    if "MACOSX" in name:
        pack(images / "pets", images / "pets.zip")
        assert prepare(changed(PETS, path="pets.zip"), images).summary["warnings"] == {}
    else:
        assert prepare(PETS, images).summary["warnings"] == {}


@pytest.mark.parametrize(
    "name",
    ["train/images/more/x.png", "train/masks/more/x.png", "train/x.png", "train/depth/x.png",
     "train/images/x.avif", "x.png", "train/images/.more/x.png", "train/.masks/x.png"],
)  # fmt: skip
def test_a_file_that_a_mask_folder_does_not_use_is_counted_and_named(masks, name):
    before = prepare(STREETS, masks).bytes()
    save(masks / "x.png", picture())
    (masks / "streets" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(masks / "x.png", masks / "streets" / name)
    assert prepare(STREETS, masks).bytes() == before
    assert unused(masks) == [name]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_hidden_images_beside_the_folder_around_everything_are_counted(images, ending):
    before = prepare(PETS, images).bytes()
    for name in ("pets/.c/x.png", ".c/x.png", ".d/x.png"):
        (images / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        save(images / "all" / name, picture())
    shutil.copytree(images / "pets", images / "all/pets", dirs_exist_ok=True)
    archive = pack(images / "all", images / f"x.{ending}")
    made = prepare(changed(PETS, path=archive.name), images)
    assert made.bytes() == before
    assert unused(images) == ["../.c/x.png", "../.d/x.png", ".c/x.png"]


def test_a_hidden_folder_that_cannot_be_read_is_no_matter(images, monkeypatch):
    from acll.data import storage

    scan = storage.os.scandir

    def refused(path):
        if str(path).rstrip("/").endswith(".locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    (images / "pets/.locked").mkdir()
    monkeypatch.setattr(storage.os, "scandir", refused)
    assert prepare(PETS, images).summary["warnings"] == {}


def test_what_a_table_does_not_name_is_counted_where_it_names_others(images):
    rows = [
        (f"pets/train/{label}/{number}.{ending}", label)
        for label, ending in (("cat", "png"), ("dog", "jpg"))
        for number in range(7)
    ]
    (images / "t.csv").write_text("path,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    save(images / "other/x.png", picture())
    prepare(Table(source="table", path="t.csv", image_size=8), images)
    assert unused(images) == ["pets/train/cat/7.png", "pets/train/dog/7.jpg"]


def test_a_file_that_is_used_under_another_name_is_used(images):
    (images / "pets/pool").mkdir()
    (images / "pets/train/cat").rename(images / "pets/pool/cat")
    (images / "pets/train/cat").symlink_to(images / "pets/pool/cat")
    made = prepare(PETS, images)
    assert made.summary["warnings"] == {}
    assert len(made.every()) == 16


# --------------------------------------------------------------------------------------------------
# near misses of the layout


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("folder", "meant"),
    [
        ("valid", "val"),
        ("validation", "val"),
        ("dev", "val"),
        ("Val", "val"),
        ("val2017", "val"),
        ("Validation Set", "val"),
        ("testing", "test"),
        ("TEST", "test"),
        ("test_images", "test"),
    ],
)
@pytest.mark.parametrize("task", [PETS, STREETS])
def test_a_split_of_another_name_is_refused_with_what_is_meant(
    tmp_path, task, folder, meant, packed
):
    root = pets(tmp_path) if task is PETS else streets(tmp_path)
    shutil.copytree(root / task.path / "train", root / task.path / folder)
    if packed:
        task = changed(task, path=pack(root / task.path, root / "x.zip").name)
    assert f"has a folder `{folder}`, which is not read; did you mean `{meant}`?" in fault(
        task, root
    )


def test_a_folder_beside_a_split_that_is_there_is_counted(images):
    for folder in ("val", "dev"):
        shutil.copytree(images / "pets/train", images / "pets" / folder)
    assert prepare(PETS, images).summary["warnings"]["unused"] == 16


@pytest.mark.parametrize("around", ["", "pets/"])
@pytest.mark.parametrize("folder", ["training", "Train", "TRAIN", "trn", "train_set"])
@pytest.mark.parametrize("packed", [False, True])
def test_train_of_another_name_is_refused_with_what_is_meant(images, folder, packed, around):
    (images / "pets/train").rename(images / "pets" / folder)
    task = PETS
    if packed:
        task = changed(PETS, path=pack(images / "pets", images / "x.zip", around).name)
    elif around:
        return
    assert f"has no folder `train`, but `{folder}`; did you mean `train`?" in fault(task, images)


@pytest.mark.parametrize("packed", [False, True])
def test_a_layout_that_begins_deeper_is_refused_with_where_it_is(images, packed):
    (images / "around/raw/data").mkdir(parents=True)
    (images / "around/other").mkdir()
    (images / "around/other/notes.txt").write_text("x")
    (images / "pets/train").rename(images / "around/raw/data/train")
    task = changed(PETS, path="around")
    words = "but `raw/data/train`; end the `path` of the task with `/raw/data`"
    if packed:
        task = changed(PETS, path=pack(images / "around", images / "x.tar").name)
        words = "but `raw/data/train`; pack what is in `raw/data`, and nothing else"
    assert words in fault(task, images)
    if not packed:
        assert len(prepare(changed(PETS, path="around/raw/data"), images).every()) == 16


def test_a_folder_around_everything_in_an_archive_may_be_called_like_a_split(images):
    before = prepare(PETS, images).bytes()
    archive = pack(images / "pets", images / "x.zip", "training_data/")
    assert prepare(changed(PETS, path=archive.name), images).bytes() == before


def test_without_train_the_message_says_what_is_there(images):
    shutil.move(images / "pets/train/cat", images / "pets/cat")
    shutil.move(images / "pets/train/dog", images / "pets/dog")
    (images / "pets/train").rmdir()
    assert "has no folder `train`; there is cat, dog; move it into" in fault(PETS, images)


def test_an_archive_with_backslashes_is_refused_with_what_to_do(images):
    with zipfile.ZipFile(images / "x.zip", "w") as packed:
        for number in range(4):
            for label in ("cat", "dog"):
                info = zipfile.ZipInfo("x")
                info.filename = f"train\\{label}\\{number}.png"
                packed.writestr(info, (images / "pets/train/cat/0.png").read_bytes())
    assert "its names are written with \\, so pack it again" in fault(
        changed(PETS, path="x.zip"), images
    )


@pytest.mark.parametrize("name", ["val/cat/x.avif", "val/readme.txt", "test/nothing/"])
def test_a_split_without_an_image_is_not_cut_from_train(images, name):
    path = images / "pets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
    assert f"/{name.split('/')[0]}: holds no images" in fault(PETS, images)


@pytest.mark.parametrize(
    ("name", "split"),
    [("val.zip", "val"), ("test.tar.gz", "test"), ("my_val.7z", "val"), ("TestSet.rar", "test"),
     ("val.v2.zip", "val")],
)  # fmt: skip
def test_a_split_in_an_archive_beside_the_others_is_not_cut_from_train(images, name, split):
    (images / "pets" / name).write_bytes(b"x")
    assert f"has an archive `{name}`, which is not read" in fault(PETS, images)
    (images / "pets" / split).mkdir()
    shutil.copytree(images / "pets/train", images / "pets" / split, dirs_exist_ok=True)
    prepare(PETS, images)  # what it was unpacked to is there


def test_a_folder_of_another_name_is_told_before_an_archive(images):
    shutil.make_archive(str(images / "pets/train"), "zip", images / "pets/train")
    (images / "pets/train").rename(images / "pets/Train")
    assert "did you mean `train`?" in fault(PETS, images)


def test_train_in_an_archive_is_told_as_such(images):
    shutil.make_archive(str(images / "pets/train"), "zip", images / "pets/train")
    shutil.rmtree(images / "pets/train")
    assert "has an archive `train.zip`, which is not read; unpack it" in fault(PETS, images)


@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize("around", ["", "data/"])
@pytest.mark.parametrize(
    ("empty", "words"), [("val", "/val: holds no images"), ("train/horse", "horse")]
)
def test_an_empty_folder_is_refused_in_an_archive_too(images, ending, around, empty, words):
    (images / "pets" / empty).mkdir()
    assert words in fault(PETS, images)
    shutil.copytree(images / "pets", images / "around" / around, dirs_exist_ok=True)
    shutil.make_archive(str(images / "x"), ending, images / "around")
    assert words in fault(changed(PETS, path=f"x.{ending}"), images)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("part", "folder"),
    [("masks", "mask"), ("masks", "labels"), ("masks", "Masks"), ("masks", "ground_truth"),
     ("images", "image"), ("images", "imgs"), ("images", "JPEGImages")],
)  # fmt: skip
def test_parts_of_another_name_are_refused_with_what_is_meant(masks, part, folder, split):
    shutil.copytree(masks / "streets/train", masks / "streets/val")
    (masks / "streets" / split / part).rename(masks / "streets" / split / folder)
    assert f"/{split}: has a folder `{folder}`; did you mean `{part}`?" in fault(STREETS, masks)


@pytest.mark.parametrize(("before", "after"), [("", "_mask"), ("seg_", ""), ("m-", "_gt")])
def test_masks_with_more_in_their_names_are_told_with_what_to_take_away(masks, before, after):
    folder = masks / "streets/train/masks"
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"{before}{path.stem}{after}{path.suffix}"))
    parts = " and ".join(f"`{part}`" for part in (before, after) if part)
    assert f"is there: take {parts} from the names of masks" in fault(STREETS, masks)


def test_images_and_their_masks_are_no_classes(masks):
    (masks / "streets/train/masks").rename(masks / "streets/train/labels")
    assert "not the layout of image_folder" in fault(changed(PETS, path="streets"), masks)


@pytest.mark.parametrize(
    "word",
    ["valley", "trainer", "testament", "contest", "images", "masks", "", "2017", "cat", "dataset",
     "test_tube", "train_station", "train_val", "test_val"],
)  # fmt: skip
def test_other_folders_mean_no_split(word):
    assert split_meant(word) is None
    assert split_like(word) is None


@pytest.mark.parametrize(
    ("folder", "split"),
    [("testset", "test"), ("valdata", "val"), ("val_v2", "val"), ("my_val", "val"),
     ("new test images", "test"), ("Validation Set", "val"), ("trainset", "train")],
)  # fmt: skip
def test_a_folder_means_a_split_whatever_stands_beside_the_word(folder, split):
    assert split_like(folder) == split


@pytest.mark.parametrize("word", ["depth", "imagination", "train", "", "masquerade"])
def test_other_folders_mean_no_part(word):
    assert part_meant(word) is None


# --------------------------------------------------------------------------------------------------
# names that look alike


@pytest.mark.parametrize(
    "names", [(NFC, NFD), ("cat", "cat "), ("cat", "cat\u00a0"), ("a b", "a  b")]
)
def test_classes_that_look_the_same_are_refused(images, names):
    for old, new in zip(("cat", "dog"), names):
        (images / "pets/train" / old).rename(images / "pets/train" / new)
    message = fault(PETS, images)
    words = "classes that differ only by blanks, letters that are not seen or their Unicode form: "
    assert words in message
    assert ascii(sorted(names)[0]) in message


def test_classes_that_differ_by_their_case_are_a_warning(images):
    (images / "pets/train/dog").rename(images / "pets/train/Cat")
    made = prepare(PETS, images)
    assert made.header.classes == ("Cat", "cat")
    assert made.summary["warnings"] == {"likeness": 2}


@pytest.mark.parametrize(("train", "test"), [(NFC, NFD), ("cat", "Cat"), ("cat", "cat ")])
def test_a_class_that_train_has_under_nearly_that_name_is_named(images, train, test):
    shutil.copytree(images / "pets/train", images / "pets/test")
    (images / "pets/train/cat").rename(images / "pets/train" / train)
    (images / "pets/test/cat").rename(images / "pets/test" / test)
    message = fault(PETS, images)
    assert "classes that train does not have" in message
    assert ascii(train) in message
    assert ascii(test) in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pets\\train\\cat\\0.png", "written with / in place of \\"),
        ("pets/train/Cat/0.PNG", "written in another case"),
        (f"pets/train/{NFD}/0.png", "written in another Unicode form"),
        ("pets/train/cat/0 .png", None),
        ("pets/train/emu/0.png", None),
        ("x" * 5000, None),
    ],
)
def test_a_file_of_nearly_the_name_in_a_table_is_named(images, name, words):
    shutil.copytree(images / "pets/train/cat", images / "pets/train" / NFC)
    (images / "t.csv").write_text(f"path,label\n{name},cat\npets/train/dog/1.jpg,dog\n")
    (line,) = faults(Table(source="table", path="t.csv", image_size=8), images)
    assert f"{name}: named in t.csv, but not there" in line
    if words is None:
        assert line.endswith("but not there")
    else:
        folder = NFC if NFD in name else "cat"
        assert line.endswith(f"; pets/train/{folder}/0.png is, {words}")


def test_a_table_that_names_a_folder_is_told_so(images):
    (images / "t.csv").write_text("path,label\npets/train,cat\npets/train/dog/1.jpg,dog\n")
    (line,) = faults(Table(source="table", path="t.csv", image_size=8), images)
    assert line == "pets/train: named in t.csv, but a folder"


def test_a_mask_of_nearly_the_name_of_its_image_is_named(masks):
    folder = masks / "streets/train"
    (folder / "images/3.png").rename(folder / f"images/{NFC}.png")
    (folder / "masks/3.png").rename(folder / f"masks/{NFD}.png")
    lines = faults(STREETS, masks)
    assert len(lines) == 2
    assert all("is there, written in another Unicode form" in line for line in lines)


@pytest.mark.parametrize(
    ("there", "asked", "words"),
    [("Pets2", "pets2", "another case"), (NFC, NFD, "another Unicode form")],
)
def test_a_path_in_the_configuration_of_nearly_the_name_is_named(tmp_path, there, asked, words):
    (tmp_path / there).mkdir()
    message = fault(changed(PETS, path=asked), tmp_path)
    assert f"there is no such file or folder; {there} is, written in {words}" in message


def test_a_data_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=f"nor a folder {tmp_path}/a; mend the path"):
        PETS.manifest(tmp_path / "a/b")


# --------------------------------------------------------------------------------------------------
# names that would disturb


ODD = [
    "\x1b[31mred",
    "a\rb",
    "a\tb",
    "\x9b2J",
    "\u202egnp",
    "\u2066x",
    "\udcff",
    "a\nb",
    "\x00",
    "\x7f",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_is_harmless_wherever_it_is_said(tmp_path, capsys, text):
    said = harmless(text)
    assert said.isprintable()
    assert said.encode()
    assert quoted(text) == said
    assert harmless(said) == said
    one = DataFault("missing", text, f"not {text}")
    assert (one.file, one.message) == (said, f"not {said}")
    write_faults(tmp_path / "x.csv", refused=[one])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["refused", "missing", said, f"not {said}"]
    lines = str(UserError(f"a {text}")).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 1 + ("\n" in text)


def test_text_of_all_scripts_stays_as_it_is():
    for text in ("Löwe", "кот 猫", "می‌خواهم", "👩‍👩‍👧", "ﷺ", "a\u00a0b"):
        assert harmless(text) == text == str(UserError(text))


def test_a_file_whose_name_is_an_escape_is_said_harmlessly_and_used(images):
    path = images / "pets/train/cat/\x1b[2J\u202e.png"
    path.write_bytes(b"x")
    (line,) = faults(PETS, images)
    assert line.startswith(r"train/cat/\x1b[2J\u202e.png: not a readable image")
    save(path, picture(77))
    assert "train/cat/\x1b[2J\u202e.png" in prepare(PETS, images).every()


def test_a_path_on_the_command_line_is_said_harmlessly(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["table", f"{tmp_path}/\x1b[2Jx"])
    assert "\\x1b[2Jx/tables/tables.txt" in capsys.readouterr().err


def test_an_error_of_the_system_is_said_harmlessly(tmp_path, capsys):
    (tmp_path / "\x1b[2Jx").mkdir()
    with pytest.raises(SystemExit):
        main(["check", f"{tmp_path}/\x1b[2Jx"])
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\\x1b[2Jx" in error


# --------------------------------------------------------------------------------------------------
# links to folders


def circle(root):
    (root / "a/b").mkdir(parents=True)
    (root / "a/x").touch()
    (root / "a/b/y").touch()
    (root / "a/b/up").symlink_to("..")
    (root / "a/b/root").symlink_to(root)
    (root / "a/self").symlink_to("self")
    return {"a/x", "a/b/y", "a/self"}


def outside(root):
    (root.parent / "outside/in").mkdir(parents=True)
    (root.parent / "outside/in/x").touch()
    (root.parent / "outside/in/back").symlink_to(root)
    (root.parent / "outside/in/up").symlink_to("..")
    root.mkdir()
    (root / "a").symlink_to(root.parent / "outside")
    return {"a/in/x"}


def crowd(root):
    """Twelve folders with links to all the others: there are 12! ways through them."""
    for number in range(12):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / "x").touch()
        for other in range(12):
            if other != number:
                (root / str(number) / f"to{other}").symlink_to(f"../{other}")
    return


@pytest.mark.parametrize("made", [circle, outside, crowd])
def test_links_to_folders_are_followed_and_end(tmp_path, made):
    root = tmp_path / "root"
    expected = made(root)
    names = walk(root).files
    assert len(names) == len(set(names)) < 20_000
    if expected is not None:
        assert set(names) == expected
        assert storage_of(root).names() == sorted(expected)


def test_hidden_links_to_folders_take_none_from_others(tmp_path):
    (tmp_path / "outside/z").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "outside/z/x.png").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/.h").symlink_to(tmp_path / "outside")
    (tmp_path / "in/z").symlink_to(tmp_path / "outside")
    (tmp_path / "root/a").symlink_to(tmp_path / "in")
    (tmp_path / "root/.h").symlink_to(tmp_path / "outside")
    place = storage_of(tmp_path / "root")
    assert (place.names(), place.hidden()) == (["a/z/z/x.png"], [])


def test_a_split_may_be_a_link(images):
    (images / "pets/train").rename(images / "elsewhere")
    (images / "pets/train").symlink_to(images / "elsewhere")
    shutil.copytree(images / "elsewhere", images / "pets/test")
    made = prepare(PETS, images)
    assert len(made.splits["test"]) == 16
    assert len(made.every()) == 32


def test_a_folder_that_cannot_be_read_is_named(images, monkeypatch):
    from acll.data import storage

    scan = storage.os.scandir

    def refused(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(storage.os, "scandir", refused)
    assert "cat: cannot be read: Permission denied" in fault(PETS, images)
