"""Sources of data: torchvision's datasets and their download, CUB-200-2011, COCO, tables, raw data
under DVC."""

import csv as rows_of
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlparse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import miniatures
from acll.data import prepared
from acll.data.errors import DataError
from acll.data.identity import identity
from acll.data.preparation import prepare
from acll.data.sources import torchvision as torchvision_source
from acll.data.sources.coco import Coco
from acll.data.sources.cub200 import Cub200
from acll.data.sources.image_folder import ImageFolder
from acll.data.sources.table import Table
from acll.data.sources.torchvision import Torchvision
from datasets import SPECIAL, pack, pets, soon
from miniatures import DATASETS, MASKS, PUBLISHED, SEGMENTED, label_of, save, truncate, write

SPLITS = ("train", "val", "test")
ALL = [
    *(("classification", name) for name in DATASETS),
    *(("segmentation", name) for name in SEGMENTED),
]
IN_FILES = [(kind, name) for kind, name in ALL if (DATASETS | SEGMENTED)[name].image]


@pytest.fixture
def prepared_of(tmp_path, monkeypatch):
    """Prepare a task: its ids, images and labels by split, its header, and what the report says."""
    monkeypatch.setitem(prepared._allowed, "test", True)
    folder = tmp_path / "prepared"
    folder.mkdir()
    paths = folder / "t.train.safetensors", folder / "t.test.safetensors", folder / "t.csv"

    def made(task, root=tmp_path):
        summary = prepare("t", task, root, *paths, 1)
        found = SimpleNamespace(summary=summary, bytes=[path.read_bytes() for path in paths[:2]])
        with paths[2].open(newline="") as file:
            found.report = list(rows_of.DictReader(file))
        tensors, found.header = prepared.read_prepared(paths[0])
        tensors |= prepared.read_prepared(paths[1])[0]
        found.images = {split: tensors[f"{split}_images"].numpy() for split in SPLITS}
        found.labels = {split: tensors[f"{split}_labels"].numpy() for split in SPLITS}
        found.ids = {split: prepared.ids(paths[split == "test"], split) for split in SPLITS}
        return found

    return made


def fault(task, root, prepare_it) -> str:
    with pytest.raises(DataError) as caught:
        prepare_it(task, root)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------
# torchvision


def torchvision(kind, name, **changes):
    side = (DATASETS if kind == "classification" else SEGMENTED)[name].side
    if kind == "segmentation":
        changes = {"validation_share": 0.5} | changes
    return Torchvision(
        source="torchvision", dataset=name, kind=kind, path="sets", image_size=side, **changes
    )


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Write the miniature of a dataset into the folder `sets`: (task, miniature, ids of its own
    splits)."""

    def written(kind, name, **changes):
        miniature = (DATASETS if kind == "classification" else SEGMENTED)[name]
        ids = miniature.write(tmp_path / "sets")
        miniatures.trust(monkeypatch, name, tmp_path / "sets")
        return torchvision(kind, name, **changes), miniature, ids

    return written


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_dataset_of_torchvision_is_prepared_with_its_own_splits(dataset, prepared_of, kind, name):
    task, miniature, ids = dataset(kind, name)
    made = prepared_of(task)
    assert len(made.header.classes) == miniature.classes
    assert made.header.classes[: len(miniature.first)] == miniature.first
    assert made.header.kind == kind
    cut = [split for split in SPLITS if split not in ids]
    for split in ids:
        expected = set(ids[split])
        found = {
            *made.ids[split],
            *(name for other in cut for name in made.ids[other] if split == "train"),
        }
        assert found == expected
    for split in SPLITS:
        assert len(made.ids[split]) == len(made.images[split]) == len(made.labels[split]) >= 2
        assert made.images[split].shape[1:] == (miniature.channels, miniature.side, miniature.side)
        assert made.ids[split] == sorted(made.ids[split])
        if kind == "classification":
            assert list(made.labels[split]) == [label_of(image) for image in made.images[split]]
            assert sorted(made.labels[split]) == list(range(miniature.classes))
    assert not [row for row in made.report if row["treated"] == "left out"]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_files_that_a_dataset_is_read_from_are_its_identity(dataset, tmp_path, kind, name):
    task, miniature, _ = dataset(kind, name)
    known = {path for path in (tmp_path / "sets").rglob("*") if path.is_file()}
    assert set(task.raw_files(tmp_path)) == known
    before = identity(task, tmp_path, tmp_path / "cache.json")
    for place in (
        "x.tar.gz",
        "MNIST/raw/x.gz",
        "VOCdevkit/VOC2012/x.tar",
        "oxford-iiit-pet/images.tgz",
        "gtsrb/x.zip",
    ):
        write(tmp_path / "sets" / place, "an archive that it came in")
    assert set(task.raw_files(tmp_path)) == known
    assert identity(task, tmp_path, tmp_path / "cache.json") == before
    changed = tmp_path / "sets" / miniature.image if miniature.image else sorted(known)[0]
    changed.write_bytes(changed.read_bytes() + b"x")
    assert identity(task, tmp_path, tmp_path / "cache.json") != before


@pytest.mark.parametrize(("kind", "name"), IN_FILES)
def test_a_truncated_image_of_a_dataset_is_reported_by_name(
    dataset, prepared_of, tmp_path, kind, name
):
    task, miniature, _ = dataset(kind, name)
    truncate(tmp_path / "sets" / miniature.image)
    message = fault(task, tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert f"{miniature.image}: not a readable image" in message
    assert (tmp_path / "prepared/t.csv").read_text().count("refused,unreadable,") == 1


@pytest.mark.parametrize("name", SEGMENTED)
@pytest.mark.parametrize("content", ["truncated", "changed", "gone", "in colour"])
def test_a_mask_of_a_dataset_that_cannot_be_used_is_reported_by_its_image(
    dataset, prepared_of, tmp_path, name, content
):
    task, miniature, _ = dataset("segmentation", name)
    mask = tmp_path / "sets" / MASKS[name]
    if content == "truncated":
        truncate(mask)
    elif content == "changed":  # a chunk whose checksum is wrong
        at = mask.read_bytes().index(b"IDAT")
        mask.write_bytes(mask.read_bytes()[: at + 6] + b"\0\0\0" + mask.read_bytes()[at + 9 :])
    elif content == "gone":
        mask.unlink()
    else:
        save(mask, np.zeros((16, 16, 3)))
    message = fault(task, tmp_path, prepared_of)
    assert f"{miniature.image}: " in message
    assert "1 file cannot be used" in message


@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize("there", [False, True])
def test_a_dataset_that_is_not_there_comes_with_what_to_do(
    tmp_path, prepared_of, kind, name, there
):
    if there:  # the folder with something else
        write(tmp_path / "sets/other/file", "x")
    message = fault(torchvision(kind, name), tmp_path, prepared_of)
    assert str(tmp_path / "sets") in message
    assert name in message
    by_hand = name in ("StanfordCars", "Cityscapes")
    assert ("by hand" in message) == by_hand
    assert ("make download" in message) == (not by_hand)


def test_voc_masks_hold_indices_and_255_is_ignored(dataset, prepared_of):
    made = prepared_of(dataset("segmentation", "VOCSegmentation")[0])
    for split in SPLITS:
        assert (made.labels[split][:, 0] == 255).all()
        assert (made.labels[split][:, 1:, :8] == made.header.classes.index("person")).all()
        assert (made.labels[split][:, 1:, 8:] == 0).all()
    assert made.ids["test"] == [
        f"VOCdevkit/VOC2012/JPEGImages/2007_{number:06d}.jpg" for number in (2, 3)
    ]


def test_trimaps_of_pets_become_pet_and_background_and_the_border_is_ignored(dataset, prepared_of):
    made = prepared_of(dataset("segmentation", "OxfordIIITPet")[0])
    for split in SPLITS:
        assert (made.labels[split][:, 0] == 255).all()
        assert (made.labels[split][:, 1:, :8] == made.header.classes.index("pet")).all()
        assert (made.labels[split][:, 1:, 8:] == made.header.classes.index("background")).all()


def test_masks_of_cityscapes_hold_training_numbers_and_all_else_is_ignored(dataset, prepared_of):
    made = prepared_of(dataset("segmentation", "Cityscapes")[0])
    assert made.header.classes[13] == "car"
    for split in SPLITS:
        assert (made.labels[split][:, :3] == 255).all()
        assert (made.labels[split][:, 3:, :8] == made.header.classes.index("road")).all()
        assert (made.labels[split][:, 3:, 8:] == made.header.classes.index("car")).all()
    assert all("/val/lindau/" in name for name in made.ids["test"])
    assert all("/train/" in name for split in ("train", "val") for name in made.ids[split])


def test_the_order_in_which_a_disk_lists_files_changes_nothing(dataset, prepared_of, monkeypatch):
    task, _, _ = dataset("segmentation", "Cityscapes")
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path)))
    before = prepared_of(task).bytes
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path), reverse=True))
    assert prepared_of(task).bytes == before


def test_tiles_of_a_dataset_are_parts_of_its_images_and_masks(dataset, prepared_of):
    task, _, _ = dataset("segmentation", "VOCSegmentation", tile_overlap=0)
    made = prepared_of(task.model_copy(update={"image_size": (8, 16)}))
    lower = [index for index, name in enumerate(made.ids["test"]) if name.endswith("#8,0")]
    assert len(lower) == len(made.ids["test"]) // 2 == 2
    assert (made.labels["test"][lower][..., :8] == 15).all()
    assert (made.labels["test"][lower][..., 8:] == 0).all()


def test_splits_that_differ_in_their_classes_are_refused(dataset, prepared_of, tmp_path):
    task, _, _ = dataset("classification", "DTD")
    lines = tmp_path / "sets/dtd/dtd/labels/val1.txt"
    lines.write_text(
        "".join(line for line in lines.read_text().splitlines(True) if "blotchy" not in line)
    )
    assert "the splits of DTD differ in their classes" in fault(task, tmp_path, prepared_of)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CIFAR10", "cifar-10-batches-py/data_batch_3"),
        ("SVHN", "test_32x32.mat"),
        ("Flowers102", "flowers-102/setid.mat"),
    ],
)
def test_a_damaged_file_whose_checksum_is_known_is_refused(
    dataset, prepared_of, tmp_path, name, file
):
    task, _, _ = dataset("classification", name)
    truncate(tmp_path / "sets" / file)
    assert f"torchvision cannot read {name} there: Dataset not found or corrupted" in fault(
        task, tmp_path, prepared_of
    )


def test_a_damaged_file_without_a_checksum_is_refused(dataset, prepared_of, tmp_path):
    task, _, _ = dataset("classification", "MNIST")
    truncate(tmp_path / "sets/MNIST/raw/t10k-images-idx3-ubyte")
    assert "torchvision cannot read MNIST there" in fault(task, tmp_path, prepared_of)


# --------------------------------------------------------------------------------------------------
# downloads


@dataclass
class Answer:
    """What the server says: body, status, and by how much it claims the body to be longer."""

    body: bytes
    status: int = 200
    longer: int = 0


@pytest.fixture
def server(monkeypatch):
    """A server on this machine: `files` by name, `asked` for so far, `down`: the paths that are
    refused."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(self.path)
            refused = Answer(b"", 404)
            answer = state.files.get(self.path.rsplit("/", 1)[-1], refused)
            answer = refused if self.path.startswith(state.down) else answer
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body) + answer.longer))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *arguments):
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        state = SimpleNamespace(
            url=f"http://127.0.0.1:{service.server_port}", files={}, asked=[], down=()
        )
        yield state
        service.shutdown()
        thread.join()


