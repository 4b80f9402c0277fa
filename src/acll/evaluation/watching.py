"""What the logs of a run say about its trainings, as points of curves, while it goes on.

Steps know nothing of it: they print what they print, so to watch a run changes none of its results
and none of its digests.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from acll.progress import Epoch

_RULES = ("train", "search", "grow", "prune", "retrain")
_TRIAL = ("score", "threshold", "kept_share", "cost")


@dataclass(frozen=True)
class Point:
    """A value of a curve.

    curve: the rule, the node and what is trained. step: the number of the epoch, or of the trial.
    """

    curve: str
    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Begun:
    """What follows is all that there is of some curves. curve: the beginning of their names."""

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
            epoch = Epoch.read(line)
            if epoch is None:
                continue
            own = f"{curve}/{epoch.label.strip()}"
            for name in ("validation", "loss", "rate", "reads"):
                value = getattr(epoch, name)
                if value is not None:
                    yield Point(own, f"training/{name}", ceil(epoch.number), value)

    def _trials(self, path: Path) -> Iterator[Point | Begun]:
        node = path.parent.relative_to(self._results / "nodes").as_posix()
        curve = f"search/{node}/trials"
        content = path.read_bytes()
        if self._read.get(path) == len(content):
            return
        self._read[path] = len(content)
        yield Begun(curve)
        for row in csv.DictReader(content.decode("utf-8").splitlines()):
            for name in _TRIAL:
                if row.get(name):
                    yield Point(curve, f"trials/{name}", int(row["number"]), float(row[name]))

    def _more(self, path: Path) -> tuple[bool, str]:
        """Return whether a log is read from its beginning, and its whole lines that are new."""
        before = self._read.get(path, 0)
        with path.open("rb") as file:
            begun = path not in self._read or path.stat().st_size < before
            file.seek(0 if begun else before)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[path] = (0 if begun else before) + len(whole)
        return begun, whole.decode("utf-8", "replace")
