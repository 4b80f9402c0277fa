"""A case: a small data set in which files are damaged, prepared as the pipeline does.

What must hold: preparation ends with prepared files or with a DataError that says what is wrong.
Each image is used, or named in the report, and never both. What was used, prediction reads alike.
"""

import csv
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from acll.data import prepared
from acll.data.errors import DataError
from acll.data.images import IMAGE_SUFFIXES
from acll.data.preparation import prepare
from acll.data.sources.coco import Coco
from acll.data.sources.image_folder import ImageFolder
from acll.data.sources.mask_folder import MaskFolder
from acll.data.sources.table import Table
from acll.data.task import Task
from acll.errors import ODD_LETTER
from acll.serving.inputs import pixels_of, prepared_image
from fuzz import seeds
from fuzz.mutations import json_text, mutated, mutated_json, mutated_rows

CLASSES = ("cat", "dog")
_IMAGES = 24  # of a data set


class BrokenError(AssertionError):
    """Something that must not happen has happened."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case. inputs: how many files were damaged."""

    kind: str
    inputs: int
    used: int = 0
    left_out: int = 0
    refused: str = ""


def run(seed: int, number: int, folder: Path) -> Outcome:
    """Make a case and prepare it. Raises BrokenError, and whatever breaks."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "raw").mkdir(parents=True)
    draw = default_rng([seed, number])
    make = _KINDS[int(draw.integers(len(_KINDS)))]
    kind = make.__name__.removeprefix("_")
    task, inputs = make(folder / "raw", draw)
    outputs = [folder / name for name in ("x.train.safetensors", "x.test.safetensors", "x.csv")]
    train, test, report = outputs
    try:
        prepare("x", task, folder, train, test, report, processes=1)
    except DataError as error:
        message = str(error)
        if not message or any(ODD_LETTER.search(line) for line in message.split("\n")):
            raise BrokenError(f"the message is empty, or not to be printed: {message!r}") from None
        if train.exists() or test.exists():
            raise BrokenError("refused, but something is written") from None
        return Outcome(kind, inputs, refused=message.split("\n")[0])
    left_out = _reported(report)
    used = _used(train, test)
    both = {name.partition("#")[0] for name in used} & left_out
    if both:
        raise BrokenError(f"used, and reported as left out: {sorted(both)}")
    if isinstance(task, ImageFolder) and (folder / task.path).is_dir():
        _nothing_lost(folder / task.path, set(used), report)
        _same_pixels(folder / task.path, used, train)
    return Outcome(kind, inputs, len(used), len(left_out))


def _reported(report: Path) -> set[str]:
    """Return the files that the report names as left out."""
    with report.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    if any(row[1] == "machine" for row in rows):
        raise BrokenError(f"left out for the machine's sake: {rows}")
    return {row[2] for row in rows if row[0] == "left out"}


def _used(train: Path, test: Path) -> list[str]:
    """Return the ids of all samples."""
    prepared.allow_test()
    return [
        name
        for path, splits in ((train, ("train", "val")), (test, ("test",)))
        for split in splits
        for name in prepared.ids(path, split)
    ]


def _nothing_lost(raw: Path, used: set[str], report: Path) -> None:
    """Raise BrokenError where an image is neither used nor named."""
    text = report.read_text(encoding="utf-8")
    for path in raw.rglob("*"):
        name = path.relative_to(raw).as_posix()
        if path.suffix in IMAGE_SUFFIXES and name not in used and name not in text:
            raise BrokenError(f"{name} is neither used nor reported")


def _same_pixels(raw: Path, used: list[str], train: Path) -> None:
    """Raise BrokenError where prediction would see other pixels than preparation has written."""
    tensors, info = prepared.read_prepared(train)
    own = prepared.ids(train, "train")
    for index, name in enumerate(own):
        seen = prepared_image(pixels_of(raw / name), info)
        if not np.array_equal(seen, tensors["train_images"][index].numpy(), equal_nan=True):
            raise BrokenError(f"prediction sees other pixels of {name}")


# --------------------------------------------------------------------------------------------------
# data sets


def _task(kind: Any, **values: Any) -> Task:
    common = {"path": "raw", "image_size": [12, 10], "on_error": "skip", "validation_share": 0.2}
    made: Task = kind.model_validate(common | values)
    return made


def _drawn(among: list[tuple[str, bytes]], draw: Generator) -> tuple[str, bytes]:
    return among[int(draw.integers(len(among)))]


def _damaged(among: list[tuple[str, bytes]], draw: Generator) -> tuple[str, bytes]:
    suffix, content = _drawn(among, draw)
    return suffix, mutated(content, _drawn(among, draw)[1], draw)


def _pictures(draw: Generator, damaged: int) -> list[tuple[str, bytes]]:
    """Return images of one data set, so many of them damaged."""
    sound = list(seeds.plain()[: _IMAGES - damaged])
    found = [_damaged(seeds.images(), draw) for _ in range(damaged)] + sound
    return [found[index] for index in draw.permutation(len(found))]


def _write_pictures(folder: Path, draw: Generator, damaged: int) -> list[str]:
    names = []
    for index, (suffix, content) in enumerate(_pictures(draw, damaged)):
        name = f"train/{CLASSES[index % 2]}/{index}{suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def _images(folder: Path, draw: Generator) -> tuple[Task, int]:
    _write_pictures(folder, draw, 8)
    return _task(ImageFolder, source="image_folder"), 8


def _masks(folder: Path, draw: Generator) -> tuple[Task, int]:
    for part in ("images", "masks"):
        (folder / "train" / part).mkdir(parents=True)
    for index in range(_IMAGES):
        image, mask = seeds.plain()[index], _drawn(seeds.masks(), draw)
        if index < 4:
            image = _damaged(seeds.images(), draw)
        if 2 <= index < 8:
            mask = _damaged(seeds.masks(), draw)
        for part, (suffix, content) in (("images", image), ("masks", mask)):
            (folder / f"train/{part}/{index}{suffix}").write_bytes(content)
    tiles = {"tile_overlap": 2} if draw.random() < 0.5 else {}
    return _task(MaskFolder, source="mask_folder", classes=["a", "b"], **tiles), 10


def _table(folder: Path, draw: Generator) -> tuple[Task, int]:
    names = _write_pictures(folder, draw, 2)
    rows = [["path", "label"], *([name, name.split("/")[1]] for name in names)]
    text = io.StringIO()
    if draw.random() < 0.6:
        rows = mutated_rows(rows, draw)
        csv.writer(text).writerows(rows)
        content = text.getvalue().encode(errors="surrogatepass")
    else:
        csv.writer(text).writerows(rows)
        content = mutated(text.getvalue().encode(), b"path;label\r\nx.png;1\r\n", draw)
    (folder / "table.csv").write_bytes(content)
    return _task(Table, source="table", path="raw/table.csv"), 3


def _parquet(folder: Path, draw: Generator) -> tuple[Task, int]:
    import pyarrow
    from pyarrow import parquet

    names = _write_pictures(folder, draw, 2)
    labels = [name.split("/")[1] for name in names]
    into = io.BytesIO()
    parquet.write_table(pyarrow.table({"path": names, "label": labels}), into)
    (folder / "table.parquet").write_bytes(mutated(into.getvalue(), b"PAR1", draw))
    return _task(Table, source="table", path="raw/table.parquet"), 3


def _coco(folder: Path, draw: Generator) -> tuple[Task, int]:
    names = _write_pictures(folder / "images", draw, 2)
    box = [[2, 2, 15, 2, 15, 12, 2, 12]]
    content = {
        "images": [
            {"id": number, "file_name": name, "height": 20, "width": 24}
            for number, name in enumerate(names)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": (3, 8)[number % 2],
             "segmentation": box, "bbox": [2, 2, 13, 10], "area": 130, "iscrowd": 0}
            for number in range(len(names))
        ],
    }  # fmt: skip
    if draw.random() < 0.7:
        text = json_text(mutated_json(content, draw))
    else:
        text = mutated(json_text(content), b'{"images": []}', draw)
    (folder / "annotations.json").write_bytes(text)
    split = {"images": "images", "annotations": "annotations.json"}
    return _task(Coco, source="coco", train=split), 3


def _archive(folder: Path, draw: Generator) -> tuple[Task, int]:
    inner = folder.parent / "inner"
    shutil.rmtree(inner, ignore_errors=True)
    damaged = int(draw.choice([0, 6]))
    names = _write_pictures(inner, draw, damaged)
    suffix = str(draw.choice([".zip", ".tar", ".tar.gz", ".tgz"]))
    into = io.BytesIO()
    _write_archive(into, suffix, inner, names)
    content = into.getvalue()
    if not damaged or draw.random() < 0.5:
        content, damaged = mutated(content, content[::-1], draw), damaged + 1
    (folder / f"data{suffix}").write_bytes(content)
    return _task(ImageFolder, source="image_folder", path=f"raw/data{suffix}"), damaged


def _write_archive(into: io.BytesIO, suffix: str, inner: Path, names: list[str]) -> None:
    if suffix == ".zip":
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(inner / name, name)
        return
    with tarfile.open(fileobj=into, mode="w" if suffix == ".tar" else "w:gz") as packed:
        for name in names:
            packed.add(inner / name, name)


_KINDS: tuple[Callable[[Path, Generator], tuple[Task, int]], ...] = (
    _images,
    _images,
    _masks,
    _masks,
    _table,
    _parquet,
    _coco,
    _coco,
    _archive,
)
