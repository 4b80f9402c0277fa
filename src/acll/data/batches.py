"""Batches on the device.

The order of samples and their augmentation depend on (seed, epoch) alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acll import plugins
from acll.data.augmentation import augmented, mixed, random_flip_shift
from acll.data.device import moved
from acll.data.prepared import IGNORE, TaskInfo, read_prepared
from acll.seeds import derived
from acll.settings import AUGMENTATIONS, MIXING, Augmentation, Sampling

EVALUATION_BATCH = 64
_MOST_PIXELS = EVALUATION_BATCH * 256**2  # of a batch in evaluation
# the value of a white pixel
WHITE = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}


@dataclass(frozen=True)
class Split:
    """A split of a prepared task.

    The last two are given where large images were cut into tiles, see `acll.data.tiles`.
    """

    images: Tensor  # uint8, uint16 or float32 [N, C, H, W]
    labels: Tensor  # classes int64 [N], or masks uint8 [N, H, W]
    tile_valid_box: Tensor | None = None  # int32 [N, 4] top, left, bottom, right within the tile
    tile_image_index: Tensor | None = None  # int32 [N], equal for the tiles of one image

    def __len__(self) -> int:
        return len(self.images)

    def image_count(self) -> int:
        """Return the number of images before any were cut into tiles."""
        return len(self) if self.tile_image_index is None else int(self.tile_image_index.max()) + 1


def split_of(tensors: dict[str, Tensor], name: str) -> Split:
    """Return a split from the tensors of a prepared file."""
    return Split(
        tensors[f"{name}_images"],
        tensors[f"{name}_labels"],
        tensors.get(f"{name}_tile_valid_box"),
        tensors.get(f"{name}_tile_image_index"),
    )


def splits_of(path: Path) -> tuple[Split, Split, TaskInfo]:
    """Return training split, validation split and description of a prepared task."""
    tensors, info = read_prepared(path)
    return split_of(tensors, "train"), split_of(tensors, "val"), info


def normalised(images: Tensor, info: TaskInfo, device: torch.device) -> Tensor:
    """Return images [N, C, H, W] of any type as floats, normalised by the training split."""
    return _normalise(images, torch.empty(images.shape, device=device), info)


def _normalise(images: Tensor, floats: Tensor, info: TaskInfo) -> Tensor:
    """Write images as `normalised` into floats of their shape, and return these."""
    white = WHITE[images.dtype]
    mean, std = (
        moved(torch.tensor(of), floats.device).view(-1, 1, 1) for of in (info.mean, info.std)
    )
    # in place: on a CPU a new tensor for each operation takes several times as long as the
    # arithmetic
    # moved first: floats are four times as many bytes
    floats.copy_(moved(images, floats.device))
    return floats.sub_(white * mean).div_(white * std)


def _chosen(values: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """Return some samples on the device."""
    # for large samples several times as fast as `values[indices]`, and straight into memory that
    # a GPU reads by itself
    pinned = device.type == "cuda" and not values.is_cuda
    samples = torch.empty(len(indices), *values.shape[1:], dtype=values.dtype, pin_memory=pinned)
    torch.index_select(values, 0, indices, out=samples)
    return samples.to(device, non_blocking=pinned)


def training_batches(
    split: Split,
    info: TaskInfo,
    batch_size: int,
    augmentation: Sequence[Augmentation],
    seed: int,
    epoch: int,
    device: torch.device,
    sampling: Sampling = "shuffled",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of batches, all of about one size.

    A batch is float images [B, C, H, W] and int64 labels [B] or [B, H, W]; with mixup or CutMix
    it has shares of classes, floats [B, classes], for labels.
    """
    own = [one for one in augmentation if isinstance(one, str) and one not in AUGMENTATIONS]
    mixing = [one for one in augmentation if one in MIXING]
    changes = [one for one in augmentation if one not in (*own, *mixing)]
    normalise = partial(_normalise, info=info)
    order = _order(split, sampling, np.random.default_rng(derived(seed, "order", epoch)))
    for number, indices in enumerate(np.array_split(order, batches(len(split), batch_size))):
        # sorted: a mapped file is read front to back
        chosen = torch.from_numpy(np.sort(indices))
        images, labels = (_chosen(of, chosen, device) for of in (split.images, split.labels))
        generator = torch.Generator().manual_seed(derived(seed, epoch, number))
        images, labels = random_flip_shift(images, labels, changes, generator)
        images, labels = augmented(images, labels, changes, info, generator, normalise)
        for name in own:  # plug-ins
            images, labels = plugins.augmented_by(name, images, labels.long(), generator)
        if mixing:
            images, labels = mixed(images, labels, mixing, len(info.classes), generator)
        yield images, labels if labels.is_floating_point() else labels.long()


def _order(split: Split, sampling: Sampling, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the indices of the images of an epoch, in the order in which they are taken."""
    if sampling == "shuffled":
        return generator.permutation(len(split))
    return generator.permutation(balanced(split.labels.numpy(), generator))


def balanced(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return as many indices as there are labels [N], equally many of each class, or one more.

    Of a class none is taken again before all of it was taken. Classes without a label have none.
    """
    _, counts = np.unique(labels, return_counts=True)
    of_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    wanted = generator.permutation([len(part) for part in np.array_split(labels, len(counts))])
    taken = []
    for members, count in zip(of_class, wanted, strict=True):
        times, rest = divmod(int(count), len(members))
        taken += [np.repeat(members, times), generator.choice(members, rest, replace=False)]
    return np.concatenate(taken)


def batches(samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch.

    Each has two samples or more: batch normalisation cannot train on one.
    """
    return max(1, min(math.ceil(samples / batch_size), samples // 2))


def evaluation_batch(info: TaskInfo) -> int:
    """Return how many images go through a network at once in evaluation.

    Large images take more memory, so these are fewer.
    """
    return max(1, min(EVALUATION_BATCH, _MOST_PIXELS // math.prod(info.image_size)))


def evaluation_batches(
    split: Split, info: TaskInfo, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the split in order, as float images [B, C, H, W] and int64 labels [B] or [B, H, W].

    Labels outside of a tile's valid box are IGNORE, so that no pixel counts twice.
    """
    size = evaluation_batch(info)
    for start in range(0, len(split), size):
        images = split.images[start : start + size]
        labels = split.labels[start : start + size]
        if split.tile_valid_box is not None:
            labels = _only_valid(labels, split.tile_valid_box[start : start + size])
        yield normalised(images, info, device), moved(labels, device).long()


def _only_valid(masks: Tensor, boxes: Tensor) -> Tensor:
    """Return masks [B, H, W] that are IGNORE outside of their boxes [B, 4]."""
    rows, columns = (torch.arange(side) for side in masks.shape[1:])
    top, left, bottom, right = boxes.T[:, :, None]
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return torch.where(down[:, :, None] & across[:, None, :], masks, IGNORE)
