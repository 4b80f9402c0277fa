"""Sources of data: torchvision's datasets and their download, CUB-200-2011, COCO, tables, raw data under DVC."""

import csv as rows_of
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlparse

import miniatures
import numpy as np
import pytest
from miniatures import DATASETS, MASKS, PUBLISHED, SEGMENTED, label_of, save, truncate, write

from acll.data import prepared
from acll.data.catalogue import raw_files
from acll.data.errors import DataError
from acll.data.identity import identity
from acll.data.preparation import prepare
from acll.data.sources import torchvision_sets
from acll.settings import Coco, Cub200, ImageFolder, Table, Torchvision

SPLITS = ("train", "val", "test")
ALL = [*(("classification", name) for name in DATASETS), *(("segmentation", name) for name in SEGMENTED)]
IN_FILES = [(kind, name) for kind, name in ALL if (DATASETS | SEGMENTED)[name].image]


@pytest.fixture
def prepared_of(tmp_path, monkeypatch):
    """Prepare a task: its ids, images and labels by split, its header, and what the report says."""
    monkeypatch.setitem(prepared._allowed, "test", True)
    folder = tmp_path / "prepared"
    folder.mkdir()
    paths = folder / "t.train.safetensors", folder / "t.test.safetensors", folder / "t.csv"

    def made(task, root=tmp_path):
        summary = prepare("t", task, root, *paths, 2)
        found = SimpleNamespace(summary=summary, bytes=[path.read_bytes() for path in paths[:2]])
        with paths[2].open(newline="") as file:
            found.report = list(rows_of.DictReader(file))
        tensors, found.header = prepared.read(paths[0])
        tensors |= prepared.read(paths[1])[0]
        found.images = {split: tensors[f"{split}_images"].numpy() for split in SPLITS}
        found.labels = {split: tensors[f"{split}_labels"].numpy() for split in SPLITS}
        found.ids = {split: prepared.ids(paths[split == "test"], split) for split in SPLITS}
        return found

    return made


def fault(task, root, prepare_it) -> str:
    with pytest.raises(DataError) as caught:
        prepare_it(task, root)
    return str(caught.value)


# --------------------------------------------------------------------------------------------------------------------
# torchvision


