"""Which task an image belongs to, where nobody says so.

A task is likely where its network is sure of its answer, and where the image, and what batch
normalisations see of it, have the means and variances that the task's images had. All of that is in
the packed file already.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from acll.data.batches import evaluation_batch, normalised
from acll.data.images import Pixels
from acll.data.prepared import TaskInfo
from acll.data.tiles import tiles
from acll.serving.inputs import (
    ImageError,
    OneImage,
    batch_of,
    in_parts,
    pixels_of,
    prepared_image,
    prepared_tile,
)
from acll.serving.predictions import NOT_FINITE, TaskInUse, or_error

AT_ONCE = 16  # images that are looked at before the next task's network is loaded
_EVEN = 1e-3  # added to the variance of an image, which may be of one colour
_LEAST = 1e-6  # divergence
_MOST = 50.0  # of one channel: one that was all but constant would outweigh all others


@dataclass(frozen=True)
class Recognised:
    """The most likely task of an image. shares: how likely each task is; they add up to 1."""

    task: str
    shares: dict[str, float]

    @property
    def confidence(self) -> float:
        """How likely it is."""
        return self.shares[self.task]


@dataclass(frozen=True)
class Evidence:
    """What speaks for a task, of each image [N].

    confidence: the largest probability of its answer; of masks the mean over pixels. pixels: how
    far the means and variances of the channels of the image are from those of the task's images, as
    a Kullback–Leibler divergence of normal distributions, averaged over channels. layers: the same
    of what each batch normalisation with statistics sees, as the geometric mean over these; None
    without any.
    """

    confidence: Tensor
    pixels: Tensor
    layers: Tensor | None

    def weight(self) -> Tensor:
        """Return how likely the task is, as a number to be compared with that of other tasks."""
        together = self.pixels if self.layers is None else (self.pixels * self.layers).sqrt()
        return self.confidence / together


def evidence(task: TaskInUse, images: Tensor) -> Evidence:
    """Return what speaks for a task. images: as it was prepared [N, C, H, W]."""
    seen: list[Tensor] = []

    def look(module: _BatchNorm, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        (inner,) = (*given, *named.values())
        # of single values there is no variance, and of parts of images there may be several
        if module.running_mean is None or inner.dim() == 2 or len(inner) % len(images):
            return
        assert module.running_var is not None
        each = _divergence(inner, module.running_mean, module.running_var, module.eps)
        seen.append(each.reshape(len(images), -1).mean(dim=1))

    normalisations = [one for one in task.network.modules() if isinstance(one, _BatchNorm)]
    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in normalisations]
    try:
        largest = task.logits(images).softmax(dim=1).amax(dim=1)
    finally:
        for hook in hooks:
            hook.remove()
    own = normalised(images, task.info, torch.device("cpu"))
    none, one = torch.zeros(own.shape[1]), torch.ones(own.shape[1])
    return Evidence(
        largest.reshape(len(images), -1).mean(dim=1).cpu(),
        _divergence(own, none, one, _EVEN),
        torch.stack(seen).log().mean(dim=0).exp().cpu() if seen else None,
    )


def _divergence(images: Tensor, mean: Tensor, variance: Tensor, least: float) -> Tensor:
    """Return the divergence of each image [N] from means and variances of channels [C]."""
    own = images.flatten(2)
    spread, usual = own.var(dim=2, correction=0) + least, variance + least
    off = (own.mean(dim=2) - mean) ** 2
    each = (torch.log(usual / spread) + (spread + off) / usual - 1) / 2
    return each.clamp(max=_MOST).mean(dim=1) + _LEAST


class Recogniser:
    """Says which of some tasks images belong to.

    in_use: gives a task with its network.
    """

    def __init__(self, tasks: Sequence[str], in_use: Callable[[str], TaskInUse]) -> None:
        self._tasks, self._in_use = tasks, in_use

    def each(self, images: Sequence[OneImage]) -> list[Recognised | ImageError]:
        """Return the most likely task of each image, or what is wrong with it.

        A task that cannot have such an image, as it has other channels, say, is not likely.
        """
        weights = np.zeros((len(images), len(self._tasks)))
        errors: dict[int, ImageError] = {}
        made: dict[tuple[object, ...], list[Pixels | ImageError]] = {}
        for column, name in enumerate(self._tasks):
            task = self._in_use(name)
            key = _preparation(task.info)
            if key not in made:
                made[key] = [or_error(partial(view, image, task.info)) for image in images]
            found = made[key]
            errors |= {at: one for at, one in enumerate(found) if isinstance(one, ImageError)}
            usable = [at for at in range(len(images)) if not isinstance(found[at], ImageError)]
            if usable:
                batch = batch_of([one for one in found if not isinstance(one, ImageError)])
                parts = torch.split(batch, evaluation_batch(task.info))
                own = torch.cat([evidence(task, part).weight() for part in parts])
                weights[usable, column] = own.double().numpy()
        return [self._recognised(row, errors.get(at)) for at, row in enumerate(weights)]

    def _recognised(
        self, weights: NDArray[np.float64], error: ImageError | None
    ) -> Recognised | ImageError:
        if not np.isfinite(weights).all():
            return ImageError(NOT_FINITE)
        if not weights.any():
            assert error is not None
            return error
        shares = (weights / weights.sum()).tolist()
        return Recognised(
            self._tasks[int(weights.argmax())], dict(zip(self._tasks, shares, strict=True))
        )


def _preparation(info: TaskInfo) -> tuple[object, ...]:
    """Return what the pixels of an image depend on, of what is known of a task."""
    return (
        len(info.mean), info.image_size, info.pixel, info.tile_overlap, info.rotate, info.permute
    )  # fmt: skip


def view(image: OneImage, info: TaskInfo) -> Pixels:
    """Return an image as the task's network takes it; of large ones the tile in the middle."""
    if info.tile_overlap is None:
        return prepared_image(pixels_of(image), info)
    parts = in_parts(image)
    boxes = tiles(parts.size, info.image_size, info.tile_overlap)
    return prepared_tile(parts.read(boxes[len(boxes) // 2][0]), info)
