"""Whether results are what this commit would make.

They are judged by content alone: times of files do not count. Every output is compared with the
digest that its job wrote. The record of that job is compared with the job in the plan: its
parameters (settings, code, libraries, raw data), its command, and the content of its inputs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    return [one for one in judged(results, jobs) if one.kind != "kept"]


def judged(results: Path, jobs: Iterable[Job]) -> list[ResultFault]:
    """Return what is to say of all outputs, in the order of `jobs`: faults, and what is kept."""
    unfinished = records.unfinished(results)
    faults: list[ResultFault] = []
    not_current: set[str] = set()  # outputs that this commit would make anew
    for job, digests in records.with_digests(results, jobs):
        follows = next((path for path in job.all_inputs if path in not_current), None)
        for output in job.all_outputs:
            damage = _damage(results, output, digests, unfinished)
            record = records.read_record(results, output)
            stale = _stale(job, output, record, digests)
            found = damage or stale
            if found is None and follows is not None:
                found = ("follows", f"made from {follows}")
            if found is not None:
                faults.append(ResultFault(output, *found))
            if record is not None and record.made_with is not None:
                faults.append(ResultFault(output, "kept", _kept(job, record.made_with, record)))
            # a damaged one will be made again, bit for bit: what was made from it stands
            if stale is not None or follows is not None:
                not_current.add(output)
    return faults


def settle_marks(results: Path, jobs: Iterable[Job]) -> None:
    """Remove the marks of jobs that were stopped, where their results are there all the same.

    DVC brings results back, and no mark of a job that was stopped meanwhile. A result whose content
    is what its recorded job wrote, and whose record is that of `jobs`, is no unfinished one. No run
    may be on.
    """
    unfinished = records.unfinished(results)
    for job, digests in records.with_digests(results, jobs):
        for output in unfinished & set(job.all_outputs):
            if is_settled(results, job, output, digests):
                (results / records.mark_path(output)).unlink(missing_ok=True)


def is_settled(results: Path, job: Job, output: str, digests: Mapping[str, str]) -> bool:
    """Return whether an output is what a job would make, though marked as unfinished."""
    record = records.read_record(results, output)
    damage = _damage(results, output, digests, set())
    return damage is None and _stale(job, output, record, digests) is None


def _kept(job: Job, made_with: Mapping[str, Any], record: records.Record) -> str:
    """Return in words with what other code or libraries a result was made."""
    told = value_changes(made_with, record.params.get("code", {}), job.rule, "code")
    return "; ".join(told) or "the command of its rule has changed"


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
    why = outdated(job, record, digests)
    if why is not None:
        return "stale", why
    added = next((one for one in job.all_outputs if one not in digests), None)
    return None if added is None else ("stale", f"its job now makes {added}, too")


def outdated(job: Job, record: records.Record, digests: Mapping[str, str]) -> str | None:
    """Return in words why a recorded job is not that of the plan; None: it is.

    digests: SHA-256 of inputs as they are now, as far as they are known.
    """
    # compared as texts: as values true and 1 are equal, and so are no key and null
    if not record.has_params(job.text):
        told = changes(record.params, json.loads(job.text), job.rule)
        told = told or ["its parameters have changed"]
        more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        return "; ".join(told[:_SHOWN] + more)
    if record.command != command(job.rule):
        return "the command of its rule has changed"
    if record.inputs.keys() != set(job.all_inputs):
        return input_changes(record.inputs.keys(), job.all_inputs)
    made_from = record.other_input(digests)
    return None if made_from is None else f"made from another {made_from}"
