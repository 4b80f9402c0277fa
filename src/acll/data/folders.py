"""Images and masks in folders, in the layouts that people have at home."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from acll.data.splits import IGNORE, DataError, Samples, as_groups
from acll.settings import ImageFolder, MaskFolder

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_SHOWN = 5  # offending files named in a message


def files_of(task: ImageFolder | MaskFolder, root: Path) -> list[Path]:
    """All files that the task reads, sorted. Raises DataError where the folder is missing or empty."""
    folder = root / task.path
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; set data_root, or say where it is with DATA=…")
    if not (folder / "train").is_dir():
        raise DataError(f"{folder}: has no folder `train` (expected: {layout(task)})")
    found = [
        path
        for split in ("train", "val", "test")
        for path in sorted((folder / split).rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise DataError(f"{folder}: holds no images (expected: {layout(task)}; {', '.join(sorted(SUFFIXES))})")
    parts = {path.name for path in (folder / "train").iterdir() if path.is_dir()}
    fits = parts >= {"images", "masks"} if isinstance(task, MaskFolder) else parts != {"images", "masks"}
    if not fits:
        raise DataError(f"{folder}: not the layout of {task.source} (expected: {layout(task)})")
    return found


def layout(task: ImageFolder | MaskFolder) -> str:
    """The layout that the source expects, in words."""
    inner = "<class>/*" if isinstance(task, ImageFolder) else "{images,masks}/*"
    return f"{{train,val,test}}/{inner}, where val and test may be absent"


def read_images(task: ImageFolder, root: Path) -> tuple[dict[str, Samples], list[str]]:
    """The splits that the folder has, and the names of the classes. Raises DataError naming each offending file."""
    folder = root / task.path
    files_of(task, root)
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    if len(classes) < 2:
        raise DataError(f"{folder}/train: a folder for each class is expected, at least two; there are {len(classes)}")
    splits = {}
    for split in _splits(folder):
        names = sorted(path.name for path in (folder / split).iterdir() if path.is_dir())
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise DataError(f"{folder}/{split}: classes that train does not have: {_some(unknown)}")
        paths = [(path, classes.index(name)) for name in names for path in _images(folder / split / name)]
        present = {label for _, label in paths}
        empty = [name for label, name in enumerate(classes) if label not in present]
        if empty:
            raise DataError(f"{folder}/{split}: classes without an image: {_some(empty)}")
        images = _read_all([path for path, _ in paths], task.image_size)
        ids = tuple(path.relative_to(folder).as_posix() for path, _ in paths)
        labels = np.array([label for _, label in paths], np.int64)
        splits[split] = Samples(images, labels, ids, as_groups(ids, task.group))
    return splits, classes


def read_masks(task: MaskFolder, root: Path) -> tuple[dict[str, Samples], list[str]]:
    """The splits that the folder has, and the names of the classes. Raises DataError naming each offending file."""
    folder = root / task.path
    files_of(task, root)
    splits = {}
    for split in _splits(folder):
        images, masks = _images(folder / split / "images"), _images(folder / split / "masks")
        if not images:
            raise DataError(f"{folder}/{split}/images: holds no images (expected: {layout(task)})")
        for paths in (images, masks):
            stems = [path.stem for path in paths]
            double = [path for path in paths if stems.count(path.stem) > 1] if len(set(stems)) < len(stems) else []
            if double:
                raise DataError(f"{folder}/{split}: files of the same name but for their ending: {_some(double)}")
        by_stem = {path.stem: path for path in masks}
        alone = [path for path in images if path.stem not in by_stem]
        if alone:
            raise DataError(f"{folder}/{split}: images without a mask of the same name: {_some(alone)}")
        lonely = sorted(set(by_stem) - {path.stem for path in images})
        if lonely:
            raise DataError(f"{folder}/{split}: masks without an image of the same name: {_some(lonely)}")
        pairs = [(path, by_stem[path.stem]) for path in images]
        labels = np.stack([_read_mask(mask, image, task) for image, mask in pairs])
        ids = tuple(path.relative_to(folder).as_posix() for path in images)
        pixels = _read_all(images, task.image_size)
        splits[split] = Samples(pixels, labels, ids, as_groups(ids, task.group))
    return splits, task.classes


def _splits(folder: Path) -> list[str]:
    return [split for split in ("train", "val", "test") if (folder / split).is_dir()]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _some(names: Sequence[str | Path]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def _read_all(paths: Sequence[Path], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W]; grey where every image is, else RGB. One image at a time is in memory at its full size."""
    images, unreadable = [], []
    grey = True
    height, width = size
    for path in paths:
        try:
            image = _open(path)
            if image.mode[0] in "IF":  # converted, they would turn white or black
                raise DataError(f"{path}: has more than 8 bits a channel ({image.mode}); save it with 8")
        except DataError as error:
            unreadable.append(str(error))
            continue
        is_grey = image.mode in ("1", "L", "LA")
        grey = grey and is_grey
        small = image.convert("L" if is_grey else "RGB").resize((width, height), Image.Resampling.BILINEAR)
        images.append(small)
    if unreadable:
        more = [f"and {len(unreadable) - _SHOWN} more"] if len(unreadable) > _SHOWN else []
        raise DataError("\n".join(unreadable[:_SHOWN] + more))
    pixels = np.stack([np.asarray(image if grey else image.convert("RGB")) for image in images])
    return np.ascontiguousarray(pixels[:, None] if grey else pixels.transpose(0, 3, 1, 2))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image: {error}") from None


def _size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header alone."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image: {error}") from None


def _read_mask(path: Path, image_path: Path, task: MaskFolder) -> NDArray[np.uint8]:
    """uint8 [H, W] class indices, resized without mixing classes."""
    mask, image_size = _open(path), _size(image_path)
    if mask.mode not in ("L", "P", "1"):
        raise DataError(f"{path}: a mask has one channel of class indices, not {mask.mode}")
    if mask.size != image_size:
        sizes = f"{mask.size[0]}x{mask.size[1]} pixels, its image {image_size[0]}x{image_size[1]}"
        raise DataError(f"{path}: the mask has {sizes}; they must be equal")
    values = np.unique(np.asarray(mask))
    outside = [int(value) for value in values if value >= len(task.classes) and value != IGNORE]
    if outside:
        raise DataError(
            f"{path}: has the labels {_some([str(value) for value in outside])}, outside the {len(task.classes)} "
            f"classes (0 to {len(task.classes) - 1}; {IGNORE} means ignore)"
        )
    height, width = task.image_size
    indices = Image.fromarray(np.asarray(mask).astype(np.uint8))
    return np.asarray(indices.resize((width, height), Image.Resampling.NEAREST))
