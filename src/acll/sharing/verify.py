"""Whether results are what this commit would make.

They are judged by content alone: times of files do not count. Every output is compared with the
digest that its job wrote. The record of that job is compared with the job in the plan: its
parameters (settings, code, libraries, raw data), its command, and the content of its inputs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acll.files import sha256
from acll.plan import Job, command
from acll.sharing import records
from acll.sharing.changes import changes, input_changes, value_changes

ResultFaultKind = Literal[
    "missing", "unfinished", "damaged", "unrecorded", "stale", "follows", "kept"
]
_SHOWN = 3  # parameters named in a reason


@dataclass(frozen=True)
class ResultFault:
    """What is wrong with an output.

    kind: `missing`; `unfinished`: its job did not end; `damaged`: not what its job wrote;
    `unrecorded`: nothing says how it was made; `stale`: this commit would make another; `follows`:
    sound in itself, but made from what is not current; `kept`: made with other code or libraries,
    and kept on purpose, which is no fault.
    """

    output: str
    kind: ResultFaultKind
    reason: str


def result_faults(results: Path, jobs: Iterable[Job]) -> list[ResultFault]:
    """Return the faults of all outputs, in the order of `jobs`: those that others need first."""
    unfinished = records.unfinished(results)
    faults: list[ResultFault] = []
    not_current: set[str] = set()  # outputs that this commit would make anew
    for job, digests in records.with_digests(results, jobs):
        follows = next((path for path in job.all_inputs if path in not_current), None)
        for output in job.all_outputs:
            damage = _damage(results, output, digests, unfinished)
            stale = _stale(job, output, records.read_record(results, output), digests)
            found = damage or stale
            if found is None and follows is not None:
                found = ("follows", f"made from {follows}")
            if found is not None:
                faults.append(ResultFault(output, *found))
            # a damaged one will be made again, bit for bit: what was made from it stands
            if stale is not None or follows is not None:
                not_current.add(output)
    return faults


@dataclass(frozen=True)
class Reason:
    """Why a job of a plan is to run.

    kind: `new`: it has made nothing yet; `changed`; `missing`: a result is not there; `follows`:
    what it reads is made anew.
    """

    job: Job
    kind: Literal["new", "changed", "missing", "follows"]
    words: str


def reasons_to_run(results: Path, jobs: Iterable[Job], titles: set[str]) -> list[Reason]:
    """Return why jobs are to run, in the order of `jobs`.

    titles: of those that Snakemake would run. Contents of results are not read.
    """
    unfinished = records.unfinished(results)
    by_output: dict[str, Job] = {}  # the jobs that are to run
    reasons = []
    for job, digests in records.with_digests(results, jobs):
        if job.title not in titles:
            continue
        reasons.append(_reason(results, job, digests, unfinished, by_output))
        by_output |= dict.fromkeys(job.all_outputs, job)
    return reasons


def _reason(
    results: Path,
    job: Job,
    digests: Mapping[str, str],
    unfinished: set[str],
    by_output: Mapping[str, Job],
) -> Reason:
    found = {output: records.read_record(results, output) for output in job.all_outputs}
    absent = [output for output in found if not (results / output).is_file()]
    before = next((by_output[path] for path in job.all_inputs if path in by_output), None)
    if not any(found.values()) and absent:
        return Reason(job, "new", "not made yet")
    if unfinished & set(found):
        return Reason(job, "missing", "it was stopped before its end")
    if absent:
        return Reason(job, "missing", f"{absent[0]} is not there")
    for output, record in found.items():
        stale = _stale(job, output, record, digests)
        if stale is not None and record is not None:
            return Reason(job, "changed", stale[1])
    if before is not None:
        return Reason(job, "follows", f"after {before.title}")
    return Reason(job, "changed", "its inputs or its command have changed")


def settle_marks(results: Path, jobs: Iterable[Job]) -> None:
    """Remove the marks of jobs that were stopped, where their results are there all the same.

    DVC brings results back, and no mark of a job that was stopped meanwhile. A result whose content
    is what its recorded job wrote, and whose record is that of `jobs`, is no unfinished one. No run
    may be on.
    """
    unfinished = records.unfinished(results)
    for job, digests in records.with_digests(results, jobs):
        for output in unfinished & set(job.all_outputs):
            record = records.read_record(results, output)
            if _damage(results, output, digests, set()) or _stale(job, output, record, digests):
                continue
            (results / records.mark_path(output)).unlink(missing_ok=True)


def kept_results(results: Path, jobs: Iterable[Job]) -> list[ResultFault]:
    """Return the outputs that `acll accept` has kept, each with what it was made with."""
    found = []
    for job in jobs:
        for output in job.all_outputs:
            record = records.read_record(results, output)
            if record is not None and record.made_with is not None:
                told = value_changes(record.made_with, record.params["code"], job.rule, "code")
                words = "; ".join(told) or "the command of its rule has changed"
                found.append(ResultFault(output, "kept", words))
    return found


def _damage(
    results: Path, output: str, digests: Mapping[str, str], unfinished: set[str]
) -> tuple[ResultFaultKind, str] | None:
    """Return what is wrong with the file itself; None: nothing."""
    path = results / output
    if not path.is_file():
        return "missing", "the file is not there"
    if output in unfinished:
        return "unfinished", "its job did not end"
    if output in digests and sha256(path) != digests[output]:
        return "damaged", f"its content ({path.stat().st_size:,} bytes) is not what its job wrote"
    return None


def _stale(
    job: Job, output: str, record: records.Record | None, digests: Mapping[str, str]
) -> tuple[ResultFaultKind, str] | None:
    """Return why this commit would make another output than the recorded job; else None."""
    if record is None or output not in digests:
        return "unrecorded", "there is no record of how it was made"
    # compared as texts: as values true and 1 are equal, and so are no key and null
    if json.dumps(record.params, sort_keys=True) != job.text:
        told = changes(record.params, json.loads(job.text), job.rule)
        told = told or ["its parameters have changed"]
        more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        return "stale", "; ".join(told[:_SHOWN] + more)
    if record.command != command(job.rule):
        return "stale", "the command of its rule has changed"
    if set(record.inputs) != set(job.all_inputs):
        return "stale", input_changes(record.inputs.keys(), job.all_inputs)
    made_from = record.other_input(digests)
    if made_from is not None:
        return "stale", f"made from another {made_from}"
    added = next((one for one in job.all_outputs if one not in digests), None)
    return None if added is None else ("stale", f"its job now makes {added}, too")
