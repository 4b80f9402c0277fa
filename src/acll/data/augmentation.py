"""Augmentation of whole batches, on the device: each image has parameters of its own.

All parameters are drawn on the CPU, from the generator that is given, so they are the same on every
device. No image's changes depend on its neighbours in the batch, but for mixup and CutMix.

Transforms of torchvision and of kornia draw from the global generator, and those of the former take
one parameter for a batch: docs/costs.md says what it costs to call them for each image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from acll.data.colours import (
    PixelScale,
    autocontrast,
    blurred,
    chroma_matrix,
    equalised,
    posterised,
    recoloured,
    saturated,
    sharpened,
    solarised,
)
from acll.data.device import moved
from acll.data.prepared import IGNORE, TaskInfo
from acll.settings import Augmentation

_Values = Tensor | float
# a change, in place, of images and labels of a part of a batch
Change = Callable[[Tensor, Tensor, slice], None]
Look = Callable[[Tensor, slice], None]  # one of the values of images alone
MOVES = ("flip", "vertical_flip", "shift")  # from pixel to pixel
DEGREES = 15.0  # of `rotation`
LEAST_AREA = 0.25  # of `crop`, a share of the image
_STRETCH = 4 / 3  # of `crop`, at most
# of `affine`: degrees, share of a side, factor, shear in degrees
_TURN, _TRANSLATION, _ZOOM, _SHEAR = 10.0, 0.1, 1.25, 10.0
# of `colour`, as in BYOL (Grill et al., NeurIPS 2020): factors of 1 ± these, shares of a full turn
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.4, 0.4, 0.2, 0.1
_SIGMA = (0.1, 2.0)  # of `blur`, in pixels
# of `erasing`: shares of the image, and the largest stretch (Zhong et al., AAAI 2020)
_ERASED, _ERASED_STRETCH = (0.02, 0.33), 3.3
_VALUES_AT_ONCE = 2**19  # of images that a CPU changes at once, so that they stay in its cache
# of `randaugment`: operations for each image, and their strength (Cubuk et al., NeurIPS 2020)
_ROUNDS, _STRENGTH = 2, 9
_STRENGTHS = 30  # above 0, the last of which is the full one


@dataclass(frozen=True)
class Draw:
    """Random parameters, one for each image of a batch. size: height and width of the images."""

    count: int
    size: tuple[int, int]
    generator: torch.Generator

    def uniform(self, low: float, high: float) -> Tensor:
        """Return numbers [B] between these."""
        return low + (high - low) * torch.rand(self.count, generator=self.generator)

    def log_uniform(self, most: float) -> Tensor:
        """Return factors [B] of 1 / most … most."""
        return self.uniform(-math.log(most), math.log(most)).exp()

    def every(self) -> Tensor:
        """Return True for all images, [B]."""
        return torch.ones(self.count, dtype=torch.bool)

    def half(self) -> Tensor:
        """Return True for about half of the images, [B]."""
        return self.uniform(0, 1) < 0.5

    def number(self, below: int) -> Tensor:
        """Return whole numbers [B] from 0 on."""
        return torch.randint(below, (self.count,), generator=self.generator)

    def corner(self, sides: Tensor) -> Tensor:
        """Return where boxes of these heights and widths [B, 2] begin, anywhere in an image."""
        room = torch.tensor(self.size) - sides
        return room * torch.rand(self.count, 2, generator=self.generator)

    def sides(self, share: Tensor, stretch: Tensor) -> Tensor:
        """Return heights and widths [B, 2] of boxes within an image.

        share: [B] of its area. stretch: [B], width by height, in those of the image; as much of it
        as fits.
        """
        stretch = stretch.clamp(share, 1 / share)
        sides = torch.stack([(share / stretch).sqrt(), (share * stretch).sqrt()], 1)
        return sides * torch.tensor(self.size)


# --------------------------------------------------------------------------------------------------
# all of it


def augmented(
    images: Tensor,
    labels: Tensor,
    augmentation: Sequence[Augmentation],
    info: TaskInfo,
    generator: torch.Generator,
    normalise: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return normalised images [B, C, H, W] that are changed at random, and masks [B, H, W] with
    them.

    images: of any type. normalise: writes some of them into floats, and returns these. Flips and
    shifts are left to `random_flip_shift`, mixup and CutMix to `mixed`. Brightness comes first,
    then all that moves pixels, as one move, then the others in the order of the list.
    """
    changed = torch.empty(images.shape, device=images.device)
    later = [one for one in augmentation if one not in MOVES]
    if not later:
        return normalise(images, changed), labels
    height, width = images.shape[2:]
    draw = Draw(len(images), (height, width), generator)
    changes = _changes(later, draw, PixelScale(info, images.device))
    labels = labels.clone()
    # a CPU makes all changes of a few images while they are in its cache
    for part in _parts(images):
        normalise(images[part], changed[part])
        for change in changes:
            change(changed[part], labels[part], part)
    return changed, labels


