"""One run at a time works on the results of a configuration, and a killed one leaves nothing to clean up.

The lock is the kernel's (flock), so it goes with the processes that hold it, however they end. A run takes it alone for
a moment and then shares it with its jobs: while any job of a killed run is still at work, no other run can begin.
Snakemake's own lock, a file that outlives a kill, is switched off in the default profile.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from acll.errors import UserError

LOCK = Path(".snakemake/run.lock")  # below the results; not versioned with them
STOPPING = 20  # seconds that left-over jobs are given to end


class BusyError(UserError):
    """Another process works on the results."""


@contextlib.contextmanager
def held(results: Path) -> Iterator[None]:
    """Be the one process, with its jobs, that works on `results`. Raises BusyError, which says who does.

    Jobs that a killed run has left at work on this machine are stopped first; they go on from their checkpoints.
    """
    path = results / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _alone(file.fileno()):
            _stop_orphans(results, path)
            if not _alone(file.fileno()):
                raise BusyError(_who(results, path))
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.ctime()}))
        file.flush()
        try:  # not atomic: another run may have come between
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(_who(results, path)) from None
        yield


@contextlib.contextmanager
def shared(results: Path) -> Iterator[None]:
    """Be a job of a run: while it works, no other run begins. Nothing happens outside of results."""
    try:
        file = (results / LOCK).open("rb")
    except FileNotFoundError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def alive(pid: int) -> bool:
    """Whether a process is at work; one that has ended and that nobody has collected is not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> dict[str, object]:
    """What the last run wrote of itself; empty where it is just being written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _who(results: Path, path: Path) -> str:
    holder = _holder(path)
    where = f"results/{results.resolve().name}"
    if not holder:
        return f"{where}: in use by another run that has just begun"
    return (
        f"{where}: in use by a run on {holder['host']} since {holder['since']} (process {holder['pid']}); "
        "wait for its end, or stop it there with Ctrl-C"
    )


def _stop_orphans(results: Path, path: Path) -> None:
    """Stop jobs of this machine whose run is gone: nobody would take what they make."""
    import psutil

    holder = _holder(path)
    if holder.get("host") != socket.gethostname() or alive(int(str(holder["pid"]))):
        return
    orphans = [process for process in psutil.process_iter(["cmdline", "cwd"]) if _is_job(process.info, results)]
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    if orphans:
        print(f"stopping {len(orphans)} jobs that a killed run has left at work; they go on from their checkpoints")
        psutil.wait_procs(orphans, timeout=STOPPING)


def _is_job(process: dict[str, object], results: Path) -> bool:
    words = process["cmdline"] or []
    is_step = isinstance(words, list) and any(str(word).startswith("acll.steps.") for word in words)
    return is_step and process["cwd"] == str(results.resolve())
