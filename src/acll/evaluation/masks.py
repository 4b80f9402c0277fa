"""Masks of a few test images: the truth, and what networks predict before and after later tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from acll.evaluation.examples import Examples
from acll.evaluation.pictures import class_colours, overlaid, shortened, visible

_NAMED = 24  # classes that a legend has room for


@dataclass(frozen=True)
class MethodMasks:
    """What a method's networks predict of a task when it was learned, and at the end.

    learned: None where there is one network alone: nothing was learned later, or the method has no
    other. scores: mean IoU over the whole test split, when learned (if there is that) and at the
    end.
    """

    method: str
    learned: Examples | None
    end: Examples
    scores: tuple[float, ...]


def masks(title: str, methods: Sequence[MethodMasks]) -> Figure:
    """Draw input and truth in the first row, then a row a method: when learned, and at the end."""
    first = methods[0].end
    count, height, width = first.masks.shape
    side = 1.35
    figure: Figure
    figure, axes = plt.subplots(
        len(methods) + 1,
        2 * count,
        figsize=(2 * count * side + 1.8, (len(methods) + 1) * side * height / width + 1.3),
        squeeze=False,
        layout="constrained",
    )
    colours = class_colours(len(first.classes))
    for panel in axes.flatten():
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    pictures = [visible(image) for image in first.images]
    for index, (picture, mask) in enumerate(zip(pictures, first.masks)):
        _show(axes[0, 2 * index], picture, f"input {index + 1}")
        _show(axes[0, 2 * index + 1], overlaid(picture, mask, colours), "truth")
    for row, method in zip(axes[1:], methods):
        scores = " → ".join(f"{score:.3f}" for score in method.scores)
        row[0].set_ylabel(
            f"{shortened(method.method, 18)}\n{scores}",
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
        )
        for side_of, examples in enumerate((method.learned, method.end)):
            if examples is None:
                continue
            for index, picture in enumerate(pictures):
                painted = overlaid(picture, examples.predictions[index], colours)
                _show(row[2 * index + side_of], painted, "")
    for index in range(count):
        axes[1, 2 * index].set_title("when learned", fontsize=8)
        axes[1, 2 * index + 1].set_title("at the end", fontsize=8)
    figure.suptitle(f"{title} (mean IoU of the test split: when learned → at the end)", fontsize=10)
    _legend(figure, first.classes, colours)
    return figure


def _show(panel: Axes, picture: NDArray[Any], title: str) -> None:
    panel.imshow(picture, interpolation="nearest")
    if title:
        panel.set_title(title, fontsize=8)


def _legend(figure: Figure, classes: Sequence[str], colours: NDArray[Any]) -> None:
    if len(classes) <= _NAMED:
        handles = [
            Patch(color=colour, label=shortened(name, 16)) for name, colour in zip(classes, colours)
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncol=min(6, len(classes)),
            frameon=False,
            fontsize=8,
        )
