"""Which jobs of a plan a run would run, and why.

This is what Snakemake comes to, as the rules here set it (`acll.run_settings`), without its start
and its graph, which take most of the time of a plan of thousands of jobs. Tests compare the two.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acll.files import sha256
from acll.plan import Job
from acll.sharing import records
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


def reasons_to_run(results: Path, jobs: Iterable[Job]) -> list[Reason]:
    """Return why jobs are to run, in the order of `jobs`: those that others need first.

    Nothing is written. Contents of results are read only where their times are in doubt.
    """
    unfinished = records.unfinished(results)
    times = _Times(results)
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
    """Times of results as they are when a run begins: see `acll.sharing.times`."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._now = time.time()
        self._known: dict[str, float | None] = {}

    def of(self, path: str, digests: Mapping[str, str]) -> float | None:
        """Return the time of a result in seconds; None where it is not there."""
        if path not in self._known:
            self._known[path] = self._of(self._results / path, digests.get(path))
        return self._known[path]

    def _of(self, path: Path, digest: str | None) -> float | None:
        if not path.is_file():
            return None
        own = path.stat().st_mtime
        # a run gives the time of now to what is younger, and as its job wrote it
        return self._now if own > self._now and sha256(path) == digest else own


def _reason(
    results: Path,
    job: Job,
    digests: Mapping[str, str],
    unfinished: set[str],
    times: _Times,
) -> Reason | None:
    """Return why a job is to run whatever becomes of the others; None: for no reason of its own."""
    absent = [output for output in job.all_outputs if times.of(output, digests) is None]
    found = {output: records.read_record(results, output) for output in job.all_outputs}
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
    """Return an input that is another one than when the outputs of a job were made.

    Contents are read where an input is younger than an output, or where what its own job wrote is
    not what was recorded. found: the record of each output.
    """
    if any(record is not None and record.other_input(digests) is not None for record in found):
        oldest = 0.0
    else:
        oldest = min(filter(None, (times.of(output, digests) for output in job.all_outputs)))
    for path in job.all_inputs:
        own = times.of(path, digests)
        if own is not None and own > oldest:
            before = {None if record is None else record.inputs.get(path) for record in found}
            if before != {sha256(results / path)}:
                return path
    return None
