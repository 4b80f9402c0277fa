"""Images, and masks of class indices with the same names in a folder beside them."""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from acll.data.errors import DataError
from acll.data.faults import DataFault
from acll.data.folders import (
    folders_in,
    image_names,
    layout,
    raw_files,
    splits_in,
    unused_files,
)
from acll.data.image_files import manifest_of_files
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.names import alike, difference, part_meant
from acll.data.storage import Storage, storage_of
from acll.data.task import RawData
from acll.settings import Names

MASK_LAYOUT = "{images,masks}/*"  # what lies in a split


class MaskFolder(RawData):
    """Images in `{train,val,test}/images/*` and their masks in `{train,val,test}/masks/*`.

    Masks hold class indices (grey levels, or of a palette); 255 means ignore.
    """

    source: Literal["mask_folder"] = Field(description="`mask_folder`")
    kind: Literal["segmentation"] = Field("segmentation", description="always segmentation")
    classes: Names = Field(description="names of the classes, in order of index")

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return raw_files(root / self.path, _names)


def _manifest(task: MaskFolder, root: Path) -> Manifest:
    """Return the samples of `{train,val,test}/{images,masks}/*`, paired by name.

    Raises DataError for another layout.
    """
    path = root / task.path
    storage = storage_of(path)
    names = _names(storage, path)
    samples: list[Sample] = []
    faults: list[DataFault] = []
    accounted_for: list[str] = []
    for split in splits_in(names):
        images, masks = (_by_stem(names, f"{split}/{part}/") for part in ("images", "masks"))
        if not images:
            raise DataError(
                f"{path}/{split}/images: holds no images (expected: {layout(MASK_LAYOUT)})"
            )
        like = _like(images, masks)
        for stem in sorted(images.keys() | masks.keys()):
            pair = images.get(stem, []), masks.get(stem, [])
            accounted_for += [name for names_of_one in pair for name in names_of_one]
            fault = _unpaired(*pair, near=like.get(stem, ""))
            if fault is not None:
                faults.append(fault)
            else:
                (image,), (mask,) = pair
                samples.append(
                    Sample(image, split, image, mask=mask, group=group_of(image, task.group))
                )
    return manifest_of_files(
        storage,
        "segmentation",
        task.classes,
        splits_in(names),
        samples,
        faults,
        unused_files(storage, accounted_for, MASK_LAYOUT),
    )


def _like(images: dict[str, list[str]], masks: dict[str, list[str]]) -> dict[str, str]:
    """Return for stems that have no partner, but nearly one, words that say which."""
    single = images.keys() ^ masks.keys()
    if not single:
        return {}
    words = _longer(sorted(images.keys() - masks.keys()), masks)
    for group in alike(images.keys() | masks.keys()):
        for stem in single.intersection(group):
            other = next(one for one in group if one != stem)
            file = (images.get(other) or masks[other])[0]
            words[stem] = f"; {file} is there, {difference(stem, other)}"
    return words


def _longer(lonely: list[str], masks: dict[str, list[str]]) -> dict[str, str]:
    """Return words for images whose masks are all called alike, but for more letters around.

    Such as `7_mask` for `7`. lonely: stems of images without a mask.
    """
    if not lonely:
        return {}
    for before, own, after in (mask.partition(lonely[0]) for mask in masks):
        if own and all(f"{before}{stem}{after}" in masks for stem in lonely):
            more = " and ".join(f"`{part}`" for part in (before, after) if part)
            return {
                stem: f"; {masks[f'{before}{stem}{after}'][0]} is there: take {more} from the "
                "names of masks"
                for stem in lonely
            }
    return {}


def _unpaired(images: list[str], masks: list[str], near: str) -> DataFault | None:
    """Return what is wrong with the files of one name; None for an image and its mask.

    near: which file has nearly the name of a partner, in words.
    """
    for several in (images, masks):
        if len(several) > 1:
            return DataFault(
                "partner",
                several[0],
                f"has the name of {', '.join(several[1:])} but for the ending",
            )
    if not masks:
        return DataFault("partner", images[0], f"an image without a mask of the same name{near}")
    if not images:
        return DataFault("partner", masks[0], f"a mask without an image of the same name{near}")
    return None


def _by_stem(names: list[str], folder: str) -> dict[str, list[str]]:
    """Return the files right in a folder, by name without ending."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name.startswith(folder) and name.count("/") == 2:
            found[PurePosixPath(name).stem].append(name)
    return found


def _names(storage: Storage, path: Path) -> list[str]:
    """Return images and masks. Raises DataError where they are laid out otherwise."""
    names = image_names(storage, path, MASK_LAYOUT)
    for split in splits_in(names):
        folders = folders_in(storage, split)
        lacking = {"images", "masks"} - folders
        near = sorted(folder for folder in folders if part_meant(folder) in lacking)
        if near:
            raise DataError(
                f"{path}/{split}: has a folder `{near[0]}`; did you mean `{part_meant(near[0])}`? "
                f"(expected: {layout(MASK_LAYOUT)})"
            )
        if lacking and split == "train":
            raise DataError(
                f"{path}: not the layout of mask_folder (expected: {layout(MASK_LAYOUT)})"
            )
    return names
