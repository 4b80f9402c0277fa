"""Processes that decode files which nobody can trust.

The pools of the standard library wait for ever where a process hangs, cannot say which file killed
it, and need threads that a process at its memory limit does not get. So here there is a pipe to
each process, and no thread. No process outlives its master, however that ends: it holds no end of a
pipe but its own, so reading and writing fail once the master is gone.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

WORKER_PATIENCE = 300.0  # seconds that a process may take for what it was handed at once
_ENDING = 10.0  # seconds until a process whose pipe is closed must have ended
_AHEAD = 4  # chunks for each process that may be done before the first of them is taken


@dataclass(frozen=True)
class Lost:
    """What takes the place of a result where the process did not come back with one.

    by_machine: it was killed from outside, as for want of memory, or was late; another machine may
    do better.
    """

    why: str
    by_machine: bool


@dataclass(frozen=True)
class _Raised:
    """The traceback of an error in the function itself: no fault of what it was given."""

    text: str


class _Worker:
    """One forked process.

    It inherits the function, which need not be picklable, and imports nothing again.
    """

    def __init__(self, function: Callable[[Any], Any], others: Sequence[Connection]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        inherited = [self.connection, *others]
        self.process = context.Process(
            target=_work, args=(function, theirs, inherited), daemon=True
        )
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class Workers:
    """Some processes that apply one function; see `workers`."""

    def __init__(self, function: Callable[[Any], Any], processes: int) -> None:
        self.function = function
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, int]] = {}
        for _ in range(processes):
            self.idle.append(self._new())

    def map(self, chunks: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
        """Yield the results of each chunk, in order.

        Few are kept while an earlier one is not done.
        """
        ahead = _AHEAD * len(self.idle)
        waiting = deque(range(len(chunks)))
        done: dict[int, list[Any]] = {}
        for index in range(len(chunks)):
            while index not in done:
                while self.idle and waiting and waiting[0] < index + ahead:
                    self._hand_over(chunks, waiting.popleft())
                done |= self._results(chunks)
            yield done.pop(index)

    def stop(self) -> None:
        """End all processes, whatever they do."""
        for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
            worker.stop()

    def _new(self) -> _Worker:
        return _Worker(self.function, [*self.busy, *(worker.connection for worker in self.idle)])

    def _hand_over(self, chunks: Sequence[Sequence[Any]], index: int) -> None:
        worker = self.idle.pop()
        try:
            worker.connection.send(chunks[index])
        except OSError:  # killed while it had nothing to do
            worker.stop()
            worker = self._new()
            _send(worker, chunks[index])
        self.busy[worker.connection] = worker, index

    def _results(self, chunks: Sequence[Sequence[Any]]) -> dict[int, list[Any]]:
        """Wait for processes; return the results of their chunks.

        Where a process is lost with a chunk, each part of the chunk is tried alone, so that it
        costs only the part that is to blame.
        """
        ready = wait(list(self.busy), WORKER_PATIENCE)
        results = {}
        for connection in ready or list(self.busy):
            assert isinstance(connection, Connection)
            worker, index = self.busy.pop(connection)
            answer = _answer(worker) if ready else _late()
            if isinstance(answer, Lost):
                worker.stop()
                worker = self._new()
                if len(chunks[index]) == 1:
                    answer = [answer]
                else:
                    answer = [self._alone(part) for part in chunks[index]]
            self.idle.append(worker)
            results[index] = answer
        return results

    def _alone(self, part: Any) -> Any:
        """Return the result of one part, in a process of its own."""
        worker = self._new()
        _send(worker, [part])
        answer = _answer(worker) if worker.connection.poll(WORKER_PATIENCE) else _late()
        worker.stop()
        return answer if isinstance(answer, Lost) else answer[0]


@contextlib.contextmanager
def workers(function: Callable[[Any], Any], processes: int) -> Iterator[Workers]:
    """Give processes that apply `function` until the block ends, however it ends.

    An exception of `function` is raised here as a RuntimeError with its traceback.
    """
    pool = Workers(function, processes)
    try:
        yield pool
    finally:
        pool.stop()


def _late() -> Lost:
    return Lost(f"its process gave no answer in {WORKER_PATIENCE:.0f} s", by_machine=True)


def _send(worker: _Worker, parts: Sequence[Any]) -> None:
    """Hand over. Where the process is killed meanwhile, `_answer` will find it lost."""
    with contextlib.suppress(OSError):
        worker.connection.send(parts)


def _answer(worker: _Worker) -> Any:
    """Return the answer of a process, or Lost where it has died. Raises RuntimeError."""
    try:
        answer = worker.connection.recv()
    except (EOFError, OSError) as error:  # OSError: it was killed while it sent
        worker.process.join(_ENDING)
        code = worker.process.exitcode
        if code is None:
            return Lost(f"the answer of its process could not be read: {error}", by_machine=True)
        how = f"of {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return Lost(
            f"its process died {how}", by_machine=code in (-signal.SIGKILL, -signal.SIGTERM)
        )
    if isinstance(answer, _Raised):
        raise RuntimeError(f"in a process of its own:\n{answer.text}")
    return answer


def _work(
    function: Callable[[Any], Any], connection: Connection, inherited: Sequence[Connection]
) -> None:
    """Answer what comes through the pipe, until the master is gone."""
    # Ctrl-C reaches all processes of a terminal; the master answers it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in inherited:
        other.close()
    with contextlib.suppress(EOFError, OSError):  # OSError: in the middle of what one of them sends
        while True:
            parts = connection.recv()
            try:
                answer: Any = [function(part) for part in parts]
            except Exception:
                answer = _Raised(traceback.format_exc())
            connection.send(answer)
