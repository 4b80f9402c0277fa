"""Steps that are forked by the server of a run, against steps that are started by themselves."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from acll.config.checks import parse
from acll.progress import Epoch
from acll.sharing.planned import jobs_of as jobs_of_checkout
from acll.steps import _server
from acll.steps._client import ALONE, SERVER, THREADS
from acll.steps._server import StepServer, libraries_of
from checkouts import all_jobs_in, contents, finished
from conftest import ROOT
from test_steps import configuration, jobs_of

LONG = {"epochs": 400, "retrain_epochs": 1, "batch_size": 16}
HERE = os.environ | {"PYTHONPATH": str(ROOT / "src")} | dict.fromkeys(THREADS, "1")


def client(job, folder, *extra, step=None, environment=None):
    """Start a job's step as the workflow does: its arguments are the lines of a file."""
    arguments = [*extra]
    for name, paths in (job.inputs | job.outputs).items():
        arguments += [f"--{name.replace('_', '-')}", *paths]
    if job.rule == "prepare":
        arguments += ["--report", "x.csv", "--processes", "1"]
    (folder / "arguments").write_text("\n".join(arguments))
    (folder / "parameters").write_text(job.text)
    command = [sys.executable, "-S", "-m", "acll.steps._client", step or job.rule, "@arguments"]
    with (folder / "parameters").open() as parameters:
        return subprocess.Popen(
            command,
            stdin=parameters,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=HERE | (environment or {SERVER: os.environ.get(SERVER, "")}),
            cwd=folder,
            # where the tests run in the background it is ignored, and so it would be here
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def ended(process):
    """Its exit code, and what it has said."""
    said, errors = process.communicate(timeout=120)
    return process.returncode, said + errors


@contextmanager
def serving(folder, *rules, threads=1):
    """A server that knows these steps."""
    before = Path.cwd()
    (folder / ".snakemake").mkdir(parents=True)
    os.chdir(folder)  # the log of the server lies below the folder of the run
    try:
        server = StepServer(rules, [], threads)
    finally:
        os.chdir(before)
    try:
        yield server
    finally:
        server.stop()
        assert server._process.poll() is not None


def prepared_in(folder):
    """Make the folder, with the prepared data of the first task."""
    folder.mkdir(parents=True, exist_ok=True)
    assert ended(client(jobs_of(configuration({"ratio": 0.5}))["prepare a"], folder))[0] == 0
    return folder


def training(**changes):
    settings = configuration({"ratio": 0.5}, **({"training": changes} if changes else {}))
    return jobs_of(settings)["train small/learned/seed0/a"]


def forked_by(server):
    """The steps that the server has forked and that have not ended."""
    return psutil.Process(server._process.pid).children()


def wait_for_epoch(process):
    """Wait until a training has ended its second epoch, or, where it went on from one, a later
    one."""
    for line in process.stdout:
        epoch = Epoch.read(line.rstrip("\n"))
        if epoch is not None and epoch.number >= 2:
            return
    pytest.fail("the training said nothing of its second epoch")


@pytest.mark.slow
def test_a_forked_step_writes_the_bytes_of_a_started_one_and_says_the_same(tmp_path):
    job, said = training(), {}
    for name in ("started", "forked"):
        folder = prepared_in(tmp_path / name)
        if name == "forked":
            with serving(folder, "train") as server:
                process = client(job, folder)
                while not forked_by(server):
                    assert process.poll() is None
                said[name] = ended(process)
        else:
            said[name] = ended(client(job, folder))
    assert said["forked"] == said["started"]
    assert said["forked"][0] == 0
    path = job.all_outputs[0]
    assert (tmp_path / "forked" / path).read_bytes() == (tmp_path / "started" / path).read_bytes()


def test_an_error_and_a_bug_come_through_with_exit_code_one(tmp_path):
    folder = prepared_in(tmp_path / "one")
    (folder / "data/a.train.safetensors").write_bytes(b"no tensors")
    with serving(folder, "train"):
        code, said = ended(client(training(), folder))
        assert code == 1
        assert said.startswith("error: data/a.train.safetensors: ")
        code, said = ended(client(training(), folder, "--nonsense"))
        assert code == 2  # of argparse
        assert "unrecognized arguments: --nonsense" in said
        code, said = ended(client(training(), folder, step="absent"))
        assert code == 1
        assert "No module named 'acll.steps.absent'" in said or "No module named" in said


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signals_reach_the_step_and_its_end_is_that_of_the_client(tmp_path, sent):
    folder = prepared_in(tmp_path / "one")
    with serving(folder, "train") as server:
        process = client(training(**LONG), folder)
        wait_for_epoch(process)
        (step,) = forked_by(server)
        process.send_signal(sent)
        ending, said = ended(process)
        assert ending == -sent
        assert "Traceback" not in said
        psutil.wait_procs([step], timeout=10)
        assert not step.is_running()


@pytest.mark.slow
def test_a_step_ends_with_its_client_and_with_its_run(tmp_path):
    folder = prepared_in(tmp_path / "one")
    with serving(folder, "train") as server:
        process = client(training(**LONG), folder)
        wait_for_epoch(process)
        (step,) = forked_by(server)
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs([step], timeout=10)
        assert alive == []
        process = client(training(**LONG), folder)
        wait_for_epoch(process)
        (step,) = forked_by(server)
    _, alive = psutil.wait_procs([step], timeout=10)
    assert alive == []
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_where_the_server_dies_the_step_goes_on_by_itself_to_the_same_bytes(tmp_path):
    changes = {"epochs": 20, "retrain_epochs": 1, "batch_size": 16}
    job = training(**changes)
    folder, alone = prepared_in(tmp_path / "one"), prepared_in(tmp_path / "alone")
    assert ended(client(job, alone))[0] == 0
    with serving(folder, "train") as server:
        process = client(job, folder)
        wait_for_epoch(process)
        (step,) = forked_by(server)
        os.kill(server._process.pid, signal.SIGKILL)
        code, said = ended(process)
        assert code == 0
        assert "goes on after epoch" in said
        assert not step.is_running()
        assert ended(client(jobs_of(configuration({"ratio": 0.5}))["prepare b"], folder))[0] == 0
    path = job.all_outputs[0]
    assert (folder / path).read_bytes() == (alone / path).read_bytes()


@pytest.mark.slow
def test_a_step_with_other_threads_starts_by_itself(tmp_path):
    folder = prepared_in(tmp_path / "one")
    with serving(folder, "train", threads=2) as server:
        process = client(training(**LONG), folder)
        wait_for_epoch(process)
        assert forked_by(server) == []
        process.kill()
        process.communicate()


def test_a_step_that_imports_little_does_not_wait_for_the_server(tmp_path):
    job = jobs_of(configuration({"ratio": 0.5}))["prepare a"]
    name = f"acll-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as busy:  # as while it imports: it takes calls, says nothing
        busy.bind(f"\0{name}")
        busy.listen()
        code, said = ended(client(job, tmp_path, environment={SERVER: name}))
        assert (code, said[:3]) == (0, "a: ")


@pytest.mark.slow
def test_more_arguments_than_one_may_pass_reach_the_step(tmp_path):
    folder = prepared_in(tmp_path / "one")
    with serving(folder, "train"):
        many = ["--outputs", *("x" * 100 + str(number) for number in range(30_000))]
        for environment in (None, {SERVER: ""}):
            code, said = ended(client(training(), folder, *many, environment=environment))
            assert (code, said[:5]) == (0, "a: ep"), said[-300:]


@pytest.mark.slow
def test_the_server_has_no_cuda_and_one_thread_and_survives_a_library_that_is_absent():
    code = (
        "import os, sys; from acll.steps._server import _preload;"
        "_preload(['acll.steps.train', 'acll.steps.search', 'acll.steps.figures', 'no_such',"
        " 'segmentation_models_pytorch', 'hyperopt', 'torchvision.models', 'sklearn.metrics']);"
        "import torch; assert not torch.cuda.is_initialized();"
        "tasks = os.listdir('/proc/self/task');"
        "print(*sorted(open(f'/proc/self/task/{task}/comm').read().strip() for task in tasks))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=HERE, capture_output=True, text=True, check=True
    )
    # the allocator of pyarrow has a thread of its own, which is made for forks
    assert result.stdout.split() in (["python"], ["jemalloc_bg_thd", "python"])
    assert "no_such: No module named" in result.stderr


def test_libraries_are_those_of_the_networks_and_searches():
    base = {
        "name": "tiny",
        "tasks": {
            "a": {
                "source": "generated",
                "kind": "classification",
                "image_size": 32,
                "classes": 2,
                "samples": 60,
                "difficulty": 0.0,
            },
        },
        "networks": {"one": {"hidden": [8], "image_size": 32, "channels": 3}},
        "sequences": {"one": {"network": "one", "tasks": ["a"]}},
        "methods": {"m": {"ratio": 0.5}},
        "training": {"epochs": 1},
    }
    always = ["torch._dynamo", "sklearn.metrics"]
    assert libraries_of(parse(base)) == always
    for backbone, wanted in (("resnet_small", []), ("resnet18", ["torchvision.models"])):
        own = base | {"networks": {"one": {"backbone": backbone}}}
        assert libraries_of(parse(own)) == [*wanted, *always]
    decoder = {"decoder": "unet", "encoder": "resnet18"}
    searched = {"m": {"ratio": {"search": "tpe"}}}
    changed = base | {"networks": {"one": decoder}, "methods": searched}
    assert libraries_of(parse(changed)) == ["segmentation_models_pytorch", "hyperopt", *always]
    task = base["tasks"]["a"] | {"kind": "segmentation"}
    segmentation = base | {"networks": {"one": decoder}, "tasks": {"a": task}}
    assert libraries_of(parse(segmentation)) == ["segmentation_models_pytorch", "torch._dynamo"]


def test_a_server_that_still_imports_ends_at_once(tmp_path):
    start = time.monotonic()
    with serving(tmp_path, "train", "search"):
        pass
    assert time.monotonic() - start < _server._ENDING + 2


@pytest.mark.slow
def test_a_run_gives_the_same_bytes_with_and_without_server_on_one_core_and_on_all(
    tmp_path, tmp_path_factory
):
    own, _ = finished(tmp_path_factory)  # with the server, on all cores
    copy = own.copy(tmp_path / "copy")
    results = copy.results("small")
    # a job of each rule is left to do: without the server each imports for seconds
    for folder in ("nodes/small/half/seed0/a/b", "tables", "figures"):
        shutil.rmtree(results / folder)
    (results / _server.LOG).unlink()
    command = ["snakemake", "--configfile", "config/small.yaml", "--directory", "results/small"]
    environment = copy.environment() | {SERVER: ""}
    result = subprocess.run(
        [*command, "--cores", "1"],
        cwd=copy.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rules = {title.split()[0] for title in all_jobs_in(result.stdout + result.stderr)}
    jobs = jobs_of_checkout(copy.folder, "small")
    assert rules == {job.rule for job in jobs if job.rule not in ALONE}
    assert not (results / _server.LOG).exists()
    assert (own.results("small") / _server.LOG).exists()
    assert contents(results) == contents(own.results("small"))
