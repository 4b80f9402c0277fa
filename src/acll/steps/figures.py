"""Draw the figures."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation import figures, run_figures
from acll.evaluation.style import save
from acll.evaluation.tables import read
from acll.settings import Settings
from acll.steps._run import StepSettings, run


class PackedName(Settings):
    """A packed network: a title, and its tasks in the order of learning."""

    title: str
    tasks: list[str]


class Parameters(StepSettings):
    """What the figures depend on, beside the tables."""

    searches: list[str]  # network/method/seed/prefix of each search, in the order of its files
    packed: list[PackedName]  # the networks whose layers are shown, in the order of their scores


def main(
    *,
    tables: Path,
    trials: list[Path],
    choices: list[Path],
    packed_scores: list[Path],
    folder: Path,
    params: Parameters,
) -> None:
    """Write the figures as PNG into the folder: of runs and, where there are any, of searches and packed networks."""
    table = {path.stem: read(path) for path in tables.glob("*.csv")}
    save(figures.scores(table["matrix"], table["final"]), folder / "scores.png")
    save(run_figures.matrices(table["matrix"]), folder / "matrix.png")
    save(run_figures.sizes(table["summary"]), folder / "sizes.png")
    save(run_figures.curves(table["curves"], table["final"]), folder / "curves.png")
    if params.packed:
        save(figures.shares(table["final"]), folder / "shares.png")
        owned = {
            name.title: (name.tasks, json.loads(path.read_text(encoding="utf-8"))["layers"])
            for name, path in zip(params.packed, packed_scores, strict=True)
        }
        save(run_figures.layers(owned), folder / "layers.png")
    if params.searches:
        save(run_figures.difficulty(table["final"]), folder / "difficulty.png")
        traces = [
            (name, pd.read_csv(trial), json.loads(choice.read_text(encoding="utf-8")))
            for name, trial, choice in zip(params.searches, trials, choices, strict=True)
        ]
        save(figures.searches(traces), folder / "search.png")
        for trace in traces:
            save(figures.searches([trace]), folder / "searches" / f"{trace[0]}.png")


if __name__ == "__main__":
    run(main)
