"""Figures of scores, capacity and searches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acll.evaluation.panels import method_panels, most_tasks
from acll.evaluation.style import ACROSS, COLOURS, FREE, MARKERS, grid
from acll.node import Node
from acll.search.choice import monotone_fit
from acll.search.trials import SCALE_PREFIX


def scores(matrix: pd.DataFrame, final: pd.DataFrame) -> Figure:
    """Draw the test score of each task after each stage, a panel a method.

    Means over seeds, in the first order of each sequence. matrix, final: the tables of these names.
    """
    figure, parts = method_panels(matrix, height=max(2.6, 0.3 * most_tasks(matrix)), width=3.2)
    for sequence, tasks, own, panels in parts:
        for method, panel in panels.items():
            _stages(panel, own[own["method"] == method], tasks)
        metric = final.loc[final["sequence"] == sequence, "metric"].iloc[0]
        in_order = list(panels.values())
        for panel in in_order[::ACROSS]:
            panel.set_ylabel("test mean IoU" if metric == "mean_iou" else "test accuracy")
        last = in_order[:ACROSS][-1]
        last.legend(title="task", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _stages(panel: Axes, scores: pd.DataFrame, tasks: Sequence[str]) -> None:
    for index, task in enumerate(tasks):
        means = scores[scores["task"] == task].groupby("stage")["score"].mean()
        # colours come again after eight tasks, with other markers
        marker = MARKERS[(index + index // 8) % 8]
        panel.plot(
            means.index, means, color=COLOURS[index % 8], marker=marker, label=task, markersize=6
        )
    stages = range(1, len(tasks) + 1)
    if sum(map(len, tasks)) > 30:  # too long to stand side by side
        panel.set_xticks(stages)
        panel.set_xlabel("tasks learned")
    else:
        panel.set_xticks(stages, [f"+ {task}" for task in tasks])
    panel.set_xlim(0.7, len(tasks) + 0.3)
    panel.set_ylim(0, 1.03)
    panel.grid(axis="y", alpha=0.3)


def shares(final: pd.DataFrame) -> Figure:
    """Draw what each task owns of the shared weights at the end of each sequence; means over runs.

    final: the table of that name.
    """
    packed = final[final["ratio"].notna()]
    names = list(dict.fromkeys(final["sequence"]))
    figure, axes = grid(len(names), 1, height=2.2, width=7)
    for (panel,), name in zip(axes, names):
        end = packed[packed["sequence"] == name]
        methods = list(dict.fromkeys(end["method"]))
        left = np.zeros(len(methods))
        for index, task in enumerate(dict.fromkeys(end["task"])):
            owned = end[end["task"] == task].groupby("method", sort=False)["owned_share"].mean()
            width = np.array([owned[method] for method in methods])
            panel.barh(
                methods, width, left=left, color=COLOURS[index % 8], label=task, edgecolor="white"
            )
            left += width
        panel.barh(methods, 1 - left, left=left, color=FREE, label="free", edgecolor="white")
        panel.set_xlim(0, 1)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("share of all shared weights")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def searches(traces: Sequence[tuple[str, pd.DataFrame, Mapping[str, Any]]]) -> Figure:
    """Draw each search in a panel: validation score against kept share.

    It shows short and full retraining, the fit, reference and tolerance, the cap, the choice and
    its interval. traces: of each search its node, its table of trials and its choice.
    """
    columns = min(3, len(traces))
    height, width = (3.0, 3.6) if len(traces) > 1 else (4.8, 5.4)
    figure, axes = grid(-(-len(traces) // columns), columns, height, width)
    panels = axes.flatten()
    for panel, (name, trials, choice) in zip(panels, traces):
        _search(panel, name, trials, choice)
    for panel in panels[len(traces) :]:
        panel.set_visible(False)
    shown: dict[str, Any] = {}  # a search may lack what others have: a cap, trials
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles))
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside lower center",
        ncol=3 if columns > 1 else 2,
        frameon=False,
    )
    return figure


def _search(panel: Axes, name: str, trials: pd.DataFrame, choice: Mapping[str, Any]) -> None:
    if choice["cap"] is not None:
        panel.axvspan(choice["cap"], 1.2, color=FREE, label="above the cap")
    if len(trials):
        _trials(panel, trials, choice)
    low, high = 1 - choice["ratio_high"], 1 - choice["ratio_low"]
    panel.axvspan(low, high, color=COLOURS[3], alpha=0.15, linewidth=0, label="likely (90%)")
    panel.axvline(
        1 - choice["ratio"],
        color=COLOURS[3],
        linestyle="--",
        linewidth=1.4,
        label="chosen, within the cap",
    )
    panel.set_xscale("log")
    panel.set_xlim(0.8 * min([1 - choice["ratio_high"], *trials["kept_share"]]), 1.15)
    ticks = [tick for tick in (0.01, 0.03, 0.1, 0.3, 1) if tick >= panel.get_xlim()[0]]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    node = Node.of(name)
    words = " + ".join(node.prefix) if node.position < 4 else f"{node.task}, task {node.position}"
    panel.set_title(f"{node.network}, {node.method}, seed{node.seed}\n{words}", fontsize=9)
    panel.set_xlabel("kept share of free weights (log)")
    panel.set_ylabel("validation score")


def _trials(panel: Axes, trials: pd.DataFrame, choice: Mapping[str, Any]) -> None:
    panel.axhspan(
        choice["threshold"],
        choice["reference_score"],
        color=COLOURS[0],
        alpha=0.12,
        linewidth=0,
        label="tolerance below the reference",
    )
    is_full = trials["epochs"] == trials["epochs"].max()
    as_chosen = _with_chosen_scales(trials, choice["group_log_scale"])
    kinds = (
        (is_full, "D", COLOURS[0], "full retraining"),
        (~is_full & as_chosen, "o", COLOURS[1], "short retraining"),
        (~is_full & ~as_chosen, "x", COLOURS[4], "other ratios of the groups"),
    )
    for of_kind, marker, colour, label in kinds:
        own = trials[of_kind]
        if len(own):
            panel.plot(
                own["kept_share"], own["score"], marker, color=colour, markersize=4.5, label=label
            )
    short = trials[~is_full & as_chosen]
    thresholds = short["threshold"].dropna()
    if len(thresholds):
        panel.axhline(
            thresholds.iloc[-1],
            color=COLOURS[1],
            linestyle=":",
            linewidth=1,
            label="threshold with short retraining",
        )
        fit = monotone_fit(short["kept_share"].tolist(), short["score"].tolist())
        panel.plot(*fit, color=COLOURS[1], linewidth=1, label="monotone fit")


def _with_chosen_scales(trials: pd.DataFrame, chosen: Mapping[str, float]) -> "pd.Series[bool]":
    """Return which trials had the scales of groups that were chosen.

    chosen: logarithms of the factors; a group that is not there has the factor 1.
    """
    same = pd.Series(True, index=trials.index)
    for column in trials.columns:
        if column.startswith(SCALE_PREFIX):
            # trials from before the scales were searched have none, which is a factor of 1
            scales = trials[column].astype(float).fillna(0.0)
            same &= np.isclose(scales, chosen.get(column.removeprefix(SCALE_PREFIX), 0.0))
    return same
