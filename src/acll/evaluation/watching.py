"""What the logs of a run say about its trainings, as points of curves, while it goes on.

Steps know nothing of it: they print what they print, so to watch a run changes none of its results
and none of its digests.
"""

import csv
import os
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

    curve: the rule, the node and what is trained, with `/` between them: the last part has none.
    step: the number of the epoch, or of the trial.
    """

    curve: str
    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Begun:
    """What follows is all that there is of the curves of a file. place: rule and node.

    Nodes nest: the curves of a later task lie below, and stay.
    """

    place: str

    def has(self, curve: str) -> bool:
        """Return whether a curve is one of these."""
        return curve.rpartition("/")[0] == self.place


class Watched:
    """The logs and trials below the results of a run, and how much of each was read.

    Files may vanish while they are looked for, and jobs may run again.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._read: dict[Path, tuple[int, bytes]] = {}  # how many bytes, and the last line of them
        self._tables: dict[Path, bytes] = {}
        # of each name of a training its latest epoch, and how many trainings have had it
        self._trained: dict[str, tuple[float, int]] = {}

    def news(self) -> Iterator[Point | Begun]:
        """Yield what is there and was not yielded yet, log by log."""
        for rule in _RULES:
            for path, node in _files(self._results / "logs" / rule, ".log"):
                yield from self._news(path, f"{rule}/{node / path.stem}")
        for path, node in _files(self._results / "nodes", "trials.csv"):
            yield from self._trials(path, f"{path.stem}/{node}")

    def _news(self, path: Path, place: str) -> Iterator[Point | Begun]:
        begun, text = self._more(path)
        if begun:
            began = Begun(place)
            self._trained = {
                name: known for name, known in self._trained.items() if not began.has(name)
            }
            yield began
        for line in text.splitlines():
            epoch = Epoch.read(line)
            if epoch is None:
                continue
            curve = self._curve(f"{place}/{epoch.label.strip().replace('/', '-')}", epoch.number)
            for name in ("validation", "loss", "rate", "reads"):
                value = getattr(epoch, name)
                if value is not None:
                    yield Point(curve, f"training/{name}", ceil(epoch.number), value)

    def _curve(self, name: str, epoch: float) -> str:
        """Return the curve of a training, which has a number where others had the same name.

        So it is with the releases of trials.
        """
        latest, count = self._trained.get(name, (0.0, 1))
        count += epoch <= latest
        self._trained[name] = epoch, count
        return name if count == 1 else f"{name} {count}"

    def _trials(self, path: Path, place: str) -> Iterator[Point | Begun]:
        content = _bytes_of(path, 0)
        if self._tables.get(path, b"") == content:
            return
        self._tables[path] = content
        yield Begun(place)
        for row in csv.DictReader(content.decode("utf-8").splitlines()):
            for name in _TRIAL:
                if row.get(name):
                    value = float(row[name])
                    yield Point(f"{place}/trials", f"trials/{name}", int(row["number"]), value)

    def _more(self, path: Path) -> tuple[bool, str]:
        """Return whether a log is read from its beginning, and its whole lines that are new."""
        before, last = self._read.get(path, (0, b""))
        content = _bytes_of(path, before - len(last))
        begun = path not in self._read or not content.startswith(last)
        if begun:  # a new log, or another one in its place
            before, last, content = 0, b"", _bytes_of(path, 0)
        whole = content[: content.rfind(b"\n") + 1]
        self._read[path] = before + len(whole) - len(last), whole[whole[:-1].rfind(b"\n") + 1 :]
        return begun, whole[len(last) :].decode("utf-8", "replace")


def _files(folder: Path, end: str) -> Iterator[tuple[Path, Path]]:
    """Yield the files of which the name ends so, in order, each with the folder it has below."""
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(end):
                yield Path(place, name), Path(place).relative_to(folder)


def _bytes_of(path: Path, start: int) -> bytes:
    """Return what a file has from a byte on; nothing where it has vanished."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        return b""
