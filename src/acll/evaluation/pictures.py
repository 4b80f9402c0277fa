"""Images and masks as people see them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.prepared import IGNORE

# Okabe & Ito's palette, which the colour-blind can tell apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


def visible(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image [C, H, W] as people see it: [H, W, 3] in 0 … 1, of its first three bands.

    Images of more bits, or of more bands, are stretched: their 2nd to 98th percentile fill 0 … 1.
    """
    bands = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
    if image.dtype == np.uint8 and len(image) <= 3:
        return np.asarray(bands / 255).transpose(1, 2, 0)
    low, high = np.percentile(bands, [2, 98])
    stretched = (bands.astype(np.float64) - low) / max(high - low, 1e-6)
    return np.asarray(stretched).clip(0, 1).transpose(1, 2, 0)


def overlaid(image: NDArray[Any], mask: NDArray[np.uint8], colours: NDArray[Any]) -> NDArray[Any]:
    """Return an image [H, W, 3] under the colours of its classes.

    Class 0, by custom the background, is not painted, so that the image can be seen. Ignored pixels
    are grey and pale. mask: [H, W]. colours: in 0 … 1 [classes, 3].
    """
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    # of the image less contrast: in its shadows a light blue must not look like a dark one
    painted = 0.5 * (0.2 + 0.6 * grey) + 0.5 * colours[np.minimum(mask, len(colours) - 1)]
    seen = np.where((mask == 0)[:, :, None], image, painted)
    return np.asarray(np.where((mask == IGNORE)[:, :, None], 0.6 + 0.4 * grey, seen))


def class_colours(classes: int) -> NDArray[Any]:
    """Return a colour for each class: RGB in 0 … 1 [classes, 3].

    They are of the palette where that has enough.
    """
    # here, since predictions of classes have no colours
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    if classes <= len(COLOURS):
        return np.array([to_rgb(colour) for colour in COLOURS[:classes]])
    colours: NDArray[Any] = np.array(
        [colormaps["turbo"](position)[:3] for position in np.linspace(0.03, 0.97, classes)]
    )
    return colours
