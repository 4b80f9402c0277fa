"""Batches on the device: the order of samples depends on (seed, epoch) alone, augmentation works on whole batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acll.data.prepared import Header
from acll.seeds import derived
from acll.settings import Augmentation

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Split:
    """A split of a prepared task: images uint8 [N, C, H, W], labels int64 [N] or uint8 [N, H, W]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)


def normalised(images: Tensor, header: Header, device: torch.device) -> Tensor:
    """uint8 [N, C, H, W] → float [N, C, H, W], with the statistics of the training split."""
    mean = torch.tensor(header.mean, device=device).view(-1, 1, 1)
    deviation = torch.tensor(header.deviation, device=device).view(-1, 1, 1)
    return (images.to(device).float() / 255 - mean) / deviation


def training_batches(
    split: Split,
    header: Header,
    batch_size: int,
    augmentation: Sequence[Augmentation],
    seed: int,
    epoch: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of batches (float images [B, C, H, W], int64 labels [B] or [B, H, W]), all of about one size."""
    order = np.random.default_rng(derived(seed, "order", epoch)).permutation(len(split))
    for number, indices in enumerate(np.array_split(order, batches(len(split), batch_size))):
        chosen = torch.from_numpy(np.sort(indices))
        images, labels = split.images[chosen].to(device), split.labels[chosen].to(device)
        generator = torch.Generator().manual_seed(derived(seed, epoch, number))
        images, labels = augmented(images, labels, augmentation, generator)
        yield normalised(images, header, device), labels.long()


def batches(samples: int, batch_size: int) -> int:
    """How many batches an epoch has; never a last one of a single sample, which normalisation could not take."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))


def evaluation_batches(split: Split, header: Header, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order: (float images [B, C, H, W], int64 labels)."""
    for start in range(0, len(split), EVALUATION_BATCH):
        images = split.images[start : start + EVALUATION_BATCH]
        labels = split.labels[start : start + EVALUATION_BATCH]
        yield normalised(images, header, device), labels.to(device).long()


def augmented(
    images: Tensor, labels: Tensor, augmentation: Sequence[Augmentation], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random changes of a batch uint8 [B, C, H, W]; masks [B, H, W] are moved with their images."""
    masks = labels.ndim == 3
    for name in augmentation:
        if name == "brightness":
            images = _brightness(images, generator)
            continue
        rows, columns = _positions(name, images, generator)
        images = _gather(images, rows, columns)
        if masks:
            labels = _gather(labels[:, None], rows, columns)[:, 0]
    return images, labels


def _positions(name: Augmentation, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each image the rows [B, H] and columns [B, W] from which its pixels are taken."""
    count, _, height, width = images.shape
    rows = torch.arange(height).expand(count, -1)
    columns = torch.arange(width).expand(count, -1)
    if name == "shift":  # by up to an eighth, mirrored at the border
        rows = _mirrored(rows + _offsets(count, height, generator), height)
        columns = _mirrored(columns + _offsets(count, width, generator), width)
    else:
        turned = torch.rand(count, 1, generator=generator) < 0.5
        if name == "flip":
            columns = torch.where(turned, columns.flip(1), columns)
        else:
            rows = torch.where(turned, rows.flip(1), rows)
    return rows.to(images.device), columns.to(images.device)


def _offsets(count: int, side: int, generator: torch.Generator) -> Tensor:
    reach = side // 8
    return torch.randint(-reach, reach + 1, (count, 1), generator=generator)


def _mirrored(positions: Tensor, side: int) -> Tensor:
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)


def _gather(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[B, C, H, W] at rows [B, H] and columns [B, W] of each image."""
    count, channels, height, width = values.shape
    across = rows[:, None, :, None].expand(count, channels, height, width)
    values = values.gather(2, across)
    return values.gather(3, columns[:, None, None, :].expand(count, channels, height, width))


def _brightness(images: Tensor, generator: torch.Generator) -> Tensor:
    """Contrast by a factor of 0.8 … 1.2 and brightness by ±25 levels, for each image."""
    count = len(images)
    factor = (0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)).to(images.device)
    level = (50 * torch.rand(count, 1, 1, 1, generator=generator) - 25).to(images.device)
    values = images.float()
    centre = values.mean(dim=(1, 2, 3), keepdim=True)
    return ((values - centre) * factor + centre + level).clamp(0, 255).round().to(torch.uint8)
