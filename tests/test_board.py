"""What a run says while it goes on, as curves in TensorBoard."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acll.cli.board import _EventFiles, _Mlflow, board
from acll.errors import UserError
from acll.evaluation import watching
from acll.evaluation.watching import Begun, Point, Watched
from acll.networks.spec import BackboneNetwork
from acll.progress import Epoch
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from conftest import batches, building, fit_config, tiny_task

ROOT = Path(__file__).parents[1]
LABELS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=20)
NUMBERS = st.integers(0, 9999).map(lambda number: number / 100)


@given(LABELS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.none() | st.just(0.25))
def test_the_line_of_an_epoch_is_read_as_it_was_written(
    label, number, of, score, loss, rate, reads
):
    told = Epoch(label, number, of, score, loss, float(f"{rate:.3g}"), reads)
    assert Epoch.read(str(told)) == told


def test_other_lines_are_no_epochs():
    assert Epoch.read("digits: kept epoch 3, validation 0.9907") is None
    assert Epoch.read("a: epoch 1/3  validation 0.5000") is None


def test_a_training_prints_what_it_did(capsys):
    import torch

    train, validation, info = tiny_task("x")
    network = building(BackboneNetwork(backbone="resnet_small"))("classification", 3, 0)
    learner = TaskLearner(network, train, validation, info, batches(), torch.device("cpu"))
    result = fit(learner, network.state_dict(), fit_config(3, 0.01, 1))
    told = [Epoch.read(line) for line in capsys.readouterr().out.splitlines()]
    found = [one for one in told if one is not None]
    assert [one.number for one in found] == [1, 2, 3]
    for one, row in zip(found, result.history, strict=True):
        assert one.validation == pytest.approx(row["score"], abs=5e-5)
        assert one.loss == pytest.approx(row["loss"], abs=5e-5)
    assert all(one.reads is None for one in found)
    assert all(0 < one.rate <= 0.01 for one in found)


@pytest.fixture
def results(tmp_path):
    """Results of a run that has trained a task for one epoch."""
    log = tmp_path / "logs/train/small/learned/seed0/a.log"
    log.parent.mkdir(parents=True)
    log.write_text("a: 100 weights\n" + line(1) + "\n")
    return tmp_path


def line(number):
    return str(Epoch("a", number, 3, number / 10, 1.5, 0.01, 0.1))


def values(news, name="training/validation"):
    return [(one.step, one.value) for one in news if isinstance(one, Point) and one.name == name]


def test_each_line_of_a_log_is_told_once_and_when_it_is_whole(results):
    log = next((results / "logs").rglob("*.log"))
    watched = Watched(results)
    first = list(watched.news())
    assert first[0] == Begun("train/small/learned/seed0/a")
    assert {one.curve for one in first[1:]} == {"train/small/learned/seed0/a/a"}
    assert values(first) == [(1, 0.1)]
    assert values(first, "training/reads") == [(1, 0.1)]
    assert list(watched.news()) == []
    with log.open("a") as file:
        file.write(line(2))  # without its end
    assert list(watched.news()) == []
    with log.open("a") as file:
        file.write("\n")
    assert values(watched.news()) == [(2, 0.2)]


def test_a_job_that_runs_again_takes_the_place_of_what_it_said(results):
    log = next((results / "logs").rglob("*.log"))
    watched = Watched(results)
    list(watched.news())
    log.write_text("")
    list(watched.news())
    log.write_text(line(3) + "\n")
    assert values(watched.news()) == [(3, 0.3)]
    log.write_text("")
    assert list(watched.news()) == [Begun("train/small/learned/seed0/a")]


def test_trainings_of_one_name_have_a_curve_each(results):
    log = next((results / "logs").rglob("*.log"))
    watched = Watched(results)
    log.write_text("\n".join(map(line, (1, 2, 1))) + "\n")
    (_, *points) = watched.news()
    with log.open("a") as file:
        file.write(line(2) + "\n" + line(1) + "\n")
    points += watched.news()
    found = [(Path(one.curve).name, one.step) for one in points if one.name == "training/loss"]
    assert found == [("a", 1), ("a", 2), ("a 2", 1), ("a 2", 2), ("a 3", 1)]
    log.write_text(line(3) + "\n")
    assert {Path(one.curve).name for one in list(watched.news())[1:]} == {"a"}


def test_trials_are_points_by_their_numbers(results):
    node = results / "nodes/small/adaptive/seed0/a"
    node.mkdir(parents=True)
    (node / "trials.csv").write_text(
        "number,kept_share,score,cost,threshold\n0,0.1,0.8,0.0,\n1,0.05,0.7,0.5,0.75\n"
    )
    found = list(Watched(results).news())
    begun = Begun("trials/small/adaptive/seed0/a")
    assert {one.curve for one in found[found.index(begun) + 1 :]} == {f"{begun.place}/trials"}
    assert values(found, "trials/score") == [(0, 0.8), (1, 0.7)]
    assert values(found, "trials/threshold") == [(1, 0.75)]


def test_a_log_of_the_same_length_or_longer_is_known_for_another_one(results):
    log = next((results / "logs").rglob("*.log"))
    watched = Watched(results)
    list(watched.news())
    for text in (f"a: 200 weights\n{line(2)}\n", f"a: 300 weights\n{line(1)}\n{line(3)}\n"):
        log.write_text(text)
        begun, *points = watched.news()
        assert begun == Begun("train/small/learned/seed0/a")
        assert values(points) == values(list(Watched(results).news()))


def test_trials_that_a_job_writes_anew_are_told_again_and_other_jobs_leave_them(results):
    path = results / "nodes/small/adaptive/seed0/a/trials.csv"
    path.parent.mkdir(parents=True)
    path.write_text("number,score\n0,0.8\n")
    watched = Watched(results)
    list(watched.news())
    path.write_text("number,score\n0,0.7\n")
    assert values(watched.news(), "trials/score") == [(0, 0.7)]
    log = results / "logs/search/small/adaptive/seed0/a.log"
    log.parent.mkdir(parents=True)
    log.write_text(line(1) + "\n")
    (begun, *_) = watched.news()
    assert not begun.has("trials/small/adaptive/seed0/a/trials")


def test_files_that_vanish_while_they_are_looked_for_end_nothing(results, monkeypatch):
    gone = [(results / "logs/train/a.log", Path()), (results / "logs/train/b/a.log", Path("b"))]
    monkeypatch.setattr(watching, "_files", lambda folder, end: gone)
    assert not any(isinstance(one, Point) for one in Watched(results).news())


def shown(folder, results):
    """The curves of validation scores that TensorBoard has when it has read a folder twice."""
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    read = EventMultiplexer()
    files, watched = _EventFiles(folder), Watched(results)

    def look():
        files.add(watched.news())
        read.AddRunsFromDirectory(str(folder))
        read.Reload()
        return {
            run: [
                (event.step, pytest.approx(event.tensor_proto.float_val[0]))
                for event in read.Tensors(run, "training/validation")
            ]
            for run in read.Runs()
        }

    return look


def test_the_curves_of_later_tasks_stay_and_those_of_a_job_that_runs_again_are_new(
    results, tmp_path_factory, monkeypatch
):
    monkeypatch.syspath_prepend(ROOT / ".venv/board")
    pytest.importorskip("tensorboard")
    log = results / "logs/train/small/learned/seed0/a.log"
    later = log.with_suffix("") / "b.log"
    later.parent.mkdir()
    later.write_text(f"{line(1)}\n{line(2)}\n")
    look = shown(tmp_path_factory.mktemp("events"), results)
    first, second = (f"train/small/learned/seed0/{curve}/a" for curve in ("a", "a/b"))
    assert look() == {first: [(1, 0.1)], second: [(1, 0.1), (2, 0.2)]}
    later.write_text(line(3) + "\n")
    assert look() == {first: [(1, 0.1)], second: [(3, 0.3)]}
    log.write_text(line(2) + "\n")
    assert look() == {first: [(2, 0.2)], second: [(3, 0.3)]}


class RefusedError(Exception):
    """What MLflow raises."""


class Client:
    """A client of MLflow with one old run, which a server refuses from then on."""

    def __init__(self):
        self.metrics, self.deleted, self.ended = {}, [], []

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=name)

    def search_runs(self, experiments):
        old = SimpleNamespace(run_name="train/small/learned/seed0/a/old", run_id="old")
        return [SimpleNamespace(info=old)]

    def create_run(self, experiment, run_name):
        return SimpleNamespace(info=SimpleNamespace(run_id=f"{experiment}: {run_name}"))

    def log_metric(self, run, name, value, step):
        if step == 3:
            raise RefusedError("no such server")
        self.metrics[run, name, step] = value

    def delete_run(self, run):
        self.deleted.append(run)

    def set_terminated(self, run):
        self.ended.append(run)


def test_mlflow_gets_a_run_for_each_curve_in_place_of_old_ones(results, monkeypatch):
    client = Client()
    for name, parts in {
        "mlflow": {"MlflowClient": lambda: client},
        "mlflow.exceptions": {"MlflowException": RefusedError},
    }.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    shows, watched = _Mlflow("demo"), Watched(results)
    shows.show(watched.news())
    run = "demo: train/small/learned/seed0/a/a"
    assert client.deleted == ["old"]
    assert client.metrics[run, "training/validation", 1] == 0.1
    shows.end()
    assert client.ended == [run]
    log = next((results / "logs").rglob("*.log"))
    with log.open("a") as file:
        file.write(line(3) + "\n")
    with pytest.raises(UserError, match="no such server; MLFLOW_TRACKING_URI"):
        shows.show(watched.news())


def test_what_is_no_folder_or_no_port_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        board(tmp_path / "nothing", 0, False)
    for port in (-1, 2**16):
        with pytest.raises(UserError, match=f"--port {port}: must lie between 0 and 65535"):
            board(tmp_path, port, False)


@pytest.mark.slow
def test_tensorboard_shows_the_curves_and_leaves_nothing_behind(results, tmp_path):
    made = subprocess.run(
        ["make", "--old-file=.venv/installed", ".venv/board/installed"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (tmp_path / "tmp").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / '.venv/board'}",
        "TMPDIR": str(tmp_path / "tmp"),
    }
    code = "from acll.cli.main import main; main()"
    command = [sys.executable, "-c", code, "board", str(results), "--port", str(port)]
    run = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=hear_interrupts,
    )
    curve = "train/small/learned/seed0/a/a"
    try:
        assert wait_for(run, port, curve) == [[1, pytest.approx(0.1)]]
        log = next((results / "logs").rglob("*.log"))
        with log.open("a") as file:
            file.write(line(2) + "\n")
        assert wait_for(run, port, curve, 2)[1] == [2, pytest.approx(0.2)]
        again = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=60
        )
        assert again.returncode == 1
        assert again.stderr.startswith(f"error: port {port}: address already in use, perhaps by ")
    finally:
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to both
        said, _ = run.communicate(timeout=20)
    assert run.returncode == 0, said
    assert b"Traceback" not in said
    assert list((tmp_path / "tmp").glob("acll*")) == []


def hear_interrupts():
    """Take Ctrl-C as in a terminal, also where the tests run in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(run, port, curve, count=1):
    """The steps and values of a curve of validation scores, when it has so many."""
    deadline = time.monotonic() + 60
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars"
    while time.monotonic() < deadline:
        assert run.poll() is None
        try:
            with urlopen(f"{url}?run={curve}&tag=training/validation", timeout=5) as answer:
                found = json.load(answer)
        except OSError:
            found = []
        if len(found) >= count:
            return [[step, value] for _, step, value in found]
        time.sleep(0.3)
    raise AssertionError("TensorBoard does not show the curve")
