"""Which of how many jobs of a run have ended, and how long the others may take."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

# share of the jobs left whose rule has a known time, from which on the time left is told
_KNOWN = 0.25


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
        # by the number of a job: its rule, its message, when it started
        self._running: dict[int, tuple[str, str, float]] = {}
        self._began = now

    def start(self, job: int, rule: str, message: str, now: float) -> str:
        """Return the line for a job that starts."""
        self._running[job] = (rule, message, now)
        return f"started  {message}"

    def is_running(self, job: int) -> bool:
        """Return whether a job has started and not ended."""
        return job in self._running

    def end(self, job: int, now: float) -> str:
        """Return the line for a job that has ended."""
        rule, message, start = self._running.pop(job)
        self._seconds[rule].append(now - start)
        self._left[rule] -= 1
        self.done += 1
        left = self.seconds_left(now)
        about = f"; about {shown(left)} left" if left is not None else ""
        return f"{self.done} of {self.total}  {message} ({shown(now - start)}){about}"

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
        so_far = {job: now - start for job, (_, _, start) in self._running.items()}
        work -= sum(
            min(so_far[job], known.get(rule, other)) for job, (rule, _, _) in self._running.items()
        )
        spent = sum(ended) + sum(so_far.values())
        side_by_side = max(spent / max(now - self._began, 1e-9), 1e-9)
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
