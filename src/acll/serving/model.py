"""A packed network in use: `acll.load(path)`, its tasks, their networks, predictions.

What is not asked for is not read: opening a file reads its header, and a task's network reads the
weights that it needs.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from acll.data.batches import evaluation_batch, normalised
from acll.data.images import Pixels, within
from acll.data.prepared import TaskInfo
from acll.data.tiles import tiles
from acll.errors import UserError
from acll.networks.build import TaskNetwork
from acll.packing import packed_file
from acll.packing.load import loaded, naming, skeleton, task_info_of
from acll.packing.ownership import PackingError, TaskRecord, kind_uses
from acll.serving.inputs import (
    ImageError,
    OneImage,
    batch_of,
    in_parts,
    pixels_of,
    prepared_image,
    prepared_tile,
)
from acll.settings import Kind


@dataclass(frozen=True)
class LearnedTask:
    """What a packed network knows of one of its tasks.

    Shares are of all shared weights of the network.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    image_size: tuple[int, int]  # height, width to which images are resized, or of their tiles
    mean: tuple[float, ...]  # of each channel, white being 1
    std: tuple[float, ...]
    metric: str
    score: float  # on the validation split, when it was learned
    ratio: float | None  # release ratio; None where nothing was released
    owned_share: float | None  # weights that it trained and kept; None where its method owns none
    used_share: float  # these, and those of the tasks before it


