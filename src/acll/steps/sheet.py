"""Draw the contact sheet of a task."""

import json
from pathlib import Path

from acll.evaluation.sheet import sheet
from acll.evaluation.style import save
from acll.steps._run import StepSettings, run


class Parameters(StepSettings):
    """A contact sheet depends on its inputs alone."""


def main(*, train: Path, summary: Path, figure: Path, params: Parameters) -> None:
    """Write the figure as PNG."""
    save(sheet(train, json.loads(summary.read_text(encoding="utf-8"))), figure)


if __name__ == "__main__":
    run(main)
