"""Small raw data, and what preparing them gives, as arrays."""

import csv
import os
import signal
import socket
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from acll.data import preparation, prepared
from acll.data.errors import DataError
from acll.data.sources.generated import Generated
from acll.data.sources.image_folder import ImageFolder
from acll.data.sources.mask_folder import MaskFolder

PROPERTY = settings(max_examples=40, deadline=None)
CPU = torch.device("cpu")
SPLITS = ("train", "val", "test")

PETS = ImageFolder(source="image_folder", path="pets", image_size=[6, 4])
STREETS = MaskFolder(
    source="mask_folder", path="streets", image_size=[12, 10], classes=["road", "sky"]
)


def changed(task, **values):
    """The task with other settings."""
    return type(task).model_validate(task.model_dump() | values)


def generated(kind="classification", **changes) -> Generated:
    values = {"classes": 4, "samples": 40, "difficulty": 0.2, "image_size": [16, 24], "seed": 0}
    return Generated(source="generated", kind=kind, **(values | changes))


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)
    return path


def picture(level=100, channels=3, size=(12, 10)):
    return np.full(size if channels == 1 else (*size, channels), level)


def smooth(seed, size=(48, 48)):
    """A picture of a few soft spots, unlike any other's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def pets(root: Path) -> Path:
    """A folder of images without val and test: cats are dark, dogs are light."""
    for number in range(8):
        save(root / f"pets/train/cat/{number}.png", picture(10 + number))
        save(root / f"pets/train/dog/{number}.jpg", picture(200 + number))
    return root


def streets(root: Path) -> Path:
    """A folder of masks without val and test; the left half of each is 0, the right half 1, the
    first row ignored."""
    for number in range(20):
        mask = picture(0, channels=1)
        mask[:, 5:] = 1
        mask[0] = 255
        save(root / f"streets/train/images/{number}.png", picture(10 * number))
        save(root / f"streets/train/masks/{number}.png", mask)
    return root


@dataclass(frozen=True)
class Split:
    """A split of a prepared file as arrays."""

    ids: list[str]
    images: np.ndarray
    labels: np.ndarray
    tile_valid_box: np.ndarray | None
    tile_image_index: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Prepared:
    """What preparing a task has made."""

    train: Path
    test: Path
    report: Path
    summary: dict[str, Any]
    header: prepared.TaskInfo
    splits: dict[str, Split]

    def every(self) -> dict[str, np.ndarray]:
        """The images of all splits by id."""
        return {
            name: image
            for split in self.splits.values()
            for name, image in zip(split.ids, split.images, strict=True)
        }

    def bytes(self) -> list[bytes]:
        """The content of both files."""
        return [self.train.read_bytes(), self.test.read_bytes()]


def paths(root: Path, into: str = "prepared") -> tuple[Path, Path, Path]:
    """Where the prepared files and the report of a task go."""
    folder = root / into
    folder.mkdir(exist_ok=True)
    return folder / "x.train.safetensors", folder / "x.test.safetensors", folder / "x.faults.csv"


def prepare(task, root: Path, processes: int = 1, into: str = "prepared") -> Prepared:
    train, test, report = paths(root, into)
    summary = preparation.prepare("x", task, root, train, test, report, processes)
    splits = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_allowed", {"test": True})
        for path, names in ((train, ("train", "val")), (test, ("test",))):
            tensors, header = prepared.read_prepared(path)
            for name in names:
                own = {
                    part: tensors.get(f"{name}_{part}")
                    for part in ("images", "labels", "tile_valid_box", "tile_image_index")
                }
                arrays = {
                    part: None if values is None else values.numpy().copy()
                    for part, values in own.items()
                }
                splits[name] = Split(prepared.ids(path, name), **arrays)
    return Prepared(train, test, report, summary, header, splits)


def report_of(root: Path) -> list[tuple[str, str, str, str]]:
    """The rows of the report: treated, kind, file, message."""
    report = paths(root)[2]
    with report.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["treated", "kind", "file", "message"]
    return [tuple(row) for row in rows]


def fault(task, root: Path, processes: int = 1) -> str:
    """The message with which a task is refused; nothing but a report is left in the folder of
    prepared files."""
    train, test, report = paths(root)
    with pytest.raises(DataError) as caught:
        preparation.prepare("x", task, root, train, test, report, processes)
    assert {path.name for path in train.parent.iterdir()} <= {report.name}
    return str(caught.value)


def faults(task, root: Path) -> list[str]:
    """The lines that name files in the message with which a task is refused."""
    head, *lines = fault(task, root).split("\n")
    assert "cannot be used (on_error: stop; `skip` leaves them out)" in head
    assert head.endswith(f"all are named in {paths(root)[2].resolve()}")
    return lines


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


# what is no regular file: what makes it, and how it is called
SPECIAL = {named_pipe: "a named pipe", socket_file: "a socket", device: "a device"}


@contextmanager
def soon(seconds: float = 60) -> Iterator[None]:
    """Raise TimeoutError within what waits without end."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raster(path: Path, values: np.ndarray, **options) -> Path:
    """A TIFF file of bands [C, H, W]."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=values.dtype,
            **options,
        ) as file:
            file.write(values)
    return path


def pack(folder: Path, archive: Path, around: str = "") -> Path:
    """The content of a folder as an archive, of the kind that its ending says."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{around}{path.relative_to(folder).as_posix()}" for path in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path, name in zip(files, names):
                packed.write(path, name)
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as packed:
            for path, name in zip(files, names):
                packed.add(path, name)
    return archive


def cut_off(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def bomb(width=60_000, height=60_000) -> bytes:
    """A PNG of a few bytes whose header claims billions of pixels."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
