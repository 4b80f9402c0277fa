"""What is known of how a result was made: Snakemake's record of its job, and the digest of what the
job wrote.

Both lie among the results and are versioned with them. Snakemake keeps a record for each output, as
JSON in a file whose path is the output's name in URL-safe base 64, cut where it is longer than a
file name may be. It holds no digest of the output itself: the rules write these, in the format of
`sha256sum`, one file for each job.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METADATA = Path(".snakemake/metadata")
INCOMPLETE = Path(".snakemake/incomplete")


@dataclass(frozen=True)
class Record:
    """How an output was made."""

    command: str  # without the values of its parameter
    inputs: Mapping[str, str]  # path → SHA-256 of its content; empty where Snakemake took none
    params: Mapping[str, Any]


def record_path(output: str) -> Path:
    """Where Snakemake keeps the record of an output, below the results."""
    name, length = base64.urlsafe_b64encode(output.encode()).decode(), 254
    parts = [name[start : start + length] for start in range(0, len(name), length)]
    return METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def read_record(results: Path, output: str) -> Record | None:
    """The record of an output; None where there is none, or half of one."""
    try:
        content = json.loads((results / record_path(output)).read_text(encoding="utf-8"))
        params = json.loads(_unquoted(content["params"][0]))
        digests = {
            path: value.removeprefix("sha256:")
            for path, value in content["input_checksums"].items()
        }
        return Record(
            content["code"], {path: digests.get(path, "") for path in content["input"]}, params
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def read_digests(path: Path) -> dict[str, str]:
    """output → SHA-256 of what its job wrote, from the job's file of digests; empty where there is
    none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    return {output: digest for digest, _, output in (line.partition("  ") for line in lines)}


def unfinished(results: Path) -> set[str]:
    """Outputs whose job began and did not end."""
    return {
        _decoded(path.relative_to(results / INCOMPLETE)) for path in _files(results / INCOMPLETE)
    }


def recorded(results: Path) -> set[str]:
    """Outputs that have a record."""
    return {_decoded(path.relative_to(results / METADATA)) for path in _files(results / METADATA)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _decoded(path: Path) -> str:
    """Which output a record or marker is about, from its path; a name that is no record's comes
    back as it is."""
    try:
        return base64.urlsafe_b64decode(
            "".join(part.removeprefix("@") for part in path.parts)
        ).decode()
    except (binascii.Error, UnicodeDecodeError):
        return path.as_posix()


def _unquoted(value: str) -> str:
    """A text from its Python literal, as Snakemake keeps parameters."""
    import ast

    text = ast.literal_eval(value)
    if not isinstance(text, str):
        raise TypeError("a rule's parameter is one text")
    return text
