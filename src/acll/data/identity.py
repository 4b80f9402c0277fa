"""The identity of raw data: names and content of files, wherever they lie."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acll.data.errors import DataError
from acll.data.task import Task
from acll.errors import UserError
from acll.files import write_json

FINGERPRINTS = Path(".cache/fingerprints.json")  # below the repository


def identity(task: Task, root: Path, cache: Path, anew: bool = False) -> str:
    """Return the identity of the raw data of a task.

    It is the digest in the `.dvc` file beside them, or else one of names and content of the files.
    It is empty for sources that read no file. Digests of files are kept in `cache` under path, size
    and times, as DVC does. anew: read all files, whatever is kept. Raises DataError where the data
    are missing, or are not what the `.dvc` file says.
    """
    if not task.from_files:
        return ""
    path = root / task.path
    with _digests(cache, anew) as digest:
        recorded = tracked(path) if task.in_one_place else None
        if recorded is not None:
            if path.exists() and not _is_tracked_content(path, recorded, digest):
                raise DataError(
                    f"{path}: is not what {path.name}.dvc says; `dvc checkout {path}.dvc` "
                    f"brings that back, `dvc add {path}` takes what is there now"
                )
            return f"dvc {recorded}"
        total = hashlib.sha256()
        base = path if path.is_dir() else path.parent
        for file in task.raw_files(root):
            total.update(f"{file.relative_to(base).as_posix()} {digest(file)}\n".encode())
    return total.hexdigest()


def tracked(path: Path) -> str | None:
    """Return the digest of data in the `.dvc` file beside them; None where there is no such file.

    Raises DataError for a file that is not DVC's.
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
def _digests(cache: Path, anew: bool) -> Iterator[Callable[[Path], str]]:
    """Give a function that returns the MD5 of a file's content, and reads only what is not cached.

    The cache is written however the block ends: reading may have taken hours. One that cannot be
    read or written saves no time, and that is all. anew: nothing counts as cached at first.
    """
    known: dict[str, list[Any]] = {}
    # no cache yet, or one that was cut off
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    fresh: set[str] = set()  # what was read here

    def digest(path: Path) -> str:
        try:
            status = path.stat()
        except FileNotFoundError:  # a link to nothing, which preparing it reports
            return "missing"
        # whoever writes a file can set its time of change back, but not the other
        key = str(path.resolve())
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = None if anew and key not in fresh else known.get(key)
        if entry is None or entry[:-1] != stamp:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            known[key] = entry = [*stamp, content.hexdigest()]
            fresh.add(key)
        return str(entry[-1])

    try:
        yield digest
    finally:
        if fresh:
            with contextlib.suppress(OSError, UserError):
                write_json(cache, known)


def _is_tracked_content(path: Path, recorded: str, digest: Callable[[Path], str]) -> bool:
    """Return whether data are what DVC has recorded."""
    if _dvc_digest(path, digest) == recorded:
        return True
    # DVC may leave files out (.dvcignore), so a difference is asked of it; that takes seconds
    command = [sys.executable, "-m", "dvc", "status", "--quiet", f"{path.name}.dvc"]
    answer = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
    return answer.returncode == 0


def _dvc_digest(path: Path, digest: Callable[[Path], str]) -> str:
    """Return the digest that DVC makes of a file, or of a folder with all its files."""
    if path.is_file():
        return digest(path)
    listed = [{"md5": digest(path / name), "relpath": name} for name in _all_names(path)]
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _all_names(path: Path) -> list[str]:
    """Return the names of all files; like DVC, without those behind links to folders."""
    return sorted(
        (Path(folder) / name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path)
        for name in names
        if (Path(folder) / name).is_file()
    )