def torchvision(kind, name, **changes):
    side = (DATASETS if kind == "classification" else SEGMENTED)[name].side
    if kind == "segmentation":
        changes = {"validation_share": 0.5} | changes
    return Torchvision(source="torchvision", dataset=name, kind=kind, path="sets", image_size=side, **changes)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Write the miniature of a dataset into the folder `sets`: (task, miniature, ids of its own splits)."""

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
        found = {*made.ids[split], *(name for other in cut for name in made.ids[other] if split == "train")}
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
    task, miniature, ids = dataset(kind, name)
    known = {path for path in (tmp_path / "sets").rglob("*") if path.is_file()}
    assert set(raw_files(task, tmp_path)) == known
    before = identity(task, tmp_path, tmp_path / "cache.json")
    for place in ("x.tar.gz", "MNIST/raw/x.gz", "VOCdevkit/VOC2012/x.tar", "oxford-iiit-pet/images.tgz", "gtsrb/x.zip"):
        write(tmp_path / "sets" / place, "an archive that it came in")
    assert set(raw_files(task, tmp_path)) == known
    assert identity(task, tmp_path, tmp_path / "cache.json") == before
    changed = tmp_path / "sets" / miniature.image if miniature.image else sorted(known)[0]
    changed.write_bytes(changed.read_bytes() + b"x")
    assert identity(task, tmp_path, tmp_path / "cache.json") != before


@pytest.mark.parametrize(("kind", "name"), IN_FILES)
def test_a_truncated_image_of_a_dataset_is_reported_by_name(dataset, prepared_of, tmp_path, kind, name):
    task, miniature, _ = dataset(kind, name)
    truncate(tmp_path / "sets" / miniature.image)
    message = fault(task, tmp_path, prepared_of)
    assert "1 file cannot be used" in message
    assert f"{miniature.image}: not a readable image" in message
    assert (tmp_path / "prepared/t.csv").read_text().count("left out,unreadable,") == 1


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
def test_a_dataset_that_is_not_there_comes_with_what_to_do(tmp_path, prepared_of, kind, name, there):
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
    assert made.ids["test"] == [f"VOCdevkit/VOC2012/JPEGImages/2007_{number:06d}.jpg" for number in (2, 3)]


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
    lines.write_text("".join(line for line in lines.read_text().splitlines(True) if "blotchy" not in line))
    assert "the splits of DTD differ in their classes" in fault(task, tmp_path, prepared_of)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CIFAR10", "cifar-10-batches-py/data_batch_3"),
        ("SVHN", "test_32x32.mat"),
        ("Flowers102", "flowers-102/setid.mat"),
    ],
)
def test_a_damaged_file_whose_checksum_is_known_is_refused(dataset, prepared_of, tmp_path, name, file):
    task, _, _ = dataset("classification", name)
    truncate(tmp_path / "sets" / file)
    assert f"torchvision cannot read {name} there: Dataset not found or corrupted" in fault(task, tmp_path, prepared_of)


def test_a_damaged_file_without_a_checksum_is_refused(dataset, prepared_of, tmp_path):
    task, _, _ = dataset("classification", "MNIST")
    truncate(tmp_path / "sets/MNIST/raw/t10k-images-idx3-ubyte")
    assert "torchvision cannot read MNIST there" in fault(task, tmp_path, prepared_of)


# --------------------------------------------------------------------------------------------------------------------
# downloads


@dataclass
class Answer:
    """What the server says: body, status, and how long it claims the body to be."""

    body: bytes
    status: int = 200
    longer: int = 0


@pytest.fixture
def server(monkeypatch):
    """A server on this machine: `files` by name, `asked` for so far, `down`: the paths that are refused."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the library's name
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
        state = SimpleNamespace(url=f"http://127.0.0.1:{service.server_port}", files={}, asked=[], down=())
        yield state
        service.shutdown()
        thread.join()


@pytest.fixture
def publish(tmp_path, monkeypatch, server):
    """Publish the miniature of a dataset on the server, where torchvision then looks for it; returns the task."""
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
        torchvision_sets.download(task, root)
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
    torchvision_sets.download(task, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "publisher", "sets"]
    made = prepared_of(task)
    assert all(len(made.ids[split]) >= 2 for split in SPLITS)
    packed = (".gz", ".zip", ".tgz", ".tar")
    assert not [path for path in raw_files(task, tmp_path) if path.suffix in packed]
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
    torchvision_sets.download(task, tmp_path)
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
    torchvision_sets.download(task, tmp_path)
    assert any(path.startswith("/mnist/") for path in server.asked)
    assert any(path.startswith("/exdb/mnist/") for path in server.asked)


def test_a_download_that_was_killed_earlier_does_no_harm(publish, prepared_of, tmp_path):
    task = publish("DTD")
    write(tmp_path / ".sets.download/dtd/dtd/labels/train1.txt", "half of it")
    write(tmp_path / ".sets.download/dtd/dtd-r1.0.1.tar.gz", "half of it")
    torchvision_sets.download(task, tmp_path)
    assert not (tmp_path / ".sets.download").exists()
    assert prepared_of(task).summary["samples"] == {"train": 3, "val": 3, "test": 3}


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
        torchvision_sets.download(task, tmp_path)
        assert prepared_of(task).summary["samples"] == {"train": 3, "val": 3, "test": 3}
    assert (tmp_path / "sets/MNIST/raw/x").read_text() == "another dataset"
    assert (tmp_path / "sets/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("kind", "name"), [("classification", "StanfordCars"), ("segmentation", "Cityscapes")])
def test_what_torchvision_does_not_download_has_to_be_fetched_by_hand(tmp_path, kind, name):
    with pytest.raises(DataError, match="by hand"):
        torchvision_sets.download(torchvision(kind, name), tmp_path)
    assert not list(tmp_path.iterdir())
