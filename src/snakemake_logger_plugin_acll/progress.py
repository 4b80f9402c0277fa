"""Which of how many jobs of a run have ended, and how long the others may take."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

_KNOWN = (
    0.25  # of the jobs that are left, the share of which something must be known to judge them all
)


class Progress:
    """Which of how many jobs, and the time left: judged by the jobs of the same rule, of this run
    or an earlier one."""

    def __init__(
        self, planned: Mapping[str, int], earlier: Mapping[str, float], now: float
    ) -> None:
        """planned: jobs of each rule; earlier: seconds of its jobs in earlier runs, where that is
        known."""
        self.total = sum(planned.values())
        self.done = 0
        self._left = Counter(planned)  # jobs of each rule that have not ended
        self._earlier = earlier
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._running: dict[
            int, tuple[str, str, float]
        ] = {}  # by the job's number: rule, message, start
        self._began = now

    def start(self, job: int, rule: str, message: str, now: float) -> str:
        """The line for a job that starts."""
        self._running[job] = (rule, message, now)
        return f"started  {message}"

    def is_running(self, job: int) -> bool:
        """Whether it has started and not ended."""
        return job in self._running

    def end(self, job: int, now: float) -> str:
        """The line for a job that has ended."""
        rule, message, start = self._running.pop(job)
        self._seconds[rule].append(now - start)
        self._left[rule] -= 1
        self.done += 1
        left = self.seconds_left(now)
        about = f"; about {shown(left)} left" if left is not None else ""
        return f"{self.done} of {self.total}  {message} ({shown(now - start)}){about}"

    def seconds_left(self, now: float) -> float | None:
        """Of the whole run, if jobs go on side by side as they have so far; None while that is not
        to be judged."""
        known = {
            **self._earlier,
            **{rule: fmean(seconds) for rule, seconds in self._seconds.items()},
        }
        left = self._left.total()
        if not left or not self.done or sum(self._left[rule] for rule in known) < _KNOWN * left:
            return None
        other = fmean([seconds for each in self._seconds.values() for seconds in each])
        work = sum(count * known.get(rule, other) for rule, count in self._left.items())
        so_far = {job: now - start for job, (_, _, start) in self._running.items()}
        work -= sum(
            min(so_far[job], known.get(rule, other)) for job, (rule, _, _) in self._running.items()
        )
        spent = sum(second for seconds in self._seconds.values() for second in seconds) + sum(
            so_far.values()
        )
        side_by_side = max(spent / max(now - self._began, 1e-9), 1e-9)
        return work / side_by_side


def shown(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def earlier_seconds(benchmarks: Path) -> dict[str, float]:
    """Mean seconds of the jobs of each rule that have left a benchmark below the folder."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in benchmarks.glob("**/*.tsv"):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        with path.open(encoding="utf-8") as file:
            seconds[rule] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    return {rule: fmean(each) for rule, each in seconds.items() if each}
