"""`acll board`: the curves of a run in TensorBoard, or in MLflow, while it goes on.

What is shown is made of the logs, in a folder that is removed at the end.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from acll.errors import UserError
from acll.evaluation.watching import Begun, Point, Watched
from acll.extras import require_extra
from acll.processes import die_with_parent

_EVERY = 2.0  # seconds


class Shows(Protocol):
    """What shows curves."""

    def show(self, news: Iterable[Point | Begun]) -> None:
        """Add points to curves."""

    def alive(self) -> bool:
        """Return whether somebody may still look at it."""

    def end(self) -> None:
        """Leave nothing behind that nobody looks at."""


def board(path: Path, port: int, mlflow: bool) -> None:
    """Show the curves of a run, also while it goes on, until it is interrupted.

    path: the results. port: of TensorBoard; 0 for any that is free. mlflow: show them in MLflow, at
    MLFLOW_TRACKING_URI, instead. Raises UserError where there are no results, or the port
    is taken.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: there is no such folder; a run makes it (`make run CONFIG={path.name}`)"
        )
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: must lie between 0 and {2**16 - 1}")
    if not (path / "logs").is_dir():
        print(f"{path}: has no logs yet; results that were pulled have none", file=sys.stderr)
    for one in (signal.SIGTERM, signal.SIGHUP):  # these end it as Ctrl-C does
        signal.signal(one, signal.default_int_handler)
    shows: Shows = _Mlflow(path.resolve().name) if mlflow else _TensorBoard(port)
    watched = Watched(path)
    try:
        while shows.alive():
            shows.show(watched.news())
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        print()  # behind ^C; to be interrupted is how it ends
    finally:
        shows.end()


class _TensorBoard:
    """A TensorBoard with a folder of its own."""

    def __init__(self, port: int) -> None:
        require_extra("board")
        _refuse_taken(port)
        self._folder = Path(tempfile.mkdtemp(prefix="acll-board-"))
        self._events = _EventFiles(self._folder)
        command = [
            *(sys.executable, "-m", "tensorboard.main", "--logdir", str(self._folder)),
            *("--port", str(port), "--reload_interval", str(int(_EVERY))),
            *("--reload_multifile", "true", "--load_fast", "false"),
        ]
        self._process = subprocess.Popen(command, preexec_fn=_child)

    def show(self, news: Iterable[Point | Begun]) -> None:
        """Add points to the event files of their curves."""
        self._events.add(news)

    def alive(self) -> bool:
        """Return whether TensorBoard runs. Raises UserError where it ended by itself."""
        code = self._process.poll()
        if code:
            raise UserError("TensorBoard has ended; what it said stands above")
        return code is None

    def end(self) -> None:
        """End TensorBoard, and remove its folder."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _child() -> None:
    """Leave Ctrl-C, which a terminal sends to both, to the parent: it ends TensorBoard, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def _refuse_taken(port: int) -> None:
    """Raise UserError where another program listens at a port of this machine."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("localhost", port))
        except OSError as error:
            raise UserError(
                f"port {port}: {os.strerror(error.errno or 0).lower()}, perhaps by another board; "
                "end that, or let it be chosen: `acll board results/<name> --port 0`"
            ) from None


class _EventFiles:
    """A file of events for each curve, as TensorBoard reads them while they grow.

    It goes on where it has read a file to, whether that is another one by then. So what is no more
    stays in the file, with the event behind it that tells of a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._curves: set[str] = set()

    def add(self, news: Iterable[Point | Begun]) -> None:
        """Add points to the files of their curves."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        now = time.time()
        # of step 0: all that is known from that step on is dropped at the second one of a file
        begins = Event(wall_time=now, session_log=SessionLog(status=SessionLog.START))
        events: dict[str, list[Any]] = {}
        for one in news:
            if isinstance(one, Begun):
                for curve in filter(one.has, self._curves):
                    events.setdefault(curve, []).append(begins)
                continue
            if one.curve not in self._curves:
                self._curves.add(one.curve)
                events[one.curve] = [Event(wall_time=now, file_version="brain.Event:2"), begins]
            summary = Summary(value=[Summary.Value(tag=one.name, simple_value=one.value)])
            event = Event(wall_time=now, step=one.step, summary=summary)
            events.setdefault(one.curve, []).append(event)
        for curve, own in events.items():
            _append(self._folder / curve, own)


def _append(folder: Path, events: Iterable[Any]) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.out.tfevents.0.acll").open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


class _Mlflow:
    """An experiment of MLflow, with a run for each curve."""

    def __init__(self, name: str) -> None:
        if find_spec("mlflow") is None:
            raise UserError("mlflow is not installed: type `pip install mlflow`")
        with _told():
            from mlflow import MlflowClient

            self._client: Any = MlflowClient()
            found = self._client.get_experiment_by_name(name)
            own = found.experiment_id if found else self._client.create_experiment(name)
            known = self._client.search_runs([own])
        self._experiment = own
        self._runs = {run.info.run_name: run.info.run_id for run in known}

    def show(self, news: Iterable[Point | Begun]) -> None:
        """Log points to the runs of their curves; what is read anew takes the place of old runs."""
        with _told():
            for one in news:
                self._show(one)

    def _show(self, one: Point | Begun) -> None:
        if isinstance(one, Begun):
            for curve in [*filter(one.has, self._runs)]:
                self._client.delete_run(self._runs.pop(curve))
            return
        if one.curve not in self._runs:
            made = self._client.create_run(self._experiment, run_name=one.curve)
            self._runs[one.curve] = made.info.run_id
        self._client.log_metric(self._runs[one.curve], one.name, one.value, step=one.step)

    def alive(self) -> bool:
        """Return whether to go on: until it is interrupted."""
        return True

    def end(self) -> None:
        """Say that the runs have ended."""
        with _told():
            for run in self._runs.values():
                self._client.set_terminated(run)


@contextmanager
def _told() -> Iterator[None]:
    """Raise UserError for what MLflow refuses."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise UserError(f"MLflow: {error}; MLFLOW_TRACKING_URI says where it is") from None
