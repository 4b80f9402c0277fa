"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie 2011) as it is published."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from acll.data.errors import DataError
from acll.data.image_files import manifest_of_files, unused
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.storage import Folder, Storage, absent, content_of, missing, storage_of
from acll.data.task import RawData


class Cub200(RawData):
    """CUB-200-2011 (Wah et al. 2011): 200 kinds of birds.

    It has its own split into training and test.
    """

    source: Literal["cub200"] = Field(description="`cub200`")
    kind: Literal["classification"] = Field("classification", description="always classification")
    path: str = Field(
        "CUB_200_2011.tgz",
        description="the archive as it is published, or the folder that is in it",
    )

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return _raw_files(self, root)


def _raw_files(task: Cub200, root: Path) -> list[Path]:
    """Return the archive, or the files of the folder. Raises DataError where there is neither."""
    path = root / task.path
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise missing(path)
    return [path / name for name in Folder(path).names()]


def _manifest(task: Cub200, root: Path) -> Manifest:
    """Return the samples that `images.txt` names, with the published split into train and test.

    Raises DataError.
    """
    path = root / task.path
    storage = storage_of(path)
    prefix = _prefix(storage, path)

    def lines(name: str) -> dict[str, str]:
        return _numbered(storage, prefix + name, path)

    images = lines("images.txt")
    labels = lines("image_class_labels.txt")
    in_training = lines("train_test_split.txt")
    names = lines("classes.txt")
    if not all(number.isdecimal() for number in names):
        raise DataError(
            f"{path}: {prefix}classes.txt: its lines do not begin with the number of a class"
        )
    numbers = sorted(names, key=int)
    index = {number: position for position, number in enumerate(numbers)}
    present = set(storage.names())
    samples, faults = [], []
    for key, image in images.items():
        name = f"{prefix}images/{image}"
        if labels.get(key) not in index or key not in in_training:
            raise DataError(f"{path}: {image} (image {key}) has no class or no split")
        if name not in present:
            faults.append(absent(storage, name, "images.txt"))
            continue
        split = "train" if in_training[key] == "1" else "test"
        samples.append(
            Sample(image, split, name, label=index[labels[key]], group=group_of(image, task.group))
        )
    below, hidden = (
        sorted(name for name in among if name.startswith(f"{prefix}images/"))
        for among in (present, storage.hidden())
    )
    used = [sample.image for sample in samples]
    warnings = unused(storage, below, hidden, used, "images.txt does not name it")
    samples.sort(key=lambda sample: (sample.split != "train", sample.id))
    return manifest_of_files(
        storage,
        "classification",
        [names[number] for number in numbers],
        ["train", "test"],
        samples,
        faults,
        warnings,
    )


def _prefix(storage: Storage, path: Path) -> str:
    """Return the folder in which the lists lie: the published archive has a file beside it."""
    found = [
        name for name in storage.names() if name == "images.txt" or name.endswith("/images.txt")
    ]
    if len(found) != 1:
        raise DataError(f"{path}: not CUB-200-2011: it has no images.txt")
    return found[0].removesuffix("images.txt")


def _numbered(storage: Storage, name: str, path: Path) -> dict[str, str]:
    """Return the lines `number text` of a file. Raises DataError."""
    try:
        pairs = [
            line.split(None, 1)
            for line in content_of(storage, name).decode().splitlines()
            if line.strip()
        ]
        return {number: text.strip() for number, text in pairs}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {name}: not a readable list: {error}") from None
