"""Processes that decode files which nobody can trust.

The pools of the standard library wait for ever where a process hangs, cannot say which file killed it, and need threads
that a process at its memory limit does not get. These here are plain: a pipe to each process, no threads.
"""

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

PATIENCE = 300.0  # seconds that a process may take for what it was handed at once
_AHEAD = 4  # chunks for each process that may be done before the first of them is taken
_LOOK = 2.0  # seconds after which an idle process looks whether there still is anybody to work for


@dataclass(frozen=True)
class Lost:
    """What takes the place of a result where the process died or did not come back."""

    why: str


class _Worker:
    """One forked process: it has the function, which need not be picklable, and imports nothing again."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(function, theirs, os.getpid()), daemon=True)
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
        self.idle = [_Worker(function) for _ in range(processes)]
        self.busy: dict[Connection, tuple[_Worker, int]] = {}

    def map(self, chunks: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
        """The results of each chunk, in order; few are kept while an earlier one is not done."""
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

    def _hand_over(self, chunks: Sequence[Sequence[Any]], index: int) -> None:
        worker = self.idle.pop()
        worker.connection.send(chunks[index])
        self.busy[worker.connection] = worker, index

    def _results(self, chunks: Sequence[Sequence[Any]]) -> dict[int, list[Any]]:
        """What has been done; where a process is lost with a chunk, each of its parts is tried alone."""
        ready = wait(list(self.busy), PATIENCE)
        results = {}
        for connection in ready or list(self.busy):
            assert isinstance(connection, Connection)
            worker, index = self.busy.pop(connection)
            answer = _answer(worker) if ready else Lost(_LATE)
            if isinstance(answer, Lost):
                worker.stop()
                worker = _Worker(self.function)
                answer = [answer] if len(chunks[index]) == 1 else [self._alone(part) for part in chunks[index]]
            self.idle.append(worker)
            results[index] = answer
        return results

    def _alone(self, part: Any) -> Any:
        worker = _Worker(self.function)
        worker.connection.send([part])
        answer = _answer(worker) if worker.connection.poll(PATIENCE) else Lost(_LATE)
        worker.stop()
        return answer if isinstance(answer, Lost) else answer[0]


_LATE = f"its process gave no answer in {PATIENCE:.0f} s"


@contextlib.contextmanager
def workers(function: Callable[[Any], Any], processes: int) -> Iterator[Workers]:
    """Processes that apply `function` until the block ends, however it ends."""
    pool = Workers(function, processes)
    try:
        yield pool
    finally:
        pool.stop()


def _answer(worker: _Worker) -> Any:
    try:
        return worker.connection.recv()
    except (EOFError, ConnectionResetError):
        return Lost("its process died")


def _work(function: Callable[[Any], Any], connection: Connection, master: int) -> None:
    """The loop of a process. It ends when its master is gone, even if that was killed."""
    while True:
        while not connection.poll(_LOOK):
            if os.getppid() != master:
                return
        connection.send([function(part) for part in connection.recv()])
