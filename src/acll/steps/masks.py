"""Draw what the networks of all methods make of a few test images of a task, when it was learned and at the end."""

import json
from pathlib import Path

from acll.evaluation.masks import Before, masks, read
from acll.evaluation.style import save
from acll.settings import Settings
from acll.steps._run import StepSettings, run


class MethodName(Settings):
    """A method and how many networks of its are shown: when learned and at the end, or that at the end alone."""

    name: str
    networks: int


class Parameters(StepSettings):
    """What is shown: the methods in the order of their files."""

    title: str
    task: str
    methods: list[MethodName]


def main(*, examples: list[Path], scores: list[Path], figure: Path, params: Parameters) -> None:
    """Write the figure as PNG."""
    pairs = iter(zip(examples, scores, strict=True))
    rows = []
    for method in params.methods:
        own = [next(pairs) for _ in range(method.networks)]
        shown = [read(path) for path, _ in own]
        found = tuple(_score(path, params.task) for _, path in own)
        rows.append(Before(method.name, shown[0] if len(shown) > 1 else None, shown[-1], found))
    save(masks(params.title, rows), figure)


def _score(path: Path, task: str) -> float:
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return float(next(row["score"] for row in rows if row["task"] == task))


if __name__ == "__main__":
    run(main)
