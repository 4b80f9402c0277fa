"""Draw what a search has tried, and what it has chosen."""

import json
from pathlib import Path

import pandas as pd

from acll.evaluation.figures import searches
from acll.evaluation.style import save_figure
from acll.parameters.report import TraceParams
from acll.steps._run import run_step


def main(*, trials: Path, choice: Path, figure: Path, params: TraceParams) -> None:
    """Write the figure."""
    chosen = json.loads(choice.read_text(encoding="utf-8"))
    save_figure(searches([(params.node, pd.read_csv(trials), chosen)]), figure)


if __name__ == "__main__":
    run_step(main)
