"""Images, and masks of class indices with the same names in a folder beside them."""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from acll.data.errors import DataError
from acll.data.faults import DataFault
from acll.data.folders import folders_in_train, image_names, layout, raw_files, splits_in
from acll.data.image_files import manifest_of_files
from acll.data.manifest import Manifest, Sample, group_of
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
    for split in splits_in(names):
        images, masks = (_by_stem(names, f"{split}/{part}/") for part in ("images", "masks"))
        if not images:
            raise DataError(
                f"{path}/{split}/images: holds no images (expected: {layout(MASK_LAYOUT)})"
            )
        for stem in sorted(images.keys() | masks.keys()):
            pair = images.get(stem, []), masks.get(stem, [])
            fault = _unpaired(*pair)
            if fault is not None:
                faults.append(fault)
            else:
                (image,), (mask,) = pair
                samples.append(
                    Sample(image, split, image, mask=mask, group=group_of(image, task.group))
                )
    return manifest_of_files(
        storage, "segmentation", task.classes, splits_in(names), samples, faults
    )


def _unpaired(images: list[str], masks: list[str]) -> DataFault | None:
    """Return what is wrong with the files of one name; None for an image and its mask."""
    for several in (images, masks):
        if len(several) > 1:
            return DataFault(
                "partner",
                several[0],
                f"has the name of {', '.join(several[1:])} but for the ending",
            )
    if not masks:
        return DataFault("partner", images[0], "an image without a mask of the same name")
    if not images:
        return DataFault("partner", masks[0], "a mask without an image of the same name")
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
    if not folders_in_train(path, names) >= {"images", "masks"}:
        raise DataError(f"{path}: not the layout of mask_folder (expected: {layout(MASK_LAYOUT)})")
    return names
