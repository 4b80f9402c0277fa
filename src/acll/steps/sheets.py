"""Draw the contact sheet of each task."""

import json
from pathlib import Path

from acll.evaluation.sheet import sheet
from acll.evaluation.style import save_figure
from acll.parameters.report import SheetsParams
from acll.steps._run import run_step


def main(
    *, train: list[Path], summary: list[Path], figures: list[Path], params: SheetsParams
) -> None:
    """Write the figures as PNG."""
    for data, about, figure in zip(train, summary, figures, strict=True):
        save_figure(sheet(data, json.loads(about.read_text(encoding="utf-8"))), figure)


if __name__ == "__main__":
    run_step(main)
