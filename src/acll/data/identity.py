"""The identity of raw data: names and content of files, wherever they lie."""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acll.data.errors import DataError
from acll.data.task import Task
from acll.files import write_json

FINGERPRINTS = Path(".cache/fingerprints.json")  # below the repository


def identity(task: Task, root: Path, cache: Path) -> str:
    """The identity of the raw data of a task: what DVC says of them, else names and content of its
    files.

    Empty for sources that read no file. Digests are kept in `cache` under path, size and time of
    change, as DVC does. Raises DataError where the data are missing, or are not what the `.dvc`
    file beside them says.
    """
    if not task.from_files:
        return ""
    path = root / task.path
    with _digests(cache) as digest:
        recorded = tracked(path) if task.in_one_place else None
        if recorded is not None:
            if path.exists() and not _is_tracked_content(path, recorded, digest):
                raise DataError(
                    f"{path}: is not what {path.name}.dvc says; `dvc checkout {path}.dvc` "
                    "brings that back, `dvc add "
                    f"{path}` takes what is there now"
                )
            return f"dvc {recorded}"
        total = hashlib.sha256()
        base = path if path.is_dir() else path.parent
        for file in task.raw_files(root):
            total.update(f"{file.relative_to(base).as_posix()} {digest(file)}\n".encode())
    return total.hexdigest()


def tracked(path: Path) -> str | None:
    """The digest of data in the `.dvc` file beside them; None where there is no such file.

    Raises DataError.
    """
    import yaml

    beside = path.with_name(f"{path.name}.dvc")
    if not beside.is_file():
        return None
    try:
        (out,) = yaml.safe_load(beside.read_text(encoding="utf-8"))["outs"]
        return str(out["md5"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{beside}: not a .dvc file with the md5 of one output; `dvc add {path}` writes one"
        ) from None


@contextlib.contextmanager
def _digests(cache: Path) -> Iterator[Callable[[Path], str]]:
    """A function that gives the digest of a file's content, and reads only what it has not seen.

    What it has read is kept, however the block ends: reading may have taken hours.
    """
    known: dict[str, list[Any]] = {}
    # no cache yet, or one that was cut off
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    changed: list[str] = []

    def digest(path: Path) -> str:
        try:
            status = path.stat()
        except FileNotFoundError:  # a link to nothing, which preparing it reports
            return "missing"
        key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
        entry = known.get(key)
        if entry is None or entry[:2] != stamp:
            with path.open("rb") as file:
                entry = [
                    *stamp,
                    hashlib.file_digest(
                        file, lambda: hashlib.md5(usedforsecurity=False)
                    ).hexdigest(),
                ]
            known[key] = entry
            changed.append(key)
        return str(entry[2])

    try:
        yield digest
    finally:
        if changed:
            write_json(cache, known)


def _is_tracked_content(path: Path, recorded: str, digest: Callable[[Path], str]) -> bool:
    """Whether data are what DVC has recorded: by the digest that it makes, or where that differs by
    asking it."""
    if _dvc_digest(path, digest) == recorded:
        return True
    command = [
        sys.executable,
        "-m",
        "dvc",
        "status",
        "--quiet",
        f"{path.name}.dvc",
    ]  # it may leave files out
    return (
        subprocess.run(command, cwd=path.parent, capture_output=True, check=False).returncode == 0
    )


def _dvc_digest(path: Path, digest: Callable[[Path], str]) -> str:
    if path.is_file():
        return digest(path)
    listed = [{"md5": digest(path / name), "relpath": name} for name in _all_names(path)]
    return (
        hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
        + ".dir"
    )


def _all_names(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
