"""Which jobs of a plan a run would run, and why.

This is what Snakemake comes to, as the rules here set it (`acll.run_settings`), without its start
and its graph, which take most of the time of a plan of thousands of jobs. Tests compare the two.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acll.files import sha256
from acll.plan import Job
from acll.sharing import records
from acll.sharing.times import LONG_AGO
from acll.sharing.verify import is_settled, outdated


@dataclass(frozen=True)
class Reason:
    """Why a job of a plan is to run.

    kind: `new`: it has made nothing yet; `changed`; `missing`: a result is not there; `follows`:
    what it reads is made anew.
    """

    job: Job
    kind: Literal["new", "changed", "missing", "follows"]
    words: str


def reasons_to_run(results: Path, jobs: Sequence[Job]) -> list[Reason]:
    """Return why jobs are to run, in the order of `jobs`: those that others need first.

    Nothing is written. Contents of results are read only where their times are in doubt.
    """
    times = _Times(results)
    reasons = _reasons(results, jobs, times)
    if times.settled:  # they count for all jobs, also for those before
        reasons = _reasons(results, jobs, times)
    return reasons


def _reasons(results: Path, jobs: Sequence[Job], times: "_Times") -> list[Reason]:
    unfinished = records.unfinished(results)
    to_run: dict[str, Job] = {}  # by output, the jobs that are to run
    reasons = []
    for job, digests in records.with_digests(results, jobs):
        reason = _reason(results, job, digests, unfinished, times)
        before = next((to_run[path] for path in job.all_inputs if path in to_run), None)
        if reason is None and before is not None:
            reason = Reason(job, "follows", f"after {before.title}")
        if reason is not None:
            reasons.append(reason)
            to_run |= dict.fromkeys(job.all_outputs, job)
    return reasons


class _Times:
    """Times of results as they are when a run begins: see `acll.sharing.times`.

    settled: the times that a run sets before it looks at any.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._now = time.time()
        self._known: dict[str, tuple[float, float] | None] = {}
        self.settled: dict[str, float] = {}

    def written(self, path: str, digests: Mapping[str, str]) -> float | None:
        """Return when an output was written, in seconds; None where it is not there."""
        known = self._of(path, digests)
        return None if known is None else known[0]

    def changed(self, path: str, digests: Mapping[str, str]) -> float | None:
        """Return when an input has changed last, as a link or behind it; None: it is not there."""
        known = self._of(path, digests)
        return None if known is None else max(known)

    def settle(self, output: str, other: str) -> None:
        """Take note that an output was made from another input than there is."""
        self.settled |= {output: LONG_AGO, other: self._now}

    def _of(self, path: str, digests: Mapping[str, str]) -> tuple[float, float] | None:
        """Return the time of a path and of what may lie behind it as a link."""
        if path in self.settled:
            return self.settled[path], self.settled[path]
        if path not in self._known:
            self._known[path] = self._look(self._results / path, digests.get(path))
        return self._known[path]

    def _look(self, path: Path, digest: str | None) -> tuple[float, float] | None:
        try:
            times = path.lstat().st_mtime, path.stat().st_mtime
            # a run gives the time of now to what is younger, and as its job wrote it
            is_ahead = times[1] > self._now and sha256(path) == digest
        except OSError:  # not there, or not any more: a run is at work
            return None
        return (min(times[0], self._now), self._now) if is_ahead else times


def _reason(
    results: Path,
    job: Job,
    digests: Mapping[str, str],
    unfinished: set[str],
    times: _Times,
) -> Reason | None:
    """Return why a job is to run whatever becomes of the others; None: for no reason of its own."""
    absent = [output for output in job.all_outputs if times.written(output, digests) is None]
    found = {output: records.read_record(results, output) for output in job.all_outputs}
    for output, record in found.items():
        other = None if record is None else record.other_input(digests)
        if other is not None and (results / other).exists() and output not in absent:
            times.settle(output, other)
    if absent and not any(found.values()):
        return Reason(job, "new", "not made yet")
    for output in unfinished & set(found):
        if not is_settled(results, job, output, digests):
            return Reason(job, "missing", "it was stopped before its end")
    if absent:
        return Reason(job, "missing", f"{absent[0]} is not there")
    recorded = [record for record in found.values() if record is not None]
    if len(recorded) == len(found):  # what has no record is left as it is: `verify` tells it
        for record in recorded:
            why = outdated(job, record, digests={})
            if why is not None:
                return Reason(job, "changed", why)
    edited = _edited(results, job, digests, list(found.values()), times)
    return None if edited is None else Reason(job, "changed", f"made from another {edited}")


def _edited(
    results: Path,
    job: Job,
    digests: Mapping[str, str],
    found: Sequence[records.Record | None],
    times: _Times,
) -> str | None:
    """Return an input that is younger than an output and has another content than was recorded.

    found: the record of each output. To Snakemake the benchmark is an output, too, and the time 0
    is none.
    """
    of_outputs = [times.written(path, digests) for path in (*job.all_outputs, job.benchmark)]
    oldest = min(when for when in of_outputs if when is not None)
    for path in job.all_inputs if oldest else ():
        changed = times.changed(path, digests)
        if changed is not None and changed > oldest:
            before = {None if record is None else record.inputs.get(path) for record in found}
            if before != {_digest(results / path)}:
                return path
    return None


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None for one that a run has removed meanwhile."""
    try:
        return sha256(path)
    except OSError:
        return None