@dataclass(frozen=True)
class Classified:
    """What an image shows."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]  # [classes]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the most probable classes with their probabilities, the label first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True)
class Segmented:
    """Which class each pixel of an image shows."""

    classes: tuple[str, ...]
    # [height, width] of the image as it was given: the index of a class
    mask: NDArray[np.uint8]


Prediction = Classified | Segmented
_T = TypeVar("_T")
_NOTHING = (
    "what the network gives for this image is not finite: its values are extreme, or "
    "the weights are no numbers"
)
_IN_MEMORY = 2**28  # pixels of a mask


class PackedNetwork:
    """A packed file in use. Only its header is read before a task is asked for."""

    def __init__(self, opened: packed_file.PackedFile) -> None:
        self._file = opened
        self._last: tuple[str, torch.device, TaskNetwork] | None = None  # what `predict` has used

    def __repr__(self) -> str:
        return (
            f"<PackedNetwork {self._file.tensor_file.path}: "
            f"{', '.join(task.name for task in self.tasks)}>"
        )

    @cached_property
    def tasks(self) -> tuple[LearnedTask, ...]:
        """Its tasks, in the order in which they were learned."""
        return tuple(
            self._task(record, position)
            for position, record in enumerate(self._file.header.tasks, 1)
        )

    def task(self, name: str) -> LearnedTask:
        """Return one of its tasks. Raises PackingError for one that was not learned."""
        position = self._file.without_weights().position(name)
        return self.tasks[position - 1]

    def network(self, task: str) -> TaskNetwork:
        """Return the network of a task: a module in evaluation mode, independent of all others.

        It takes images float [N, C, h, w] of the task's `image_size` (h, w), normalised with its
        mean and std. It gives logits [N, classes], or [N, classes, h, w] for a segmentation task.
        Raises PackingError for a task that was not learned, or a file that is not sound.
        """
        return loaded(self._file, task)

    def switch(self, network: TaskNetwork, task: str) -> None:
        """Turn a network that `network` gave into that of another task, in place.

        For services that have many tasks and memory for one network: new values are copied into the
        tensors of the old one. Where it raises PackingError, nothing has changed.
        """
        if not isinstance(network, TaskNetwork):
            raise PackingError(
                f"{type(network).__name__} is no network that `network` gave, and cannot be "
                "switched"
            )
        record, state = self._file.record(task), self._file.state(task)
        with naming(self._file):
            fresh = skeleton(self._file.without_weights(), record, state)
            if network.built_from != fresh.built_from:
                raise PackingError(
                    "its networks are built otherwise than the one that is to be switched"
                )
        device = next(network.parameters()).device
        network.head = fresh.head
        if fresh.decoder is None or network.decoder is None:
            network.decoder = fresh.decoder
        own = network.state_dict(keep_vars=True)
        network.load_state_dict(
            {name: state[name] for name in own if own[name].is_meta}, strict=False, assign=True
        )
        with torch.no_grad():
            for name, value in own.items():
                if not value.is_meta:
                    value.copy_(state[name])
        network.to(device).eval()

    def predict(
        self, task: str, images: OneImage | Iterable[OneImage], device: str | torch.device = "cpu"
    ) -> Prediction | list[Prediction]:
        """Return what an image shows, or a list for several images.

        images: one or several of a path, a file open for reading bytes, an image of Pillow, an
            array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W], of any size.

        They are prepared as the task's images were. Raises PackingError, and ImageError for an
        image that cannot be used.
        """
        several = hasattr(images, "__getitem__") or isinstance(images, Iterable)
        one = _is_one(images) or not several or getattr(images, "ndim", 4) < 4
        found = []
        every: Any = [images] if one else images
        for prediction in self.predict_each(task, every, device):
            if isinstance(prediction, ImageError):
                raise prediction
            found.append(prediction)
        return found[0] if one else found

    def predict_each(
        self, task: str, images: Iterable[OneImage], device: str | torch.device = "cpu"
    ) -> Iterator[Prediction | ImageError]:
        """Yield what each image shows, or what is wrong with it.

        Images are taken one after another, so there may be any number of them.
        """
        record = self._file.record(task)
        info, network = task_info_of(record), self._held(task, _usable(device))
        if _is_one(images):
            images = [cast(OneImage, images)]
        if record.kind == "segmentation":
            yield from (_segmented(network, info, image) for image in images)
            return
        coming = iter(images)
        while chunk := list(islice(coming, evaluation_batch(info))):
            yield from _classified(network, info, chunk)

    def _held(self, task: str, device: torch.device) -> TaskNetwork:
        """Return the network of a task; the last one is held."""
        if self._last is None or self._last[:2] != (task, device):
            self._last = (task, device, self.network(task).to(device))
        return self._last[2]

    def _task(self, record: TaskRecord, position: int) -> LearnedTask:
        layers = self._file.header.layers
        total = sum(layer.count for layer in layers)
        used = sum(
            sum(layer.owned[:position]) for layer in layers if kind_uses(record.kind, layer.name)
        )
        owned = sum(layer.owned[position - 1] for layer in layers)
        ratio = record.choice.get("ratio")
        return LearnedTask(
            record.name,
            record.kind,
            record.classes,
            record.image_size,
            record.mean,
            record.std,
            record.metric,
            record.validation_score,
            ratio,
            owned / total if record.frozen else None,
            used / total,
        )


def _is_one(images: Any) -> bool:
    """Return whether something that may have parts is an image all the same."""
    return isinstance(images, str | Path | Image.Image) or hasattr(images, "read")


def _usable(device: str | torch.device) -> torch.device:
    """Return a device. Raises UserError for one that is not here."""
    try:
        there = torch.zeros(1, device=device)
        float(there)  # what has no memory gives none back
        return there.device
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(
            f"device {str(device)!r}: there is no such device here; `cpu` is everywhere"
        ) from None


def load(path: str | Path) -> PackedNetwork:
    """Open a packed network, a `network.safetensors` of a run.

    Raises PackingError, which says what is wrong.
    """
    return PackedNetwork(packed_file.open_packed(Path(path)))


@torch.no_grad()
def _logits(network: TaskNetwork, info: TaskInfo, images: Tensor) -> Tensor:
    device = next(network.parameters()).device
    logits: Tensor = network(normalised(images, info, device))
    return logits


def _prepared(image: OneImage, info: TaskInfo) -> Pixels:
    return prepared_image(pixels_of(image), info)


def _classified(
    network: TaskNetwork, info: TaskInfo, images: Iterable[OneImage]
) -> Iterator[Classified | ImageError]:
    made = [_or_error(partial(_prepared, image, info)) for image in images]
    usable = [pixels for pixels in made if not isinstance(pixels, ImageError)]
    found = _logits(network, info, batch_of(usable)).softmax(dim=1).cpu().numpy() if usable else ()
    probabilities = iter(found)
    for pixels in made:
        if isinstance(pixels, ImageError):
            yield pixels
            continue
        own = next(probabilities)
        yield Classified(info.classes, own) if np.isfinite(own).all() else ImageError(_NOTHING)


def _segmented(network: TaskNetwork, info: TaskInfo, image: OneImage) -> Segmented | ImageError:
    return _or_error(lambda: Segmented(info.classes, _mask(network, info, image)))


def _or_error(make: Callable[[], _T]) -> _T | ImageError:
    try:
        return make()
    except ImageError as error:
        return error


def _mask(network: TaskNetwork, info: TaskInfo, image: OneImage) -> NDArray[np.uint8]:
    """Return the class of each pixel of an image, [H, W]. Raises ImageError.

    Where the task's images are tiles, a tile of the image is read at a time.
    """
    if info.tile_overlap is None:
        pixels = pixels_of(image)
        logits = _logits(network, info, batch_of([prepared_image(pixels, info)]))
        return _labels(logits[0], pixels.shape[1:])
    parts = in_parts(image)
    mask = _empty_mask(parts.size)
    for box, valid_box in tiles(parts.size, info.image_size, info.tile_overlap):
        tile = prepared_tile(parts.read(box), info)
        labels = _labels(_logits(network, info, batch_of([tile]))[0], info.image_size)
        top, left, bottom, right = valid_box
        rows = slice(box[0] + top, box[0] + bottom)
        columns = slice(box[1] + left, box[1] + right)
        mask[rows, columns] = within(labels, valid_box)
    return mask


def _empty_mask(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask [H, W]; one that is large is mapped to a file, which ends with it."""
    count = size[0] * size[1]
    if count <= _IN_MEMORY:
        return np.zeros(size, np.uint8)
    with TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, count)  # a disk that is full says so now
        return np.memmap(file, np.uint8, "r+", shape=size)


def _labels(logits: Tensor, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the class of each pixel of an image of this size, from logits [classes, h, w].

    These are interpolated one class at a time: large images of many classes would not fit into
    memory. Raises ImageError.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ImageError(_NOTHING)
    best = torch.full(size, -torch.inf, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for label, own in enumerate(logits):
        if own.shape != size:
            own = F.interpolate(own[None, None], size, mode="bilinear")[0, 0]
        better = own > best
        best[better], labels[better] = own[better], label
    return labels.cpu().numpy()
