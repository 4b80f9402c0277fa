"""The prepared files of a task: training and validation in one, the test split in its own.

`<task>.train.safetensors` holds the tensors `train_images`, `train_labels`, `train_ids` and the
same of `val`, `<task>.test.safetensors` those of `test`. Where images were cut into tiles,
`…_tile_image_index` is equal for the tiles of one image, and `…_tile_valid_box` is the part of a
tile that counts. The metadata have a `TaskInfo` as JSON, under `task`: classes, kind, size, mean
and std of the training split. Ids are lines of UTF-8.

Files are mapped into memory when they are read, so jobs share them. Training and search cannot read
a test file: see `allow_test`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.errors import DataError
from acll.files import written
from acll.settings import Kind

TEST = ".test.safetensors"
IGNORE = 255  # in masks: no class
_allowed = {"test": False}
_NAMES = {"uint8": "U8", "uint16": "U16", "float32": "F32", "int32": "I32", "int64": "I64"}


class TestSplitError(PermissionError):
    """A step that is not evaluation tried to read a test split."""

    __test__ = False  # not a class of tests, whatever its name


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a prepared task."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    mean: tuple[float, ...]  # of each channel over the training split, as a share of white
    std: tuple[float, ...]  # standard deviation of the same
    pixel: str = "uint8"  # type of a pixel: uint8, uint16 or float32
    tile_overlap: int | None = None  # pixels by which tiles overlap; None: images are resized
    rotate: float = 0.0  # degrees by which images were rotated, against the clock
    permute: int | None = None  # seed of the order in which pixels were put


@dataclass(frozen=True)
class Content:
    """The samples of a split, to be written one at a time: with labels or with masks."""

    ids: Sequence[str]
    images: Iterable[NDArray[Any]]  # [channels, H, W] each
    dtype: str
    channels: int
    labels: NDArray[np.int64] | None = None  # [N]
    masks: Iterable[NDArray[np.uint8]] | None = None  # [H, W] each
    tile_valid_box: NDArray[np.int32] | None = None  # [N, 4]
    tile_image_index: NDArray[np.int32] | None = None  # [N]


class OpenSplit:
    """A split of an open prepared file, read piece by piece."""

    def __init__(self, file: Any, split: str) -> None:
        def whole(part: str) -> Any:
            return file.get_tensor(f"{split}_{part}") if f"{split}_{part}" in names else None

        names = set(file.keys())
        self._images, self._labels = (
            file.get_slice(f"{split}_{part}") for part in ("images", "labels")
        )
        self.ids = bytes(whole("ids")).decode().split("\n")
        self.has_masks = len(self._labels.get_shape()) > 1
        self.tile_valid_box: NDArray[np.int32] | None = whole("tile_valid_box")
        self.tile_image_index: NDArray[np.int32] | None = whole("tile_image_index")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(channels, H, W) of an image."""
        return tuple(self._images.get_shape()[1:])

    def images(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return images at ascending positions, [n, C, H, W]."""
        return _at(self._images, positions)

    def labels(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return labels [n] or masks [n, H, W] at ascending positions."""
        return _at(self._labels, positions)


def _at(values: Any, positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return what is at ascending positions. What lies between them is read along."""
    first, last = int(positions[0]), int(positions[-1])
    found: NDArray[Any] = values[first : last + 1]
    return found[positions - first]


def allow_test() -> None:
    """Let this process read test splits.

    Called by evaluation, and by the step that makes the test split of a variant from that of
    another task. Neither hands on what it has seen.
    """
    _allowed["test"] = True


def write_prepared(path: Path, info: TaskInfo, contents: dict[str, Content]) -> None:
    """Write a file of some splits, whole or not at all, with one sample at a time in memory."""
    tensors = [
        tensor
        for split, content in contents.items()
        for tensor in _tensors(split, content, info.image_size)
    ]
    # the widest first, so that each begins at a multiple of its width
    tensors.sort(key=lambda tensor: (-np.dtype(tensor.dtype).itemsize, tensor.name))
    with written(path) as beside, beside.open("wb") as file:
        file.write(_head(tensors, {"task": json.dumps(asdict(info), sort_keys=True)}))
        for tensor in tensors:
            for part in tensor.parts:
                file.write(part.tobytes())


def read_prepared(path: Path) -> tuple[dict[str, Any], TaskInfo]:
    """Return tensors by name, mapped into memory, and the description of the task.

    Raises TestSplitError, and DataError for a damaged file.
    """

    def tensors(file: Any) -> dict[str, Any]:
        names = file.keys()  # an open file is no mapping, so it cannot be iterated over
        return {name: file.get_tensor(name) for name in names if not name.endswith("_ids")}

    return _read(path, "pt", tensors)


def ids(path: Path, split: str) -> list[str]:
    """Return the id of each sample of a split: the file, or the part of one, that it comes from.

    Raises as `read_prepared` does.
    """

    def lines(file: Any) -> list[str]:
        return bytes(file.get_tensor(f"{split}_ids")).decode().split("\n")

    found: list[str] = _read(path, "np", lines)[0]
    return found


def labels(path: Path, split: str) -> NDArray[Any]:
    """Return the labels of a split, or its masks, without torch.

    Raises as `read_prepared` does.
    """
    values: NDArray[Any] = _read(path, "np", lambda file: file.get_tensor(f"{split}_labels"))[0]
    return values


def some_samples(
    path: Path, split: str, positions: Sequence[int]
) -> tuple[list[NDArray[Any]], list[Any], TaskInfo]:
    """Return images, labels or masks, at these positions, and the description, without torch.

    Raises as `read_prepared` does.
    """

    def chosen(file: Any) -> tuple[list[NDArray[Any]], list[Any]]:
        images, labels = (file.get_slice(f"{split}_{part}") for part in ("images", "labels"))
        return [images[index] for index in positions], [labels[index] for index in positions]

    (images, labels), info = _read(path, "np", chosen)
    return images, labels, info


def sample_count(path: Path, split: str) -> int:
    """Return the number of samples of a split. Raises as `read_prepared` does."""
    return int(_read(path, "np", lambda file: file.get_slice(f"{split}_images").get_shape()[0])[0])


def task_info_from(values: dict[str, Any]) -> TaskInfo:
    """Return a description from its JSON, whose lists become tuples."""
    lists = ("classes", "image_size", "mean", "std")
    return TaskInfo(**(values | {key: tuple(values[key]) for key in lists}))


def opened(path: Path) -> tuple[dict[str, OpenSplit], TaskInfo]:
    """Return the splits of a file by name, which stays open as long as they are used, and the
    description of the task.

    Raises as `read_prepared` does.
    """

    def splits(file: Any) -> dict[str, OpenSplit]:
        every = sorted(file.keys())
        names = [name.removesuffix("_ids") for name in every if name.endswith("_ids")]
        return {name: OpenSplit(file, name) for name in names}

    found: tuple[dict[str, OpenSplit], TaskInfo] = _read(path, "np", splits)
    return found


def _read(path: Path, framework: str, take: Any) -> tuple[Any, TaskInfo]:
    """Return what `take` takes from the open file, and the description of the task."""
    from safetensors import SafetensorError, safe_open

    if path.name.endswith(TEST) and not _allowed["test"]:
        raise TestSplitError(f"{path}: only evaluation may read a test split")
    try:
        with safe_open(path, framework=framework) as file:
            return take(file), task_info_from(json.loads(file.metadata()["task"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a prepared file, or damaged: {error}; delete it to have it made anew"
        ) from None


# --------------------------------------------------------------------------------------------------
# the format of safetensors, written as a stream: its own writer wants whole tensors in memory


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: Iterable[NDArray[Any]]


def _tensors(split: str, content: Content, size: tuple[int, int]) -> Iterator[_Tensor]:
    """Yield the tensors of a split, named after it."""
    count = len(content.ids)
    yield _Tensor(
        f"{split}_images", content.dtype, (count, content.channels, *size), content.images
    )
    if content.masks is not None:
        yield _Tensor(f"{split}_labels", "uint8", (count, *size), content.masks)
    lines = np.frombuffer("\n".join(content.ids).encode(), np.uint8)
    whole = {
        "labels": content.labels,
        "ids": lines,
        "tile_valid_box": content.tile_valid_box,
        "tile_image_index": content.tile_image_index,
    }
    for name, values in whole.items():
        if values is not None:
            yield _Tensor(f"{split}_{name}", values.dtype.name, values.shape, [values])


def _head(tensors: Sequence[_Tensor], metadata: dict[str, str]) -> bytes:
    """Return the head of a file: eight bytes with the length of the JSON, and the JSON.

    It is padded, so that the data begin at a multiple of eight.
    """
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for tensor in tensors:
        begin, end = end, end + int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        entries[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
