"""Batches on the device: the order of samples depends on (seed, epoch) alone, augmentation works on
whole batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acll.data.prepared import IGNORE, TaskInfo, read_prepared
from acll.seeds import derived
from acll.training.settings import Augmentation

EVALUATION_BATCH = 64
_MOST_PIXELS = EVALUATION_BATCH * 256**2  # of a batch in evaluation
WHITE = {
    torch.uint8: 255.0,
    torch.uint16: 65535.0,
    torch.float32: 1.0,
}  # the value of a white pixel


@dataclass(frozen=True)
class Split:
    """A split of a prepared task: images uint8, uint16 or float32 [N, C, H, W], labels int64 [N] or
    uint8 [N, H, W].

    Where large images were cut into tiles, wholes int32 [N] says which tiles are of one image, and
    cores int32 [N, 4] for which part each answers (top, left, bottom, right; see
    `acll.data.tiles`).
    """

    images: Tensor
    labels: Tensor
    cores: Tensor | None = None
    wholes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def originals(self) -> int:
        """How many images there were before any were cut into tiles."""
        return len(self) if self.wholes is None else int(self.wholes.max()) + 1


def split_of(tensors: dict[str, Tensor], name: str) -> Split:
    """A split from the tensors of a prepared file."""
    own = {part: tensors.get(f"{name}_{part}") for part in ("cores", "wholes")}
    return Split(tensors[f"{name}_images"], tensors[f"{name}_labels"], **own)


def splits_of(path: Path) -> tuple[Split, Split, TaskInfo]:
    """Return training split, validation split and header of a prepared task."""
    tensors, header = read_prepared(path)
    return split_of(tensors, "train"), split_of(tensors, "val"), header


def normalised(images: Tensor, header: TaskInfo, device: torch.device) -> Tensor:
    """Images [N, C, H, W] of any type → float, with the statistics of the training split."""
    white = WHITE[images.dtype]
    mean = torch.tensor(header.mean, device=device).view(-1, 1, 1)
    deviation = torch.tensor(header.deviation, device=device).view(-1, 1, 1)
    # in place: on a CPU a new tensor for each operation takes several times as long as the
    # arithmetic
    return images.to(device, torch.float32, copy=True).sub_(white * mean).div_(white * deviation)


def training_batches(
    split: Split,
    header: TaskInfo,
    batch_size: int,
    augmentation: Sequence[Augmentation],
    seed: int,
    epoch: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of batches (float images [B, C, H, W], int64 labels [B] or [B, H, W]), all of about
    one size."""
    order = np.random.default_rng(derived(seed, "order", epoch)).permutation(len(split))
    for number, indices in enumerate(np.array_split(order, batches(len(split), batch_size))):
        chosen = torch.from_numpy(np.sort(indices))
        images, labels = split.images[chosen].to(device), split.labels[chosen].to(device)
        generator = torch.Generator().manual_seed(derived(seed, epoch, number))
        images, labels = moved(images, labels, augmentation, generator)
        images = normalised(images, header, device)
        for _ in range(augmentation.count("brightness")):
            brighten(images, generator)
        yield images, labels.long()


def batches(samples: int, batch_size: int) -> int:
    """How many batches an epoch has; never a last one of a single sample, which normalisation could
    not take."""
    return max(1, min(math.ceil(samples / batch_size), samples // 2))


def evaluation_batch(header: TaskInfo) -> int:
    """How many images go through a network at once in evaluation: fewer of large ones, which take
    more memory."""
    return max(1, min(EVALUATION_BATCH, _MOST_PIXELS // math.prod(header.image_size)))


def evaluation_batches(
    split: Split, header: TaskInfo, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order: (float images [B, C, H, W], int64 labels); what a tile does not answer
    for is ignored."""
    size = evaluation_batch(header)
    for start in range(0, len(split), size):
        images = split.images[start : start + size]
        labels = split.labels[start : start + size]
        if split.cores is not None:
            labels = _only_cores(labels, split.cores[start : start + size])
        yield normalised(images, header, device), labels.to(device).long()


def _only_cores(masks: Tensor, cores: Tensor) -> Tensor:
    """Masks [B, H, W], ignored outside of cores [B, 4]."""
    rows, columns = (torch.arange(side) for side in masks.shape[1:])
    top, left, bottom, right = cores.T[:, :, None]
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return torch.where(down[:, :, None] & across[:, None, :], masks, IGNORE)


def moved(
    images: Tensor, labels: Tensor, augmentation: Sequence[Augmentation], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] moved at random, all moves as one; masks [B, H, W] are moved with their
    images."""
    moves = [_positions(name, images, generator) for name in augmentation if name != "brightness"]
    if moves:
        rows, columns = (_composed(positions) for positions in zip(*moves))
        images = _gather(images, rows, columns)
        if labels.ndim == 3:
            labels = _gather(labels[:, None], rows, columns)[:, 0]
    return images, labels


def _composed(positions: Sequence[Tensor]) -> Tensor:
    """One move for several, each [B, side]: where each pixel was before the first."""
    composed = positions[0]
    for later in positions[1:]:
        composed = composed.gather(1, later)
    return composed


def _positions(
    name: Augmentation, images: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
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
    if values.dtype == torch.uint16:  # of which GPUs can do little; these are the same bits
        return _gather(values.view(torch.int16), rows, columns).view(torch.uint16)
    count, channels, height, width = values.shape
    places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    flat = values.reshape(count, channels, height * width)
    return flat.gather(2, places.expand(-1, channels, -1)).view(values.shape)


def brighten(images: Tensor, generator: torch.Generator) -> None:
    """Change normalised images [B, C, H, W] in place: contrast by a factor of 0.8 … 1.2, brightness
    by up to 0.4, which are deviations of the training split; so it is the same for pixels of any
    type and range."""
    count = len(images)
    factor = (0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)).to(images.device)
    level = (0.8 * torch.rand(count, 1, 1, 1, generator=generator) - 0.4).to(images.device)
    centre = images.mean(dim=(1, 2, 3), keepdim=True)
    images.sub_(centre).mul_(factor).add_(centre + level)
