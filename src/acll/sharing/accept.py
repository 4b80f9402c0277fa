"""Keep results that other code, or other versions of libraries, have made.

A person says that they know. The records of these results then say the code of this commit, so that
runs and `verify` take them for current, and beside it with what they were made.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from acll.files import sha256, write_text
from acll.plan import Job, command
from acll.sharing import records


def accept_results(results: Path, jobs: Iterable[Job]) -> list[str]:
    """Keep what differs in its code or libraries alone from what this commit would make.

    jobs: those that others need first. Return the outputs that are kept. Results with other
    parameters, raw data or inputs, and those that are missing, unfinished, damaged or unrecorded,
    stay as they are. So do packed networks of another format, which nothing here could read.
    """
    unfinished = records.unfinished(results)
    kept = []
    for job, digests in records.with_digests(results, jobs):
        found = {output: records.read_record(results, output) for output in job.all_outputs}
        if any(
            record is None
            or output in unfinished
            or not _differs_in_code_alone(job, record, digests)
            or not _is_sound(results, output, digests)
            or (output in job.outputs.get("network", ()) and not _is_readable(results / output))
            for output, record in found.items()
        ):
            continue
        for output in found:
            if _accept(results / records.record_path(output), job):
                kept.append(output)
    return kept


def _differs_in_code_alone(job: Job, record: records.Record, digests: Mapping[str, str]) -> bool:
    """Return whether a record has the parameters and the inputs of a job, whatever its code."""
    same_inputs = set(record.inputs) == set(job.all_inputs) and record.other_input(digests) is None
    return same_inputs and _without_code(record.params) == _without_code(json.loads(job.text))


def _without_code(params: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in params.items() if key != "code"}
    return json.dumps(rest, sort_keys=True)  # as texts: as values true and 1 are equal


def _is_sound(results: Path, output: str, digests: Mapping[str, str]) -> bool:
    path = results / output
    return output in digests and path.is_file() and sha256(path) == digests[output]


def _is_readable(path: Path) -> bool:
    """Return whether a file is a packed network of a format that is known here."""
    from acll.packing.ownership import PackingError
    from acll.packing.packed_file import open_packed

    try:
        open_packed(path)
    except PackingError:
        return False
    return True


def _accept(path: Path, job: Job) -> bool:
    """Write the code of a job into a record; return False where it has it already."""
    content = json.loads(path.read_text(encoding="utf-8"))
    _, before = records.params_of(content)
    same = json.dumps(before, sort_keys=True) == job.text
    if same and content["code"] == command(job.rule):
        return False
    # what was kept before was made with what was noted then
    content.setdefault(records.MADE_WITH, before["code"])
    content["params"], content["code"] = [repr(job.text)], command(job.rule)
    write_text(path, json.dumps(content))
    return True