@pytest.fixture
def publish(tmp_path, monkeypatch, server):
    """Publish the miniature of a dataset on the server, where torchvision then looks for it;
    returns the task."""
    from torchvision import datasets
    from torchvision.datasets import utils

    original = utils.download_url

    def published(name):
        kind = "classification" if name in DATASETS else "segmentation"
        folder = tmp_path / "publisher"
        (DATASETS if name in DATASETS else SEGMENTED)[name].write(folder)
        miniatures.trust(monkeypatch, name, folder)
        contents = PUBLISHED[name](folder)
        server.files |= {file: Answer(content) for file, content in contents.items()}
        sums = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}

        def here(url, root, filename=None, md5=None):
            path = urlparse(url).path
            original(f"{server.url}{path}", root, filename, md5 and sums[path.rsplit("/", 1)[-1]])

        for module in (utils, sys.modules[getattr(datasets, name).__module__]):
            if hasattr(module, "download_url"):
                monkeypatch.setattr(module, "download_url", here)
        return torchvision(kind, name)

    return published


def refused(task, root) -> str:
    """The message of a download that failed and left nothing behind."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    folders = {path for path in root.rglob("*") if path.is_dir()}
    with pytest.raises(DataError) as caught:
        torchvision_source.fetch(task, root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert {path for path in root.rglob("*") if path.is_dir()} == folders
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(
        f"{root / task.path}: the download of {task.dataset} failed and nothing was kept"
    )
    return str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_downloaded_can_be_prepared(publish, prepared_of, tmp_path, name):
    task = publish(name)
    torchvision_source.fetch(task, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "publisher", "sets"]
    made = prepared_of(task)
    assert all(len(made.ids[split]) >= 2 for split in SPLITS)
    packed = (".gz", ".zip", ".tgz", ".tar")
    assert not [path for path in task.raw_files(tmp_path) if path.suffix in packed]
    assert made.bytes == prepared_of(task.model_copy(update={"path": "publisher"})).bytes


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("checksum", "orrupt"), ("truncated", "orrupt"), ("404", "404"), ("closed", "refused")],
)
@pytest.mark.parametrize("name", ["MNIST", "SVHN", "CIFAR10", "DTD", "EuroSAT"])
def test_a_download_that_fails_leaves_nothing_and_the_next_one_succeeds(
    publish, server, prepared_of, tmp_path, name, wrong, words
):
    task, url = publish(name), server.url
    right = dict(server.files)
    last = sorted(right)[0]  # of those of a test split, where there are several
    body = right[last].body
    if wrong == "checksum":
        server.files[last] = Answer(body + b"x")
    elif wrong == "truncated":
        server.files[last] = Answer(body[: len(body) // 2], longer=len(body) - len(body) // 2)
    elif wrong == "404":
        del server.files[last]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert words in refused(task, tmp_path)
    server.files, server.url = right, url
    torchvision_source.fetch(task, tmp_path)
    assert prepared_of(task).summary["samples"]["test"] >= 2


def test_an_archive_without_a_checksum_is_refused_where_it_is_cut_off(publish, server, tmp_path):
    task = publish("FGVCAircraft")
    ((name, answer),) = server.files.items()
    for share in (0.2, 0.5, 0.95):
        server.files[name] = Answer(answer.body[: int(len(answer.body) * share)])
        refused(task, tmp_path)


def test_where_a_mirror_is_down_the_next_one_is_asked(publish, server, tmp_path):
    task = publish("MNIST")
    server.down = ("/mnist/",)
    torchvision_source.fetch(task, tmp_path)
    assert any(path.startswith("/mnist/") for path in server.asked)
    assert any(path.startswith("/exdb/mnist/") for path in server.asked)


def test_a_download_that_was_killed_earlier_does_no_harm(publish, prepared_of, tmp_path):
    task = publish("DTD")
    write(tmp_path / "sets/.DTD.download/dtd/dtd/labels/train1.txt", "half of it")
    write(tmp_path / "sets/.DTD.download/dtd/dtd-r1.0.1.tar.gz", "half of it")
    torchvision_source.fetch(task, tmp_path)
    assert not (tmp_path / "sets/.DTD.download").exists()
    assert prepared_of(task).summary["samples"] == {"train": 3, "val": 3, "test": 3}


def test_a_download_leaves_alone_what_lies_beside_the_dataset(publish, tmp_path):
    task = publish("VOCSegmentation")
    write(tmp_path / "sets/VOCdevkit/VOC2007/precious.txt", "of years")
    torchvision_source.fetch(task, tmp_path)
    assert (tmp_path / "sets/VOCdevkit/VOC2007/precious.txt").read_text() == "of years"
    assert task.raw_files(tmp_path)


def test_an_old_form_that_torchvision_would_read_is_refused(publish, tmp_path):
    write(tmp_path / "sets/MNIST/processed/training.pt", "pickle")
    write(tmp_path / "sets/MNIST/raw/x", "junk")
    with pytest.raises(DataError, match="a form that torchvision no longer makes"):
        publish("MNIST").raw_files(tmp_path)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_download_keeps_what_else_is_in_the_folder_and_replaces_what_is_incomplete(
    publish, server, prepared_of, tmp_path, wrong
):
    task = publish("DTD")
    write(tmp_path / "sets/MNIST/raw/x", "another dataset")
    write(tmp_path / "sets/notes.txt", "mine")
    write(tmp_path / "sets/dtd/dtd/labels/train1.txt", "of a download that was not finished")
    if wrong:
        server.files.clear()
        refused(task, tmp_path)
    else:
        torchvision_source.fetch(task, tmp_path)
        assert prepared_of(task).summary["samples"] == {"train": 3, "val": 3, "test": 3}
    assert (tmp_path / "sets/MNIST/raw/x").read_text() == "another dataset"
    assert (tmp_path / "sets/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "name"), [("classification", "StanfordCars"), ("segmentation", "Cityscapes")]
)
def test_what_torchvision_does_not_download_has_to_be_fetched_by_hand(tmp_path, kind, name):
    with pytest.raises(DataError, match="by hand"):
        torchvision_source.fetch(torchvision(kind, name), tmp_path)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------
# CUB-200-2011

BIRDS = Cub200(source="cub200", image_size=16)
BIRDS_UNPACKED = BIRDS.model_copy(update={"path": "CUB_200_2011"})


@pytest.fixture
def birds(tmp_path):
    """The archive as it is published, and what is in it."""
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird"]
    below = tmp_path / "CUB_200_2011"
    images, labels, splits = [], [], []
    for index, (label, number) in enumerate(
        [(label, number) for label in range(3) for number in range(3)], 1
    ):
        images.append(f"{index} {names[label]}/{names[label][4:]}_{number:04d}_{index}.jpg\n")
        labels.append(f"{index} {label + 1}\n")
        splits.append(f"{index} {int(number < 2)}\n")
        save(below / "images" / images[-1].split()[1], miniatures.colour(label, number))
    write(below / "images.txt", "".join(images))
    write(below / "image_class_labels.txt", "".join(labels))
    write(below / "train_test_split.txt", "".join(splits))
    write(
        below / "classes.txt", "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    )
    write(below / "attributes/image_attribute_labels.txt", "1 1 0 3 27.7080\n")
    write(tmp_path / "attributes.txt", "1 has_bill_shape::curved_(up_or_down)\n")
    pack_birds(tmp_path)
    return tmp_path


def pack_birds(root):
    (root / "CUB_200_2011.tgz").write_bytes(
        miniatures.tarred(root, "CUB_200_2011", "attributes.txt")
    )


def test_birds_are_the_same_from_their_archive_and_from_its_folder(birds, prepared_of):
    packed, unpacked = prepared_of(BIRDS), prepared_of(BIRDS_UNPACKED)
    assert packed.bytes == unpacked.bytes
    assert packed.summary["samples"] == {"train": 3, "val": 3, "test": 3}
    assert packed.header.classes[2] == "010.Red_winged_Blackbird"
    assert all("_0002_" in name for name in packed.ids["test"])
    for split in SPLITS:
        assert (
            list(packed.labels[split])
            == [label_of(image) for image in packed.images[split]]
            == [0, 1, 2]
        )
    assert identity(BIRDS, birds, birds / "cache") != identity(
        BIRDS_UNPACKED, birds, birds / "cache"
    )


@pytest.mark.parametrize("task", [BIRDS, BIRDS_UNPACKED])
def test_a_missing_or_truncated_bird_is_reported(birds, prepared_of, task):
    folder = birds / "CUB_200_2011/images/001.Black_footed_Albatross"
    (folder / "Black_footed_Albatross_0000_1.jpg").unlink()
    truncate(folder / "Black_footed_Albatross_0001_2.jpg")
    pack_birds(birds)
    message = fault(task, birds, prepared_of)
    assert "2 files cannot be used" in message
    assert (
        "001.Black_footed_Albatross/Black_footed_Albatross_0000_1.jpg: named in images.txt, "
        "but not there"
    ) in message
    assert (
        "001.Black_footed_Albatross/Black_footed_Albatross_0001_2.jpg: not a readable image"
        in message
    )


def test_what_is_no_archive_of_birds_is_refused(birds, prepared_of):
    (birds / "CUB_200_2011.tgz").write_bytes(miniatures.tarred(birds, "attributes.txt"))
    assert "not CUB-200-2011: it has no images.txt" in fault(BIRDS, birds, prepared_of)
    truncate(birds / "CUB_200_2011.tgz")
    assert "CUB_200_2011.tgz: not a readable archive, or cut off" in fault(
        BIRDS, birds, prepared_of
    )
    (birds / "CUB_200_2011.tgz").unlink()
    assert "there is no such file or folder (did you mean CUB_200_2011?); mend" in fault(
        BIRDS, birds, prepared_of
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("image_class_labels.txt", "1 1\n", "has no class or no split"),
        ("train_test_split.txt", "1 1\n", "has no class or no split"),
        ("images.txt", "1\n", "images.txt: not a readable list"),
        ("classes.txt", "one Albatross\n", "do not begin with the number of a class"),
        ("classes.txt", None, "classes.txt: not a readable list"),
    ],
)
def test_lists_of_birds_that_do_not_fit_are_named(birds, prepared_of, name, content, words):
    path = birds / "CUB_200_2011" / name
    path.unlink() if content is None else path.write_text(content)
    assert words in fault(BIRDS_UNPACKED, birds, prepared_of)


# --------------------------------------------------------------------------------------------------
# what is no regular file


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_no_regular_file_among_images_is_left_out_and_counted(tmp_path, prepared_of, make):
    pets(tmp_path)
    task = ImageFolder(source="image_folder", path="pets", image_size=16)
    before = prepared_of(task).bytes
    make(tmp_path / "pets/train/cat/x.png")
    with soon():
        identity(task, tmp_path, tmp_path / "cache")
        made = prepared_of(task)
    assert made.bytes == before
    assert made.summary["warnings"] == {"unused": 1}
    (row,) = made.report
    assert row["file"] == "train/cat/x.png"
    assert row["message"] == f"not read: no regular file, but {SPECIAL[make]}"


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["pets", "pets.zip", "pets.tar.gz"])
def test_data_that_are_no_regular_file_are_refused(tmp_path, prepared_of, make, name):
    make(tmp_path / name)
    task = ImageFolder(source="image_folder", path=name, image_size=16)
    with soon():
        assert f"{name}: no regular file, but {SPECIAL[make]}" in fault(task, tmp_path, prepared_of)


@pytest.mark.parametrize("make", SPECIAL)
def test_a_table_that_is_or_names_no_regular_file_is_refused(tmp_path, prepared_of, make):
    rows = rows_with(tmp_path)
    tabled(tmp_path, rows)
    path = tmp_path / "data" / rows[0]["path"]
    path.unlink()
    make(path)
    words = f"no regular file, but {SPECIAL[make]}"
    with soon():
        identity(table(), tmp_path, tmp_path / "cache")
        message = fault(table(), tmp_path, prepared_of)
    assert f"images/cat/0.png: named in t.csv, but {words}" in message
    make(tmp_path / "data/u.csv")
    with soon():
        assert f"u.csv: {words}" in fault(table("u.csv"), tmp_path, prepared_of)


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("train2017/000000000001.png", "000000000001.png: named in the annotations, but"),
        ("annotations/train.json", "annotations/train.json:"),
    ],
)
def test_coco_that_names_no_regular_file_is_refused(tmp_path, prepared_of, make, file, words):
    annotated(tmp_path, [outlined([LEFT])])
    (tmp_path / "coco" / file).unlink()
    make(tmp_path / "coco" / file)
    with soon():
        message = fault(coco(), tmp_path, prepared_of)
    assert f"{words} no regular file, but {SPECIAL[make]}" in message
    with pytest.raises(DataError) if file.endswith("json") else nullcontext(), soon():
        identity(coco(), tmp_path, tmp_path / "cache")


# --------------------------------------------------------------------------------------------------
# COCO

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
# x, y, …
WHOLE, LEFT, CORNER = (
    [0, 0, 12, 0, 12, 10, 0, 10],
    [0, 0, 6, 0, 6, 10, 0, 10],
    [0, 0, 3, 0, 3, 2, 0, 2],
)
HEIGHT, WIDTH = 10, 12


def outlined(outline, category=18, **more):
    return {"segmentation": outline, "category_id": category, **more}


def compressed(inside):
    from pycocotools import mask as codec

    runs = codec.encode(np.asfortranarray(inside, np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def uncompressed(inside):
    values = np.concatenate([[False], np.asarray(inside, bool).T.ravel()])
    edges = np.flatnonzero(np.diff(values.astype(int)))
    return {
        "size": list(np.shape(inside)),
        "counts": np.diff([0, *edges, values.size - 1]).tolist(),
    }


def annotated(root, annotations, split="train", images=6, categories=CATEGORIES, **of_image):
    """A split whose images all have these annotations, or with a list of lists one for each."""
    each = (
        annotations if annotations and isinstance(annotations[0], list) else [annotations] * images
    )
    entries = {"images": [], "annotations": [], "categories": categories}
    for number, drawn in enumerate(each):
        name = f"{number:012d}.png"
        values = np.random.default_rng([number, *split.encode()]).integers(
            0, 256, (HEIGHT, WIDTH, 3)
        )
        save(root / f"coco/{split}2017/{name}", values)
        entries["images"].append(
            {"id": 100 + number, "file_name": name, "height": HEIGHT, "width": WIDTH} | of_image
        )
        for one in drawn:
            entries["annotations"].append(
                {"id": len(entries["annotations"]), "image_id": 100 + number} | one
            )
    write(root / f"coco/annotations/{split}.json", json.dumps(entries))
    return entries


def coco(**changes):
    splits = {
        split: {"images": f"{split}2017", "annotations": f"annotations/{split}.json"}
        for split in changes.pop("splits", ["train"])
    }
    values = {
        "source": "coco",
        "path": "coco",
        "image_size": [HEIGHT, WIDTH],
        "validation_share": 0.5,
        "test_share": 0.34,
    }
    return Coco(**(values | splits | changes))


def half():
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[:, :6] = True
    return inside


def ragged(seed=3):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.5


def masks_of(made):
    return np.concatenate([made.labels[split] for split in SPLITS])


@pytest.mark.parametrize(
    "outline", [[LEFT], uncompressed(half()), compressed(half())], ids=["polygon", "rle", "text"]
)
def test_outlines_of_each_kind_are_drawn(tmp_path, prepared_of, outline):
    annotated(tmp_path, [outlined(outline)])
    made = prepared_of(coco())
    assert made.header.classes == ("background", "dog", "car")
    assert made.summary["samples"] == {"train": 2, "val": 2, "test": 2}
    assert (masks_of(made)[:, :, :6] == 1).all()
    assert (masks_of(made)[:, :, 6:] == 0).all()
    assert sorted(name for split in SPLITS for name in made.ids[split]) == [
        f"train2017/{number:012d}.png" for number in range(6)
    ]


@pytest.mark.parametrize("written", [uncompressed, compressed])
@pytest.mark.parametrize(
    "inside", [ragged(), ~ragged(), np.ones((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)]
)
def test_run_lengths_are_read_pixel_for_pixel(tmp_path, prepared_of, written, inside):
    annotated(tmp_path, [outlined(written(inside)), outlined([[0, 0, 1, 0, 1, 1, 0, 1]], 3)])
    expected = inside.astype(int)
    expected[0, 0] = 2  # a small object of another class upon it
    assert (masks_of(prepared_of(coco())) == expected).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_run_lengths_as_text_are_those_of_the_reference(height, width, seed, share):
    from acll.data.sources.coco import _lengths

    inside = np.random.default_rng(seed).random((height, width)) < share
    inside[: height // 2] = share > 0.5  # long runs too
    assert _lengths(compressed(inside)["counts"]) == uncompressed(inside)["counts"]


def test_an_object_of_several_polygons_is_drawn_whole(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([CORNER, [9, 8, 12, 8, 12, 10, 9, 10]])])
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:2, :3] = expected[8:, 9:] = 1
    assert (masks_of(prepared_of(coco())) == expected).all()


@pytest.mark.parametrize(
    "areas",
    [
        (120, 60, 6),
        (None, None, None),
        (0.1, 60, 120),  # which contradict their outlines
        (0, 1e300, 10**400),
        (-1, float("nan"), float("inf")),
        (float("nan"), None, float("nan")),
        ("1", [], {}),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_small_objects_lie_upon_large_ones_and_crowds_are_ignored(
    tmp_path, prepared_of, areas, order
):
    drawn = [
        outlined([WHOLE], 18),
        outlined(compressed(half()), 18, iscrowd=1),
        outlined([CORNER], 3),
    ]
    drawn = [one | ({} if area is None else {"area": area}) for one, area in zip(drawn, areas)]
    annotated(tmp_path, [drawn[index] for index in order])
    expected = np.ones((HEIGHT, WIDTH))
    expected[:, :6] = 255
    expected[:2, :3] = 2
    assert (masks_of(prepared_of(coco())) == expected).all()


def test_images_without_an_object_are_background(tmp_path, prepared_of):
    annotated(
        tmp_path, [[outlined([LEFT])], [], [], [outlined([LEFT])], [], [], [outlined([LEFT], 3)]]
    )
    masks = masks_of(prepared_of(coco()))
    assert sorted(mask.max() for mask in masks) == [0, 0, 0, 0, 1, 1, 2]


def test_objects_with_a_box_alone_are_no_background(tmp_path, prepared_of):
    annotated(tmp_path, [[outlined([LEFT])], [outlined([])], [], [], [], []])
    assert "it has no outline, and a box alone is no mask" in fault(coco(), tmp_path, prepared_of)


def test_chosen_classes_have_their_own_order_and_others_are_background(tmp_path, prepared_of):
    more = [*CATEGORIES, {"id": 7, "name": "cat"}]
    annotated(
        tmp_path,
        [outlined([LEFT], 18), outlined([CORNER], 3), outlined([WHOLE], 7)],
        categories=more,
    )
    made = prepared_of(coco(classes=["car", "dog"]))
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:, :6] = 2
    expected[:2, :3] = 1
    assert made.header.classes == ("background", "car", "dog")
    assert (masks_of(made) == expected).all()
    message = fault(coco(classes=["car", "bird"]), tmp_path, prepared_of)
    assert "no category is called bird (there are: dog, car, cat)" in message


def test_given_splits_are_kept_and_number_their_categories_as_they_like(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    others = [{"id": 18, "name": "car"}, {"id": 1, "name": "dog"}]
    annotated(tmp_path, [outlined([LEFT], 1)], "val", 3, others)
    annotated(tmp_path, [outlined([LEFT], 1)], "test", 4, others)
    made = prepared_of(coco(splits=SPLITS))
    assert made.summary["samples"] == {"train": 6, "val": 3, "test": 4}
    for split in SPLITS:
        assert (made.labels[split][:, :, :6] == 1).all()
        assert all(name.startswith(f"{split}2017/") for name in made.ids[split])


def test_coco_in_an_archive_and_beside_its_annotations(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    before = prepared_of(coco())
    write(tmp_path / "coco.zip", miniatures.zipped(tmp_path / "coco", "train2017", "annotations"))
    assert prepared_of(coco(path="coco.zip")).bytes == before.bytes
    assert coco(path="coco.zip").raw_files(tmp_path) == [tmp_path / "coco.zip"]
    write(
        tmp_path / "coco/train2017/train.json",
        (tmp_path / "coco/annotations/train.json").read_bytes(),
    )
    flat = coco(path="coco/train2017", train={"images": ".", "annotations": "train.json"})
    assert masks_of(prepared_of(flat)).tolist() == masks_of(before).tolist()
    assert len(flat.raw_files(tmp_path)) == 7


def test_the_identity_of_coco_covers_its_images_and_annotations_alone(tmp_path):
    annotated(tmp_path, [outlined([LEFT])])
    before = identity(coco(), tmp_path, tmp_path / "cache")
    write(tmp_path / "coco/annotations/other.json", "{}")
    save(tmp_path / "coco/val2017/1.png", np.zeros((4, 4)))
    assert identity(coco(), tmp_path, tmp_path / "cache") == before
    annotated(tmp_path, [outlined([CORNER])])
    assert identity(coco(), tmp_path, tmp_path / "cache") != before


def test_an_image_that_only_the_annotations_have_is_reported(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])], images=7)
    (tmp_path / "coco/train2017/000000000002.png").unlink()
    message = fault(coco(), tmp_path, prepared_of)
    assert "train2017/000000000002.png: named in the annotations, but not there" in message
    assert prepared_of(coco(on_error="skip")).summary["left_out"] == {"missing": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "not annotations in COCO's format"),
        (lambda text: "", "not annotations in COCO's format"),
        (lambda text: "[]", "not annotations in COCO's format"),
        (lambda text: "[" * 100_000, "not annotations in COCO's format"),
        (lambda text: "{}", "has no 'images'"),
        (
            lambda text: text.replace('"images": [', '"images": [7, '),
            "not annotations in COCO's format",
        ),
        (
            lambda text: text.replace('"height": 10', '"size": 10'),
            "an entry of `images` has no height",
        ),
        (
            lambda text: text.replace('"height": 10', '"height": "10"'),
            "an entry of `images` has no height",
        ),
        (
            lambda text: text.replace('"height": 10', '"height": -10'),
            "an entry of `images` has no height",
        ),
        (lambda text: text.replace('"id": 101', '"id": [101]'), "an entry of `images` has no id"),
        (
            lambda text: text.replace('"category_id": 18', '"category_id": null'),
            "`annotations` has no category_id",
        ),
        (
            lambda text: text.replace('"category_id": 18', '"category_id": 90'),
            "categories that it does not have: 90",
        ),
        (
            lambda text: text.replace('"name": "dog"', '"label": "dog"'),
            "an entry of `categories` has no name",
        ),
    ],
)
def test_annotations_in_another_format_are_refused(tmp_path, prepared_of, change, words):
    annotated(tmp_path, [outlined([LEFT])])
    path = tmp_path / "coco/annotations/train.json"
    path.write_text(change(path.read_text()))
    message = fault(coco(), tmp_path, prepared_of)
    assert message.startswith(f"{tmp_path}/coco/annotations/train.json: ")
    assert words in message


def test_missing_annotations_are_named(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    assert "annotations/val.json: " in fault(coco(splits=["train", "val"]), tmp_path, prepared_of)


SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 1, 5, 5]],  # which the library takes for a box
        [[1, 1, 5, 1, 5]],
        [[1, 1]],
        [LEFT, [1, 1, 5, 5]],
        [[0, 0, 1e12, 0, 5, 5]],
        [[0, 0, float("nan"), 0, 5, 5]],
        [[0, 0, float("inf"), 0, 5, 5]],
        [["a", "b", "c", "d", "e", "f"]],
        [[[0, 0], [5, 0], [5, 5]]],
        "text",
        7,
        {"size": SIZE},
        {"counts": [5, 115]},
        {"size": [WIDTH, HEIGHT], "counts": [5, 115]},
        {"size": SIZE, "counts": [5, 3]},
        {"size": SIZE, "counts": [5, 1000]},
        {"size": SIZE, "counts": [-5, 125]},
        {"size": SIZE, "counts": [5.5, 114.5]},
        {"size": SIZE, "counts": [[5, 115]]},
        {"size": SIZE, "counts": []},
        {"size": SIZE, "counts": ""},
        {"size": SIZE, "counts": "garbage!!"},
        {"size": SIZE, "counts": "05"},
        {"size": SIZE, "counts": "é"},
        {"size": SIZE, "counts": "o" * 1000},
        {"size": SIZE, "counts": compressed(ragged())["counts"][:-3]},
        {"size": [2**40, 2**40], "counts": "0" * 8},
    ],
    ids=str,
)
def test_an_outline_that_cannot_be_drawn_is_reported(tmp_path, prepared_of, outline):
    annotated(
        tmp_path,
        [[outlined([LEFT])], [outlined([LEFT]), outlined(outline)], *[[outlined([LEFT])]] * 5],
    )
    message = fault(coco(), tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert "train2017/000000000001.png: annotation 2 cannot be drawn: " in message
    assert prepared_of(coco(on_error="skip")).summary["left_out"] == {"unreadable": 1}


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (12, 10, "they must be equal"),
        (10**6, 10**7, "they must be equal"),
    ],
)
def test_annotations_of_another_size_than_their_image_are_reported(
    tmp_path, prepared_of, height, width, words
):
    annotated(tmp_path, [outlined([LEFT])], height=height, width=width)
    message = fault(coco(), tmp_path, prepared_of)
    assert "no sample can be used" in message
    assert words in message


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_dies_while_it_draws_costs_one_image(
    tmp_path, prepared_of, monkeypatch, processes
):
    from acll.data.sources import coco as module

    annotated(tmp_path, [[outlined([LEFT], mark=number)] for number in range(8)])
    draw = module._mask

    def dying(height, width, annotations):
        if annotations[0][0]["mark"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(height, width, annotations)

    monkeypatch.setattr(module, "_mask", dying)
    message = fault(coco(), tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert "train2017/000000000003.png: its process died" in message


def edited(root, change, split="train"):
    """Write an annotation file again, after a change of its content."""
    path = root / f"coco/annotations/{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of(key, number, **values):
    return lambda content: content[key][number].update(values)


def added(key, **values):
    return lambda content: content[key].append(content[key][0] | values)


def as_text(content):
    for one in content["annotations"]:
        one["image_id"] = str(one["image_id"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of("images", 1, id=100), "has several images of one id: 100 (000000000000.png, 0"),
        (
            of("images", 1, file_name="000000000000.png"),
            "has several images of one file_name: train2017/000000000000.png (100, 101)",
        ),
        (
            of("images", 1, file_name="./000000000000.png"),
            "has several images of one file_name: train2017/000000000000.png (100, 101)",
        ),
        (as_text, "ids of image are numbers, and text in some places, such as '100'"),
        (of("images", 0, id="100"), "ids of image are numbers, and text in some places"),
        (of("annotations", 0, category_id="18"), "ids of category are numbers, and text in some"),
        (of("categories", 0, id="18"), "ids of category are numbers, and text in some"),
        (of("images", 0, height=10**20), "an entry of `images` has no height, or something"),
        (of("images", 0, id=True), "an entry of `images` has no id, or something else there"),
        (of("images", 0, id=100.0), "an entry of `images` has no id, or something else there"),
        (added("categories", name="cow"), "has several categories of one id: 18 (dog, cow)"),
        (
            of("categories", 0, name="Background"),
            "a category is called Background, as class 0 is",
        ),
        (added("categories", id=9, name="background"), "a category is called background"),
        (of("annotations", 0, iscrowd="0"), "an annotation whose iscrowd is neither 0 nor 1"),
        (of("annotations", 0, iscrowd=7), "an annotation whose iscrowd is neither 0 nor 1"),
        (added("categories", id=9, name="dog "), "classes that differ only by blanks"),
    ],
)
def test_annotations_that_contradict_themselves_are_refused(tmp_path, prepared_of, change, words):
    annotated(tmp_path, [outlined([LEFT])])
    edited(tmp_path, change)
    assert words in fault(coco(), tmp_path, prepared_of)


def test_ids_may_be_large_or_text(tmp_path, prepared_of):
    annotated(tmp_path, [[outlined([LEFT])], [outlined([CORNER])], *[[outlined([LEFT])]] * 4])
    before = prepared_of(coco()).bytes

    def renumbered(content, by=lambda number: 2**53 + number):
        for one in content["images"]:
            one["id"] = by(one["id"])
        for one in content["annotations"]:
            one["image_id"] = by(one["image_id"])

    edited(tmp_path, renumbered)
    assert prepared_of(coco()).bytes == before
    edited(tmp_path, lambda content: renumbered(content, str))
    assert prepared_of(coco()).bytes == before


def test_a_key_that_stands_twice_in_an_object_is_refused(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    path = tmp_path / "coco/annotations/train.json"
    path.write_text(path.read_text()[:-1] + ', "images": []}')
    assert "the key images stands there twice" in fault(coco(), tmp_path, prepared_of)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            added("annotations", id=99, image_id=7),
            "annotations of images that it does not list: 1 (of image 7)",
        ),
        (added("annotations"), "ids that several annotations have: 1 (0); all are drawn"),
        (added("categories", id=9), "several categories are called dog; they are one class"),
    ],
)
def test_what_is_odd_in_annotations_and_changes_nothing_is_a_warning(
    tmp_path, prepared_of, change, words
):
    annotated(tmp_path, [outlined([LEFT])])
    before = prepared_of(coco()).bytes
    edited(tmp_path, change)
    made = prepared_of(coco())
    assert made.bytes == before
    assert made.summary["warnings"]["annotation"] == 1
    rows = [row for row in made.report if row["kind"] == "annotation"]
    assert [(row["file"], row["message"]) for row in rows] == [("annotations/train.json", words)]


def test_the_ids_of_annotations_may_be_anything(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    before = prepared_of(coco()).bytes
    for number, odd in enumerate(([], {}, None, 1.5, True)):
        edited(tmp_path, of("annotations", number, id=odd))
    assert prepared_of(coco()).bytes == before


def test_images_that_annotations_do_not_list_are_counted(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])], images=8)
    edited(tmp_path, lambda content: content["images"].pop())
    for folder in ("unlabeled2017", "train2017/.more"):
        save(tmp_path / f"coco/{folder}/0.png", np.zeros((4, 4)))
    made = prepared_of(coco())
    rows = [row["file"] for row in made.report if row["kind"] == "unused"]
    assert rows == ["train2017/.more/0.png", "train2017/000000000007.png"]
    counts = made.summary["warnings"]
    assert (counts["annotation"], counts["unused"]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("..\\train2017\\000000000001.png", "but not there"),
        ("../val2017/000000000001.png", "but not below train2017"),
        ("/data/000000000001.png", "but not below train2017"),
        (".\\000000000001.png", "train2017/000000000001.png is, written with / in place of \\"),
        ("000000000001.PNG", "train2017/000000000001.png is, written in another case"),
        ("\ud800\x1b.png", r"train2017/\ud800\x1b.png: named in the annotations, but not there"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_an_image_whose_name_is_written_otherwise_is_named(
    tmp_path, prepared_of, name, words, packed
):
    annotated(tmp_path, [outlined([LEFT])], images=7)
    edited(tmp_path, of("images", 1, file_name=name))
    task = coco()
    if packed:
        content = miniatures.zipped(tmp_path / "coco", "train2017", "annotations")
        write(tmp_path / "coco.zip", content)
        task = coco(path="coco.zip")
    message = fault(task, tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert words in message
    assert prepared_of(task.model_copy(update={"on_error": "skip"})).summary["left_out"] == {
        "missing": 1
    }


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("train2017", "train2017/{}"),
        ("train2017", "train2017\\{}"),
        ("train2017", "./Train2017/{}"),
        ("data/train2017", "train2017/{}"),
        ("data/train2017", "data/train2017/{}"),
        ("data/train2017", "data\\train2017\\{}"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_name_that_repeats_the_folder_of_images_is_explained(
    tmp_path, prepared_of, folder, name, packed
):
    annotated(tmp_path, [outlined([LEFT])])
    root = tmp_path / "coco"
    if folder != "train2017":
        (root / "data").mkdir()
        (root / "train2017").rename(root / folder)
    file = "000000000001.png"
    edited(tmp_path, of("images", 1, file_name=name.format(file)))
    task = coco(train={"images": folder, "annotations": "annotations/train.json"})
    if packed:
        task = task.model_copy(update={"path": pack(root, tmp_path / "coco.zip").name})
    assert (
        f"but not there; {folder}/{file} is: a file_name begins below `{folder}`, so write {file}"
    ) in fault(task, tmp_path, prepared_of)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_image_that_is_listed_under_two_names_by_a_link_is_refused(tmp_path, prepared_of, link):
    annotated(tmp_path, [outlined([LEFT])], images=7)
    folder = tmp_path / "coco/train2017"
    twin = folder / "000000000001.png"
    twin.unlink()
    link(folder / "000000000000.png", twin)
    words = (
        "the annotations of train list one image under two names, of which one is a link: "
        "train2017/000000000000.png, train2017/000000000001.png"
    )
    for task in (coco(), coco(on_error="skip")):
        assert words in fault(task, tmp_path, prepared_of)
    if link is os.link:
        with tarfile.open(tmp_path / "coco.tar", "w") as archive:
            archive.add(tmp_path / "coco", "coco")
        assert words in fault(coco(path="coco.tar"), tmp_path, prepared_of)
    # a link that no annotation names contradicts nothing
    edited(tmp_path, lambda content: content["images"].pop(1))
    edited(tmp_path, lambda content: content["annotations"].pop(1))
    assert "unused" not in prepared_of(coco()).summary["warnings"]


def test_a_folder_of_images_that_is_not_there_is_named(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    near = {"images": "Train2017", "annotations": "annotations/train.json"}
    other = near | {"images": "pictures"}
    assert "Train2017: there is no such folder of images; train2017 is, written in" in fault(
        coco(train=near), tmp_path, prepared_of
    )
    assert "pictures: there is no such folder of images; there is train2017" in fault(
        coco(train=other), tmp_path, prepared_of
    )
    wrong = {"images": "train2017", "annotations": "Annotations/train.json"}
    assert "no such file; annotations/train.json is, written in another case" in fault(
        coco(train=wrong), tmp_path, prepared_of
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dog", "nearly alike: 'Dog', 'dog'"),
        ("cow", "categories of val that train does not have: c"),
    ],
)
def test_categories_of_other_splits_are_those_of_train(tmp_path, prepared_of, name, words):
    annotated(tmp_path, [outlined([LEFT])])
    annotated(tmp_path, [outlined([LEFT])], "val")
    edited(tmp_path, of("categories", 0, name=name), "val")
    assert words in fault(coco(splits=["train", "val"]), tmp_path, prepared_of)


def test_an_image_in_two_splits_has_the_mask_of_each(tmp_path, prepared_of):
    annotated(tmp_path, [outlined([LEFT])])
    annotated(tmp_path, [outlined([CORNER])], "test")
    both = {"images": "train2017", "annotations": "annotations/test.json"}
    made = prepared_of(coco(test=both))
    assert made.summary["warnings"]["exact copy"] > 0
    assert (made.labels["train"].sum(axis=(1, 2)) == HEIGHT * 6).all()
    assert (made.labels["test"].sum(axis=(1, 2)) == 6).all()


@pytest.mark.parametrize(
    "outline",
    [[20, 0, 25, 0, 25, 5, 20, 5], [0, 20, 5, 20, 5, 25, 0, 25], [-9, 0, -5, 0, -5, 5, -9, 5]],
)
def test_an_object_outside_of_its_image_is_reported(tmp_path, prepared_of, outline):
    annotated(tmp_path, [[outlined([outline])], *[[outlined([LEFT])]] * 6])
    assert "cannot be drawn: a polygon lies outside of the image" in fault(
        coco(), tmp_path, prepared_of
    )


@pytest.mark.parametrize("areas", [(None, None), (1, 2), (2, 1)])
def test_of_objects_of_one_size_the_later_lies_on_top(tmp_path, prepared_of, areas):
    drawn = [outlined([LEFT], 18, area=areas[0]), outlined([LEFT], 3, area=areas[1])]
    annotated(tmp_path, drawn)
    masks = masks_of(prepared_of(coco()))
    assert (masks[:, :, :6] == 2).all()
    assert (masks[:, :, 6:] == 0).all()


# --------------------------------------------------------------------------------------------------
# tables


def table(name="t.csv", **changes):
    return Table(source="table", path=f"data/{name}", image_size=16, **changes)


def masked(name="t.csv", **changes):
    return table(
        name,
        kind="segmentation",
        classes=["ground", "water"],
        **({"validation_share": 0.5, "test_share": 0.34} | changes),
    )


def tabled(root, rows, name="t.csv", **options):
    """A table of these rows, as CSV or as Parquet."""
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="", **({"encoding": "utf-8"} | options)) as file:
        writer = rows_of.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_with(root, labels=("cat", "dog"), splits=(), column="label"):
    """Three images of each label, for each of the given splits one; they are what the label's
    position says."""
    rows = []
    for label, value in enumerate(labels):
        for number in range(3):
            path = f"images/{value}/{number}.png"
            save(root / "data" / path, miniatures.colour(label, number))
            row = {"path": path}
            if column == "mask":
                row["mask"] = f"masks/{value}-{number}.png"
                save(root / "data" / row["mask"], np.repeat([[0, 1]], 8, axis=1).repeat(16, axis=0))
            else:
                row["label"] = value
            rows.append(row | ({"split": splits[number]} if splits else {}))
    return rows


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("splits", [(), ("train", "val", "test"), ("train", "train", "test")])
def test_a_table_of_labels(tmp_path, prepared_of, name, splits):
    tabled(tmp_path, rows_with(tmp_path, splits=splits), name)
    made = prepared_of(table(name))
    assert made.header.classes == ("cat", "dog")
    for split in SPLITS:
        assert (
            list(made.labels[split]) == [label_of(image) for image in made.images[split]] == [0, 1]
        )
    if splits:
        assert made.ids["test"] == ["images/cat/2.png", "images/dog/2.png"]
    if "val" in splits:
        assert made.ids["val"] == ["images/cat/1.png", "images/dog/1.png"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("splits", [(), ("train", "val", "test")])
def test_a_table_of_masks(tmp_path, prepared_of, name, splits):
    tabled(tmp_path, rows_with(tmp_path, splits=splits, column="mask"), name)
    made = prepared_of(masked(name))
    assert made.header.classes == ("ground", "water")
    assert (masks_of(made)[:, :, :8] == 0).all()
    assert (masks_of(made)[:, :, 8:] == 1).all()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path, prepared_of, name):
    rows = rows_with(tmp_path, labels=(1, 2, 9, 10, 11))
    tabled(tmp_path, rows[::-1], name)
    made = prepared_of(table(name))
    assert made.header.classes == ("1", "2", "9", "10", "11")
    for split in SPLITS:
        assert list(made.labels[split]) == [label_of(image) for image in made.images[split]]


def test_labels_that_are_one_number_are_classes_of_their_own(tmp_path, prepared_of):
    tabled(tmp_path, rows_with(tmp_path, labels=("01", "1", "2")))
    assert prepared_of(table()).header.classes == ("01", "1", "2")


def test_classes_of_a_table_can_be_put_in_order_and_have_to_be_complete(tmp_path, prepared_of):
    tabled(tmp_path, rows_with(tmp_path))
    made = prepared_of(table(classes=["dog", "cat"]))
    assert list(made.labels["test"]) == [1 - label_of(image) for image in made.images["test"]]
    assert "labels that are not among `classes`: dog" in fault(
        table(classes=["cat", "cow"]), tmp_path, prepared_of
    )


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_names_with_commas_quotes_and_umlauts(tmp_path, prepared_of, name):
    tabled(tmp_path, rows_with(tmp_path, labels=('Bär, "groß"', "Löwe\u2028;x")), name)
    made = prepared_of(table(name))
    assert made.header.classes == ('Bär, "groß"', "Löwe\u2028;x")
    assert made.ids["test"][0].startswith('images/Bär, "groß"/')


def test_a_table_that_begins_with_a_byte_order_mark(tmp_path, prepared_of):
    tabled(tmp_path, rows_with(tmp_path), encoding="utf-8-sig")
    assert prepared_of(table()).summary["samples"] == {"train": 2, "val": 2, "test": 2}


def changed_row(**changes):
    return lambda rows: [{**rows[0], **changes}, *rows[1:]]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda rows: [{"path": row["path"]} for row in rows],
            "has no column label (there are: path)",
        ),
        (
            lambda rows: [{"file": 1, "class": 2}],
            "has no column path or label (there are: file, class)",
        ),
        (changed_row(label=""), "row 2: the column label is empty"),
        (changed_row(path=""), "row 2: the column path is empty"),
        (changed_row(label=None), "row 2: the column label is empty"),
        (
            lambda rows: [row | {"split": "Train"} for row in rows],
            "split = 'Train': must be one of train, val, test",
        ),
        (changed_row(path="../data/images/cat/0.png"), "must lie beside the table or below"),
        (changed_row(path="images/../../data/x.png"), "must lie beside the table or below"),
        (changed_row(path="/images/cat/0.png"), "must lie beside the table or below"),
        (changed_row(path="images/dog/1.png"), "images that stand there twice: images/dog/1.png"),
        (
            lambda rows: [row | {"label": "cat"} for row in rows],
            "at least two labels are expected; there is cat",
        ),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused(tmp_path, prepared_of, name, change, words):
    path = tabled(tmp_path, change(rows_with(tmp_path)), name)
    message = fault(table(name), tmp_path, prepared_of)
    assert message.startswith(str(path))
    assert words in message


@pytest.mark.parametrize("mask", ["../m.png", "/m.png", ""])
def test_masks_of_a_table_have_to_lie_below_it(tmp_path, prepared_of, mask):
    tabled(tmp_path, changed_row(mask=mask)(rows_with(tmp_path, column="mask")))
    assert "row 2: " in fault(masked(), tmp_path, prepared_of)
    tabled(tmp_path, rows_with(tmp_path))
    assert "has no column mask (there are: path, label)" in fault(masked(), tmp_path, prepared_of)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "has no rows"),
        ("t.csv", b"path,label\n", "has no rows"),
        ("t.csv", "path,label\nä.png,ö\n".encode("latin-1"), "not a readable table"),
        ("t.csv", b'path,label\n"x', "not a readable table"),
        (
            "t.csv",
            b"path;label\nx.png;cat\n",
            "has no column path or label (there are: path;label)",
        ),
        (
            "t.csv",
            b"path,label\nx.png\n",
            "row 2: has another number of values (1) than the first row (2)",
        ),
        ("t.parquet", b"PAR1 and no more", "not a readable table"),
        ("t.parquet", b"", "not a readable table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, prepared_of, name, content, words):
    write(tmp_path / "data" / name, content)
    assert words in fault(table(name), tmp_path, prepared_of)
    (tmp_path / "data" / name).unlink()
    assert "there is no such file" in fault(table(name), tmp_path, prepared_of)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "t.csv",
            b"path,label\na.png,cat, black\n",
            "row 2: has another number of values (3) than the first row (2)",
        ),
        (
            "t.csv",
            b"path,label,split\na.png,cat\n",
            "row 2: has another number of values (2) than the first row (3)",
        ),
        (
            "t.csv",
            b"path,label\n\n\na.png,cat,x\n",
            "row 4: has another number of values (3) than the first row (2)",
        ),
        ("t.csv", b"path,label,label\na.png,cat,dog\n", "has several columns of one name: label"),
        ("t.csv", b"path;label\na.png;cat\n", "separated by semicolons: write it with commas"),
        ("t.tsv", b"path\tlabel\na.png\tcat\n", "separated by tabs: write it with commas"),
        ("t.csv", b"path|label\na.png|cat\n", "separated by bars: write it with commas"),
        ("t.csv", b'"path,label"\n"a.png,cat"\n', "separated by commas, each line in quotes"),
        ("t.xlsx", b"PK\x03\x04" + bytes(99), "it is a workbook of Excel or another archive; save"),
        ("t.csv", b"PK\x03\x04" + bytes(99), "it is a workbook of Excel or another archive; save"),
        ("t.xls", b"\xd0\xcf\x11\xe0" + bytes(99), "it is a workbook of Excel; save its sheet"),
        ("t.pq", b"PAR1", "it is a Parquet file; let its name end with .parquet"),
        ("t.csv.gz", b"\x1f\x8b\x08", "it is compressed; unpack it"),
        ("t.csv", "path,label\na.png,cat\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("t.csv", "path,label\na.png,cat\n".encode("utf-16-le"), "it has NUL bytes, as UTF-16"),
        ("t.csv", b"path,label\na.png,c\0t\n", "it has NUL bytes"),
        (
            "t.csv",
            b"path,label\na.png,c\xe4t\n",
            "it is not UTF-8 (it has a byte 0xe4); save it so",
        ),
        ("t.csv", b'path,label\na.png,"cat" black\n', "line 2: "),
        ("t.csv", b"path,label,split\na.png,cat,valid\n", "(did you mean val?)"),
    ],
)
def test_what_is_nearly_a_table_is_refused_with_what_to_do(
    tmp_path, prepared_of, name, content, words
):
    write(tmp_path / "data" / name, content)
    message = fault(table(name), tmp_path, prepared_of)
    assert message.startswith(f"{tmp_path}/data/{name}")
    assert words in message


def renamed(rows, column, values=SPLITS):
    """These rows, with a column of another name that holds values in place of the splits."""
    instead = dict(zip(SPLITS, values))
    return [
        {key: value for key, value in row.items() if key != "split"}
        | {column: instead[row["split"]]}
        for row in rows
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["Split", "SPLIT", "splits", "Splits", "split_", "split1"])
@pytest.mark.parametrize("values", [SPLITS, ("0", "1", "2")])
def test_a_split_column_of_nearly_that_name_is_refused(tmp_path, prepared_of, name, column, values):
    path = tabled(tmp_path, renamed(rows_with(tmp_path, splits=SPLITS), column, values), name)
    message = fault(table(name), tmp_path, prepared_of)
    assert message == f"{path}: has a column `{column}`; did you mean `split`?"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["set", "subset", "partition", "fold", "data_split", "phase"])
@pytest.mark.parametrize("values", [SPLITS, ("training", "Valid", ""), ("train", "TRAIN", "test")])
def test_splits_in_a_column_of_another_name_are_refused(
    tmp_path, prepared_of, name, column, values
):
    path = tabled(tmp_path, renamed(rows_with(tmp_path, splits=SPLITS), column, values), name)
    message = fault(table(name), tmp_path, prepared_of)
    assert message.startswith(f"{path}: has a column `{column}` with ")
    assert message.endswith("but none called `split`; rename it `split`, or remove it")


def test_splits_in_categories_of_parquet_are_refused(tmp_path, prepared_of):
    import pyarrow
    from pyarrow import parquet

    path = tabled(tmp_path, renamed(rows_with(tmp_path, splits=SPLITS), "part"), "t.parquet")
    read = parquet.read_table(path)
    part = read["part"].dictionary_encode()
    parquet.write_table(pyarrow.table({**{n: read[n] for n in ("path", "label")}, "part": part}),
                        path)  # fmt: skip
    assert "has a column `part` with test, train, val" in fault(
        table("t.parquet"), tmp_path, prepared_of
    )


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["set", "Subset", "partitions", "fold"])
def test_a_column_that_may_say_the_split_is_a_warning(tmp_path, prepared_of, name, column):
    tabled(tmp_path, renamed(rows_with(tmp_path, splits=SPLITS), column, (0, 1, 2)), name)
    made = prepared_of(table(name))
    assert made.summary["warnings"]["column"] == 1
    (row,) = (row for row in made.report if row["kind"] == "column")
    assert (row["treated"], row["file"]) == ("warning", name)
    assert row["message"].startswith(f"its column `{column}` is not read; if it says the split, re")


def test_a_table_of_another_split_beside_it_is_a_warning(tmp_path, prepared_of):
    rows = rows_with(tmp_path)
    tabled(tmp_path, rows, "train.csv")
    tabled(tmp_path, rows, "others.csv")
    assert "unused" not in prepared_of(table("train.csv")).summary["warnings"]
    tabled(tmp_path, rows, "Validation.csv")
    made = prepared_of(table("train.csv"))
    assert made.summary["warnings"]["unused"] == 1
    assert [row["file"] for row in made.report if row["kind"] == "unused"] == ["Validation.csv"]


@pytest.mark.parametrize("column", ["fold", "original_split", "camera", "Split"])
def test_beside_a_split_column_others_mean_nothing(tmp_path, prepared_of, column):
    rows = rows_with(tmp_path, splits=SPLITS)
    tabled(tmp_path, rows)
    before = prepared_of(table())
    tabled(tmp_path, [row | {column: row["split"]} for row in rows])
    made = prepared_of(table())
    assert made.bytes == before.bytes
    assert "column" not in made.summary["warnings"]


@pytest.mark.parametrize("values", [("train", "train", "train"), ("a", "train", "test"), ("",) * 3])
def test_a_column_that_gives_no_splits_means_nothing(tmp_path, prepared_of, values):
    rows = rows_with(tmp_path, splits=SPLITS)
    tabled(tmp_path, renamed(rows, "camera", values))
    assert "column" not in prepared_of(table()).summary["warnings"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("empty", ["", None])
def test_a_split_that_only_some_rows_have_is_refused(tmp_path, prepared_of, name, empty):
    rows = rows_with(tmp_path, splits=SPLITS)
    for at in (1, 4):
        rows[at]["split"] = empty
    path = tabled(tmp_path, rows, name)
    assert fault(table(name), tmp_path, prepared_of) == (
        f"{path}, row 3: has no split (2 of 6 rows have none); write one of train, val, test in "
        "each row, or in none"
    )


def test_a_split_column_that_is_empty_is_as_none(tmp_path, prepared_of):
    rows = rows_with(tmp_path)
    tabled(tmp_path, rows)
    before = prepared_of(table()).bytes
    tabled(tmp_path, [row | {"split": ""} for row in rows])
    assert prepared_of(table()).bytes == before


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.PARQUET"])
def test_blanks_at_the_ends_of_cells_and_empty_lines_mean_nothing(tmp_path, prepared_of, name):
    rows = rows_with(tmp_path, splits=("train", "val", "test"))
    tabled(tmp_path, rows, "clean.csv")
    before = prepared_of(table("clean.csv")).bytes
    blanks = [" {}", "{} ", "\t{}\u00a0", "\u200b{}", "{}\ufeff", "{}\u3000"]
    odd = [
        {
            blanks[at % 6].format(key): blanks[(at + number) % 6].format(value)
            for at, (key, value) in enumerate(row.items())
        }
        for number, row in enumerate(rows)
    ]
    if name == "t.PARQUET":
        tabled(tmp_path, odd, "t.parquet").rename(tmp_path / "data/t.PARQUET")
    else:
        tabled(tmp_path, odd, name)
    if name == "t.csv":
        path = tmp_path / "data/t.csv"
        path.write_bytes(b"\r\n" + path.read_bytes().replace(b"\r\n", b"\r\n\r\n"))
    assert prepared_of(table(name)).bytes == before


LOOK_THE_SAME = (
    "classes that differ only by blanks, letters that are not seen or their Unicode form"
)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("1", "1.0", "2"), "labels that are one number: 1, 1.0"),
        (("1.50", "1.5"), "labels that are one number: 1.5, 1.50"),
        (("caf\u00e9", "cafe\u0301"), LOOK_THE_SAME),
        (("a b", "a\u00a0b"), LOOK_THE_SAME),
        (("cat", "cat\u200e"), LOOK_THE_SAME),
        (("cat", "cat\u200d"), LOOK_THE_SAME),
        (("cat", "ca\u00adt"), LOOK_THE_SAME),
        (("cat", "ca\u200bt"), LOOK_THE_SAME),
        (("cat", "c\u2060at", "dog"), LOOK_THE_SAME),
        (("cat", "cat\ufe0f"), LOOK_THE_SAME),
        (("cat", "cat\u3164"), LOOK_THE_SAME),
        (("1", "\uff11"), LOOK_THE_SAME),
        (("fish", "\ufb01sh"), LOOK_THE_SAME),
    ],
)
def test_labels_that_are_one_are_refused(tmp_path, prepared_of, labels, words):
    tabled(tmp_path, rows_with(tmp_path, labels=labels))
    assert words in fault(table(), tmp_path, prepared_of)


@pytest.mark.parametrize(
    "labels",
    [("A", "a"), ("'a'", "a"), ('"a"', "a"), ("\u201ca\u201d", "a"), ("01", "1"), ("0", "000")],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_labels_that_differ_by_case_quotes_or_zeros_are_a_warning(
    tmp_path, prepared_of, labels, name
):
    tabled(tmp_path, rows_with(tmp_path, labels=(*labels, "b")), name)
    made = prepared_of(table(name))
    assert sorted(made.header.classes) == sorted((*labels, "b"))
    assert made.summary["warnings"]["likeness"] == 2


def test_folders_that_are_one_number_are_a_warning(tmp_path, prepared_of):
    for label in ("1", "01", "2"):
        for number in range(3):
            image = miniatures.colour(int(label) - 1, number)
            save(tmp_path / f"pets/train/{label}/{number}.png", image)
    task = ImageFolder(source="image_folder", path="pets", image_size=16)
    assert prepared_of(task).summary["warnings"]["likeness"] == 2


def test_a_blank_before_a_quote_is_no_part_of_a_cell(tmp_path, prepared_of):
    path = tabled(tmp_path, rows_with(tmp_path, labels=("a", "b, c")))
    before = prepared_of(table()).bytes
    lines = ['path, "label"']
    for row in rows_of.DictReader(path.read_text().splitlines()):
        lines.append(f'"{row["path"]}",  "{row["label"]}"')
    path.write_text("\n".join(lines) + "\n")
    made = prepared_of(table())
    assert made.header.classes == ("a", "b, c")
    assert made.bytes == before


def test_a_label_that_is_nearly_one_of_the_classes_is_named(tmp_path, prepared_of):
    tabled(tmp_path, rows_with(tmp_path))
    message = fault(table(classes=["cat", "Dog"]), tmp_path, prepared_of)
    assert "not among `classes`: dog (there are names like these: 'Dog', 'dog')" in message


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (b"cat", "its column label holds bytes"),
        ([1], "its column label holds list"),
        (float("nan"), "row 2: the column label is empty"),
    ],
)
def test_labels_of_parquet_are_text_or_numbers(tmp_path, prepared_of, label, words):
    path = save(tmp_path / "data/a.png", np.zeros((4, 4)))
    tabled(tmp_path, [{"path": path.name, "label": label, "image": b"x"}], "t.parquet")
    assert words in fault(table("t.parquet"), tmp_path, prepared_of)


@pytest.mark.parametrize("column", ["path", "mask"])
def test_files_of_a_table_that_are_not_there_are_reported(tmp_path, prepared_of, column):
    rows = rows_with(tmp_path, column="mask" if column == "mask" else "label")
    tabled(tmp_path, rows)
    (tmp_path / "data" / rows[0][column]).unlink()
    task = masked() if column == "mask" else table()
    message = fault(task, tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert f"{rows[0][column]}: named in t.csv, but not there" in message
    assert (
        len(task.raw_files(tmp_path))
        == 1 + len({row[key] for row in rows for key in ("path", "mask") if key in row}) - 1
    )


def test_the_identity_of_a_table_covers_the_files_that_it_names(tmp_path):
    path = tabled(tmp_path, rows_with(tmp_path))
    task = table()
    before = identity(task, tmp_path, tmp_path / "cache")
    save(tmp_path / "data/images/other.png", np.zeros((4, 4)))
    assert identity(task, tmp_path, tmp_path / "cache") == before
    write(path.with_name("t.csv.dvc"), f"outs:\n- md5: {miniatures.md5(path)}\n  path: t.csv\n")
    assert identity(task, tmp_path, tmp_path / "cache") == before
    save(tmp_path / "data/images/cat/0.png", np.zeros((4, 4)))
    assert identity(task, tmp_path, tmp_path / "cache") != before


# --------------------------------------------------------------------------------------------------
# raw data under DVC; each call takes a second or two, so one repository is made for all tests and
# copied

CATS = ImageFolder(source="image_folder", path="cats", image_size=16)
PACKED = CATS.model_copy(update={"path": "cats.zip"})
IMPORTED = CATS.model_copy(update={"path": "imported"})


def dvc(root, *command):
    subprocess.run(
        [sys.executable, "-m", "dvc", *command], cwd=root, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    root = tmp_path_factory.mktemp("dvc")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    dvc(root, "init", "-q")
    # a/… and a-b/… sort in another way as paths than as text
    for label, value in enumerate(("a", "a-b", "ä")):
        for number in range(3):
            save(root / f"cats/train/{value}/{number}.png", miniatures.colour(label, number))
    write(root / ".dvcignore", "*.tmp\n")
    write(root / "cats.zip", miniatures.zipped(root / "cats", "train"))
    shutil.copytree(root / "cats", root / "elsewhere")
    dvc(root, "add", "-q", "cats", "cats.zip")
    dvc(root, "import-url", "-q", str(root / "elsewhere"), "imported")
    return root


@pytest.fixture
def repository(tracked, tmp_path):
    shutil.copytree(tracked, tmp_path / "repository", symlinks=True)
    return tmp_path / "repository"


def recorded(root, task):
    import yaml

    return yaml.safe_load((root / f"{task.path}.dvc").read_text())["outs"][0]["md5"]


@pytest.fixture
def asked(monkeypatch):
    """The commands that `identity` starts."""
    started, run = [], subprocess.run

    def noted(command, *arguments, **options):
        started.append(command)
        return run(command, *arguments, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    return started


@pytest.mark.parametrize("task", [CATS, PACKED, IMPORTED], ids=["folder", "archive", "import"])
def test_the_identity_of_data_under_dvc_is_what_dvc_says(repository, asked, task):
    found = identity(task, repository, repository / "cache")
    assert found == f"dvc {recorded(repository, task)}"
    assert found.endswith(".dir") == (task != PACKED)
    assert not asked  # the same digest is made without DVC, which takes seconds


@pytest.mark.parametrize("task", [CATS, PACKED], ids=["folder", "archive"])
def test_data_that_are_not_what_dvc_says_are_refused_with_both_ways_out(repository, task):
    path = repository / task.path
    save(repository / "cats/train/a/0.png", np.zeros((16, 16)))
    write(repository / "cats.zip", miniatures.zipped(repository / "cats", "train"))
    with pytest.raises(DataError) as caught:
        identity(task, repository, repository / "cache")
    message = str(caught.value)
    assert message.startswith(f"{path}: is not what {task.path}.dvc says")
    assert f"`dvc checkout {path}.dvc`" in message
    assert f"`dvc add {path}`" in message


def test_data_that_were_added_again_have_another_identity(repository):
    before = identity(CATS, repository, repository / "cache")
    save(repository / "cats/train/a/9.png", np.zeros((16, 16)))
    dvc(repository, "add", "-q", "cats")
    assert (
        identity(CATS, repository, repository / "cache")
        == f"dvc {recorded(repository, CATS)}"
        != before
    )


@pytest.mark.parametrize("task", [CATS, PACKED, IMPORTED], ids=["folder", "archive", "import"])
def test_data_that_only_dvc_has_keep_their_identity_and_come_with_dvc_pull(
    repository, prepared_of, task
):
    before = identity(task, repository, repository / "cache")
    path = repository / task.path
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert identity(task, repository, repository / "cache") == before
    assert f"`dvc pull {path}.dvc` brings it" in fault(task, repository, prepared_of)


def test_every_source_says_dvc_pull_where_dvc_has_its_data(tmp_path, prepared_of):
    for name in ("sets", "coco", "CUB_200_2011.tgz", "data/t.csv"):
        write(tmp_path / f"{name}.dvc", "outs:\n- md5: 0\n")
    tasks = [
        torchvision("classification", "MNIST"),
        torchvision("segmentation", "VOCSegmentation"),
        coco(),
        BIRDS,
    ]
    for task in (*tasks, table()):
        assert f"`dvc pull {tmp_path / task.path}.dvc`" in fault(task, tmp_path, prepared_of)


def test_a_file_that_dvc_ignores_is_no_false_alarm(repository, asked):
    before = identity(CATS, repository, repository / "cache")
    write(repository / "cats/train/a/x.tmp", "x")
    assert identity(CATS, repository, repository / "cache") == before
    assert len(asked) == 1  # DVC knows what it ignores


@pytest.mark.parametrize(
    "content", [b"", b"outs: []\n", b"- 1\n", b"outs: [", b"outs:\n- path: cats\n", b"\xff\xfe"]
)
def test_a_broken_dvc_file_is_named(repository, content):
    (repository / "cats.dvc").write_bytes(content)
    with pytest.raises(
        DataError, match=r"cats\.dvc: not a \.dvc file with the md5 of one output; `dvc add"
    ):
        identity(CATS, repository, repository / "cache")


def test_prepared_data_are_the_same_with_and_without_dvc(repository, prepared_of):
    before = prepared_of(CATS, repository).bytes
    (repository / "cats.dvc").unlink()
    assert prepared_of(CATS, repository).bytes == prepared_of(PACKED, repository).bytes == before
