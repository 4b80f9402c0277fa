"""What the logs of a run say about its trainings, as points of curves, while it goes on.

Steps know nothing of it: they print what they print, so to watch a run changes none of its results
and none of its digests.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acll.training.loop import PROGRESS

_RULES = ("train", "search", "grow", "prune", "retrain")
_NUMBERS = {"score": "score", "kept_share": "kept share", "cost": "cost", "epochs": "epochs"}


@dataclass(frozen=True)
class Point:
    """A value of a curve. curve: the rule, the node and, of a search, the trial. step: epochs, or
    the number of a trial."""

    curve: str
    name: str
    step: float
    value: float


@dataclass(frozen=True)
class Begun:
    """A log begins anew: what was said of these curves counts no more. curve: the first words of
    their names."""

    curve: str


class Watched:
    """The logs and trials below the results of a run, and how much of each was read."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._read: dict[Path, int] = {}  # bytes

    def news(self) -> Iterator[Point | Begun]:
        """Yield what is there and was not yielded yet, log by log."""
        for rule in _RULES:
            for path in sorted((self._results / "logs" / rule).rglob("*.log")):
                yield from self._news(path, path.relative_to(self._results / "logs"))
        for path in sorted((self._results / "nodes").rglob("trials.csv")):
            yield from self._trials(path)

    def _news(self, path: Path, place: Path) -> Iterator[Point | Begun]:
        curve = place.with_suffix("").as_posix()
        begun, text = self._more(path)
        if begun:
            yield Begun(curve)
        for line in text.splitlines():
            found = PROGRESS.fullmatch(line)
            if found is None:
                continue
            told = found.groupdict()
            own = f"{curve}/{told['label'].strip()}"
            for name in ("validation", "loss", "rate", "reads"):
                if told[name] is not None:
                    yield Point(own, name, float(told["epoch"]), float(told[name]))

    def _trials(self, path: Path) -> Iterator[Point | Begun]:
        node = path.parent.relative_to(self._results / "nodes").as_posix()
        curve = f"search/{node}/trials"
        content = path.read_bytes()
        if self._read.get(path) == len(content):
            return
        self._read[path] = len(content)
        yield Begun(curve)
        for row in csv.DictReader(content.decode("utf-8").splitlines()):
            for column, name in _NUMBERS.items():
                if row.get(column):
                    yield Point(curve, name, float(row["number"]), float(row[column]))

    def _more(self, path: Path) -> tuple[bool, str]:
        """Return whether a log begins anew, and its whole lines that were not read yet."""
        before = self._read.get(path, 0)
        with path.open("rb") as file:
            begun = path.stat().st_size < before
            file.seek(0 if begun else before)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[path] = (0 if begun else before) + len(whole)
        return begun, whole.decode("utf-8", "replace")
