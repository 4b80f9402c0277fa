"""The figure of fronts: mean score against bytes, with what fixed ratios reach as a line."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from acll.evaluation.fronts import front_points, lines_of, stand_ins
from acll.evaluation.pictures import COLOURS
from acll.evaluation.statistics import interval
from acll.evaluation.style import (
    MARKERS,
    grid,
    heading,
    hover,
    legend_of_methods,
    log_ticks,
)

_LINES = (("#444444", "-"), ("#888888", "--"), ("#888888", ":"), ("#BBBBBB", "-."))  # of fronts
_FEWEST_RUNS = 3  # of an interval: that of two is thirteen times as wide as they are apart
# where the names of their ratios stand: rising from a point, falling, right, left; in points. What
# slopes does not run into the name of the next point.
_PLACES = (
    (1, 4, "left", "center", 70),
    (1, -4, "left", "center", -50),
    (4, 0, "left", "center", 0),
    (-4, 0, "right", "center", 0),
)


def fronts_figure(front: pd.DataFrame) -> Figure:
    """Draw mean score against bytes, a panel a sequence; means over runs, bars are 95% intervals.

    Lines are fronts of at least two fixed ratios. Methods that forget are left out. front: the
    table of that name.
    """
    sequences = list(dict.fromkeys(front["sequence"]))
    names = lines_of(front)
    exact = front.groupby("method", sort=False)["bit_exact"].all()
    on_lines = set(front.loc[front["on_front"] & front["front"].isin(names), "method"])
    others = [str(name) for name in exact.index[exact] if name not in on_lines]
    columns = min(2, len(sequences))
    figure, axes = grid(-(-len(sequences) // columns), columns, height=3.4, width=4.2)
    heading(figure, "Mean test score against bytes: above the line is better than fixed ratios")
    for panel, sequence in zip(axes.flatten(), sequences):
        _panel(panel, front[front["sequence"] == sequence], names, others)
    for panel in axes.flatten()[len(sequences) :]:
        panel.set_visible(False)
    legend_of_methods(figure)
    return figure


def _panel(panel: Axes, own: pd.DataFrame, names: Sequence[str], others: Sequence[str]) -> None:
    """Draw one sequence. own: its rows; names: of fronts; others: methods on none of these."""
    for index, name in enumerate(names):
        colour, line = _LINES[index % len(_LINES)]
        ratios = own[own["on_front"] & (own["front"] == name)]
        if not len(ratios):  # another sequence has this front
            continue
        means = ratios.groupby("method", sort=False)[["bytes", "mean_score"]].mean().reset_index()
        sizes, scores = front_points(means, "mean_score", stand_ins(ratios, "mean_score"))
        panel.plot(
            sizes, scores, line, color=colour, linewidth=1.2, label=f"front of fixed ratios: {name}"
        )
        for method in means["method"]:
            _point(panel, method, ratios, MARKERS[0], colour, 3.5, "")
            _name(panel, method, means[means["method"] == method], colour, index)
    once = own[own["front"] == own["front"].iloc[0]]  # each front has a row for each run
    for index, method in enumerate(others):
        # colours come again after eight methods, with other markers
        marker = MARKERS[(index + index // 8 + 1) % 8]
        _point(panel, method, once, marker, COLOURS[index % 8], 6.5, method)
    # intervals of few runs may reach far beyond what is measured
    shown = own[own["on_front"] | own["method"].isin(others)]
    middles = shown.groupby("method")["mean_score"].mean().to_numpy(float)
    room = 0.02 + 0.25 * float(np.ptp(middles))
    panel.set_ylim(max(0.0, middles.min() - room), min(1.02, middles.max() + room))
    panel.set_xscale("log")
    panel.margins(x=0.12)  # names are wider than their points
    ticks = log_ticks(*panel.get_xlim())
    panel.set_xticks(ticks, [_bytes(tick) for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.3)
    panel.set_title(str(own["sequence"].iloc[0]))
    panel.set_xlabel("bytes (log)")
    panel.set_ylabel("mean test score")


def _point(
    panel: Axes,
    method: str,
    rows: pd.DataFrame,
    marker: str,
    colour: str,
    size: float,
    label: str,
) -> None:
    """Draw the mean of a method, with the interval of its score where there are enough runs."""
    own = rows[rows["method"] == method]
    mean, low, _ = interval(own["mean_score"].tolist())
    half = mean - low if len(own) >= _FEWEST_RUNS else 0.0
    bar = panel.errorbar(
        own["bytes"].mean(),
        mean,
        half,
        fmt=marker,
        color=colour,
        capsize=2,
        elinewidth=0.8,
        markersize=size,
        label=label or None,
    )
    hover(bar.lines[0], [f"{method}: {mean:.4f}, {own['bytes'].mean():,.0f} bytes"])


def _name(panel: Axes, method: str, mean: pd.DataFrame, colour: str, index: int) -> None:
    """Write the name of a fixed ratio beside its point, where those of its front stand."""
    across, up, side, height, slope = _PLACES[index % len(_PLACES)]
    panel.annotate(
        method,
        (mean["bytes"].iloc[0], mean["mean_score"].iloc[0]),
        xytext=(across, up),
        ha=side,
        va=height,
        rotation=slope,
        rotation_mode="anchor",
        textcoords="offset points",
        fontsize=6,
        color=colour,
    )


def _bytes(count: float) -> str:
    """Return a number of bytes in a short form: `30 kB`, `1.5 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count:g} B"
