"""`acll board`: the curves of a run in TensorBoard, or in MLflow, while it goes on.

What is shown is made of the logs, in a folder that is removed at the end.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
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
    MLFLOW_TRACKING_URI, instead. Raises UserError where there are no results, or the port is taken.
    """
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; name one that a run has begun")
    for one in (signal.SIGTERM, signal.SIGHUP):  # these end it as Ctrl-C does
        signal.signal(one, signal.default_int_handler)
    shows: Shows = _Mlflow(path.name) if mlflow else _TensorBoard(port)
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
        self._folder = Path(tempfile.mkdtemp(prefix="acll-board-"))
        command = [
            *(sys.executable, "-m", "tensorboard.main", "--logdir", str(self._folder)),
            *("--port", str(port), "--reload_interval", str(int(_EVERY))),
            *("--reload_multifile", "true", "--load_fast", "false"),
        ]
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent)

    def show(self, news: Iterable[Point | Begun]) -> None:
        """Add points to the event files of their curves."""
        points: dict[Path, list[Point]] = {}
        for one in news:
            if isinstance(one, Begun):
                shutil.rmtree(self._folder / one.curve, ignore_errors=True)
                points = {place: own for place, own in points.items() if not _below(place, one)}
            else:
                points.setdefault(Path(one.curve), []).append(one)
        for place, own in points.items():
            _append_events(self._folder / place, own)

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


def _below(place: Path, begun: Begun) -> bool:
    return place.is_relative_to(begun.curve)


def _append_events(folder: Path, points: Iterable[Point]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.0.acll"
    fresh = not path.exists()
    with path.open("ab") as file:
        writer = RecordWriter(file)
        now = time.time()
        if fresh:
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for point in points:
            value = Summary.Value(tag=point.name, simple_value=point.value)
            event = Event(wall_time=now, step=point.step, summary=Summary(value=[value]))
            writer.write(event.SerializeToString())


class _Mlflow:
    """An experiment of MLflow, with a run for each curve."""

    def __init__(self, name: str) -> None:
        if find_spec("mlflow") is None:
            raise UserError("mlflow is not installed: type `pip install mlflow`")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client: Any = MlflowClient()
            found = self._client.get_experiment_by_name(name)
            own = found.experiment_id if found else self._client.create_experiment(name)
            known = self._client.search_runs([own])
        except MlflowException as error:
            raise UserError(f"MLflow: {error}; MLFLOW_TRACKING_URI says where it is") from None
        self._experiment = own
        self._runs = {run.info.run_name: run.info.run_id for run in known}

    def show(self, news: Iterable[Point | Begun]) -> None:
        """Log points to the runs of their curves; what is read anew takes the place of old runs."""
        for one in news:
            if isinstance(one, Begun):
                old = [curve for curve in self._runs if _below(Path(curve), one)]
                for curve in old:
                    self._client.delete_run(self._runs.pop(curve))
            else:
                if one.curve not in self._runs:
                    made = self._client.create_run(self._experiment, run_name=one.curve)
                    self._runs[one.curve] = made.info.run_id
                run = self._runs[one.curve]
                self._client.log_metric(run, one.name, one.value, step=one.step)

    def alive(self) -> bool:
        """Return whether to go on: until it is interrupted."""
        return True

    def end(self) -> None:
        """Say that the runs have ended."""
        for run in self._runs.values():
            self._client.set_terminated(run)
