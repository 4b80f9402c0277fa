"""Figures of scores, capacity and searches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from acll.evaluation.learned_tasks import learned_here, with_ratios
from acll.evaluation.panels import method_panels, most_tasks
from acll.evaluation.pictures import COLOURS
from acll.evaluation.style import (
    ACROSS,
    FREE,
    MARKERS,
    grid,
    heading,
    hover,
    log_ticks,
)
from acll.evaluation.words import METRIC_WORDS
from acll.node import Node
from acll.search.choice import holds
from acll.search.trials import REFERENCE


def scores(matrix: pd.DataFrame, final: pd.DataFrame) -> Figure:
    """Draw the test score of each task after each stage, a panel a method.

    Means over seeds, in the first order of each sequence. matrix, final: the tables of these names.
    """
    figure, parts = method_panels(matrix, height=max(2.6, 0.3 * most_tasks(matrix)), width=3.2)
    heading(figure, "Test score of each task after each stage: a line that falls is forgotten")
    for sequence, tasks, own, panels in parts:
        rows = learned_here(final[final["sequence"] == sequence])
        metrics = {
            task: METRIC_WORDS[metric]
            for task, metric in zip(rows["task"], rows["metric"], strict=True)
        }
        for method, panel in panels.items():
            _stages(panel, own[own["method"] == method], tasks, metrics)
        in_order = list(panels.values())
        for panel in in_order[::ACROSS]:
            panel.set_ylabel(" or ".join(dict.fromkeys(metrics.values())))
        last = in_order[:ACROSS][-1]
        last.legend(title="task", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _stages(
    panel: Axes, scores: pd.DataFrame, tasks: Sequence[str], metrics: Mapping[str, str]
) -> None:
    """Draw the scores of tasks after each stage. metrics: of each task, in words."""
    mixed = len(set(metrics.values())) > 1
    for index, task in enumerate(tasks):
        means = scores[scores["task"] == task].groupby("stage")["score"].mean()
        # colours come again after eight tasks, with other markers
        marker = MARKERS[(index + index // 8) % 8]
        label = f"{task} ({metrics[task]})" if mixed else task
        (line,) = panel.plot(
            means.index, means, color=COLOURS[index % 8], marker=marker, label=label, markersize=6
        )
        hover(
            line,
            [
                f"{task} after {tasks[stage - 1]}: {metrics[task]} {value:.3f}"
                for stage, value in zip(means.index, means, strict=True)
            ],
        )
    stages = range(1, len(tasks) + 1)
    letters = sum(len(task) + 2 for task in tasks)
    if letters > 60:  # too long to stand side by side
        panel.set_xticks(stages)
        panel.set_xlabel("tasks learned")
    else:
        panel.set_xticks(stages, [f"+ {task}" for task in tasks])
        if letters > 28:
            plt.setp(panel.get_xticklabels(), rotation=30, ha="right")
    panel.set_xlim(0.7, len(tasks) + 0.3)
    panel.set_ylim(0, 1.03)
    panel.grid(axis="y", alpha=0.3)


def shares(final: pd.DataFrame) -> Figure:
    """Draw what each task owns of the shared weights at the end of each sequence; means over runs.

    final: the table of that name.
    """
    packed = with_ratios(final)
    names = list(dict.fromkeys(final["sequence"]))
    by_sequence = packed.groupby("sequence")
    bars_shown, tasks_shown = (by_sequence[name].nunique().max() for name in ("method", "task"))
    height = max(1.2 + 0.35 * bars_shown, 0.6 + 0.22 * tasks_shown)
    figure, axes = grid(len(names), 1, height, width=8)
    heading(figure, "What each task owns of the weights at the end, and what is free for more")
    for (panel,), name in zip(axes, names):
        end = packed[packed["sequence"] == name]
        methods = list(dict.fromkeys(end["method"]))
        left = np.zeros(len(methods))
        for index, task in enumerate(dict.fromkeys(end["task"])):
            owned = end[end["task"] == task].groupby("method", sort=False)["owned_share"].mean()
            width = np.array([owned[method] for method in methods])
            bars = panel.barh(
                methods, width, left=left, color=COLOURS[index % 8], label=task, edgecolor="white"
            )
            for bar, method, share in zip(bars, methods, width):
                hover(bar, [f"{method}: {task} owns {share:.1%}"])
            left += width
        bars = panel.barh(methods, 1 - left, left=left, color=FREE, label="free", edgecolor="white")
        for bar, method, share in zip(bars, methods, 1 - left):
            hover(bar, [f"{method}: {share:.1%} free"])
        panel.set_xlim(0, 1)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("share of all shared weights")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def searches(traces: Sequence[tuple[str, pd.DataFrame, Mapping[str, Any]]]) -> Figure:
    """Draw each search in a panel: validation score against kept share.

    It shows the trials, reference and tolerance, the cap, the choice and its interval. traces: of
    each search its node, its table of trials and its choice.
    """
    columns = min(3, len(traces))
    height, width = (3.0, 3.6) if len(traces) > 1 else (4.8, 5.4)
    figure, axes = grid(-(-len(traces) // columns), columns, height, width)
    heading(figure, "Each search: validation score of what was tried against the share kept")
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
    ticks = log_ticks(*panel.get_xlim())
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    node = Node.of(name)
    words = " + ".join(node.prefix) if node.position < 4 else f"{node.task}, task {node.position}"
    panel.set_title(f"{node.network}, {node.method}, seed{node.seed}\n{words}", fontsize=9)
    panel.set_xlabel("kept share of free weights (log)")
    panel.set_ylabel("validation score")


def _trials(panel: Axes, trials: pd.DataFrame, choice: Mapping[str, Any]) -> None:
    panel.axhspan(
        choice["threshold"],
        choice["threshold"] + choice["tolerance"],
        color=COLOURS[0],
        alpha=0.12,
        linewidth=0,
        label="tolerance below the reference",
    )
    is_dense = trials["role"] == REFERENCE
    # what diverged has the score 0, which would press everything else together: it stands below
    diverged = trials["diverged"].astype(bool)
    reached = [holds(score, choice["threshold"]) for score in trials["score"]]
    held = ~is_dense & ~diverged & np.array(reached, bool)
    measured = [choice["threshold"], choice["reference_score"], *trials.loc[~diverged, "score"]]
    low, high = min(measured), max(measured)
    room = max(0.02, 0.12 * (high - low))
    bottom = low - room
    kinds = (
        # a trial may lie on the dense network, which shows around it
        (is_dense, "*", COLOURS[4], 14, "dense network"),
        (held, "o", COLOURS[0], 5, "trials that held"),
        (~diverged & ~is_dense & ~held, "x", COLOURS[1], 5, "trials that failed"),
        (diverged, "v", COLOURS[7], 5, "diverged: no score"),
    )
    for of_kind, marker, colour, size, label in kinds:
        own = trials[of_kind]
        if len(own):
            scores = own["score"].where(~diverged[of_kind], bottom)
            (points,) = panel.plot(
                own["kept_share"], scores, marker, color=colour, markersize=size, label=label
            )
            hover(points, [_trial(row) for row in own.to_dict("records")])
    panel.set_ylim(bottom - room / 2, min(high + room, max(1.0, high) + 0.02))


def _trial(row: Mapping[Any, Any]) -> str:
    """Return a trial in words."""
    came = "diverged" if row["diverged"] else f"validation score {row['score']:.4f}"
    if row["role"] == REFERENCE:
        return f"trial {row['number']}: the dense network, {came}"
    return f"trial {row['number']}: kept {row['kept_share']:.3g}, {row['epochs']:g} epochs, {came}"
