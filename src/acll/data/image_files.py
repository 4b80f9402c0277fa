"""Samples that are files: each in an image, for segmentation with a mask beside it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath

from acll.data.faults import DataFault
from acll.data.images import IMAGE_SUFFIXES, Pixels, UnreadableError, why_unreadable
from acll.data.manifest import FileNotes, Manifest, Sample
from acll.data.reading import Opener
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
    images, masks = Opener(storage), Opener(storage)

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        pixels, mask = images.open(sample.image).pixels(sample.box), None
        if sample.mask is not None:
            with _naming_mask(sample.mask):
                mask = masks.open(sample.mask).indices(sample.box)
        return pixels, mask

    def size(sample: Sample) -> Sequence[tuple[int, int]]:
        of_image = images.open(sample.image).size
        return [of_image] if sample.mask is None else [of_image, masks.open(sample.mask).size]

    def notes(sample: Sample) -> FileNotes:
        pages = {sample.image: images.open(sample.image).pages()}
        if sample.mask is None:
            return FileNotes(pages)
        mask = masks.open(sample.mask)
        return FileNotes(pages | {sample.mask: mask.pages()}, mask.palette())

    return Manifest(
        kind, classes, splits, samples, read, size, list(faults), list(warnings), notes=notes
    )


@contextmanager
def _naming_mask(name: str) -> Iterator[None]:
    """Say of which mask it is that something is wrong: faults name the image of a sample."""
    try:
        yield
    except (UnreadableError, OSError) as error:
        raise UnreadableError(f"its mask {name}: {why_unreadable(error)}") from None


def may_be_image(name: str) -> bool:
    """Return whether a file may be an image, of whatever format: it is none that lies beside."""
    path = PurePosixPath(name)
    return path.suffix.lower() not in _BESIDE and path.name.lower() not in _TEXTS


def unused(
    storage: Storage, names: Iterable[str], hidden: Iterable[str], used: Iterable[str], why: str
) -> list[DataFault]:
    """Return a fault for each file that may be an image and makes no sample.

    names: of files that are looked at. hidden: of hidden ones, of which those count whose names end
    as images do. used: of those that are used, under one of their names. why: in words, why other
    files among `names` are not.
    """
    taken = set(used)
    left = [name for name in names if may_be_image(name) and name not in taken]
    images = (name for name in hidden if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
    unseen = [name for name in images if name not in taken]
    if not left and not unseen:
        return []
    files = {storage.file_of(name) for name in taken}
    faults = []
    for name in left:
        special = storage.special(name)
        if special is not None or storage.file_of(name) not in files:
            faults.append(DataFault("unused", name, f"not read: {special or why}"))
    words = "not read, since it or a folder around it has a hidden name"
    faults += [
        DataFault("unused", name, words) for name in unseen if storage.file_of(name) not in files
    ]
    return faults
