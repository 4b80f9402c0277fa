"""What one task of a packed network says of images: classes, or masks put together from tiles."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from acll.data.batches import normalised
from acll.data.images import Box, Pixels, within
from acll.data.prepared import TaskInfo
from acll.data.tiles import tiles
from acll.networks.build import TaskNetwork
from acll.serving.inputs import (
    ImageError,
    OneImage,
    batch_of,
    in_parts,
    pixels_of,
    prepared_image,
    prepared_tile,
)
from acll.training.calibration import Calibrated


@dataclass(frozen=True)
class Classified:
    """What an image shows.

    task_confidence: how sure it is that the task is the right one, where nobody has named it.
    """

    task: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]  # [classes]
    task_confidence: float | None = None

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
    """Which class each pixel of an image shows. task_confidence: as `Classified` has it."""

    task: str
    classes: tuple[str, ...]
    # [height, width] of the image as it was given: the index of a class
    mask: NDArray[np.uint8]
    # [classes, height, width], if they were asked for: softmax of the logits that gave the mask
    probabilities: NDArray[np.float32] | None = None
    task_confidence: float | None = None

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
NOT_FINITE = (
    "what the network gives for this image is not finite: its values are extreme, or "
    "the weights are no numbers"
)
_TOO_LARGE = "there is not enough memory for an image of its size"
_IN_MEMORY = 2**28  # bytes of what is found in an image


class TaskInUse:
    """A task with its network, whose logits are divided by a temperature."""

    def __init__(self, network: TaskNetwork, info: TaskInfo, temperature: float) -> None:
        self.network, self.info = Calibrated(network, temperature), info
        self._device = next(network.parameters()).device
        self.bytes = sum(value.nbytes for value in network.state_dict().values())

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits [N, classes, …] of images [N, C, H, W] as they are prepared."""
        logits: Tensor = self.network(normalised(images, self.info, self._device))
        return logits


def _prepared(image: OneImage, info: TaskInfo) -> Pixels:
    return prepared_image(pixels_of(image), info)


def classified(task: TaskInUse, images: Iterable[OneImage]) -> Iterator[Classified | ImageError]:
    """Yield what each image of a batch shows, or what is wrong with it."""
    info = task.info
    made = [or_error(partial(_prepared, image, info)) for image in images]
    usable = [pixels for pixels in made if not isinstance(pixels, ImageError)]
    found = task.logits(batch_of(usable)).softmax(dim=1).cpu().numpy() if usable else ()
    probabilities = iter(found)
    for pixels in made:
        if isinstance(pixels, ImageError):
            yield pixels
            continue
        own = next(probabilities)
        yield (
            Classified(info.name, info.classes, own)
            if np.isfinite(own).all()
            else ImageError(NOT_FINITE)
        )


def segmented(task: TaskInUse, with_probabilities: bool, image: OneImage) -> Segmented | ImageError:
    """Return the class of each pixel of an image, or what is wrong with it."""
    return or_error(lambda: _segment(task, with_probabilities, image))


def or_error(make: Callable[[], _T]) -> _T | ImageError:
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


def _segment(task: TaskInUse, with_probabilities: bool, image: OneImage) -> Segmented:
    """Return the class of each pixel of an image. Raises ImageError.

    Where the task's images are tiles, a tile of the image is read at a time.
    """
    info = task.info
    if info.tile_overlap is None:
        pixels = pixels_of(image)
        canvas = _Canvas(info, pixels.shape[1:], with_probabilities)
        logits = task.logits(batch_of([prepared_image(pixels, info)]))
        canvas.put(logits[0], canvas.size, (0, 0), (0, 0, *canvas.size))
        return canvas.segmented()
    parts = in_parts(image)
    canvas = _Canvas(info, parts.size, with_probabilities)
    for box, valid_box in tiles(parts.size, info.image_size, info.tile_overlap):
        tile = prepared_tile(parts.read(box), info)
        logits = task.logits(batch_of([tile]))
        canvas.put(logits[0], info.image_size, box[:2], valid_box)
    return canvas.segmented()


class _Canvas:
    """What is found in an image of this size (height, width), put together from its boxes."""

    def __init__(self, info: TaskInfo, size: tuple[int, ...], with_probabilities: bool) -> None:
        height, width = size
        self.size = (height, width)
        self._info = info
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
            raise ImageError(NOT_FINITE)
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
        return Segmented(self._info.name, self._info.classes, self._mask, self._probabilities)


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