def _changes(
    augmentation: Sequence[Augmentation], draw: Draw, scale: PixelScale
) -> Sequence[Change]:
    """Return what is drawn for a batch, in the order in which it is made."""
    first = [_jitter(draw)] if "brightness" in augmentation else []
    matrices: list[Tensor] = []
    looks: list[Look] = []
    for name, strength in map(_with_strength, augmentation):
        if name in _MATRICES:
            matrices.append(_MATRICES[name](draw, strength))
        elif name in _LOOKS:
            looks.append(_LOOKS[name](draw, scale))
        elif name in _OPERATIONS:
            for chosen, value in _OPERATIONS[name](draw, scale):
                matrices.append(_geometric(chosen, value, draw.size))
                looks.append(_pixelwise(chosen, value, scale))
    moves = [_move(_product(matrices))] if matrices else []
    return [*map(_of_images, first), *moves, *map(_of_images, looks)]


def _move(matrices: Tensor) -> Change:
    return lambda images, labels, part: warp(images, labels, matrices[part])


def _of_images(look: Look) -> Change:
    return lambda images, labels, part: look(images, part)


def _with_strength(entry: Augmentation) -> tuple[str, float | None]:
    """Return a name, and the strength that was set for it."""
    if isinstance(entry, str):
        return entry, None
    ((name, strength),) = entry.items()
    return name, strength


