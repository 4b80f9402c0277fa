"""Datasets of torchvision, read by its own classes, which also download and verify them."""

import contextlib
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.error import HTTPError

import numpy as np
from pydantic import Field, model_validator

from acll.data.errors import DataError
from acll.data.images import (
    Pixels,
    UnreadableError,
    bands_of,
    guarded,
    orientation_of,
    upright,
    within,
)
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.prepared import IGNORE
from acll.data.storage import SPLITS, is_archive, missing, walk
from acll.data.task import Task
from acll.settings import Kind

TorchvisionName = Literal[
    "MNIST", "FashionMNIST", "KMNIST", "EMNIST", "SVHN", "CIFAR10", "CIFAR100", "Flowers102",
    "StanfordCars", "FGVCAircraft", "Food101", "DTD", "GTSRB", "EuroSAT", "OxfordIIITPet",
    "VOCSegmentation", "Cityscapes",
]  # fmt: skip


class Torchvision(Task):
    """A dataset of torchvision, by name, with its own splits.

    `make download` fetches and verifies what is missing.
    """

    source: Literal["torchvision"] = Field(description="`torchvision`")
    dataset: TorchvisionName = Field(description="its class in `torchvision.datasets`")
    kind: Kind = Field(
        "classification",
        description="`segmentation` for OxfordIIITPet (pet or background), VOCSegmentation, "
        "Cityscapes",
    )
    path: str = Field(description="the folder below `data_root` that torchvision calls `root`")
    group: str | None = Field(
        None, description="regular expression; samples whose match is equal stay in one split"
    )

    @model_validator(mode="after")
    def _kind_of_dataset(self) -> Self:
        kinds: tuple[Kind, ...] = ("classification",)
        if self.dataset == "OxfordIIITPet":
            kinds = ("classification", "segmentation")
        elif self.dataset in ("VOCSegmentation", "Cityscapes"):
            kinds = ("segmentation",)
        if self.kind not in kinds:
            raise ValueError(f"{self.dataset} has kind {' or '.join(kinds)}, not {self.kind}")
        return self

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return _raw_files(self, root)


@dataclass(frozen=True)
class KnownDataset:
    """What a dataset consists of.

    Where a test split has no labels, the validation split is `test` here.
    """

    files: tuple[str, ...]  # patterns of names below torchvision's `root`
    splits: dict[str, dict[str, Any]]  # the arguments of its class that give each split
    by_hand: bool = False  # torchvision has no download for it


_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_NAMED = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_NAMED, "val": {"split": "val"}}
_PETS = {"train": {"split": "trainval"}, "test": {"split": "test"}}
KNOWN = {
    "MNIST": KnownDataset(("MNIST/raw/*",), _TRAIN),
    "FashionMNIST": KnownDataset(("FashionMNIST/raw/*",), _TRAIN),
    "KMNIST": KnownDataset(("KMNIST/raw/*",), _TRAIN),
    "EMNIST": KnownDataset(
        ("EMNIST/raw/*balanced*",),
        {"train": {"split": "balanced", "train": True},
         "test": {"split": "balanced", "train": False}},
    ),
    "SVHN": KnownDataset(("train_32x32.mat", "test_32x32.mat"), _NAMED),
    "CIFAR10": KnownDataset(("cifar-10-batches-py/*",), _TRAIN),
    "CIFAR100": KnownDataset(("cifar-100-python/*",), _TRAIN),
    "Flowers102": KnownDataset(("flowers-102/**/*",), _THREE),
    "StanfordCars": KnownDataset(("stanford_cars/**/*",), _NAMED, by_hand=True),
    "FGVCAircraft": KnownDataset(("fgvc-aircraft-2013b/**/*",), _THREE),
    "Food101": KnownDataset(("food-101/**/*",), _NAMED),
    "DTD": KnownDataset(("dtd/dtd/**/*",), _THREE),
    "GTSRB": KnownDataset(("gtsrb/**/*",), _NAMED),
    "EuroSAT": KnownDataset(("eurosat/2750/**/*",), {"train": {}}),
    "OxfordIIITPet": KnownDataset(("oxford-iiit-pet/**/*",), _PETS),
    "VOCSegmentation": KnownDataset(
        ("VOCdevkit/VOC2012/**/*",), {"train": {"image_set": "train"}, "test": {"image_set": "val"}}
    ),
    "Cityscapes": KnownDataset(
        ("leftImg8bit/**/*", "gtFine/**/*"),
        {name: {"split": split, "mode": "fine", "target_type": "semantic"}
         for name, split in (("train", "train"), ("test", "val"))},
        by_hand=True,
    ),
}  # fmt: skip
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
_COUNTED = {"SVHN": 10, "GTSRB": 43}  # their classes have numbers only
# attributes in which the classes keep the names of files, and the labels
_FILES = ("_image_files", "_images", "images", "_samples", "samples")
_LABELS = ("targets", "labels", "_labels", "_samples", "samples")


