"""Batches on the device.

The order of samples depends on (seed, epoch) alone. Augmentation works on whole batches.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acll import plugins
from acll.data.prepared import IGNORE, TaskInfo, read_prepared
from acll.seeds import derived
from acll.settings import AUGMENTATIONS, Augmentation

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
    white = WHITE[images.dtype]
    mean, std = (moved(torch.tensor(of), device).view(-1, 1, 1) for of in (info.mean, info.std))
    # in place: on a CPU a new tensor for each operation takes several times as long as the
    # arithmetic
    # moved first: floats are four times as many bytes
    typed = moved(images, device).to(torch.float32, copy=True)
    return typed.sub_(white * mean).div_(white * std)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Return values on the device; a GPU gets them while this process goes on."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    # contiguous: what has been expanded cannot be pinned
    return values.contiguous().pin_memory().to(device, non_blocking=True)


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
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of batches, all of about one size.

    A batch is float images [B, C, H, W] and int64 labels [B] or [B, H, W].
    """
    own = [name for name in augmentation if name not in AUGMENTATIONS]
    augmentation = [name for name in augmentation if name in AUGMENTATIONS]
    order = np.random.default_rng(derived(seed, "order", epoch)).permutation(len(split))
    for number, indices in enumerate(np.array_split(order, batches(len(split), batch_size))):
        # sorted: a mapped file is read front to back
        chosen = torch.from_numpy(np.sort(indices))
        images, labels = (_chosen(of, chosen, device) for of in (split.images, split.labels))
        generator = torch.Generator().manual_seed(derived(seed, epoch, number))
        images, labels = random_flip_shift(images, labels, augmentation, generator)
        images = normalised(images, info, device)
        for _ in range(augmentation.count("brightness")):
            jitter_brightness(images, generator)
        labels = labels.long()
        for name in own:  # plug-ins
            images, labels = plugins.augmented(name, images, labels, generator)
        yield images, labels


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


def random_flip_shift(
    images: Tensor, labels: Tensor, augmentation: Sequence[Augmentation], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flip and shift images [B, C, H, W] at random, and masks [B, H, W] with their images.

    Brightness is left to `jitter_brightness`. The moves of an image are made as one.
    """
    moves = [_positions(name, images, generator) for name in augmentation if name != "brightness"]
    if moves:
        rows, columns = (_composed(positions) for positions in zip(*moves))
        images = _gather(images, rows, columns)
        if labels.ndim == 3:
            labels = _gather(labels[:, None], rows, columns)[:, 0]
    return images, labels


def _composed(positions: Sequence[Tensor]) -> Tensor:
    """Return one move for several, each [B, side]: where each pixel was before the first."""
    composed = positions[0]
    for later in positions[1:]:
        composed = composed.gather(1, later)
    return composed


def _positions(
    name: Augmentation, images: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the rows [B, H] and columns [B, W] from which the pixels of each image are taken."""
    count, _, height, width = images.shape
    rows = torch.arange(height).expand(count, -1)
    columns = torch.arange(width).expand(count, -1)
    if name == "shift":
        rows = _mirrored(rows + _offsets(count, height, generator), height)
        columns = _mirrored(columns + _offsets(count, width, generator), width)
    else:
        turned = torch.rand(count, 1, generator=generator) < 0.5
        if name == "flip":
            columns = torch.where(turned, columns.flip(1), columns)
        else:
            rows = torch.where(turned, rows.flip(1), rows)
    return moved(rows, images.device), moved(columns, images.device)


def _offsets(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Return shifts [count, 1] of up to an eighth of a side."""
    reach = side // 8
    return torch.randint(-reach, reach + 1, (count, 1), generator=generator)


def _mirrored(positions: Tensor, side: int) -> Tensor:
    """Return positions that left an image, mirrored at its border."""
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)


def _gather(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return values [B, C, H, W] taken at rows [B, H] and columns [B, W] of each image."""
    if values.dtype == torch.uint16:  # GPUs cannot gather it; int16 has the same bits
        return _gather(values.view(torch.int16), rows, columns).view(torch.uint16)
    count, channels, height, width = values.shape
    positions = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    flat = values.reshape(count, channels, height * width)
    return flat.gather(2, positions.expand(-1, channels, -1)).view(values.shape)


def jitter_brightness(images: Tensor, generator: torch.Generator) -> None:
    """Change contrast and brightness of normalised images [B, C, H, W] at random, in place.

    Contrast by a factor of 0.8 … 1.2, brightness by up to 0.4 of the training split's std. So the
    effect is the same for pixels of any type and range.
    """
    count = len(images)
    factor = moved(0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator), images.device)
    level = moved(0.8 * torch.rand(count, 1, 1, 1, generator=generator) - 0.4, images.device)
    centre = images.mean(dim=(1, 2, 3), keepdim=True)
    images.sub_(centre).mul_(factor).add_(centre + level)
