"""A packed network in use: `acll.load(path)`, its tasks, their networks, predictions.

What is not asked for is not read: opening a file reads its header, and a task's network reads the
weights that it needs.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from acll.data.batches import evaluation_batch, normalised
from acll.data.images import Box, Pixels, within
from acll.data.prepared import TaskInfo
from acll.data.tiles import tiles
from acll.errors import UserError
from acll.networks.build import TaskNetwork
from acll.networks.spec import alike_but_for_width
from acll.packing import packed_file
from acll.packing.accounting import unread_share, weights_owned, weights_read
from acll.packing.load import loaded, naming, skeleton, task_info_of
from acll.packing.ownership import PackingError, TaskRecord, grew
from acll.plugins import add_plugins
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
    # weights that it trained and kept, or has from a task that was dropped; None where its method
    # owns none
    owned_share: float | None
    used_share: float  # these, and those of the tasks before it that it reads
    unread_share: float | None  # of the weights of the tasks before it, those that it does not read
    width: float  # factor of the channels of its network, which may have grown since
    grew: bool  # whether the network grew for this task


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
    # [classes, height, width], if they were asked for: softmax of the logits that gave the mask
    probabilities: NDArray[np.float32] | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say what there is in place of what only a classification has."""
            words = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in ("label", "top"):
                words += (
                    ": the task is a segmentation; `mask` has the index of the class of each pixel,"
                    " and `classes` their names"
                )
            raise AttributeError(words, name=name, obj=self)