def _raw_files(task: Torchvision, root: Path) -> list[Path]:
    """Return the files that the dataset is read from, not the archives that they came in.

    Raises DataError.
    """
    folder, known = root / task.path, KNOWN[task.dataset]
    old = folder / task.dataset / "processed"
    if old.exists():
        raise DataError(
            f"{old}: a form that torchvision no longer makes, but would read; remove it"
        )
    found = {path for pattern in known.files for path in _matching(folder, pattern)}
    found = {path for path in found if not is_archive(path) and path.suffix != ".gz"}
    if not found and folder.with_name(f"{folder.name}.dvc").is_file():
        raise missing(folder)
    if not found:
        how = "`make download CONFIG=<name>` fetches it"
        if known.by_hand:
            how = "has to be fetched by hand"
        raise DataError(f"{folder}: {task.dataset} is not there (no {known.files[0]}); {how}")
    return sorted(found)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files that a pattern of a `KnownDataset` means, also behind links to folders."""
    part, deep, _ = pattern.partition("/**/")
    if not deep:
        return [path for path in folder.glob(pattern) if path.is_file()]
    inner = folder / part
    names = walk(inner).files if inner.is_dir() else []
    return [path for name in names if (path := inner / name).is_file()]


def _manifest(task: Torchvision, root: Path) -> Manifest:
    """Return the samples of all splits, as the dataset's own class reads them.

    Raises DataError.
    """
    folder, known = root / task.path, KNOWN[task.dataset]
    _raw_files(task, root)
    try:
        datasets = {
            split: _dataset(task, folder, arguments) for split, arguments in known.splits.items()
        }
    except MemoryError:
        raise
    except Exception as error:  # each class has its own way to say that something is amiss
        raise DataError(
            f"{folder}: torchvision cannot read {task.dataset} there: {_line(error)}"
        ) from None
    masks = task.kind == "segmentation"
    classes = _classes(task, datasets["train"])
    if any(_classes(task, dataset) != classes for dataset in datasets.values()):
        raise DataError(
            f"{folder}: the splits of {task.dataset} differ in their classes; files are "
            "missing, or changed"
        )
    samples = []
    for split in datasets:
        labels = None if masks else [int(label) for label in _labels(datasets[split])]
        for index, name in enumerate(_ids(task, datasets[split], split, folder)):
            label = labels[index] if labels is not None else 0
            samples.append(
                Sample(name, split, (split, index), label=label, group=group_of(name, task.group))
            )
    # some classes list files in the order of the disk
    samples.sort(key=lambda sample: (SPLITS.index(sample.split), sample.id))

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def whole(split: str, index: int) -> tuple[Pixels, Pixels | None]:
        return guarded(lambda: _decoded(task, *datasets[split][index]))

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        image, mask = whole(*sample.image)
        return within(image, sample.box), None if mask is None else within(mask, sample.box)

    def size(sample: Sample) -> Sequence[tuple[int, int]]:
        return [values.shape[-2:] for values in read(sample) if values is not None]

    return Manifest(task.kind, classes, list(datasets), samples, read, size)


def fetch(task: Torchvision, root: Path) -> None:
    """Fetch the dataset and verify it, whole or not at all. Raises DataError."""
    folder, known = root / task.path, KNOWN[task.dataset]
    if known.by_hand:
        raise DataError(
            f"{folder}: torchvision has no download of {task.dataset}; fetch it by hand"
        )
    beside = folder / f".{task.dataset}.download"
    fresh = not folder.exists()
    shutil.rmtree(beside, ignore_errors=True)  # of a download that was killed
    try:
        beside.mkdir(parents=True)
        with _patience():
            for arguments in known.splits.values():
                _dataset(task, beside, arguments, download=True)
        for part in _parts(known):
            if (beside / part).exists():
                _put(beside / part, folder / part, beside / "before")
    except Exception as error:  # of the network, of checksums, of archives
        raise DataError(
            f"{folder}: the download of {task.dataset} failed and nothing was kept: {_line(error)}"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if fresh and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _parts(known: KnownDataset) -> list[str]:
    """Return the folders and files that are the dataset; others below `root` are not its own."""
    return sorted({pattern.split("/*")[0] for pattern in known.files})


def _put(new: Path, target: Path, before: Path) -> None:
    """Replace what was incomplete by what was fetched; `before` holds it meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(before)
    new.rename(target)
    if before.is_dir():
        shutil.rmtree(before)
    before.unlink(missing_ok=True)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Let connections in this block fail after a minute of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _dataset(
    task: Torchvision, folder: Path, arguments: dict[str, Any], download: bool = False
) -> Any:
    import torchvision.datasets

    options: dict[str, Any] = {} if KNOWN[task.dataset].by_hand else {"download": download}
    if task.dataset == "OxfordIIITPet":
        options["target_types"] = "segmentation" if task.kind == "segmentation" else "category"
    return getattr(torchvision.datasets, task.dataset)(folder, **arguments, **options)


