"""The layout of figures with a panel for each sequence and method."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acll.evaluation.style import ACROSS, grid


def method_panels(
    matrix: pd.DataFrame, height: float, width: float
) -> tuple[Figure, list[tuple[str, list[str], pd.DataFrame, dict[str, Axes]]]]:
    """Return a figure with a panel for each sequence and method, and what belongs into the panels.

    That is for each sequence (its name, its tasks in its first order, the rows of the table
    `matrix` in that order, its panels by method). Tasks that the network had learned elsewhere are
    left out, and stages are counted without them. height, width: of a panel, in inches.
    """
    orders = matrix.groupby("sequence", sort=False)["order"].first().astype(str)
    methods = list(dict.fromkeys(matrix["method"]))
    columns = min(ACROSS, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = grid(rows * len(orders), columns, height, width)
    parts = []
    for index, (sequence, order) in enumerate(orders.items()):
        panels = axes[rows * index : rows * (index + 1)].flatten()
        for panel in panels[len(methods) :]:
            panel.set_visible(False)
        own = matrix[(matrix["sequence"] == sequence) & (matrix["order"] == order)]
        by_method = dict(zip(methods, panels))
        for method, panel in by_method.items():
            panel.set_title(f"{sequence}: {method}")
        scored = set(own["task"])
        tasks = [task for task in order.split("+") if task in scored]
        before = order.count("+") + 1 - len(tasks)
        parts.append((str(sequence), tasks, own.assign(stage=own["stage"] - before), by_method))
    return figure, parts


def most_tasks(matrix: pd.DataFrame) -> int:
    """Return the largest number of tasks of a sequence in the table `matrix`."""
    return int(matrix["stage"].max())
