"""Records of how results were made: Snakemake's of each job, and digests of what the job wrote.

Both lie among the results and are versioned with them. Snakemake keeps a record for each output, as
JSON in a file whose path is the output's name in URL-safe base 64, cut where it is longer than a
file name may be. It holds no digest of the output itself: the rules write these, in the format of
`sha256sum`, one file for each job.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acll.files import files_below
from acll.plan import Job

_METADATA = ".snakemake/metadata"
METADATA = Path(_METADATA)
INCOMPLETE = Path(".snakemake/incomplete")
# where `accept` notes with what code and libraries a result was made; when its job runs, Snakemake
# writes a record without it
MADE_WITH = "acll_made_with"


@dataclass(frozen=True)
class Record:
    """How an output was made.

    text, params: the parameters of its job, as `Job.text` and read from it. made_with: the code and
    libraries, where a person has kept what those of `params` would make anew.
    """

    command: str  # without the values of its parameter
    inputs: Mapping[str, str]  # path → SHA-256 of its content; empty where Snakemake took none
    text: str
    params: Mapping[str, Any]
    made_with: Mapping[str, Any] | None = None

    def has_params(self, text: str) -> bool:
        """Return whether these are the parameters of a job. text: its `Job.text`."""
        return self.text == text or json.dumps(self.params, sort_keys=True) == text

    def other_input(self, digests: Mapping[str, str]) -> str | None:
        """Return an input that was another one when the output was made; None: all are the same.

        digests: SHA-256 of inputs as they are now, as far as they are known.
        """
        known = (path for path in self.inputs if path in digests)
        return next((path for path in known if self.inputs[path] != digests[path]), None)


def record_path(output: str) -> Path:
    """Return the path of Snakemake's record of an output, below the results."""
    return Path(record_name(output))


def record_name(output: str) -> str:
    """Return the same as text, in a tenth of the time."""
    name, length = base64.urlsafe_b64encode(output.encode()).decode(), 254
    parts = [name[start : start + length] for start in range(0, len(name), length)]
    return "/".join((_METADATA, *(f"@{part}" for part in parts[:-1]), parts[-1]))


def read_record(results: Path, output: str) -> Record | None:
    """Return the record of an output; None where there is none, or only a part of one."""
    try:
        content = json.loads((results / record_name(output)).read_text(encoding="utf-8"))
        text, params = params_of(content)
        checksums = content["input_checksums"]
        inputs = {
            path: checksums.get(path, "").removeprefix("sha256:") for path in content["input"]
        }
        return Record(content["code"], inputs, text, params, content.get(MADE_WITH))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def params_of(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the parameters in a record, as text and read; empty for what are none of ours."""
    try:
        text = _unquoted(content["params"][0])
        params = json.loads(text)
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
        return "", {}
    return (text, params) if isinstance(params, dict) else ("", {})


def read_digests(path: Path) -> dict[str, str]:
    """Return output → SHA-256 from the digests that a job wrote; empty where there are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return {output: digest for digest, _, output in (line.partition("  ") for line in lines)}


def with_digests(results: Path, jobs: Iterable[Job]) -> Iterator[tuple[Job, dict[str, str]]]:
    """Yield each job with the digests of the outputs of all jobs so far, its own included.

    They are from the file of the job that makes an output in the plan: what another job has left
    under this name does not count. jobs: those that others need first.
    """
    digests: dict[str, str] = {}
    for job in jobs:
        digests |= read_digests(results / job.digests)
        yield job, digests


def unfinished(results: Path) -> set[str]:
    """Return the outputs whose job began and did not end."""
    return set(map(_decoded, files_below(results / INCOMPLETE)))


def mark_path(output: str) -> Path:
    """Return the path of Snakemake's mark that a job has begun to make an output."""
    return INCOMPLETE / record_path(output).relative_to(METADATA)


def recorded(results: Path) -> set[str]:
    """Return the outputs that have a record."""
    return set(map(_decoded, files_below(results / METADATA)))


def _decoded(path: str) -> str:
    """Return which output a record or a mark is about. path: below its folder.

    A path that is not in base 64 is returned as it is.
    """
    encoded = "".join(part.removeprefix("@") for part in path.split("/"))
    try:
        return base64.urlsafe_b64decode(encoded).decode()
    except (binascii.Error, UnicodeDecodeError):
        return path


def _unquoted(value: str) -> str:
    """Return a text from its Python literal: Snakemake keeps parameters as such."""
    import ast

    text = ast.literal_eval(value)
    if not isinstance(text, str):
        raise TypeError("a rule's parameter is one text")
    return text