Prediction = Classified | Segmented
_T = TypeVar("_T")
_NOTHING = (
    "what the network gives for this image is not finite: its values are extreme, or "
    "the weights are no numbers"
)
_TOO_LARGE = "there is not enough memory for an image of its size"
_IN_MEMORY = 2**28  # bytes of what is found in an image


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
        tensors of the old one. Where the network grew between the two tasks, tensors are new, with
        the layout, type and `requires_grad` that `network` gives them. Where it raises
        PackingError, nothing has changed.
        """
        if not isinstance(network, TaskNetwork):
            raise PackingError(
                f"{type(network).__name__} is no network that `network` gave, and cannot be "
                "switched"
            )
        record, state = self._file.record(task), self._file.state(task)
        with naming(self._file):
            fresh = skeleton(self._file.without_weights(), record, state)
            if not alike_but_for_width(network.built_from, fresh.built_from):
                raise PackingError(
                    "its networks are built otherwise than the one that is to be switched"
                )
        device = next(network.parameters()).device
        network.head = fresh.head
        if network.built_from != fresh.built_from:  # the network grew between the two tasks
            network.encoder, network.decoder = fresh.encoder, fresh.decoder
            network.built_from = fresh.built_from
        elif fresh.decoder is None or network.decoder is None:
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
        self,
        task: str,
        images: OneImage | Iterable[OneImage],
        device: str | torch.device = "cpu",
        probabilities: bool = False,
    ) -> Prediction | list[Prediction]:
        """Return what an image shows, or a list for several images.

        images: one or several of a path, a file open for reading bytes, an image of Pillow, an
            array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W], of any size.
        probabilities: whether a segmentation task gives those of each pixel, too. They take 4 bytes
            a pixel and class. (A classification task always gives them.)

        They are prepared as the task's images were. Raises PackingError, and ImageError for an
        image that cannot be used.
        """
        several = hasattr(images, "__getitem__") or isinstance(images, Iterable)
        one = _is_one(images) or not several or getattr(images, "ndim", 4) < 4
        found = []
        every: Any = [images] if one else images
        for prediction in self.predict_each(task, every, device, probabilities):
            if isinstance(prediction, ImageError):
                raise prediction
            found.append(prediction)
        return found[0] if one else found

    def predict_each(
        self,
        task: str,
        images: Iterable[OneImage],
        device: str | torch.device = "cpu",
        probabilities: bool = False,
    ) -> Iterator[Prediction | ImageError]:
        """Yield what each image shows, as `predict` gives it, or what is wrong with it.

        Images are taken one after another, so there may be any number of them.
        """
        record = self._file.record(task)
        info, network = task_info_of(record), self._held(task, _usable(device))
        if _is_one(images):
            images = [cast(OneImage, images)]
        if record.kind == "segmentation":
            yield from (_segmented(network, info, probabilities, image) for image in images)
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
        header = self._file.header
        total = sum(layer.count for layer in header.layers)
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
            weights_owned(header, position) / total if record.frozen else None,
            weights_read(header, position) / total,
            unread_share(header, position) if record.frozen else None,
            record.width,
            grew(header.tasks, position, header.network),
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


def load(path: str | Path, plugins: str | Path | Iterable[str | Path] = ()) -> PackedNetwork:
    """Open a packed network, a `network.safetensors` of a run.

    plugins: a Python file, the name of an installed module, or several of them, that have the
    plug-ins that its network or its metrics are: docs/plugins.md. They are run; the packed file
    itself runs nothing. Raises PackingError, which says what is wrong.
    """
    add_plugins(plugins)
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


def _segmented(
    network: TaskNetwork, info: TaskInfo, with_probabilities: bool, image: OneImage
) -> Segmented | ImageError:
    return _or_error(lambda: _segment(network, info, with_probabilities, image))


def _or_error(make: Callable[[], _T]) -> _T | ImageError:
    """Return what is made, or what is wrong with one image: others may do with less memory."""
    try:
        return make()
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError(_TOO_LARGE)
    except RuntimeError as error:
        if not _is_want_of_memory(error):
            raise
        return ImageError(_TOO_LARGE)


def _is_want_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch says that memory is full; on a CPU its words alone tell."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _segment(
    network: TaskNetwork, info: TaskInfo, with_probabilities: bool, image: OneImage
) -> Segmented:
    """Return the class of each pixel of an image. Raises ImageError.

    Where the task's images are tiles, a tile of the image is read at a time.
    """
    if info.tile_overlap is None:
        pixels = pixels_of(image)
        canvas = _Canvas(info, pixels.shape[1:], with_probabilities)
        logits = _logits(network, info, batch_of([prepared_image(pixels, info)]))
        canvas.put(logits[0], canvas.size, (0, 0), (0, 0, *canvas.size))
        return canvas.segmented()
    parts = in_parts(image)
    canvas = _Canvas(info, parts.size, with_probabilities)
    for box, valid_box in tiles(parts.size, info.image_size, info.tile_overlap):
        tile = prepared_tile(parts.read(box), info)
        logits = _logits(network, info, batch_of([tile]))
        canvas.put(logits[0], info.image_size, box[:2], valid_box)
    return canvas.segmented()


class _Canvas:
    """What is found in an image of this size (height, width), put together from its boxes."""

    def __init__(self, info: TaskInfo, size: tuple[int, ...], with_probabilities: bool) -> None:
        height, width = size
        self.size = (height, width)
        self._classes = info.classes
        self._mask = _empty(self.size, np.dtype(np.uint8))
        shape = (len(info.classes), *self.size)
        self._probabilities = _empty(shape, np.dtype(np.float32)) if with_probabilities else None

    def put(
        self, logits: Tensor, size: tuple[int, int], corner: tuple[int, int], valid_box: Box
    ) -> None:
        """Put in what the network gives for a part of the image.

        logits: [classes, h, w], interpolated to this size. corner: top and left of the part.
        valid_box: what of the part is taken. Raises ImageError.
        """
        if not bool(torch.isfinite(logits).all()):
            raise ImageError(_NOTHING)
        top, left, bottom, right = valid_box
        rows = slice(corner[0] + top, corner[0] + bottom)
        columns = slice(corner[1] + left, corner[1] + right)
        labels, best = _labels(logits, size)
        self._mask[rows, columns] = within(labels.cpu().numpy(), valid_box)
        if self._probabilities is None:
            return
        total = torch.zeros_like(best)
        for own in _interpolated(logits, size):
            total += (own - best).exp_()
        for label, own in enumerate(_interpolated(logits, size)):
            found = ((own - best).exp_() / total).cpu().numpy()
            self._probabilities[label, rows, columns] = within(found, valid_box)

    def segmented(self) -> Segmented:
        """Return what was put in."""
        return Segmented(self._classes, self._mask, self._probabilities)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of zeros; one that is large is mapped to a file, which ends with it."""
    count = math.prod(shape) * dtype.itemsize
    if count <= _IN_MEMORY:
        return np.zeros(shape, dtype)
    try:
        with TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, count)  # a disk that is full says so now
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise ImageError(
            f"what is found in it needs {count:,} bytes of {gettempdir()}: {error.strerror}; the "
            "variable TMPDIR names another folder"
        ) from None


def _labels(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the class of each pixel of an image of this size, uint8 [H, W], and its logit.

    logits: [classes, h, w].
    """
    best = torch.full(size, -torch.inf, device=logits.device)
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for label, own in enumerate(_interpolated(logits, size)):
        better = own > best
        best[better], labels[better] = own[better], label
    return labels, best


def _interpolated(logits: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the logits [H, W] of each class at this size, from logits [classes, h, w].

    One class at a time: large images of many classes would not fit into memory.
    """
    for own in logits:
        if own.shape == size:
            yield own
        else:
            yield F.interpolate(own[None, None], size, mode="bilinear")[0, 0]
