"""Figures of scores, capacity and searches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acll.evaluation.style import COLOURS, FREE, MARKERS
from acll.search.choice import monotone_fit

Sequences = Mapping[str, tuple[str, Sequence[str]]]


def scores(table: pd.DataFrame, sequences: Sequences) -> Figure:
    """Test score of each task after each stage: a row of panels a sequence, a panel a method; means over seeds."""
    methods = list(dict.fromkeys(table["method"]))
    longest = max(len(tasks) for _, tasks in sequences.values())
    figure, axes = _grid(len(sequences), len(methods), height=max(2.6, 0.3 * longest))
    for row, (name, (network, tasks)) in zip(axes, sequences.items()):
        for panel, method in zip(row, methods):
            for index, task in enumerate(tasks):
                stages = range(index + 1, len(tasks) + 1)
                values = [_score(table, network, method, tasks[:stage], task) for stage in stages]
                panel.plot(
                    list(stages),
                    values,
                    color=COLOURS[index % 8],
                    marker=MARKERS[(index + index // 8) % 8],
                    label=task,
                    markersize=6,
                )
            panel.set_title(f"{name}: {method}")
            stages = range(1, len(tasks) + 1)
            if sum(map(len, tasks)) > 30:  # too long to stand side by side
                panel.set_xticks(stages)
                panel.set_xlabel("tasks learned")
            else:
                panel.set_xticks(stages, [f"+ {task}" for task in tasks])
            panel.set_xlim(0.7, len(tasks) + 0.3)
            panel.set_ylim(0, 1.03)
            panel.grid(axis="y", alpha=0.3)
        metric = "mean IoU" if table.loc[table["task"] == tasks[0], "metric"].iloc[0] == "mean_iou" else "accuracy"
        row[0].set_ylabel(f"test {metric}")
        row[-1].legend(title="task", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _score(table: pd.DataFrame, network: str, method: str, prefix: Sequence[str], task: str) -> float:
    chosen = table[(table["network"] == network) & (table["method"] == method) & (table["task"] == task)]
    return float(chosen.loc[chosen["prefix"] == "+".join(prefix), "score"].mean())


def shares(table: pd.DataFrame, sequences: Sequences) -> Figure:
    """What each task owns of the shared weights at the end of each sequence; means over seeds."""
    figure, axes = _grid(len(sequences), 1, height=2.2, width=7)
    for (panel,), (name, (network, tasks)) in zip(axes, sequences.items()):
        end = table[(table["network"] == network) & (table["prefix"] == "+".join(tasks)) & table["ratio"].notna()]
        methods = list(dict.fromkeys(end["method"]))
        left = np.zeros(len(methods))
        for index, task in enumerate(tasks):
            owned = end[end["task"] == task].groupby("method", sort=False)["owned_share"].mean()
            width = np.array([owned.get(method, 0.0) for method in methods])
            panel.barh(methods, width, left=left, color=COLOURS[index % 8], label=task, edgecolor="white")
            left += width
        panel.barh(methods, 1 - left, left=left, color=FREE, label="free", edgecolor="white")
        panel.set_xlim(0, 1)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("share of all shared weights")
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def searches(traces: Sequence[tuple[str, pd.DataFrame, Mapping[str, Any]]]) -> Figure:
    """Each search: validation score against kept share, the fit, what is needed, the cap and the choice."""
    columns = min(3, len(traces))
    figure, axes = _grid(-(-len(traces) // columns), columns, height=2.8, width=3.6)
    panels = axes.flatten()
    for panel, (name, trials, choice) in zip(panels, traces):
        _search(panel, name, trials, choice)
    for panel in panels[len(traces) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False)
    return figure


def _search(panel: Axes, name: str, trials: pd.DataFrame, choice: Mapping[str, Any]) -> None:
    brief = trials[trials["role"].isin(["reference", "trial"])]
    full = trials[trials["role"].isin(["full_reference", "confirmation"])]
    shares_, fitted = monotone_fit(brief["kept_share"].tolist(), brief["score"].tolist())
    panel.plot(shares_, fitted, color=COLOURS[0], linewidth=1, label="monotone fit")
    panel.plot(brief["kept_share"], brief["score"], "o", color=COLOURS[0], markersize=4, label="trial")
    panel.plot(full["kept_share"], full["score"], "D", color=COLOURS[2], markersize=4, label="full retraining")
    panel.axhline(choice["threshold"], color="black", linestyle=":", linewidth=1, label="needed")
    if choice["cap"] is not None:
        panel.axvspan(choice["cap"], 1.05, color=FREE, label="above the cap")
    panel.axvline(1 - choice["ratio"], color=COLOURS[3], linestyle="--", linewidth=1.2, label="kept")
    panel.set_xscale("log")
    panel.set_xlim(0.8 * min(0.005, trials["kept_share"].min()), 1.05)
    ticks = [0.01, 0.1, 1]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    network, method, seed, *prefix = name.split("/")
    panel.set_title(f"{network}, {method}, {seed}\n{' + '.join(prefix)}", fontsize=9)
    panel.set_xlabel("kept share of free weights")
    panel.set_ylabel("validation score")


def _grid(rows: int, columns: int, height: float, width: float = 3.2) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns + 1.2, height * rows), squeeze=False, layout="constrained"
    )
    return figure, axes
