"""What a run says while it goes on, as curves in TensorBoard."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acll.cli.board import board
from acll.errors import UserError
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


def test_trials_are_points_by_their_numbers(results):
    node = results / "nodes/small/adaptive/seed0/a"
    node.mkdir(parents=True)
    (node / "trials.csv").write_text(
        "number,kept_share,score,cost,threshold\n0,0.1,0.8,0.0,\n1,0.05,0.7,0.5,0.75\n"
    )
    found = list(Watched(results).news())
    assert Begun("search/small/adaptive/seed0/a/trials") in found
    assert values(found, "trials/score") == [(0, 0.8), (1, 0.7)]
    assert values(found, "trials/threshold") == [(1, 0.75)]


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        board(tmp_path / "nothing", 0, False)


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
    command = [sys.executable, "-m", "acll", "board", str(results), "--port", str(port)]
    command[1:3] = ["-c", "from acll.cli.main import main; main()"]
    run = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    curve = "train/small/learned/seed0/a/a"
    try:
        assert wait_for(run, port, curve) == [[1, pytest.approx(0.1)]]
        log = next((results / "logs").rglob("*.log"))
        with log.open("a") as file:
            file.write(line(2) + "\n")
        assert wait_for(run, port, curve, 2)[1] == [2, pytest.approx(0.2)]
    finally:
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=20)
    assert run.returncode == 0, said
    assert b"Traceback" not in said
    assert list((tmp_path / "tmp").glob("acll*")) == []


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
