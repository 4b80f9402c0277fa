"""Draw the figures."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation import figures
from acll.evaluation.style import save
from acll.steps._run import StepSettings, run


class Parameters(StepSettings):
    """What the figures depend on, beside the tables."""

    searches: list[str]  # network/method/seed/prefix of each search, in the order of its files


def main(
    *,
    matrix: Path,
    final: Path,
    trials: list[Path],
    choices: list[Path],
    scores_figure: Path,
    shares_figure: Path,
    search_figure: Path | None,
    each_search: list[Path],
    params: Parameters,
) -> None:
    """Write the figures as PNG."""
    ends = pd.read_csv(final)
    save(figures.scores(pd.read_csv(matrix), ends), scores_figure)
    save(figures.shares(ends), shares_figure)
    if search_figure is not None:
        traces = [
            (name, pd.read_csv(trial), json.loads(choice.read_text(encoding="utf-8")))
            for name, trial, choice in zip(params.searches, trials, choices)
        ]
        save(figures.searches(traces), search_figure)
        for trace, path in zip(traces, each_search, strict=True):
            save(figures.searches([trace]), path)


if __name__ == "__main__":
    run(main)
