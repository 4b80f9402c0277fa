"""Is the kept share that the search chooses larger for larger, more complex, more difficult tasks?

    python benchmarks/adaptivity.py ../shared/data

The paper's claim, on real data, without cap, one thing varied at a time. The levels of a factor
differ in nothing else: the same validation images where training samples vary, the same training
images where validation samples do, and as many steps of training everywhere. Whatever ends is kept
below .cache, so that a run that is stopped goes on. Rows go to docs/benchmarks/adaptivity.csv, the
figure to docs/adaptivity.png.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy.stats import spearmanr
from tasks import CIFAR, MNIST, ROOT, TRAINING, cache_of, dense, remembered

from acll.data.batches import Split
from acll.evaluation.pictures import COLOURS
from acll.evaluation.style import MARKERS, save_figure
from acll.search.settings import Search

SEEDS = (0, 1, 2)
CACHE = cache_of("adaptivity")
STEPS = (
    40_000  # images that a dense training sees: small tasks must not look complex for want of steps
)


def small(task: dict[str, Any], samples: int = 1600) -> dict[str, Any]:
    """A task of so many training samples, trained and retrained for as many steps as any other."""
    epochs = {"epochs": STEPS // samples, "retrain_epochs": max(1, round(STEPS * 0.16 / samples))}
    return task | {"train_samples": samples, "training": epochs}


# factor → level → (task, number of validation images or None for all); in order of what is said to
# need more
LEVELS: dict[str, dict[float, tuple[dict[str, Any], int | None]]] = {
    "training samples": {count: (small(MNIST, count), None) for count in (200, 800, 3200)},
    "validation samples": {count: (small(MNIST), count) for count in (75, 200, 600)},
    "classes": {
        classes: (small(MNIST, 600) | {"part": [1, 10 // classes]}, 120) for classes in (2, 5, 10)
    },
    "noise": {noise: (small(MNIST) | {"noise": noise}, None) for noise in (0.0, 0.3, 0.6)},
    "image size": {size: (small(MNIST) | {"image_size": size}, None) for size in (8, 16, 24)},
    "dataset": {0: (small(MNIST), None), 1: (small(CIFAR) | {"image_size": 16}, 600)},
}
NAMES = {"dataset": {0: "mnist", 1: "cifar10"}}


def measure(factor: str, level: float, seed: int, data: Path) -> dict[str, Any]:
    """The choice for one level and seed."""
    task, validation = LEVELS[factor][level]
    name = "".join(one if one.isalnum() else "_" for one in f"{factor}_{level:g}")
    own = dense(name, task, seed, data, CACHE, TRAINING)
    if validation is not None:
        own = replace(
            own, learner=replace(own.learner, validation=some(own.learner.validation, validation))
        )
    found: dict[str, Any] = remembered(
        CACHE / f"{name}.{seed}.json", lambda: asdict(own.search(Search(search="tpe")))
    )
    print(f"{factor} {level:g}, seed {seed}: keep {1 - found['ratio']:.4f}", flush=True)
    return {"factor": factor, "level": level, "seed": seed, "kept_share": 1 - found["ratio"]}


def some(split: Split, count: int) -> Split:
    """So many images of a split, drawn without regard to their order."""
    chosen_ones = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    return Split(split.images[chosen_ones], split.labels[chosen_ones])


def correlation(rows: pd.DataFrame) -> tuple[float, float]:
    """Spearman's rank correlation of level and kept share over all runs of a factor, and its
    p-value."""
    found = spearmanr(rows["level"], rows["kept_share"])
    return float(found.statistic), float(found.pvalue)


def draw(table: pd.DataFrame) -> plt.Figure:
    """Kept share against each factor: a line a seed, the median bold."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.4), sharey=True, layout="constrained")
    for panel, (factor, rows) in zip(axes.flatten(), table.groupby("factor", sort=False)):
        levels = {level: place for place, level in enumerate(sorted(rows["level"].unique()))}
        for index, (seed, own) in enumerate(rows.groupby("seed")):
            places = own["level"].map(levels)
            panel.plot(
                places,
                own["kept_share"],
                MARKERS[index],
                color=COLOURS[index],
                label=f"seed {seed}",
            )
        medians = rows.groupby("level")["kept_share"].median()
        panel.plot(medians.index.map(levels), medians, color="black", linewidth=1.4, label="median")
        panel.set_xticks(
            list(levels.values()),
            [NAMES.get(str(factor), {}).get(level, f"{level:g}") for level in levels],
        )
        panel.set_yscale("log")
        panel.set_yticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
        panel.set_xlim(-0.4, len(levels) - 0.6)
        panel.set_xlabel(factor if factor != "noise" else "noise (std; white is 1)")
        panel.set_title(
            f"rank correlation {correlation(rows)[0]:+.2f} (p = {correlation(rows)[1]:.2f})",
            fontsize=9,
        )
        panel.grid(axis="y", alpha=0.3)
    for panel in axes[:, 0]:
        panel.set_ylabel("kept share (log)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the real data")
    data = parser.parse_args().data.resolve()
    CACHE.mkdir(parents=True, exist_ok=True)
    runs = [(factor, level) for factor, levels in LEVELS.items() for level in levels]
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for seed in SEEDS:  # the first prepares the data, each level's in one process
            rows += list(pool.map(partial(_measure, seed=seed, data=data), runs))
    table = pd.DataFrame(rows).sort_values(
        ["factor", "level", "seed"], key=_in_order, ignore_index=True
    )
    table.to_csv(ROOT / "docs/benchmarks/adaptivity.csv", index=False)
    save_figure(draw(table), ROOT / "docs/adaptivity.png")
    shares = table.groupby(["factor", "level"], sort=False)["kept_share"]
    print(shares.agg(["median", "min", "max"]).round(4).to_string())
    for factor, own in table.groupby("factor", sort=False):
        print(
            f"{factor}: rank correlation {correlation(own)[0]:+.2f}, p = {correlation(own)[1]:.3f}"
        )


def _measure(run: tuple[str, float], seed: int, data: Path) -> dict[str, Any]:
    return measure(*run, seed, data)


def _in_order(column: "pd.Series[Any]") -> "pd.Series[Any]":
    return column.map(list(LEVELS).index) if column.name == "factor" else column


if __name__ == "__main__":
    main()