def _parts(images: Tensor) -> Iterator[slice]:
    """Yield parts of a batch [B, C, H, W]: a few images at a time on a CPU."""
    on_cpu = images.device.type == "cpu"
    at_once = max(1, _VALUES_AT_ONCE // math.prod(images.shape[1:])) if on_cpu else len(images)
    for start in range(0, len(images), at_once):
        yield slice(start, start + at_once)


def _change(
    images: Tensor,
    part: slice,
    chosen: Tensor,
    change: Callable[..., Tensor],
    *parameters: Tensor,
) -> None:
    """Change those images of a part of a batch that are chosen, [B], in place.

    change: of images and their parameters on the device, which come as [B, …]. All but images lies
    on the CPU, so that nothing waits for a GPU.
    """
    rows = chosen[part].nonzero()[:, 0]
    if len(rows) == 0:
        return
    own = [moved(values[part][rows], images.device) for values in parameters]
    _replace(images, rows, lambda some: change(some, *own))


def _replace(values: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change some rows of values [B, …] in place; the others keep all their bits."""
    if len(rows) == len(values):
        values.copy_(change(values))
    else:
        rows = moved(rows, values.device)
        values.index_copy_(0, rows, change(values.index_select(0, rows)))


# --------------------------------------------------------------------------------------------------
# flips and shifts, to the pixel


def random_flip_shift(
    images: Tensor, labels: Tensor, augmentation: Sequence[Augmentation], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flip and shift images [B, C, H, W] at random, and masks [B, H, W] with their images.

    All else is left to `augmented`. The moves of an image are made as one.
    """
    moves = [_positions(name, images, generator) for name in augmentation if name in MOVES]
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


# --------------------------------------------------------------------------------------------------
# moves between pixels


def warp(images: Tensor, labels: Tensor, matrices: Tensor) -> None:
    """Show images [B, C, H, W] and masks [B, H, W] as seen through matrices [B, 3, 3], in place.

    A matrix says where in the old image a point of the new one was, (x, y, 1) in pixels from the
    middle. Images are interpolated, masks have the label of the nearest pixel. What was outside is
    0 in images, the mean of the training split, and IGNORE in masks. The identity leaves all bits
    as they are, and labels [B] stay. matrices: on the CPU.
    """
    height, width = images.shape[2:]
    rows = (matrices != torch.eye(3)).flatten(1).any(1).nonzero()[:, 0]
    if len(rows) == 0:
        return
    grid = _grid(moved(matrices[rows], images.device), height, width)

    def seen(some: Tensor) -> Tensor:
        return functional.grid_sample(some, grid, align_corners=False)

    def nearest(some: Tensor) -> Tensor:
        masks = some[:, None].float().sub_(IGNORE)  # what is outside is 0 there
        found = functional.grid_sample(masks, grid, "nearest", align_corners=False)
        # by way of int32: on a CPU that takes a third of the time
        return found[:, 0].add_(IGNORE).to(torch.int32).to(some.dtype)

    _replace(images, rows, seen)
    if labels.ndim == 3:
        _replace(labels, rows, nearest)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Return where the pixels of images are taken from, [B, H, W, 2], as `grid_sample` wants it.

    It takes a tenth of the time of `affine_grid`.
    """
    # x + iy is one number, so that there is one sum for both
    size = torch.tensor([width, height], device=matrices.device)
    entries = (matrices[:, :2].transpose(1, 2) * (2 / size)).contiguous()
    of_x, of_y, shift = torch.view_as_complex(entries).T[:, :, None]
    x, y = (torch.arange(side, device=matrices.device) - (side - 1) / 2 for side in (width, height))
    return torch.view_as_real((of_x * x)[:, None, :] + (of_y * y + shift)[:, :, None])


def matrix(
    count: int,
    xx: _Values = 1.0,
    xy: _Values = 0.0,
    yx: _Values = 0.0,
    yy: _Values = 1.0,
    x: _Values = 0.0,
    y: _Values = 0.0,
) -> Tensor:
    """Return matrices [B, 3, 3] for `warp`, from numbers or [B] each.

    xy: pixels by which the old x grows with each pixel of the new y. x, y: shifts in pixels.
    """
    entries = (xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)
    columns = [torch.as_tensor(values, dtype=torch.float32).expand(count) for values in entries]
    return torch.stack(columns, 1).view(count, 3, 3)


def rotation(degrees: Tensor) -> Tensor:
    """Return matrices that turn images by degrees [B] against the clock."""
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return matrix(len(degrees), cosine, -sine, sine, cosine)  # y points down


def _product(matrices: Sequence[Tensor]) -> Tensor:
    """Return one matrix for several, of which the first is applied to the image first."""
    whole = matrices[0]
    for later in matrices[1:]:
        whole = whole @ later
    return whole


def _rotation(draw: Draw, degrees: float | None) -> Tensor:
    """Return matrices of turns by so many degrees at most, to both sides."""
    most = degrees or DEGREES
    return rotation(draw.uniform(-most, most))


def _crop(draw: Draw, least: float | None) -> Tensor:
    """Return matrices of random resized crops. least: share of the area that is seen."""
    sides = draw.sides(draw.uniform(least or LEAST_AREA, 1), draw.log_uniform(_STRETCH))
    size = torch.tensor(draw.size)
    y, x = (draw.corner(sides) + (sides - size) / 2).T
    zoom_y, zoom_x = (sides / size).T
    return matrix(draw.count, xx=zoom_x, yy=zoom_y, x=x, y=y)


def _affine(draw: Draw, _: float | None) -> Tensor:
    """Return matrices of small turns, shears, zooms and shifts."""
    height, width = draw.size
    turned = rotation(draw.uniform(-_TURN, _TURN))
    sheared = matrix(draw.count, xy=draw.uniform(-_SHEAR, _SHEAR).deg2rad().tan())
    zoom = draw.log_uniform(_ZOOM)
    x, y = (draw.uniform(-_TRANSLATION, _TRANSLATION) * side for side in (width, height))
    return turned @ sheared @ matrix(draw.count, xx=zoom, yy=zoom, x=x, y=y)


_MATRICES: dict[str, Callable[[Draw, float | None], Tensor]] = {
    "crop": _crop,
    "affine": _affine,
    "rotation": _rotation,
}


# --------------------------------------------------------------------------------------------------
# colours, and parts of images


def _jitter(draw: Draw) -> Look:
    """Change contrast by a factor of 0.8 … 1.2, brightness by up to 0.4 of the training split's
    std.

    So the effect is the same for pixels of any type and range.
    """

    def change(images: Tensor, factor: Tensor, level: Tensor) -> Tensor:
        centre = images.mean(dim=(1, 2, 3), keepdim=True)
        factor, level = (values[:, None, None, None] for values in (factor, level))
        return images.sub_(centre).mul_(factor).add_(centre + level)

    factor, level = draw.uniform(0.8, 1.2), draw.uniform(-0.4, 0.4)
    return lambda images, part: _change(images, part, draw.every(), change, factor, level)


def _colour(draw: Draw, scale: PixelScale) -> Look:
    """Change brightness and contrast, of coloured images saturation and hue, too."""
    brightness, contrast, saturation = (
        draw.uniform(1 - most, 1 + most) for most in (_BRIGHTNESS, _CONTRAST, _SATURATION)
    )
    chroma = [chroma_matrix(saturation, draw.uniform(-_HUE, _HUE))] if scale.coloured else []
    parameters = brightness, contrast, *chroma

    def change(images: Tensor, *own: Tensor) -> Tensor:
        return recoloured(images, scale, *own)

    return lambda images, part: _change(images, part, draw.every(), change, *parameters)


def _blur(draw: Draw, scale: PixelScale) -> Look:
    """Blur half of the images."""
    chosen, sigma = draw.half(), draw.uniform(*_SIGMA)
    return lambda images, part: _change(images, part, chosen, blurred, sigma)


def _erase(draw: Draw, scale: PixelScale) -> Look:
    """Set boxes in half of the images to the mean.

    Masks stay: what a box hides can be told from what is around it.
    """

    def change(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return images.masked_fill(_inside(rows, columns), 0.0)

    chosen = draw.half()
    box = _box(draw, draw.sides(draw.uniform(*_ERASED), draw.log_uniform(_ERASED_STRETCH)))
    return lambda images, part: _change(images, part, chosen, change, *box)


_LOOKS: dict[str, Callable[[Draw, PixelScale], Look]] = {
    "colour": _colour,
    "blur": _blur,
    "erasing": _erase,
}


def _box(draw: Draw, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows [B, H] and columns [B, W] lie in boxes anywhere in the images.

    sides: their heights and widths, [B, 2].
    """
    sides = sides.round()
    corner = draw.corner(sides).round()
    rows, columns = (
        (torch.arange(side) >= corner[:, axis, None])
        & (torch.arange(side) < (corner + sides)[:, axis, None])
        for axis, side in enumerate(draw.size)
    )
    return rows, columns


def _inside(rows: Tensor, columns: Tensor) -> Tensor:
    """Return where boxes are, [B, 1, H, W]."""
    return rows[:, None, :, None] & columns[:, None, None, :]


# --------------------------------------------------------------------------------------------------
# TrivialAugment and RandAugment


@dataclass(frozen=True)
class Operation:
    """An operation of TrivialAugment and RandAugment, as in torchvision.

    wide: its parameter at full strength in TrivialAugment (Müller & Hutter, ICCV 2021, the wide
    space). standard: in RandAugment. signed: whether half of the images get the negative of it.
    coloured: whether it needs three channels. change: of images, parameters [B] and scale; of those
    without it, see `_geometric`.
    """

    wide: float = 0.0
    standard: float = 0.0
    signed: bool = True
    coloured: bool = False
    change: Callable[[Tensor, Tensor, PixelScale], Tensor] | None = None


def _brightness(images: Tensor, value: Tensor, scale: PixelScale) -> Tensor:
    return recoloured(images, scale, 1 + value, torch.ones_like(value))


def _contrast(images: Tensor, value: Tensor, scale: PixelScale) -> Tensor:
    return recoloured(images, scale, torch.ones_like(value), 1 + value)


def _saturation(images: Tensor, value: Tensor, scale: PixelScale) -> Tensor:
    return saturated(images, 1 + value, scale)


def _sharpness(images: Tensor, value: Tensor, _: PixelScale) -> Tensor:
    return sharpened(images, 1 + value)


def _posterise(images: Tensor, value: Tensor, scale: PixelScale) -> Tensor:
    return posterised(images, 8 - value.round(), scale)


def _autocontrast(images: Tensor, _: Tensor, scale: PixelScale) -> Tensor:
    return autocontrast(images, scale)


def _equalise(images: Tensor, _: Tensor, scale: PixelScale) -> Tensor:
    return equalised(images, scale)


# a translation is a share of the side: 32 pixels, as in the paper, leave nothing of a small image
_SHIFTS = 32 / 224, 150 / 331
OPERATIONS = {
    "identity": Operation(),
    "shear_x": Operation(0.99, 0.3),
    "shear_y": Operation(0.99, 0.3),
    "translate_x": Operation(*_SHIFTS),
    "translate_y": Operation(*_SHIFTS),
    "rotate": Operation(135.0, 30.0),
    "brightness": Operation(0.99, 0.9, change=_brightness),
    "contrast": Operation(0.99, 0.9, change=_contrast),
    "saturation": Operation(0.99, 0.9, coloured=True, change=_saturation),
    "sharpness": Operation(0.99, 0.9, change=_sharpness),
    "posterise": Operation(6.0, 4.0, signed=False, change=_posterise),  # bits that are left out
    "solarise": Operation(1.0, 1.0, signed=False, change=solarised),
    "autocontrast": Operation(change=_autocontrast),
    "equalise": Operation(change=_equalise),
}
_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}


def _trivialaugment(draw: Draw, scale: PixelScale) -> list[tuple[Tensor, Tensor]]:
    """Return one operation for each image, by its number [B], and its parameter [B]: of any
    strength."""
    strength = draw.number(_STRENGTHS + 1) / _STRENGTHS
    return [_drawn(draw, scale, [one.wide for one in OPERATIONS.values()], strength)]


def _randaugment(draw: Draw, scale: PixelScale) -> list[tuple[Tensor, Tensor]]:
    """Return several operations for each image, as `_trivialaugment`, of one strength."""
    full, strength = [one.standard for one in OPERATIONS.values()], torch.tensor(_STRENGTH)
    return [_drawn(draw, scale, full, strength / _STRENGTHS) for _ in range(_ROUNDS)]


def _drawn(
    draw: Draw, scale: PixelScale, full: Sequence[float], strength: Tensor
) -> tuple[Tensor, Tensor]:
    """Return one operation for each image and its parameter.

    full: parameters at full strength, of all operations. strength: share of these, [B] or [].
    """
    every = OPERATIONS.values()
    known = [number for number, one in enumerate(every) if scale.coloured or not one.coloured]
    chosen = torch.tensor(known)[draw.number(len(known))]
    value = torch.tensor(full)[chosen] * strength
    signed = torch.tensor([one.signed for one in every])[chosen]
    return chosen, torch.where(signed & draw.half(), -value, value)


def _geometric(chosen: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices of the operations that move pixels; of others the identity.

    chosen: numbers of operations, [B]. value: their parameters, [B].
    """
    shear_x, shear_y, x, y, degrees = (
        torch.where(chosen == _NUMBERS[name], value, 0.0)
        for name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    )
    height, width = size
    moved_only = matrix(len(value), xy=shear_x, yx=shear_y, x=x * width, y=y * height)
    return torch.where((degrees == 0)[:, None, None], moved_only, rotation(degrees))


def _pixelwise(chosen: Tensor, value: Tensor, scale: PixelScale) -> Look:
    """Return what makes the operations that move no pixels. Parameters as of `_geometric`."""
    operations = list(OPERATIONS.values())

    def look(images: Tensor, part: slice) -> None:
        for number in sorted(set(chosen[part].tolist())):
            change = operations[number].change
            if change is not None:
                _change(images, part, chosen == number, _with_scale(change, scale), value)

    return look


def _with_scale(
    change: Callable[[Tensor, Tensor, PixelScale], Tensor], scale: PixelScale
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, value: change(images, value, scale)


_OPERATIONS: dict[str, Callable[[Draw, PixelScale], list[tuple[Tensor, Tensor]]]] = {
    "trivialaugment": _trivialaugment,
    "randaugment": _randaugment,
}


# --------------------------------------------------------------------------------------------------
# mixtures of two images


def mixed(
    images: Tensor,
    labels: Tensor,
    mixing: Sequence[str],
    classes: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return mixtures of images [B, C, H, W] with others of the batch, and shares of classes
    [B, classes].

    mixing: mixup (Zhang et al., ICLR 2018), CutMix (Yun et al., ICCV 2019), or both, of which each
    image gets one by chance. Shares are uniform in 0 … 1: α is 1.
    """
    height, width = images.shape[2:]
    draw = Draw(len(images), (height, width), generator)
    device = images.device
    # a batch is in the order of the split, in which neighbours may be of one class
    partner = torch.randperm(draw.count, generator=draw.generator)
    kept = draw.uniform(0, 1)
    cut = draw.half() if len(mixing) > 1 else torch.full((draw.count,), "cutmix" in mixing)
    sides = (1 - kept).sqrt()[:, None] * torch.tensor(draw.size)
    rows, columns = _box(draw, sides)
    rows &= cut[:, None]
    area = rows.sum(1) * columns.sum(1) / math.prod(draw.size)
    kept = torch.where(cut, 1 - area, kept)
    others = images[moved(partner, device)]
    if not bool(cut.all()):
        weight = moved(torch.where(cut, 1.0, kept), device)[:, None, None, None]
        images = torch.lerp(others, images, weight)
    if bool(cut.any()):
        images = torch.where(_inside(moved(rows, device), moved(columns, device)), others, images)
    own = (labels[:, None] == torch.arange(classes, device=device)).float()
    return images, torch.lerp(own[moved(partner, device)], own, moved(kept, device)[:, None])