def _labels(dataset: Any) -> Sequence[Any]:
    """Return the labels of a dataset, wherever its class keeps them."""
    values = next(getattr(dataset, name) for name in _LABELS if hasattr(dataset, name))
    return [value[1] if isinstance(value, tuple) else value for value in values]


def _ids(task: Torchvision, dataset: Any, split: str, folder: Path) -> list[str]:
    """Return names of files where there are any, else the dataset's own numbering."""
    for name in _FILES:
        values = getattr(dataset, name, None)
        if values is not None:
            paths = [Path(value[0] if isinstance(value, tuple) else value) for value in values]
            return [path.relative_to(folder).as_posix() for path in paths]
    return [f"{task.dataset}-{split}-{index:06d}" for index in range(len(dataset))]


def _classes(task: Torchvision, dataset: Any) -> list[str]:
    if task.kind == "segmentation":
        if task.dataset == "OxfordIIITPet":
            return ["background", "pet"]
        if task.dataset == "VOCSegmentation":
            return list(VOC)
        return [name for name, _ in _cityscapes(dataset)]
    if task.dataset in _COUNTED:
        return [str(number) for number in range(_COUNTED[task.dataset])]
    return [str(name) for name in dataset.classes]


def _cityscapes(dataset: Any) -> list[tuple[str, int]]:
    """Return (name, number) of the classes that are evaluated, in the order of their train ids."""
    used = [entry for entry in dataset.classes if 0 <= entry.train_id < IGNORE]
    return [(entry.name, entry.id) for entry in sorted(used, key=lambda entry: entry.train_id)]


def _decoded(task: Torchvision, image: Any, target: Any) -> tuple[Pixels, Pixels | None]:
    """Return pixels and mask of what a dataset gives; its masks have only been opened so far."""
    if task.kind != "segmentation":
        return upright(bands_of(image), orientation_of(image)), None
    values = np.asarray(target)
    if values.ndim != 2:
        raise UnreadableError(f"a mask has one channel of class indices, not {target.mode}")
    return bands_of(image), _mask(task, values)


def _mask(task: Torchvision, values: Pixels) -> Pixels:
    """Return class indices [H, W] from what the dataset's masks hold."""
    if task.dataset == "VOCSegmentation":
        return values
    table = np.full(256, IGNORE, np.uint8)
    if task.dataset == "OxfordIIITPet":  # 1 pet, 2 background, 3 the border between them
        table[[1, 2]] = 1, 0
    else:
        from torchvision.datasets import Cityscapes

        for index, (_, number) in enumerate(_cityscapes(Cityscapes)):
            table[number] = index
    return table[values.astype(np.uint8)]


def _line(error: Exception) -> str:
    """Return the message of an error in one line, with this project's way to download."""
    where = f" ({error.url})" if isinstance(error, HTTPError) else ""
    words = " ".join(str(error).split()) or type(error).__name__
    advice = "`make download CONFIG=<name>` fetches it"
    return words.replace("You can use download=True to download it", advice) + where
