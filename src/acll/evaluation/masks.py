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
from acll.evaluation.pictures import class_colours, overlaid, visible
from acll.evaluation.words import shortened

_NAMED = 24  # classes that a legend has room for


@dataclass(frozen=True)
class MethodMasks:
    """What a method's networks predict of a task when it was learned, and at the end.

    learned: None where there is one network alone: nothing was learned later, or the method has no
    other. scores: over the whole test split, when learned (if there is that) and at the end.
    """

    method: str
    learned: Examples | None
    end: Examples
    scores: tuple[float, ...]


def masks(title: str, metric: str, methods: Sequence[MethodMasks]) -> Figure:
    """Draw input and truth in the first row, then a row a method: when learned, and at the end.

    metric: of the scores, in words.

    Where no method has two networks to compare there is one column for each image, and a row for
    the inputs and one for the truth.
    """
    first = methods[0].end
    count, height, width = first.masks.shape
    compared = any(method.learned is not None for method in methods)
    side = 1.35
    columns, above = (2 * count, 1) if compared else (count, 2)
    figure: Figure
    figure, axes = plt.subplots(
        len(methods) + above,
        columns,
        figsize=(
            columns * side + 1.8,
            (len(methods) + above) * side * height / width + 1.3,
        ),
        squeeze=False,
        layout="constrained",
    )
    colours = class_colours(len(first.classes))
    for panel in axes.flatten():
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    pictures = [visible(image) for image in first.images]
    # the panels of inputs and of truths: side by side, or one above the other
    inputs, truths = (axes[0, ::2], axes[0, 1::2]) if compared else (axes[0], axes[1])
    for index, (picture, mask) in enumerate(zip(pictures, first.masks)):
        _show(inputs[index], picture, f"image {index + 1}")
        _show(truths[index], overlaid(picture, mask, colours), "truth" if compared else "")
    if not compared:
        _name(truths[0], "truth")
    for row, method in zip(axes[above:], methods):
        scores = " → ".join(f"{score:.3f}" for score in method.scores)
        _name(row[0], f"{shortened(method.method, 18)}\n{scores}")
        networks = (method.learned, method.end) if compared else (method.end,)
        for offset, examples in enumerate(networks):
            for index, picture in enumerate(pictures):
                panel = row[len(networks) * index + offset]
                if examples is None:
                    panel.text(0.5, 0.5, "no other\nnetwork", ha="center", va="center", fontsize=8)
                else:
                    _show(panel, overlaid(picture, examples.predictions[index], colours), "")
    if compared:
        for index in range(count):
            axes[1, 2 * index].set_title("when learned", fontsize=8)
            axes[1, 2 * index + 1].set_title("at the end", fontsize=8)
    meaning = f"{metric} of the test split" + (": when learned → at the end" if compared else "")
    figure.suptitle(f"{title} ({meaning})", fontsize=10)
    _legend(figure, first.classes, colours)
    return figure


def _name(panel: Axes, text: str) -> None:
    """Write what a row is to the left of its first panel."""
    panel.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)


def _show(panel: Axes, picture: NDArray[Any], title: str) -> None:
    panel.imshow(picture, interpolation="nearest")
    if title:
        panel.set_title(title, fontsize=8)


def _legend(figure: Figure, classes: Sequence[str], colours: NDArray[Any]) -> None:
    if len(classes) <= _NAMED:
        handles = [
            Patch(color=colour, label=shortened(name, 16))
            for name, colour in zip(classes[1:], colours[1:])
        ]
        background = f"{shortened(classes[0], 16)} (not painted)"
        handles.insert(0, Patch(facecolor="white", edgecolor="#888888", label=background))
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncol=min(4, len(classes)),
            frameon=False,
            fontsize=8,
        )
