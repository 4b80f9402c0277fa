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
    """A job that has begun and not ended.

    log: the file in which its step says how far it is. benchmark: in which Snakemake notes how long
    it took. began: as of a monotonic clock. submitted: None for a job of this machine; else the
    time at which it was given to a scheduler, in seconds since the epoch.
    """

    rule: str
    message: str
    log: Path | None
    began: float
    benchmark: Path | None = None
    submitted: float | None = None

    @property
    def at_work(self) -> bool:
        """Whether its step runs: a scheduler lets jobs wait, and may run several as one."""
        if self.submitted is None:
            return True
        return _is_newer(self.log, self.submitted) and not _is_newer(self.benchmark, self.submitted)

    def seconds(self, now: float) -> float:
        """Return how long it has run at `now`, when it has ended; without what it has waited."""
        if self.submitted is not None and self.benchmark is not None:
            noted = _seconds_in(self.benchmark)
            if noted and _is_newer(self.benchmark, self.submitted):
                return noted[-1]
        return now - self.began


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

    def start(self, number: int, job: Running) -> None:
        """Take note of a job that starts."""
        self.running[number] = job

    def is_running(self, number: int) -> bool:
        """Return whether a job has started and not ended."""
        return number in self.running

    def end(self, number: int, now: float) -> str:
        """Return the line for a job that has ended."""
        job = self.running.pop(number)
        seconds = job.seconds(now)
        self._seconds[job.rule].append(seconds)
        self._left[job.rule] -= 1
        self.done += 1
        left = self.seconds_left(now)
        about = f"; about {shown(left)} left" if left is not None else ""
        return f"{self.done} of {self.total}  {job.message} ({shown(seconds)}){about}"

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
        # a copy: the display reads in a thread of its own
        running = [job for job in list(self.running.values()) if job.at_work]
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
        seconds[rule] += _seconds_in(path)
    return {rule: fmean(each) for rule, each in seconds.items() if each}


def _seconds_in(benchmark: Path) -> list[float]:
    try:
        with benchmark.open(encoding="utf-8") as file:
            return [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, ValueError, KeyError):
        return []


def _is_newer(path: Path | None, moment: float) -> bool:
    """Return whether a file is there, and not older than a moment."""
    try:
        return path is not None and path.stat().st_mtime >= moment
    except OSError:
        return False


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
