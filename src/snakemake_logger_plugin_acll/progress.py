"""Which of how many jobs of a run have ended, and how long the others may take."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

# share of the jobs left whose rule has a known time, from which on the time left is told
_KNOWN = 0.25
_END = 4096  # bytes of a log in which its last line is looked for


@dataclass(frozen=True)
class Running:
    """A job that has started and not ended. log: the file in which its step says how far it is."""

    rule: str
    message: str
    log: Path | None
    began: float


class Progress:
    """How many jobs have ended, and the time left.

    Jobs of a rule are taken to be as long as those of this run so far or, before there are any, of
    earlier runs.
    """

    def __init__(
        self, planned: Mapping[str, int], earlier: Mapping[str, float], now: float
    ) -> None:
        """Begin to count.

        planned: number of jobs of each rule. earlier: mean seconds of a job in earlier runs, by
        rule. now: seconds of a monotonic clock, here and below.
        """
        self.total = sum(planned.values())
        self.done = 0
        self._left = Counter(planned)  # jobs of each rule that have not ended
        self._earlier = earlier
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self.running: dict[int, Running] = {}  # by the number of a job
        self.began = now

    def start(self, number: int, rule: str, message: str, log: Path | None, now: float) -> None:
        """Take note of a job that starts."""
        self.running[number] = Running(rule, message, log, now)

    def is_running(self, number: int) -> bool:
        """Return whether a job has started and not ended."""
        return number in self.running

    def end(self, number: int, now: float) -> str:
        """Return the line for a job that has ended."""
        job = self.running.pop(number)
        self._seconds[job.rule].append(now - job.began)
        self._left[job.rule] -= 1
        self.done += 1
        left = self.seconds_left(now)
        about = f"; about {shown(left)} left" if left is not None else ""
        return f"{self.done} of {self.total}  {job.message} ({shown(now - job.began)}){about}"

    def fail(self, number: int, now: float) -> list[str]:
        """Return the line for a job that has failed, if it has not been given already."""
        job = self.running.pop(number, None)
        return [] if job is None else [f"failed  {job.message} ({shown(now - job.began)})"]

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds left of the run, if as many jobs go on side by side as so far.

        None while too little is known.
        """
        here = {rule: fmean(seconds) for rule, seconds in self._seconds.items()}
        known = {**self._earlier, **here}
        left = self._left.total()
        if not left or not self.done or sum(self._left[rule] for rule in known) < _KNOWN * left:
            return None
        ended = [second for seconds in self._seconds.values() for second in seconds]
        other = fmean(ended)  # for rules of which nothing is known
        work = sum(count * known.get(rule, other) for rule, count in self._left.items())
        running = list(self.running.values())  # a copy: the display reads in a thread of its own
        work -= sum(min(now - job.began, known.get(job.rule, other)) for job in running)
        spent = sum(ended) + sum(now - job.began for job in running)
        side_by_side = max(spent / max(now - self.began, 1e-9), 1e-9)
        return work / side_by_side


def shown(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def earlier_seconds(benchmarks: Path) -> dict[str, float]:
    """Return the mean seconds of the jobs of each rule, from the benchmarks below a folder."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in benchmarks.glob("**/*.tsv"):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        with path.open(encoding="utf-8") as file:
            seconds[rule] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    return {rule: fmean(each) for rule, each in seconds.items() if each}


def last_line(log: Path) -> str:
    """Return the last line of a log that is still written; empty where there is none yet."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - _END, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def warnings_in(log: Path) -> list[str]:
    """Return the lines of a log that are warnings."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith("warning: ")]
