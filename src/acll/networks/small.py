"""A small ResNet for small images.

One block a stage after He et al. 2016 (section 4.2, n = 1), with four stages instead of three. The
first stage works at full resolution, so that images of 16 or 32 pixels keep some; a decoder
therefore has depth 3. It has what segmentation-models-pytorch asks of an encoder, without importing
it: that alone would double the time in which the step of a small task starts.
"""

import torch.nn.functional as F
from torch import Tensor, nn

SMALL_RESNET = "resnet_small"
WIDTHS = (16, 32, 64, 128)
DEPTH = len(WIDTHS) - 1  # how often the resolution is halved


def scaled(channels: int, width: float) -> int:
    """Return a number of channels, or features, in a network that is `width` times as wide."""
    return max(1, round(channels * width))


class Block(nn.Module):
    """Two convolutions and a shortcut: [N, before, H, W] → [N, width, H / stride, W / stride]."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(before, width, 3, stride)
        self.second = _convolution(width, width, 3, 1)
        self.shortcut = _convolution(before, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, inner: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(inner))) + self.shortcut(inner))


class SmallResNet(nn.Module):
    """Images [N, 3, H, W] → features at strides 1, 2, 4, 8; the first are the images.

    H and W are multiples of 8. width: factor of all numbers of channels.
    """

    def __init__(
        self, depth: int = DEPTH, output_stride: int = 2**DEPTH, width: float = 1.0
    ) -> None:
        super().__init__()
        if depth != DEPTH:
            raise ValueError(f"{SMALL_RESNET} has depth {DEPTH}, not {depth}")
        widths = [scaled(channels, width) for channels in WIDTHS]
        self.out_channels = [3, *widths[1:]]
        self.output_stride = 2**DEPTH
        self.stem = _convolution(3, widths[0], 3, 1)
        self.stages = nn.ModuleList(
            Block(before, own, stride)
            for before, own, stride in zip((widths[0], *widths), widths, (1, 2, 2, 2))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        inner = F.relu(self.stem(images))
        for stage in self.stages:
            inner = stage(inner)
            features.append(inner)
        return [features[0], *features[2:]]  # the first stage has the resolution of the images

    def set_in_channels(self, channels: int, pretrained: bool) -> None:
        """Refuse other numbers than 3; segmentation-models-pytorch calls this."""
        if channels != 3:
            raise ValueError(f"{SMALL_RESNET} takes images of 3 channels, not {channels}")


def _convolution(channels: int, width: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(width),
    )
