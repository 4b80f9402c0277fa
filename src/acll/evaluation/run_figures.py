"""Figures of runs compared: matrices of scores, sizes, learning curves, difficulty, layers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from acll.evaluation.comparison import MIXED
from acll.evaluation.learned_tasks import learned_here
from acll.evaluation.panels import method_panels, most_tasks
from acll.evaluation.pictures import COLOURS
from acll.evaluation.style import (
    ACROSS,
    FREE,
    MARKERS,
    grid,
    heading,
    hover,
    legend_of_methods,
    log_ticks,
)
from acll.evaluation.words import METRIC_WORDS, listed


def matrices(matrix: pd.DataFrame) -> Figure:
    """Draw the score of each task (column) after each stage (row), a panel a method.

    Means over seeds, in the first order of each sequence. matrix: the table of that name.
    """
    longest = most_tasks(matrix)
    figure, parts = method_panels(matrix, height=1.4 + 0.35 * longest, width=1.6 + 0.45 * longest)
    heading(figure, "Test score of each task (column) after each stage (row)")
    for _, tasks, scores, panels in parts:
        for method, panel in panels.items():
            _matrix(panel, scores[scores["method"] == method], tasks)
    return figure


def _matrix(panel: Axes, scores: pd.DataFrame, tasks: Sequence[str]) -> None:
    values = scores.pivot_table(index="stage", columns="task", values="score")
    values = values.reindex(index=range(1, len(tasks) + 1), columns=list(tasks))
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        if not np.isnan(value):
            colour = "white" if value < 0.5 else "black"
            cell = Rectangle((column - 0.5, row - 0.5), 1, 1, color=colormaps["cividis"](value))
            hover(cell, [f"{tasks[column]} after {tasks[row]}: {value:.4f}"])
            panel.add_patch(cell)
            panel.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour
            )
    panel.set_xlim(-0.5, len(tasks) - 0.5)
    panel.set_ylim(len(tasks) - 0.5, -0.5)
    panel.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right", fontsize=9)
    panel.set_yticks(range(len(tasks)), [f"+ {task}" for task in tasks], fontsize=9)
    panel.set_ylabel("after")


def sizes(summary: pd.DataFrame) -> Figure:
    """Draw mean score against size, a panel a sequence; bars are 95% intervals.

    summary: the table of that name.
    """
    sequences = list(dict.fromkeys(summary["sequence"]))
    columns = min(2, len(sequences))
    figure, axes = grid(-(-len(sequences) // columns), columns, height=3.8, width=4.6)
    heading(figure, "Mean test score against size: up and to the left is better")
    for panel in axes.flatten()[len(sequences) :]:
        panel.set_visible(False)
    for panel, sequence in zip(axes.flatten(), sequences):
        own = summary[summary["sequence"] == sequence]
        for index, row in enumerate(own.to_dict("records")):
            half = row["mean_score"] - row["mean_score_low"]
            half = 0.0 if pd.isna(half) else half  # of a single run
            marker, colour = MARKERS[index % 8], COLOURS[(index + index // 8) % 8]
            bar = panel.errorbar(
                row["size"],
                row["mean_score"],
                half,
                fmt=marker,
                color=colour,
                capsize=2,
                markersize=7,
                label=row["method"],
            )
            metric = METRIC_WORDS[row["metric"]]
            hover(
                bar.lines[0],
                [f"{row['method']}: {metric} {row['mean_score']:.4f}, size {row['size']:.0%}"],
            )
        panel.set_xlim(left=0)
        # intervals of few runs may reach beyond what is possible
        panel.set_ylim(max(0.0, own["mean_score"].min() - 0.1), 1.02)
        panel.grid(alpha=0.3)
        panel.set_title(str(sequence))
        panel.set_xlabel("size (1: a network for each task)")
        panel.set_ylabel(_mean_of(own["metric"].iloc[0]))
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _mean_of(metric: str) -> str:
    """Return the label of an axis of means over tasks."""
    if metric == MIXED:
        return "mean of accuracies and IoUs"
    return f"mean {METRIC_WORDS[metric].removeprefix('mean ')} over tasks"


def curves(table: pd.DataFrame, final: pd.DataFrame) -> Figure:
    """Draw how each task was learned in its turn: validation score after each epoch.

    A panel a task, a line a method; means over seeds, in the first order of each sequence. table:
    that of curves; final: the table of that name.
    """
    learned = []  # (sequence, a task and those before it), a panel each
    orders = final.groupby("sequence", sort=False)["order"].first().astype(str)
    here = learned_here(final)
    for sequence, order in orders.items():
        tasks = order.split("+")
        firsts = [tasks[: count + 1] for count in range(len(tasks))]
        scored = set(here.loc[here["sequence"] == sequence, "task"])
        learned += [(sequence, first) for first in firsts if first[-1] in scored]
    methods = list(dict.fromkeys(final["method"]))
    columns = min(ACROSS, len(learned))
    figure, axes = grid(-(-len(learned) // columns), columns, height=2.6, width=3.2)
    heading(figure, "How fast each task is learned: validation score after each epoch")
    for panel, (sequence, tasks) in zip(axes.flatten(), learned):
        network = final.loc[final["sequence"] == sequence, "network"].iloc[0]
        of_network = table[table["network"] == network]
        for index, method in enumerate(methods):
            own = of_network[of_network["method"] == method]
            by_prefix = dict(iter(own.groupby("prefix")))
            # individual networks have learned nothing before: their prefix is the task alone
            curve = by_prefix.get("+".join(tasks), by_prefix.get(tasks[-1]))
            if curve is not None:
                means = curve.groupby("epoch")["score"].mean()
                marker, colour = MARKERS[index % 8], COLOURS[(index + index // 8) % 8]
                (line,) = panel.plot(
                    means.index,
                    means,
                    color=colour,
                    marker=marker,
                    markersize=3,
                    linewidth=1,
                    label=method,
                )
                hover(line, [f"{method}, epoch {epoch}: {x:.4f}" for epoch, x in means.items()])
        panel.set_title(f"{sequence}: {tasks[-1]} (task {len(tasks)})")
        low, high = panel.get_ylim()
        if high > 1.02:  # more than any score
            panel.set_ylim(min(low, 0.95), 1.02)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel("validation score")
        panel.grid(axis="y", alpha=0.3)
    for panel in axes.flatten()[len(learned) :]:
        panel.set_visible(False)
    legend_of_methods(figure)
    return figure


def difficulty(final: pd.DataFrame) -> Figure:
    """Draw the kept share that searches ask for against the error of the task when learned.

    A panel for each method that searches. final: the table of that name.
    """
    final = learned_here(final)
    searched = final[final["ratio_searched"].notna()]
    methods, tasks = list(dict.fromkeys(searched["method"])), list(dict.fromkeys(searched["task"]))
    figure, axes = grid(1, len(methods), height=3.6, width=4.0)
    heading(figure, "Kept share that searches ask for, against the error of the task")
    metrics = listed([METRIC_WORDS[metric] for metric in dict.fromkeys(searched["metric"])])
    for panel, method in zip(axes[0], methods):
        kept = 1 - searched.loc[searched["method"] == method, "ratio_searched"]
        low, high = kept.min() / 1.4, min(kept.max() * 1.4, 1.1)
        panel.set_yscale("log")
        panel.set_ylim(low, high)
        for index, task in enumerate(tasks):
            own = searched[(searched["method"] == method) & (searched["task"] == task)]
            marker, colour = MARKERS[(index + index // 8) % 8], COLOURS[index % 8]
            (points,) = panel.plot(
                1 - own["score_when_learned"],
                1 - own["ratio_searched"],
                marker,
                color=colour,
                label=task,
            )
            hover(
                points,
                [
                    f"{task}: error {1 - row['score_when_learned']:.4f}, "
                    f"kept {1 - row['ratio_searched']:.3g}"
                    for row in own.to_dict("records")
                ],
            )
        ticks = log_ticks(low, high)
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlim(left=0)
        panel.set_title(method)
        panel.set_xlabel(f"1 − {metrics}, on the test split when learned")
        panel.set_ylabel("kept share asked for (log)")
        panel.grid(alpha=0.3)
    axes[0][-1].legend(title="task", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def layers(
    networks: Mapping[str, tuple[Sequence[str], Sequence[tuple[str, Sequence[int]]]]],
) -> Figure:
    """Draw who owns which share of each layer, a panel a network.

    networks: by a title the names of the tasks, and for each shared weight tensor, from the input
    on, its name, and how many of its weights are free and how many each task owns.
    """
    columns = min(2, len(networks))
    most = max(len(counts) for _, counts in networks.values())
    height = 1.3 + 0.18 * most
    figure, axes = grid(-(-len(networks) // columns), columns, height, width=5.0)
    heading(figure, "Who owns which share of each layer, from the input (top) to the output")
    for panel, (title, (tasks, counts)) in zip(axes.flatten(), networks.items()):
        table = np.array([np.array(one) / sum(one) for _, one in counts])
        names = [name.removesuffix(".weight") for name, _ in counts]
        left = np.zeros(len(table))
        for index, task in enumerate(tasks):
            bars = panel.barh(
                range(len(table)),
                table[:, index + 1],
                left=left,
                color=COLOURS[index % 8],
                label=task,
                height=1,
            )
            for bar, name, share in zip(bars, names, table[:, index + 1]):
                hover(bar, [f"{name}: {task} owns {share:.1%}"])
            left += table[:, index + 1]
        panel.barh(range(len(table)), 1 - left, left=left, color=FREE, label="free", height=1)
        panel.set_yticks(range(len(table)), names, fontsize=8)
        panel.invert_yaxis()
        panel.set_xlim(0, 1)
        panel.set_title(title)
        panel.set_xlabel("share of the layer's weights")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    for panel in axes.flatten()[len(networks) :]:
        panel.set_visible(False)
    return figure
