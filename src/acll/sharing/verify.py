"""Are the results what this commit would make?

Judged by content alone: no time of change counts.

Every output is held against the digest that its job wrote, and the record of that job against the
job as it is now: its parameters (settings, code, libraries, raw data), its command, and the content
of its inputs.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acll.files import sha256
from acll.plan import Job, command
from acll.sharing import records

ResultFaultKind = Literal["missing", "damaged", "unrecorded", "stale", "follows"]
_SHOWN = 3  # parameters named in a reason


@dataclass(frozen=True)
class ResultFault:
    """What is wrong with an output. kind `follows`: sound in itself, but made from what is stale."""

    output: str
    kind: ResultFaultKind
    reason: str


def result_faults(results: Path, jobs: Iterable[Job]) -> list[ResultFault]:
    """The faults of all outputs, in the order of `jobs` (those that others need first); none where
    all is well."""
    unfinished = records.unfinished(results)
    digests: dict[
        str, str
    ] = {}  # of outputs so far: only those that the job which makes them now has left
    faults: list[ResultFault] = []
    not_current: set[str] = set()  # outputs that this commit would make anew
    for job in jobs:
        digests |= records.read_digests(results / job.digests)
        follows = next((path for path in job.all_inputs if path in not_current), None)
        for output in job.all_outputs:
            damage = _damage(results, output, digests, unfinished)
            stale = _stale(job, records.read_record(results, output), digests)
            found = damage or stale
            if found is None and follows is not None:
                found = ("follows", f"made from {follows}")
            if found is not None:
                faults.append(ResultFault(output, *found))
            # a damaged one will be made again, bit for bit: what was made from it stands
            if stale is not None or follows is not None:
                not_current.add(output)
    return faults


def _damage(
    results: Path, output: str, digests: Mapping[str, str], unfinished: set[str]
) -> tuple[ResultFaultKind, str] | None:
    """What is wrong with the file itself."""
    path = results / output
    if not path.is_file():
        return "missing", "the file is not there"
    if output in unfinished:
        return "unrecorded", "its job was killed"
    if output in digests and sha256(path) != digests[output]:
        return "damaged", f"its content ({path.stat().st_size:,} bytes) is not what its job wrote"
    return None


def _stale(
    job: Job, record: records.Record | None, digests: Mapping[str, str]
) -> tuple[ResultFaultKind, str] | None:
    """Why the job, as it is now, would make another output than it did when the record was written."""
    if record is None or any(output not in digests for output in job.all_outputs):
        return "unrecorded", "there is no record of how it was made"
    # as texts: true and 1, or no key and null, are equal as values
    if json.dumps(record.params, sort_keys=True) != job.text:
        changes = list(_changes(record.params, json.loads(job.text), job.rule)) or [
            "its parameters have changed"
        ]
        more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
        return "stale", "; ".join(changes[:_SHOWN] + more)
    if record.command != command(job.rule):
        return "stale", "the command of its rule has changed"
    if set(record.inputs) != set(job.all_inputs):
        other = min(set(record.inputs) ^ set(job.all_inputs))
        return "stale", f"other inputs: {other} and maybe more"
    for path in job.all_inputs:
        if path in digests and record.inputs[path] != digests[path]:
            return "stale", f"made from another {path}"
    return None


def _changes(before: Any, now: Any, rule: str, key: str = "") -> Iterator[str]:
    """What differs between two settings, a line for each value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted(before.keys() | now.keys()):
            yield from _changes(
                before.get(name), now.get(name), rule, f"{key}.{name}" if key else name
            )
    elif before != now:
        if key == "code.code":
            yield "the code of its step has changed"
        elif isinstance(before, list) and isinstance(now, list) and max(len(before), len(now)) > 3:
            added, removed = (
                sum(one not in other for one in these)
                for these, other in ((now, before), (before, now))
            )
            yield (
                f"{key}: {added} added, {removed} removed"
                if added or removed
                else f"{key}: in another order"
            )
        elif key == "external_digest":
            yield (
                "the raw data have changed"
                if rule == "prepare"
                else "the weights that it starts from have changed"
            )
        else:
            yield (
                f"{key.removeprefix('code.').removeprefix('params.')} {_short(before)} → "
                f"{_short(now)}"
            )


def _short(value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
