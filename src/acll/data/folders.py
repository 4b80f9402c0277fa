"""Images in folders of splits; the folder may be an archive."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from acll.data.errors import DataError
from acll.data.images import IMAGE_SUFFIXES
from acll.data.storage import ARCHIVES, COMPRESSED, SPLITS, Storage, missing, storage_of


def layout(inner: str) -> str:
    """Return the layout that a source expects, in words. inner: what lies in a split."""
    return f"{{train,val,test}}/{inner}, where val and test may be absent"


def raw_files(path: Path, names_of: Callable[[Storage, Path], list[str]]) -> list[Path]:
    """Return the archive, or all images in the folder, sorted.

    names_of: gives the names of the images, or raises DataError for another layout.
    """
    if path.is_file() and path.name.endswith(ARCHIVES):
        if not path.name.endswith(COMPRESSED):  # which would have to be read through
            names_of(storage_of(path), path)
        return [path]
    if not path.is_dir():
        if not path.exists():
            raise missing(path)
        raise DataError(f"{path}: neither a folder nor one of {ARCHIVES}")
    return [path / name for name in names_of(storage_of(path), path)]


def image_names(storage: Storage, path: Path, inner: str) -> list[str]:
    """Return the images below the splits, sorted by split and name.

    Raises DataError where there are none.
    """
    names = [
        name for name in storage.names() if name.startswith(tuple(f"{split}/" for split in SPLITS))
    ]
    if not any(name.startswith("train/") for name in names) and "train" not in folders_in(path):
        raise DataError(f"{path}: has no folder `train` (expected: {layout(inner)})")
    images = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(
            f"{path}: holds no images (expected: {layout(inner)}; "
            f"{', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return images


def folders_in_train(path: Path, images: list[str]) -> set[str]:
    """Return the names of the folders in `train`; in an archive, only of those with images."""
    found = {
        name.split("/")[1] for name in images if name.startswith("train/") and name.count("/") > 1
    }
    return found | folders_in(path / "train")


def splits_in(names: list[str]) -> list[str]:
    """Return the splits that have an image, in the order of SPLITS."""
    present = Counter(name.split("/")[0] for name in names)
    return [split for split in SPLITS if present[split]]


def folders_in(path: Path) -> set[str]:
    """Return the names of the folders in a folder; none where it is an archive, or absent."""
    return {inner.name for inner in path.iterdir() if inner.is_dir()} if path.is_dir() else set()
