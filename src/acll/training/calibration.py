"""How sure a network may be: the temperature of its probabilities.

Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acll.data.prepared import IGNORE

# more logits would not change what is kept of a temperature
_MOST_LOGITS = 2**22
_FARTHEST = 3.0  # natural logarithm of the largest temperature
_POINTS, _ROUNDS = 25, 4


class Calibrated(nn.Module):
    """A network whose logits are divided by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, C, …] of images [B, channels, H, W]."""
        logits: Tensor = self.network(images)
        return logits / self.temperature


def temperature(given: Iterable[tuple[Tensor, Tensor]], images: int) -> float:
    """Return the number by which logits are divided before their softmax.

    The most probable one given the labels of a validation split. Before these are seen, its
    logarithm is normal with mean 0 and variance 1: labels that are all right would ask for a
    temperature of 0. Four digits, so that it does not depend on how sums are rounded.

    given: logits [B, C] and labels [B], or logits [B, C, H, W] and labels [B, H, W], of so many
    images. Of large splits, images and pixels at equal distances count.
    """
    kept = [_some(logits, labels, images) for logits, labels in given]
    logits = torch.cat([own for own, _ in kept])
    labels = torch.cat([own for _, own in kept])

    def cost(at: float) -> float:
        loss = F.cross_entropy(logits / float(np.exp(at)), labels, reduction="sum")
        return float(loss) + at**2 / 2

    middle, reach = 0.0, _FARTHEST
    for _ in range(_ROUNDS):
        points = np.linspace(middle - reach, middle + reach, _POINTS)
        middle = min(points.tolist(), key=cost)
        reach *= 2 / (_POINTS - 1)
    return float(f"{np.exp(middle):.4g}")


def _some(logits: Tensor, labels: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Return logits float64 [n, C] and labels [n] of a share of the samples that have a label."""
    classes = logits.shape[1]
    own = logits.movedim(1, -1).reshape(-1, classes)
    flat = labels.reshape(-1)
    positions = torch.nonzero(flat != IGNORE if labels.dim() > 1 else flat >= 0).squeeze(1)
    share = _MOST_LOGITS * len(labels) / (images * classes)
    step = max(1, round(len(positions) / max(1.0, share)))
    positions = positions[::step]
    return own[positions].double().cpu(), flat[positions].long().cpu()
