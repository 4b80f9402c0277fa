"""Samples that are files: each in an image, for segmentation with a mask beside it."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from acll.data.faults import DataFault
from acll.data.images import (
    IMAGE_SUFFIXES,
    Box,
    File,
    Pixels,
    read_image,
    read_mask,
    size_of,
    within,
)
from acll.data.manifest import Manifest, Sample
from acll.data.storage import Storage
from acll.settings import Kind

# what lies beside images and is none: texts, tables, positions on the earth, leftovers of systems
_BESIDE = {
    ".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".json", ".jsonl", ".xml",
    ".csv", ".tsv", ".xls", ".xlsx", ".parquet", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log",
    ".py", ".ipynb", ".sh", ".bat", ".m", ".r", ".dvc", ".db", ".md5", ".sha256", ".tfw", ".jgw",
    ".pgw", ".bpw", ".wld", ".prj", ".msk", ".ovr",
}  # fmt: skip
_TEXTS = {"readme", "license", "licence", "copying", "notice", "authors", "citation", "version",
          "changelog", "makefile"}  # fmt: skip


def manifest_of_files(
    storage: Storage,
    kind: Kind,
    classes: list[str],
    splits: Sequence[str],
    samples: list[Sample],
    faults: Sequence[DataFault] = (),
    warnings: Sequence[DataFault] = (),
) -> Manifest:
    """Return the manifest of samples whose `image` and `mask` are names of files in `storage`."""
    image, mask = reader(storage, read_image), reader(storage, read_mask)

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        own_mask = None if sample.mask is None else mask(sample.mask, sample.box)
        return image(sample.image, sample.box), own_mask

    def size(sample: Sample) -> Sequence[tuple[int, int]]:
        names = [sample.image] if sample.mask is None else [sample.image, sample.mask]
        return [size_of(storage.open(name), name) for name in names]

    return Manifest(kind, classes, splits, samples, read, size, list(faults), list(warnings))


def may_be_image(name: str) -> bool:
    """Return whether a file may be an image, of whatever format: it is none that lies beside."""
    path = PurePosixPath(name)
    return path.suffix.lower() not in _BESIDE and path.name.lower() not in _TEXTS


def unused(
    storage: Storage, names: Iterable[str], used: Iterable[str], why: str
) -> list[DataFault]:
    """Return a fault for each file that may be an image and makes no sample.

    names: of files that are looked at. used: of those that are used, under one of their names. why:
    in words, why the others are not.
    """
    taken = set(used)
    left = [name for name in names if name not in taken and may_be_image(name)]
    if not left:
        return []
    files = {storage.file_of(name) for name in taken}
    faults = []
    for name in left:
        path = PurePosixPath(name)
        if path.name.startswith("."):
            # macOS keeps attributes of `x.png` in `._x.png`
            if path.suffix.lower() in IMAGE_SUFFIXES and path.name[1] != "_":
                faults.append(DataFault("unused", name, "not read, since its name is a hidden one"))
        elif storage.file_of(name) not in files:
            faults.append(DataFault("unused", name, f"not read: {why}"))
    return faults


def reader(
    storage: Storage, read: Callable[[File, str, Box | None], Pixels]
) -> Callable[[str, Box | None], Pixels]:
    """Return a function that reads a file of `storage`, or the part of it in a box.

    A file that can only be decoded as a whole is kept for its next part.
    """

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def whole(name: str) -> Pixels:
        return read(storage.open(name), name, None)

    def part(name: str, box: Box | None) -> Pixels:
        if box is None or name.lower().endswith((".tif", ".tiff")):
            return read(storage.open(name), name, box)
        return within(whole(name), box)

    return part
