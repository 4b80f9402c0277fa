"""Changes of the values of pixels, each image by parameters of its own.

Images are normalised, [B, C, H, W]: 0 is the mean of the training split and 1 its standard
deviation. Parameters are [B], on the device. Operations that count levels cut off at black and
white, the others do not.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from acll.data.device import moved
from acll.data.prepared import TaskInfo

_GREY = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
_CHROMA = ((0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # I and Q of YIQ


class PixelScale:
    """What normalised values mean: std of the training split, black and white.

    Tensors [C, 1, 1]; std is a share of white, black and white are normalised. They are three
    standard deviations from the mean where they would be farther, as for 12 bits in 16, and where
    nothing is known of them, as for floats.
    """

    def __init__(self, info: TaskInfo, device: torch.device) -> None:
        mean, std = (torch.tensor(of).view(-1, 1, 1) for of in (info.mean, info.std))
        ends = torch.stack([-mean / std, (1 - mean) / std]).clamp(-3.0, 3.0)
        if info.pixel == "float32":
            ends = torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1).expand_as(ends)
        self.std = moved(std, device)
        self.black, self.white = moved(ends[0], device), moved(ends[1], device)
        self.span = self.white - self.black
        self.coloured = len(mean) == 3
        grey = torch.tensor(_GREY) if self.coloured else torch.full((len(mean),), 1 / len(mean))
        self.grey = moved(grey.view(-1, 1, 1), device)  # share of each channel in a grey value


def recoloured(
    images: Tensor,
    scale: PixelScale,
    brightness: Tensor,
    contrast: Tensor,
    chroma: Tensor | None = None,
) -> Tensor:
    """Return normalised images [B, C, H, W] in other colours.

    brightness: [B], factor of all values above black. contrast: [B], factor of the distance to the
    mean grey value. chroma: [B, 3, 3] of `chroma_matrix`, for images of three channels.
    """
    factor = (brightness * contrast)[:, None, None, None]
    own = images.mean((2, 3), keepdim=True)
    grey = ((own - scale.black) * scale.std * scale.grey).sum(1, keepdim=True)
    rest = ((1 - contrast) * brightness)[:, None, None, None] * grey
    level = -scale.black * scale.std  # of the mean above black
    if chroma is None:
        return images * factor + (factor * level + rest - level) / scale.std
    channels = factor[:, 0] * chroma
    std, level = scale.std[:, 0], level[:, 0]
    shift = (channels @ level + rest[:, 0] - level) / std
    return torch.baddbmm(shift, channels * std.T / std, images.flatten(2)).view_as(images)


def chroma_matrix(saturation: Tensor, turn: Tensor) -> Tensor:
    """Return matrices [B, 3, 3] of red, green and blue that change colours and leave greys.

    saturation: [B], factor of the distance to grey. turn: [B], by which hues turn, in shares of a
    full turn, in the plane of I and Q of YIQ.
    """
    yiq = torch.tensor((_GREY, *_CHROMA), dtype=torch.float64)
    cosine, sine = (saturation * of(turn * 2 * math.pi) for of in (torch.cos, torch.sin))
    changed = torch.eye(3, dtype=torch.float64).repeat(len(turn), 1, 1)
    changed[:, 1:, 1:] = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    matrices: Tensor = yiq.inverse() @ changed @ yiq
    return matrices.float()


def saturated(images: Tensor, factor: Tensor, scale: PixelScale) -> Tensor:
    """Return images of three channels whose distance to grey is larger by a factor."""
    values = (images - scale.black) * scale.std
    grey = (values * scale.grey).sum(1, keepdim=True)
    return torch.lerp(grey, values, factor[:, None, None, None]) / scale.std + scale.black


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Return images after a Gaussian filter of 5 x 5 pixels. sigma: in pixels."""
    weights = torch.exp(-0.5 * (torch.arange(3, device=images.device) / sigma[:, None]) ** 2)
    return _filtered(images, weights / (weights[:, :1] + 2 * weights[:, 1:].sum(1, keepdim=True)))


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """Return images whose distance to smooth ones is larger by a factor; below 1 they are smoother.

    Pillow's smooth images: the mean of a pixel and its neighbours, in which the pixel weighs 5.
    """
    mean = _filtered(images, torch.full((len(images), 2), 1 / 3, device=images.device))
    return torch.lerp((9 * mean + 4 * images) / 13, images, factor[:, None, None, None])


def _filtered(images: Tensor, weights: Tensor) -> Tensor:
    """Return images after a symmetric filter, first along rows, then along columns.

    weights: [B, reach + 1], of pixels at a distance of 0, 1, …. Outside is what is at the border.
    """
    reach = weights.shape[1] - 1
    middle, *others = weights.T[:, :, None, None, None]
    # sums of shifted images: a convolution with a kernel for each image takes six times as long
    for dim, border in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        padded = functional.pad(images, border, mode="replicate")
        at = [padded.narrow(dim, start, images.shape[dim]) for start in range(2 * reach + 1)]
        images = at[reach] * middle
        for distance, weight in enumerate(others, start=1):
            images.addcmul_(at[reach - distance] + at[reach + distance], weight)
    return images


def posterised(images: Tensor, bits: Tensor, scale: PixelScale) -> Tensor:
    """Return images with 2 ** bits levels from black to white."""
    levels = 2 ** bits[:, None, None, None]
    step = scale.span / levels
    level = ((images - scale.black) / step).floor_().clamp_(min=0).minimum(levels - 1)
    return level * step + scale.black


def solarised(images: Tensor, share: Tensor, scale: PixelScale) -> Tensor:
    """Return images whose lightest values are inverted. share: of all from black to white."""
    threshold = scale.white - scale.span * share[:, None, None, None]
    return torch.where(images < threshold, images, scale.black + scale.white - images)


def autocontrast(images: Tensor, scale: PixelScale) -> Tensor:
    """Return images of which each channel reaches from black to white.

    A channel of one value stays as it is.
    """
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = (images - low) / (high - low) * scale.span + scale.black
    return torch.where(high > low, spread, images)


def equalised(images: Tensor, scale: PixelScale) -> Tensor:
    """Return images of which each channel has all values between black and white about
    equally often.

    A channel of one value stays as it is.
    """
    count, channels, height, width = images.shape
    level = ((images - scale.black) * (255 / scale.span)).round_().clamp_(0, 255).long().flatten(2)
    first = torch.arange(count * channels, device=images.device).view(count, channels, 1) * 256
    histogram = torch.bincount((level + first).flatten(), minlength=count * channels * 256)
    below = histogram.view(count, channels, 256).cumsum(2)
    lowest = below.masked_fill(below == 0, height * width).amin(2, keepdim=True)
    share = (below - lowest) / (height * width - lowest)  # of each level
    spread = share.gather(2, level).view(images.shape) * scale.span + scale.black
    return torch.where((lowest < height * width)[..., None], spread, images)
