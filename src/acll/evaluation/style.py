"""What all figures have in common.

They are readable in print and by the colour-blind: Okabe & Ito's palette, with markers.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from acll.files import written

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
MARKERS = "os^DvP*X"
FREE = "#E5E5E5"
ACROSS = 4  # panels side by side

plt.rcParams.update(
    {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "figure.dpi": 150,
        "text.parse_math": False,  # names of classes and tasks may have any characters
        "svg.hashsalt": "acll",
    }
)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all; equal figures give equal bytes."""
    with written(path) as beside:
        figure.savefig(beside, format="png", metadata={"Software": None})
    plt.close(figure)


def grid(rows: int, columns: int, height: float, width: float = 3.2) -> tuple[Figure, Any]:
    """Return a figure and its panels [rows, columns]. height, width: of each, in inches."""
    size = (width * columns + 1.2, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return figure, axes
