"""Images in a folder for each class."""

from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
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
from acll.data.names import alike, part_meant
from acll.data.storage import SPLITS, Storage, storage_of
from acll.data.task import RawData

IMAGE_LAYOUT = "<class>/*"  # what lies in a split


class ImageFolder(RawData):
    """Images in `{train,val,test}/<class>/*`; the folder names are the classes."""

    source: Literal["image_folder"] = Field(description="`image_folder`")
    kind: Literal["classification"] = Field("classification", description="always classification")

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return raw_files(root / self.path, _names)


def _manifest(task: ImageFolder, root: Path) -> Manifest:
    """Return the samples of `{train,val,test}/<class>/*`.

    Raises DataError where folders cannot be the classes that are meant.
    """
    path = root / task.path
    storage = storage_of(path)
    names = _names(storage, path)
    # (split, class, name)
    found = [
        (*PurePosixPath(name).parts[:2], name)
        for name in names
        if len(PurePosixPath(name).parts) == 3
    ]
    classes = sorted(
        {label for split, label, _ in found if split == "train"}
        # a folder without an image is a mistake, which must not pass as a class that does not exist
        | folders_in(storage, "train")
    )
    if len(classes) < 2:
        raise DataError(
            f"{path}/train: a folder for each class is expected, at least two; there is "
            f"{some(classes) or 'none'}"
        )
    for split in splits_in(names):
        present = {label for here, label, _ in found if here == split}
        unknown = sorted(present - set(classes))
        if unknown:
            pairs = [pair for pair in alike([*classes, *unknown]) if set(pair) & set(unknown)]
            hint = (
                f" (train has a name like it: {', '.join(map(ascii, pairs[0]))})" if pairs else ""
            )
            raise DataError(
                f"{path}/{split}: classes that train does not have: {some(unknown)}{hint}"
            )
        empty = [label for label in classes if label not in present]
        if empty and split == "train":  # elsewhere a warning, with other sources as well
            raise DataError(f"{path}/{split}: classes without an image: {some(empty)}")
    index = {label: number for number, label in enumerate(classes)}
    samples = [
        Sample(name, split, name, label=index[label], group=group_of(name, task.group))
        for split, label, name in sorted(
            found, key=lambda entry: (SPLITS.index(entry[0]), entry[1], entry[2])
        )
    ]
    faults = [
        DataFault(
            "elsewhere",
            name,
            "an image that lies in no class, or too deep (expected: <split>/<class>/*)",
        )
        for name in names
        if len(PurePosixPath(name).parts) != 3
    ]
    return manifest_of_files(
        storage,
        "classification",
        classes,
        splits_in(names),
        samples,
        faults,
        unused_files(storage, names, IMAGE_LAYOUT),
    )


def _names(storage: Storage, path: Path) -> list[str]:
    """Return the images. Raises DataError where they are laid out as those of `mask_folder`."""
    names = image_names(storage, path, IMAGE_LAYOUT)
    parts = sorted(folders_in(storage, "train"))
    if len(parts) == 2 and {part_meant(part) for part in parts} == {"images", "masks"}:
        raise DataError(
            f"{path}: not the layout of image_folder (expected: {layout(IMAGE_LAYOUT)}), but with "
            f"`{parts[0]}` and `{parts[1]}` nearly that of mask_folder"
        )
    return names
