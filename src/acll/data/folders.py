"""Images in folders of splits; the folder may be an archive."""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.image_files import may_be_image, unused
from acll.data.images import IMAGE_SUFFIXES
from acll.data.names import split_like, split_meant
from acll.data.storage import SPLITS, Storage, is_compressed, packed_name, storage_of


def layout(inner: str) -> str:
    """Return the layout that a source expects, in words. inner: what lies in a split."""
    return f"{{train,val,test}}/{inner}, where val and test may be absent"


def raw_files(path: Path, names_of: Callable[[Storage, Path], list[str]]) -> list[Path]:
    """Return the archive, or all images in the folder, sorted.

    names_of: gives the names of the images, or raises DataError for another layout.
    """
    if path.is_file() and is_compressed(path):  # which would have to be read through
        return [path]
    names = names_of(storage_of(path), path)
    return [path / name for name in names] if path.is_dir() else [path]


def image_names(storage: Storage, path: Path, inner: str) -> list[str]:
    """Return the images below the splits, sorted by split and name.

    Raises DataError where there are none, or where a folder has another name than is meant.
    """
    names = storage.names()
    folders = folders_in(storage, "")
    if "train" not in folders:
        raise DataError(
            f"{path}: has no folder `train`{_elsewhere(names, folders, path)} "
            f"(expected: {layout(inner)})"
        )
    images = [
        name
        for name in names
        if name.split("/")[0] in SPLITS and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    if not images:
        raise DataError(
            f"{path}: holds no images (expected: {layout(inner)}; "
            f"{', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    empty = [split for split in SPLITS if split in folders - set(splits_in(images))]
    if empty:
        raise DataError(
            f"{path}/{empty[0]}: holds no images (expected: {layout(inner)}; "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}); without this folder, {empty[0]} is cut from "
            "train"
        )
    with_files = {name.split("/")[0] for name in names if "/" in name and may_be_image(name)}
    for folder in sorted(with_files - set(SPLITS)):
        if split_like(folder) in set(SPLITS) - folders:
            raise DataError(
                f"{path}: has a folder `{folder}`, which is not read; did you mean "
                f"`{split_like(folder)}`? (expected: {layout(inner)})"
            )
    packed = _packed(names, set(SPLITS) - folders)
    if packed is not None:
        raise DataError(f"{path}: {packed}")
    return images


def _packed(names: list[str], missing: set[str]) -> str | None:
    """Return in words which archive may hold a split that is missing, and what to do."""
    for name in sorted(name for name in names if "/" not in name):
        split = split_like(packed_name(name) or "")
        if split in missing:
            return (
                f"has an archive `{name}`, which is not read; unpack it as a folder `{split}`, "
                "pack all splits into one archive and give its `path`, or move it elsewhere"
            )
    return None


def _elsewhere(names: list[str], folders: set[str], path: Path) -> str:
    """Return in words where `train` may be; names, folders: what is there instead."""
    above = {name.split("/train/")[0] for name in names if "/train/" in name}
    if len(above) == 1 and not any(split_meant(part) for part in next(iter(above)).split("/")):
        (inner,) = above
        if path.is_dir():
            return f", but `{inner}/train`; end the `path` of the task with `/{inner}`"
        return f", but `{inner}/train`; pack what is in `{inner}`, and nothing else"
    meant = sorted(folder for folder in folders if split_like(folder) == "train")
    if meant:
        return f", but `{meant[0]}`; did you mean `train`?"
    packed = _packed(names, {"train"})
    if packed is not None:
        return f"; it {packed}"
    if any("\\" in name for name in names):
        return "; its names are written with \\, so pack it again with another program"
    there = sorted(name for name in folders or names if not name.startswith("."))
    if not there:
        return ""
    with_images = {name.split("/")[0] for name in names if "/" in name and may_be_image(name)}
    move = "; move it into a folder `train`" if with_images >= set(there) else ""
    return f"; there is {some(there)}{move}"


def unused_files(storage: Storage, accounted_for: Iterable[str], inner: str) -> list[DataFault]:
    """Return a fault for each file that may be an image and that nothing accounts for."""
    names = [*storage.names(), *storage.specials()]
    why = f"it lies elsewhere, or its ending is not one of images (expected: <split>/{inner})"
    return unused(storage, names, storage.hidden(), accounted_for, why)


def splits_in(names: list[str]) -> list[str]:
    """Return the splits that have an image, in the order of SPLITS."""
    present = {name.split("/")[0] for name in names}
    return [split for split in SPLITS if split in present]


def folders_in(storage: Storage, folder: str) -> set[str]:
    """Return the names of the folders in a folder, also of those without a file.

    folder: its name; empty: the topmost.
    """
    start = f"{folder}/" if folder else ""
    inner = [name.removeprefix(start) for name in storage.folders() if name.startswith(start)]
    return {name for name in inner if "/" not in name}
