"""One run at a time works on the results of a configuration, and a killed one leaves nothing to clean up.

The lock is the kernel's (flock), so it goes with the processes that hold it, however they end. A run takes it alone for
a moment and then shares it with its jobs (see `step` in workflow/rules/common.smk): while any job of a killed run is
still at work, no other run can begin. Snakemake's own lock, a file that outlives a kill, is switched off in the default
profile.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acll.errors import UserError

LOCK = Path(".snakemake/run.lock")  # below the results; not versioned with them
STOPPING = 20  # seconds that left-over jobs are given to end


@contextlib.contextmanager
def held(results: Path) -> Iterator[None]:
    """Be the one process, with its jobs, that works on `results`. Raises UserError, which says who does.

    Jobs that a killed run has left at work on this machine are stopped first; they go on from their checkpoints.
    """
    path = results / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _alone(file.fileno()) and not (_stop_orphans(results) and _soon_alone(file.fileno())):
            raise UserError(_who(results))
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.ctime()}))
        file.flush()
        try:  # not atomic: another run may have come between
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(_who(results)) from None
        yield


def in_use(results: Path) -> str | None:
    """Who works on `results`, in words; None where nobody does."""
    try:
        with (results / LOCK).open("rb") as file:
            return None if _alone(file.fileno()) else _who(results)
    except FileNotFoundError:
        return None


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
    except OSError as error:
        raise UserError(f"the file system of the results has no locks (flock: {error.strerror}); use another") from None
    return True


def _soon_alone(descriptor: int) -> bool:
    """Whether the others let go within some seconds."""
    deadline = time.monotonic() + STOPPING
    while not (alone := _alone(descriptor)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alone


def _holder(results: Path) -> dict[str, Any]:
    """What the last run wrote of itself; empty where it is just being written."""
    try:
        return dict(json.loads((results / LOCK).read_text(encoding="utf-8")))
    except ValueError:
        return {}


def _ended(holder: dict[str, Any]) -> bool:
    """Whether the run itself is known to be gone, so that only jobs of it can be at work."""
    return holder.get("host") == socket.gethostname() and not alive(holder["pid"])


def _who(results: Path) -> str:
    where, holder = f"results/{results.resolve().name}", _holder(results)
    if not holder:
        return f"{where}: in use by another run that has just begun"
    if _ended(holder):
        return f"{where}: in use by jobs of a run that was killed; stop them, or wait for their end"
    return (
        f"{where}: in use by a run on {holder['host']} since {holder['since']} (process {holder['pid']}); "
        "wait for its end, or stop it there with Ctrl-C"
    )


def _stop_orphans(results: Path) -> bool:
    """Stop jobs of this machine whose run is gone: nobody would take what they make. Whether there were any."""
    import psutil

    if not _ended(_holder(results)):
        return False
    orphans = [process for process in psutil.process_iter(["cmdline", "cwd"]) if _is_job(process.info, results)]
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    if orphans:
        print(f"stopping what a killed run has left at work (jobs: {len(orphans)}); it goes on from its checkpoints")
    return bool(orphans)


def _is_job(process: dict[str, Any], results: Path) -> bool:
    is_step = any(word.startswith("acll.steps.") for word in process["cmdline"] or [])
    return is_step and process["cwd"] == str(results.resolve())


@contextlib.contextmanager
def job(results: Path) -> Iterator[None]:
    """Share the run's lock for as long as a job works."""
    yield
