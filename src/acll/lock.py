"""One run at a time works on the results of a configuration; a killed one leaves no trace.

The locks are the kernel's (flock). They end with the processes that hold them, however these end.
There are two files:

LOCK: a run takes it alone for a moment, writes who it is, and then shares it with its jobs. While
any job of a killed run is still at work, no other run can begin.

ALIVE: a run holds it alone as long as its process lives. Each job looks whether it is still held,
and stops by itself when it is not. So jobs of a killed run end within about a second, on every
machine that shares the file system, and go on from their checkpoints at the next run.

Files are opened for reading and writing: on NFS a lock that is held alone needs the one, and one
that is shared needs the other. Snakemake's own lock, a file that outlives a kill, is switched off
in the default profile.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from acll.errors import UserError
from acll.files import saying_where

LOCK = Path(".snakemake/run.lock")  # below the results; not versioned with them
ALIVE = Path(".snakemake/run.alive")
RUN = "ACLL_RUN"  # the variable of the environment by which jobs know their run
STOPPING = 20.0  # seconds that a new run waits for jobs of a killed one to stop
_MOMENT = 1.0  # seconds; whoever only tests a lock has let it go by then
_INTERVAL = 0.5  # seconds after which a job checks again whether its run lives
_GRACE = 5.0  # seconds from SIGTERM until a job ends itself without clearing up


@contextlib.contextmanager
def held(results: Path) -> Iterator[None]:
    """Be the one process, with its jobs, that works on `results`.

    Jobs that a killed run has left at work stop by themselves; this waits for them. Raises
    UserError, which says who else works there.
    """
    run, before = secrets.token_hex(8), os.environ.get(RUN)
    with _writable(results / LOCK) as shared, _writable(results / ALIVE) as own:
        _wait_for_jobs(results, shared)
        if not _soon(lambda: _try(own, fcntl.LOCK_EX), _MOMENT):
            raise UserError(_who(results))
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.ctime()}
        with saying_where(results / LOCK):
            shared.truncate(0)
            shared.write(json.dumps(holder | {"run": run}).encode())
            shared.flush()
        # From alone to shared is not atomic. Another run may get LOCK in between; it finds ALIVE
        # held, and lets LOCK go at once.
        _lock(shared, fcntl.LOCK_SH)
        os.environ[RUN] = run
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(RUN, None)
            else:
                os.environ[RUN] = before


@contextlib.contextmanager
def job(results: Path) -> Iterator[None]:
    """Be a job of the run that the environment names, and end with it.

    Do nothing where no run is named, as for a step that a person starts by hand. Raises UserError
    where the run has ended already.
    """
    run = os.environ.get(RUN)
    if run is None:
        yield
        return
    with contextlib.ExitStack() as opened:
        try:
            shared = opened.enter_context((results / LOCK).open("r+b"))
            alive = opened.enter_context((results / ALIVE).open("r+b"))
        except FileNotFoundError:
            raise UserError(_ended(results)) from None
        _lock(shared, fcntl.LOCK_SH)  # nobody has it alone for more than a moment
        if _content(shared).get("run") != run or _try(alive, fcntl.LOCK_SH):
            raise UserError(_ended(results))
        done = threading.Event()
        watch = threading.Thread(target=_end_with_run, args=(alive, done), daemon=True)
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()


def run_began(results: Path) -> float:
    """Return when the last run began, in seconds, by the clock of the disk of the results."""
    try:
        return (results / LOCK).stat().st_mtime
    except OSError:
        return 0.0


def in_use(results: Path) -> str | None:
    """Return who works on `results`, in words; None where nobody does.

    Where the lock files may only be read, it is seen whether a run lives, but not whether jobs of a
    killed run are still at work.
    """
    try:
        with (results / LOCK).open("r+b") as shared:
            return None if _try(shared, fcntl.LOCK_EX) else _who(results)
    except FileNotFoundError:
        return None
    except OSError:  # may not be written
        return _who(results) if _lives(results) else None


def _wait_for_jobs(results: Path, shared: IO[bytes]) -> None:
    """Take the lock alone, and wait for jobs whose run is gone.

    Raises UserError where a run lives, or where they do not end.
    """

    def alone() -> bool:
        if _try(shared, fcntl.LOCK_EX):
            return True
        if _lives(results):
            raise UserError(_who(results))
        return False

    if _soon(alone, _INTERVAL):
        return
    where = f"results/{results.absolute().name}"
    print(f"{where}: waiting until the jobs of a killed run have noticed its end", flush=True)
    if not _soon(alone, STOPPING):
        raise UserError(_who(results))


def _end_with_run(alive: IO[bytes], done: threading.Event) -> None:
    """End this process when its run is gone, however busy it is."""
    while not done.wait(_INTERVAL):
        # a file system that cannot be reached says nothing about the run
        with contextlib.suppress(UserError):
            if _try(alive, fcntl.LOCK_SH):
                break
    else:
        return
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
        print("stops, since the run that it belongs to has ended", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _writable(path: Path) -> IO[bytes]:
    """Open a file for reading and writing; make it where it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+b")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _lock(file: IO[bytes], kind: int) -> None:
    """Take a lock. kind: of `fcntl.flock`. Raises UserError where the file system has none."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(
            f"the file system of the results has no locks (flock: {error.strerror}); use another"
        ) from None


def _try(file: IO[bytes], kind: int) -> bool:
    """Take a lock if it is free; return whether it was."""
    try:
        _lock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _soon(succeeds: Callable[[], bool], seconds: float) -> bool:
    """Try until something succeeds; return False where it does not within some seconds."""
    deadline = time.monotonic() + seconds
    while not (done := succeeds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


def _lives(results: Path) -> bool:
    """Return whether the process of a run lives, on whatever machine.

    The test takes a shared lock, for which the file need only be readable.
    """
    try:
        with (results / ALIVE).open("rb") as alive:
            return not _try(alive, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{results / ALIVE}: cannot be read: {error.strerror}") from None


def _content(file: IO[bytes]) -> dict[str, Any]:
    """Return what the last run wrote of itself; empty while it is being written."""
    file.seek(0)
    try:
        return dict(json.loads(file.read()))
    except (ValueError, TypeError):
        return {}


def _ended(results: Path) -> str:
    """Return the words for a job whose run has ended."""
    name = results.absolute().name
    goes_on = f"`make run CONFIG={name}` goes on where it stopped"
    return f"results/{name}: the run that this job belongs to has ended; {goes_on}"


def _who(results: Path) -> str:
    """Return in words who works on `results`."""
    where, holder = f"results/{results.absolute().name}", {}
    with contextlib.suppress(OSError), (results / LOCK).open("rb") as file:
        holder = _content(file)
    if not {"host", "pid", "since"} <= holder.keys():
        return f"{where}: in use by another run that has just begun"
    if not _lives(results):
        return f"{where}: in use by jobs of a run that was killed; stop them, or wait for their end"
    return (
        f"{where}: in use by a run on {holder['host']} since {holder['since']} "
        f"(process {holder['pid']}); wait for its end, or stop it there with Ctrl-C"
    )
