"""Images and masks in folders, in the layouts that people have at home; the folder may be an archive."""

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from acll.data.errors import DataError
from acll.data.faults import Fault, some
from acll.data.images import SUFFIXES
from acll.data.listing import Item, Listing, group_of
from acll.data.places import ARCHIVES, COMPRESSED, SPLITS, Place, missing, place_of
from acll.data.sources.files import listing_of_files
from acll.settings import ImageFolder, MaskFolder


def layout(task: ImageFolder | MaskFolder) -> str:
    """The layout that the source expects, in words."""
    inner = "<class>/*" if isinstance(task, ImageFolder) else "{images,masks}/*"
    return f"{{train,val,test}}/{inner}, where val and test may be absent"


def raw_files(task: ImageFolder | MaskFolder, root: Path) -> list[Path]:
    """All files that the task reads, sorted. Raises DataError where it is clear that they cannot be read."""
    path = root / task.path
    if path.is_file() and path.name.endswith(ARCHIVES):
        if not path.name.endswith(COMPRESSED):  # which would have to be read through
            _names(task, path, place_of(path))
        return [path]
    if not path.is_dir():
        raise missing(path) if not path.exists() else DataError(f"{path}: neither a folder nor one of {ARCHIVES}")
    names = _names(task, path, place_of(path))
    return [path / name for name in names]


def list_images(task: ImageFolder, root: Path) -> Listing:
    """The samples of `{train,val,test}/<class>/*`. Raises DataError where classes cannot be what is meant."""
    path = root / task.path
    place = place_of(path)
    names = _names(task, path, place)
    found = [(*PurePosixPath(name).parts[:2], name) for name in names if len(PurePosixPath(name).parts) == 3]
    classes = sorted({label for split, label, _ in found if split == "train"} | set(_empty_folders(path, "train")))
    if len(classes) < 2:
        raise DataError(f"{path}/train: a folder for each class is expected, at least two; there are {len(classes)}")
    for split in _splits(names):
        present = {label for here, label, _ in found if here == split}
        unknown = sorted(present - set(classes))
        if unknown:
            raise DataError(f"{path}/{split}: classes that train does not have: {some(unknown)}")
        empty = [label for label in classes if label not in present]
        if empty and split == "train":  # elsewhere a warning, with other sources as well
            raise DataError(f"{path}/{split}: classes without an image: {some(empty)}")
    index = {label: number for number, label in enumerate(classes)}
    items = [
        Item(name, split, name, label=index[label], group=group_of(name, task.group))
        for split, label, name in sorted(found, key=lambda entry: (SPLITS.index(entry[0]), entry[1], entry[2]))
    ]
    faults = [
        Fault("elsewhere", name, "an image that lies in no class, or too deep (expected: <split>/<class>/*)")
        for name in names
        if len(PurePosixPath(name).parts) != 3
    ]
    return listing_of_files(place, "classification", classes, _splits(names), items, faults)


def list_masks(task: MaskFolder, root: Path) -> Listing:
    """The samples of `{train,val,test}/{images,masks}/*`, paired by name. Raises DataError for another layout."""
    path = root / task.path
    place = place_of(path)
    names = _names(task, path, place)
    items: list[Item] = []
    faults: list[Fault] = []
    for split in _splits(names):
        images, masks = (_by_stem(names, f"{split}/{part}/") for part in ("images", "masks"))
        if not images:
            raise DataError(f"{path}/{split}/images: holds no images (expected: {layout(task)})")
        for stem in sorted(images.keys() | masks.keys()):
            pair = images.get(stem, []), masks.get(stem, [])
            fault = _unpaired(*pair)
            if fault is not None:
                faults.append(fault)
            else:
                (image,), (mask,) = pair
                items.append(Item(image, split, image, mask=mask, group=group_of(image, task.group)))
    return listing_of_files(place, "segmentation", task.classes, _splits(names), items, faults)


def _unpaired(images: list[str], masks: list[str]) -> Fault | None:
    for several in (images, masks):
        if len(several) > 1:
            return Fault("partner", several[0], f"has the name of {', '.join(several[1:])} but for the ending")
    if not masks:
        return Fault("partner", images[0], "an image without a mask of the same name")
    return Fault("partner", masks[0], "a mask without an image of the same name") if not images else None


def _by_stem(names: list[str], folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name.startswith(folder) and name.count("/") == 2:
            found[PurePosixPath(name).stem].append(name)
    return found


def _names(task: ImageFolder | MaskFolder, path: Path, place: Place) -> list[str]:
    """The images below the splits, sorted by split and name. Raises DataError where there are none, or elsewhere."""
    names = [name for name in place.names() if name.startswith(tuple(f"{split}/" for split in SPLITS))]
    if not any(name.startswith("train/") for name in names) and "train" not in _folders(path):
        raise DataError(f"{path}: has no folder `train` (expected: {layout(task)})")
    images = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not images:
        raise DataError(f"{path}: holds no images (expected: {layout(task)}; {', '.join(sorted(SUFFIXES))})")
    parts = {name.split("/")[1] for name in images if name.startswith("train/") and name.count("/") > 1}
    parts |= _folders(path / "train")
    fits = parts >= {"images", "masks"} if isinstance(task, MaskFolder) else parts != {"images", "masks"}
    if not fits:
        raise DataError(f"{path}: not the layout of {task.source} (expected: {layout(task)})")
    return images


def _splits(names: list[str]) -> list[str]:
    present = Counter(name.split("/")[0] for name in names)
    return [split for split in SPLITS if present[split]]


def _folders(path: Path) -> set[str]:
    return {inner.name for inner in path.iterdir() if inner.is_dir()} if path.is_dir() else set()


def _empty_folders(path: Path, split: str) -> set[str]:
    """Classes are folders, and one without an image is a mistake that must not pass as a missing class."""
    return {name for name in _folders(path / split) if not name.startswith(".")}
