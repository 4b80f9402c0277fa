"""Files that appear whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acll.errors import UserError

# of a trial of a search, and of a training that chooses what it reads
CHECKPOINT_PARTS = ("release", "retrain", "chosen")
# The variable by which a run has steps keep the unfinished work on what they read: where several
# steps are one job of a scheduler, a job that is tried again begins with the first of them.
KEEP_CHECKPOINTS = "ACLL_KEEP_CHECKPOINTS"
UNFINISHED = ".partial"  # ending of a file that is not whole yet
# what a disk says that has no room, for anybody or for this user, or takes nothing
DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def special(path: Path) -> str | None:
    """Return in words what is neither a file nor a folder; None for these, or where nothing is."""
    try:
        kind = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return None if kind is None else f"no regular file, but {kind}"


def refuse_special(path: Path) -> None:
    """Raise OSError for a pipe, a socket or a device: to open or read it may wait without end."""
    words = special(path)
    if words is not None:
        raise OSError(errno.EINVAL, words, str(path))


def unfinished_path(path: Path) -> Path:
    """Return where a file or folder is made, beside its place, until it is whole."""
    return path.with_name(f".{path.name}{UNFINISHED}")


def finished_path(path: Path) -> Path:
    """Return the path that was meant: of an unfinished file that of the whole one, else `path`."""
    name = path.name
    if not (name.startswith(".") and name.endswith(UNFINISHED)):
        return path
    return path.with_name(name.removesuffix(UNFINISHED)[1:])


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to.

    It takes the path's name when all went well, and is removed otherwise. Raises UserError where
    the disk has no room.

    What a killed process has left there is written over by the next one. Processes that write at
    once take turns.
    """
    beside = unfinished_path(path)
    with saying_where(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn(beside):
            try:
                # libraries that write may choose one that colleagues cannot read
                mode = beside.stat().st_mode
                yield beside
                beside.chmod(mode)
                with beside.open("rb") as file:
                    os.fsync(file)  # a power cut must not leave the name without its content
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise


@contextmanager
def saying_where(path: Path) -> Iterator[None]:
    """Raise UserError, with the file and the disk, where something fails since there is no room.

    path: what is written. Libraries raise errors of their own, with the words of the system.
    """
    try:
        yield
    except Exception as error:
        for code in DISK_REFUSES:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                words = f"cannot be written: {os.strerror(code)}; {free_space(path)}"
                raise UserError(f"{path}: {words}") from None
        raise


def free_space(path: Path) -> str:
    """Return in words how much room the disk has on which a file lies, or is to lie."""
    folder = next(one for one in path.absolute().parents if one.exists())
    free = shutil.disk_usage(folder).free
    disk = next(one for one in (folder, *folder.parents) if one.is_mount())
    return f"the disk of {disk} has {free / 1e6:,.1f} MB free"


@contextmanager
def _turn(beside: Path) -> Iterator[None]:
    """Be the one process that has `beside` open for writing; the one before may have renamed or
    removed it."""
    while True:
        with beside.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(beside, file.fileno()):
                yield
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with written(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON with sorted keys, so that equal content gives equal bytes."""
    try:
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    except ValueError:  # NaN and infinity are no JSON, and no score
        raise UserError(f"{path}: not written: it would hold a number that is not finite") from None
    write_text(path, f"{text}\n")


def checkpoint_of(output: Path, part: str = "") -> Path:
    """Return where the step that makes an output keeps its unfinished work, or a part of it."""
    return output.with_suffix(f".{part}.checkpoint" if part else ".checkpoint")


def keeps_checkpoints() -> bool:
    """Return whether steps keep the unfinished work on what they read."""
    return KEEP_CHECKPOINTS in os.environ


def checkpoints_of(output: Path) -> list[Path]:
    """Return all files in which the step that makes an output may keep its unfinished work."""
    return [checkpoint_of(output, part) for part in ("", *CHECKPOINT_PARTS)]


def files_below(folder: Path) -> list[str]:
    """Return all files below a folder, as paths from there, sorted.

    Links to folders are not followed. Texts, since there may be hundreds of thousands.
    """
    found = [
        f"{at}/{name}"
        for at, _, names in os.walk(folder)
        for name in names
        if os.path.isfile(f"{at}/{name}")  # noqa: PTH113 - a Path takes as long as the rest
    ]
    return sorted(path[len(str(folder)) + 1 :] for path in found)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
