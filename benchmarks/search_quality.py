"""Does the search find what an exhaustive sweep would find, and at what cost?

    python benchmarks/search_quality.py ../shared/data

Five small real tasks, three seeds. Two sweeps of twelve kept shares with full retraining give the
curve, and against each other the noise floor; then each strategy searches, without cap. Whatever
ends is kept below .cache, so that a run that is stopped goes on. Rows go to
docs/benchmarks/search_quality.csv, the figure to docs/search_quality.png. Scores are of the test
split, after all is chosen, and `sweep_kept` of `sweep_again` is the other sweep's.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from tasks import ROOT, TASKS, TRAINING, Dense, dense, remembered

from acll.evaluation.style import COLOURS, FREE, MARKERS, save_figure
from acll.search.choice import crossing
from acll.search.settings import Search
from acll.seeds import derived

SEEDS = (0, 1, 2)
SHARES = np.exp(np.linspace(np.log(0.005), 0, 12))
CACHE = ROOT / ".cache/benchmarks/search_quality"
SEARCHES = {
    **{name: Search(search=name) for name in ("tpe", "anneal", "random", "grid", "decay")},
    "tpe_groups": Search(search="tpe", space="groups", budget=1.0),
}
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
]


def measure(name: str, seed: int, data: Path) -> None:
    """All that needs a GPU or patience for one task and seed: dense training, two sweeps, the
    searches."""
    own = dense(name, TASKS[name], seed, data, CACHE, TRAINING)
    for strategy, settings in SEARCHES.items():
        remembered(_file(name, seed, strategy), partial(timed, own, settings))
        print(f"{name} {seed}: {strategy}", flush=True)
    for sweep in ("first", "second"):
        remembered(_file(name, seed, f"{sweep}_sweep"), partial(swept, own, sweep))
        print(f"{name} {seed}: {sweep} sweep", flush=True)


def timed(own: Dense, settings: Search) -> dict[str, Any]:
    """A choice, and how long its search took."""
    began = time.monotonic()
    return asdict(own.search(settings)) | {"seconds": time.monotonic() - began}


def swept(own: Dense, sweep: str) -> list[list[float]]:
    """[kept share, score, standard error] of the shares of a sweep, the reference last."""
    return [
        [float(kept), *own.retrained(float(kept), derived(own.seed, sweep, number))]
        for number, kept in enumerate(SHARES)
    ]


def answer(own: Dense, rows: list[list[float]]) -> float:
    """What a sweep, or two together, say: where their fit reaches their mean reference less the
    tolerance."""
    settings = SEARCHES["tpe"]
    references = [row for row in rows if row[0] == 1.0]
    threshold = np.mean([row[1] for row in references]) - own.tolerance(references[0][2], settings)
    return crossing([row[0] for row in rows], [row[1] for row in rows], float(threshold))


def tested(name: str, seed: int, data: Path, constant: float) -> list[dict[str, Any]]:
    """The rows of one task and seed, with test scores."""
    own = dense(name, TASKS[name], seed, data, CACHE, TRAINING)
    sweeps = [
        remembered(_file(name, seed, f"{sweep}_sweep"), list) for sweep in ("first", "second")
    ]
    truth = answer(own, sweeps[0] + sweeps[1])
    reference, error = remembered(
        _file(name, seed, "test_reference"), lambda: own.tested(1.0, {}, seed)
    )
    shares = {"sweep": (truth, truth, {}, None), "constant": (constant, truth, {}, 0.0)}
    shares["sweep_again"] = (answer(own, sweeps[1]), answer(own, sweeps[0]), {}, None)
    for strategy in SEARCHES:
        choice = remembered(_file(name, seed, strategy), dict)
        shares[strategy] = (1 - choice["ratio"], truth, choice["group_log_scale"], choice["cost"])
    rows = []
    for strategy, (kept, swept_kept, scales, cost) in shares.items():
        key = _file(name, seed, f"test_{strategy}_{kept:.6f}")
        score, _ = remembered(key, partial(own.tested, kept, scales, seed))
        values = (
            name,
            own.learner.info.kind,
            seed,
            strategy,
            kept,
            swept_kept,
            score,
            reference,
            error,
            cost,
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _file(name: str, seed: int, what: str) -> Path:
    return CACHE / f"{name}.{seed}.{what}.json"


def best_constant(data: Path) -> float:
    """The one kept share that is nearest to the sweeps' on the log scale: the median."""
    truths = []
    for name in TASKS:
        for seed in SEEDS:
            own = dense(name, TASKS[name], seed, data, CACHE, TRAINING)
            sweeps = [
                remembered(_file(name, seed, f"{sweep}_sweep"), list)
                for sweep in ("first", "second")
            ]
            truths.append(answer(own, sweeps[0] + sweeps[1]))
    return float(np.exp(np.median(np.log(truths))))


def covered(table: pd.DataFrame) -> pd.Series:
    """How often the interval of a search holds the sweeps' answer."""
    searched = table[table["strategy"].isin(SEARCHES)]
    inside = []
    for row in searched.itertuples():
        choice = remembered(_file(str(row.task), int(row.seed), str(row.strategy)), dict)
        inside.append(1 - choice["ratio_high"] <= row.sweep_kept <= 1 - choice["ratio_low"])
    return searched.assign(covered=inside).groupby("strategy", sort=False)["covered"].sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the real data")
    data = parser.parse_args().data.resolve()
    CACHE.mkdir(parents=True, exist_ok=True)
    runs = [(name, seed) for seed in SEEDS for name in TASKS]
    with ProcessPoolExecutor(2) as pool:
        for job in [pool.submit(measure, name, seed, data) for name, seed in runs]:
            job.result()
        constant = best_constant(data)
        jobs = [pool.submit(tested, name, seed, data, constant) for name, seed in runs]
        table = pd.DataFrame([row for job in jobs for row in job.result()], columns=COLUMNS)
    table.to_csv(ROOT / "docs/benchmarks/search_quality.csv", index=False)
    save_figure(draw(table), ROOT / "docs/search_quality.png")
    report(table)
    print(covered(table).to_string())


def draw(table: pd.DataFrame) -> Figure:
    """Kept share of each strategy against that of the sweeps; the band is a factor of 1.5."""
    strategies = [name for name in dict.fromkeys(table["strategy"]) if name != "sweep"]
    figure, axes = plt.subplots(
        2, 4, figsize=(10, 5.6), sharex=True, sharey=True, layout="constrained"
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
        median_cost=("cost", "median"),
        median_kept=("kept", "median"),
    )
    print(means.round(3).to_string())
    print(
        table.pivot_table(index=["task"], columns="strategy", values="kept", aggfunc="median")
        .round(3)
        .to_string()
    )


if __name__ == "__main__":
    main()
