"""A picture of the worst mistakes of several methods on the test images of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from acll.evaluation.examples import WORST, Examples
from acll.evaluation.pictures import class_colours, overlaid, visible
from acll.evaluation.style import heading
from acll.evaluation.words import shortened

_SIDE = 1.05  # inches that a picture is wide, with its margin
_LETTERS = 13  # of a caption


@dataclass(frozen=True)
class MethodMistakes:
    """The worst mistakes of a method's network, the worst first, and what each picture is.

    captions: two short lines each. examples: None where it makes no mistake.
    """

    method: str
    examples: Examples | None
    captions: tuple[str, ...]


def mistakes(title: str, methods: Sequence[MethodMistakes]) -> Figure:
    """Draw the worst mistakes, a row a method; of segmentation with truth and answer below."""
    shown = [method.examples for method in methods if method.examples is not None]
    layers = 3 if any(len(one.masks) for one in shown) else 1
    row = _SIDE * layers + 0.42
    figure: Figure = plt.figure(figsize=(_SIDE * WORST + 1.5, row * len(methods) + 0.5))
    heading(figure, title)
    width, height = figure.get_size_inches()
    for number, method in enumerate(methods):
        top = height - 0.5 - row * number
        name = f"{shortened(method.method, 18)}"
        figure.text(0.1 / width, (top - 0.5) / height, name, va="center", fontsize=9)
        if method.examples is None:
            where = (1.5 / width, (top - 0.5) / height)
            figure.text(*where, "no mistake", va="center", fontsize=9)
            continue
        _row(figure, method, method.examples, top)
    return figure


def _row(figure: Figure, method: MethodMistakes, examples: Examples, top: float) -> None:
    """Draw the pictures of a method. top: upper edge of the row, in inches from below."""
    width, height = figure.get_size_inches()
    colours = class_colours(len(examples.classes))
    for column, (image, caption) in enumerate(zip(examples.images, method.captions)):
        picture = visible(image)
        layers = [picture]
        if len(examples.masks):
            layers.append(overlaid(picture, examples.masks[column], colours))
            layers.append(overlaid(picture, examples.predictions[column], colours))
        left = 1.5 + _SIDE * column
        for number, layer in enumerate(layers):
            bottom = top - _SIDE * (number + 1) + 0.05
            side = _SIDE - 0.05
            panel = figure.add_axes((left / width, bottom / height, side / width, side / height))
            panel.imshow(np.asarray(layer), interpolation="nearest")
            panel.axis("off")
        below = top - _SIDE * len(layers)
        figure.text(left / width, below / height, caption, va="top", fontsize=7)
    if len(examples.masks):
        for number, word in enumerate(("image", "truth", "answer")):
            where = top - _SIDE * (number + 0.5)
            figure.text(1.0 / width, where / height, word, va="center", fontsize=8, color="#555555")


def caption_of(truth: str | None, predicted: str | None, badness: float) -> str:
    """Return two short lines: the truth, and the answer with its probability; or the IoU."""
    if truth is None or predicted is None:
        return f"mean IoU {1 - badness:.2f}"
    return f"{shortened(truth, _LETTERS)}\n→ {shortened(predicted, _LETTERS - 6)} {badness:.0%}"
