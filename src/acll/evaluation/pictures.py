"""Images and masks as people see them."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from acll.data.prepared import IGNORE
from acll.evaluation.style import COLOURS


def spread(count: int, wanted: int) -> list[int]:
    """At most so many numbers below `count`, at about equal distances."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, wanted)).round()})


def visible(image: NDArray[Any]) -> NDArray[Any]:
    """[C, H, W] → [H, W, 3] in 0 … 1; the first three bands, deep ones stretched to what is in the
    image."""
    bands = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
    if image.dtype == np.uint8 and len(image) <= 3:
        return np.asarray(bands / 255).transpose(1, 2, 0)
    low, high = np.percentile(bands, [2, 98])
    return (
        np.asarray((bands.astype(np.float64) - low) / max(high - low, 1e-6))
        .clip(0, 1)
        .transpose(1, 2, 0)
    )


def overlaid(image: NDArray[Any], mask: NDArray[np.uint8], colours: NDArray[Any]) -> NDArray[Any]:
    """The image under its classes' colours; what is ignored stays grey."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    # little of the image, and of less contrast: a light blue in its shadows must not be taken for a
    # dark one
    painted = 0.4 * (0.2 + 0.6 * grey) + 0.6 * colours[np.minimum(mask, len(colours) - 1)]
    return np.asarray(np.where((mask == IGNORE)[:, :, None], grey, painted))


def class_colours(classes: int) -> NDArray[Any]:
    """RGB in 0 … 1 [classes, 3]: of the palette as long as it lasts."""
    if classes <= len(COLOURS):
        return np.array([to_rgb(colour) for colour in COLOURS[:classes]])
    colours: NDArray[Any] = np.array(
        [colormaps["turbo"](place)[:3] for place in np.linspace(0.03, 0.97, classes)]
    )
    return colours


def shortened(text: str, length: int) -> str:
    """At most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
