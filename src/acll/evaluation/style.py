"""What all figures have in common.

They are readable in print and by the colour-blind: Okabe & Ito's palette, with markers. Charts are
SVG, in which points and bars say their values when the mouse is over them; pictures are PNG.
"""

import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from acll.evaluation.drawings import FIGURE_DPI, SVG
from acll.files import written

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MARKERS = "os^DvP*X"
FREE = "#E5E5E5"
ACROSS = 3  # panels side by side: a page of 1200 pixels shows them at their own size
_LETTER = 0.098  # inches that a letter of a heading is wide

plt.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "figure.dpi": FIGURE_DPI,
        "text.parse_math": False,  # names of classes and tasks may have any characters
        "svg.hashsalt": "acll",
        "svg.fonttype": "none",  # text stays text; Verdana is as wide where DejaVu is absent
        "font.sans-serif": ["DejaVu Sans", "Verdana"],
    }
)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, as PNG or SVG; equal figures give equal bytes."""
    with written(path) as beside:
        if path.suffix == ".svg":
            beside.write_text(_svg(figure), encoding="utf-8")
        else:
            figure.savefig(beside, format="png", metadata={"Software": None})
    plt.close(figure)


def hover(artist: Artist, texts: Sequence[str]) -> None:
    """Let a bar, or each point of a line, say a text in an SVG when the mouse is over it.

    texts: one, or one for each point of the line, all of which have to be drawn.
    """
    artist.set_gid(json.dumps(list(texts)))


def _svg(figure: Figure) -> str:
    """Return a figure as SVG without ids but those that it refers to, so that a page may have
    several."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ET.fromstring(file.getvalue())  # noqa: S314  what matplotlib has just written
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{{{SVG}}}g"):
        name = group.attrib.pop("id", "")
        if name.startswith("["):
            _say(group, json.loads(name))
    return ET.tostring(root, encoding="unicode") + "\n"


def _say(group: ET.Element, texts: list[str]) -> None:
    """Put titles, which browsers show under the mouse, into the points of a group, or into it."""
    points = list(group.iter(f"{{{SVG}}}use"))
    told = points if len(texts) == len(points) else [group]
    for element, text in zip(told, texts, strict=True):
        title = ET.Element(f"{{{SVG}}}title")
        title.text = text
        element.insert(0, title)


def grid(rows: int, columns: int, height: float, width: float = 3.2) -> tuple[Figure, Any]:
    """Return a figure and its panels [rows, columns]. height, width: of each, in inches."""
    size = (width * columns + 1.2, height * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return figure, axes


def legend_of_methods(figure: Figure) -> None:
    """Put one legend beside all panels, with an entry a method, though many panels have it.

    It is in the middle: above there may be a long heading.
    """
    by_label: dict[str, Artist] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        by_label |= dict(zip(labels, handles))
    figure.legend(by_label.values(), by_label.keys(), loc="outside right center", frameon=False)


def heading(figure: Figure, text: str) -> None:
    """Put a heading over a figure, so that it is understood by itself; widen it if need be."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, _LETTER * len(text) + 0.4), height)
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def log_ticks(low: float, high: float) -> list[float]:
    """Return round values in (low, high) to label a logarithmic axis with.

    Where the range has room for them they are three or more. low, high: positive.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [round(step * 10.0**decade, 12) for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks
    evenly = MaxNLocator(nbins=4, min_n_ticks=3).tick_values(low, high)
    return [float(tick) for tick in evenly if low <= tick <= high]
