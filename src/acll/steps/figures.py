"""Draw the figures of all runs together."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from acll.evaluation import figures as run_result_figures
from acll.evaluation import run_figures
from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.style import save_figure
from acll.evaluation.tables import read_table
from acll.parameters.report import FiguresParams
from acll.steps._run import run_step


def main(
    *,
    tables: list[Path],
    trials: list[Path],
    choices: list[Path],
    packed: list[Path],
    figures: list[Path],
    params: FiguresParams,
) -> None:
    """Write the figures: of scores and, where there are any, of searches and packed networks."""
    folder = figures[0].parent
    table = {path.stem: read_table(path) for path in tables if path.suffix == ".csv"}
    _draw_results(table, folder)
    if params.packed:
        owned = {
            f"{one.sequence}: {one.method}": (list(one.tasks), _json(path)["layers"])
            for one, path in zip(params.packed, packed, strict=True)
        }
        save_figure(run_result_figures.shares(table["final"]), folder / "shares.svg")
        save_figure(run_figures.layers(owned), folder / "layers.svg")
    if params.fronts:
        save_figure(fronts_figure(table["front"]), folder / "front.svg")
    if params.searches:
        save_figure(run_figures.difficulty(table["final"]), folder / "difficulty.svg")
        traces = [
            (name, pd.read_csv(trial), _json(choice))
            for name, trial, choice in zip(params.searches, trials, choices, strict=True)
        ]
        save_figure(run_result_figures.searches(traces), folder / "search.svg")


def _draw_results(table: dict[str, pd.DataFrame], folder: Path) -> None:
    save_figure(run_result_figures.scores(table["matrix"], table["final"]), folder / "scores.svg")
    save_figure(run_figures.matrices(table["matrix"]), folder / "matrix.svg")
    save_figure(run_figures.sizes(table["summary"]), folder / "sizes.svg")
    save_figure(run_figures.curves(table["curves"], table["final"]), folder / "curves.svg")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_step(main)
