"""Does the search find what an exhaustive sweep would find, and at what cost?

    python benchmarks/search_quality.py ../shared/data

Five small real tasks, three seeds. Two sweeps of ten kept shares, each released and retrained as
what follows a search, give the curve, and against each other the noise; then each strategy
searches, without cap. Whatever ends is kept below .cache, so that a run that is stopped goes on.
Rows go to docs/benchmarks/search_quality.csv, the figure to docs/search_quality.png. Scores are of
the test split, after all is chosen, and `sweep_kept` of `sweep_again` is the other sweep's.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from curves import crossing
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from tasks import ROOT, TASKS, TRAINING, Dense, arguments, cache_of, dense, processes, remembered

from acll.evaluation.pictures import COLOURS
from acll.evaluation.style import FREE, MARKERS, save_figure
from acll.search.settings import Search
from acll.seeds import derived

SEEDS = (0, 1, 2)
SHARES = np.exp(np.linspace(np.log(0.01), np.log(0.5), 10))
SWEEPS = ("first", "second")
CACHE = cache_of("search_quality")
SEARCHES = {name: Search(search=name) for name in ("bayes", "tpe", "random", "grid", "decay")}
COLUMNS = [
    "task",
    "kind",
    "seed",
    "strategy",
    "kept",
    "sweep_kept",
    "score",
    "reference_score",
    "standard_error",
    "cost",
    "inside",  # whether the interval of the search holds the sweeps' answer
]


def of(name: str, seed: int, data: Path) -> Dense:
    return dense(name, TASKS[name], seed, data, CACHE, TRAINING)


def train(name: str, seed: int, data: Path) -> None:
    """Train the dense network, unless it is known."""
    of(name, seed, data)


def _file(name: str, seed: int, what: str) -> Path:
    return CACHE / f"{name}.{seed}.{what}.json"


def searched(strategy: str, name: str, seed: int, data: Path) -> dict[str, Any]:
    """A choice."""
    make = partial(_choice, strategy, name, seed, data)
    found: dict[str, Any] = remembered(_file(name, seed, strategy), make)
    print(f"{name} {seed}: {strategy} {1 - found['ratio']:.4f}", flush=True)
    return found


def _choice(strategy: str, name: str, seed: int, data: Path) -> dict[str, Any]:
    return asdict(of(name, seed, data).search(SEARCHES[strategy]))


def swept(sweep: str, name: str, seed: int, data: Path) -> list[float]:
    """The score of each of SHARES."""
    found: list[float] = remembered(
        _file(name, seed, f"{sweep}_sweep"),
        lambda: of(name, seed, data).swept(list(SHARES), derived(seed, sweep)),
    )
    print(f"{name} {seed}: {sweep} sweep", flush=True)
    return found


def tested(kept: float, name: str, seed: int, data: Path) -> list[float]:
    """(Test score, its standard error) of a share."""
    return remembered(
        _file(name, seed, f"test_{kept:.6f}"),
        lambda: list(of(name, seed, data).tested(kept, derived(seed, "test"))),
    )


def answers(name: str, seed: int, data: Path) -> list[float]:
    """The answers of both sweeps together, of the first and of the second."""
    scores = [swept(sweep, name, seed, data) for sweep in SWEEPS]
    threshold = searched("bayes", name, seed, data)["threshold"]
    means = (np.mean(own, axis=0) for own in (scores, scores[:1], scores[1:]))
    return [crossing(list(SHARES), own.tolist(), threshold) for own in means]


def case_rows(case: tuple[str, int], constant: float, data: Path) -> list[dict[str, Any]]:
    """The rows of one task and seed."""
    name, seed = case
    truth, first, second = answers(name, seed, data)
    kind = "segmentation" if "classes" in TASKS[name] else "classification"
    reference, error = tested(1.0, name, seed, data)
    found: dict[str, tuple[float, float, float | None, bool | None]] = {
        "sweep": (truth, truth, None, None),
        "constant": (constant, truth, 0.0, None),
        "sweep_again": (second, first, None, None),
    }
    for strategy in SEARCHES:
        choice = searched(strategy, name, seed, data)
        inside = choice["ratio_low"] <= 1 - truth <= choice["ratio_high"]
        found[strategy] = (1 - choice["ratio"], truth, choice["cost"], inside)
    rows = []
    for strategy, (kept, swept_kept, cost, inside) in found.items():
        score, _ = tested(kept, name, seed, data)
        values = (name, kind, seed, strategy, kept, swept_kept, score, reference, error, cost)
        rows.append(dict(zip(COLUMNS, (*values, inside), strict=True)))
    return rows


def main() -> None:
    given = arguments(__doc__)
    data = given.data
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = [(name, seed) for seed in SEEDS for name in TASKS]
    with processes(given) as pool:
        list(pool.map(partial(train, data=data), *zip(*cases)))
        jobs = [
            pool.submit(partial(make, what), name, seed, data)
            for make, kinds in ((searched, SEARCHES), (swept, SWEEPS))
            for what in kinds
            for name, seed in cases
        ]
        jobs += [pool.submit(tested, 1.0, name, seed, data) for name, seed in cases]
        for job in jobs:
            job.result()
        # the one share that is nearest to the sweeps' on the log scale
        truths = [answers(name, seed, data)[0] for name, seed in cases]
        constant = float(np.exp(np.median(np.log(truths))))
        found = pool.map(partial(case_rows, constant=constant, data=data), cases)
        table = pd.DataFrame([row for rows in found for row in rows], columns=COLUMNS)
    table.to_csv(ROOT / "docs/benchmarks/search_quality.csv", index=False)
    save_figure(draw(table), ROOT / "docs/search_quality.png")
    report(table)


def draw(table: pd.DataFrame) -> Figure:
    """Kept share of each strategy against that of the sweeps; the band is a factor of 1.5."""
    strategies = [name for name in dict.fromkeys(table["strategy"]) if name != "sweep"]
    columns = min(4, len(strategies))
    lines = -(-len(strategies) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(2.5 * columns, 2.3 * lines + 1),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    line = np.array([0.01, 1.0])
    for panel, strategy in zip(axes.flatten(), strategies):
        panel.fill_between(
            line, line / 1.5, line * 1.5, color=FREE, linewidth=0, label="factor 1.5"
        )
        rows = table[table["strategy"] == strategy]
        for index, (task, own) in enumerate(rows.groupby("task", sort=False)):
            panel.plot(
                own["sweep_kept"],
                own["kept"],
                MARKERS[index],
                color=COLOURS[index],
                markersize=6,
                label=task,
            )
        near = (rows["kept"] / rows["sweep_kept"]).between(1 / 1.5, 1.5).sum()
        cost = rows["cost"].median()
        words = "" if np.isnan(cost) else f", cost {cost:.2f}"
        panel.set_title(f"{strategy}: {near} of {len(rows)}{words}", fontsize=9)
        panel.set_xscale("log")
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_ticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
            axis.set_minor_locator(NullLocator())
    for panel in axes[-1]:
        panel.set_xlabel("kept share of the sweeps (log)")
    for panel in axes[:, 0]:
        panel.set_ylabel("kept share (log)")
    for panel in axes.flatten()[len(strategies) :]:
        panel.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=6, frameon=False)
    return figure


def report(table: pd.DataFrame) -> None:
    """Print what the figure shows."""
    factor = table["kept"] / table["sweep_kept"]
    table = table.assign(
        factor=np.exp(np.log(factor).abs()),
        near=factor.between(1 / 1.5, 1.5),
        holds=table["score"] >= table["reference_score"] - 2 * table["standard_error"],
    )
    means = table.groupby("strategy", sort=False).agg(
        runs=("kept", "size"),
        within_1_5=("near", "sum"),
        median_factor=("factor", "median"),
        holds=("holds", "sum"),
        mean_score=("score", "mean"),
        median_cost=("cost", "median"),
        median_kept=("kept", "median"),
        inside=("inside", "sum"),
    )
    print(means.round(3).to_string())
    print(
        table.pivot_table(index=["task"], columns="strategy", values="kept", aggfunc="median")
        .round(3)
        .to_string()
    )


if __name__ == "__main__":
    main()
