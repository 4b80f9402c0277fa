"""A small ResNet for small images, as an encoder of segmentation-models-pytorch.

One block a stage after He et al. 2016 (section 4.2, n = 1), with four stages instead of three. The first stage works at
full resolution, so that images of 16 or 32 pixels keep some; a decoder therefore has depth 3.
"""

from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

NAME = "resnet_small"
WIDTHS = (16, 32, 64, 128)
DEPTH = len(WIDTHS) - 1  # how often the resolution is halved


class SmallResNet(nn.Module, EncoderMixin):
    """Images [N, 3, H, W] → features at strides 1, 2, 4, 8 (the first are the images); H and W multiples of 8."""

    def __init__(self, depth: int = DEPTH, output_stride: int = 2**DEPTH) -> None:
        super().__init__()
        self._depth, self._in_channels, self._output_stride = depth, 3, output_stride
        self._out_channels = [3, *WIDTHS[1:]]
        self.stem = nn.Sequential(_convolution(3, WIDTHS[0], 3, 1), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            BasicBlock(before, width, stride, _convolution(before, width, 1, stride) if stride > 1 else None)
            for before, width, stride in zip((WIDTHS[0], *WIDTHS), WIDTHS, (1, 2, 2, 2))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        inner = self.stages[0](self.stem(images))
        for stage in list(self.stages)[1:]:
            inner = stage(inner)
            features.append(inner)
        return features


def _convolution(channels: int, width: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(width))


encoders[NAME] = {"encoder": SmallResNet, "params": {}, "pretrained_settings": {}}
