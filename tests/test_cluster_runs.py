"""Runs on a real Slurm of this machine."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import yaml

import slurm
from checkouts import SMALL, Checkout, checkout, contents, ended, finished

FIRST = SMALL["tasks"]["a"]
# the first task is learned for long enough to do something meanwhile
LONG = SMALL | {"tasks": SMALL["tasks"] | {"a": FIRST | {"training": {"epochs": 200}}}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    reason = slurm.why_not()
    if reason is not None:
        pytest.skip(reason)
    with slurm.started(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture
def own(cluster, tmp_path) -> Checkout:
    """A checkout that has run nothing."""
    return replace(checkout(tmp_path / "own", tmp_path), starts_server=True)


def begun(own: Checkout) -> subprocess.Popen:
    """A run under Slurm, in a session of its own, that has begun."""
    return own.begun("small", "PROFILE=slurm")


def at_its_end(cluster, run: subprocess.Popen, seconds: float = 120) -> str:
    """Wait until a run has ended; return what it said.

    One that does not end is ended, so that the next test finds an empty queue.
    """
    try:
        said, _ = run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        state = cluster.state()
        os.killpg(run.pid, signal.SIGINT)
        said, _ = run.communicate(timeout=60)
        raise AssertionError(f"the run did not end in {seconds} s\n{said}\n{state}") from None
    assert "Traceback" not in said, said
    return said


def networks(own: Checkout) -> dict[str, bytes]:
    found = contents(own.results("small"))
    return {
        path: content for path, content in found.items() if path.endswith("network.safetensors")
    }


@pytest.mark.slow
def test_a_run_under_slurm_makes_the_bytes_of_a_local_one(cluster, own, tmp_path_factory):
    local = finished(tmp_path_factory)[0]
    said = own.make("run", "small", "PROFILE=slurm")
    assert sorted(ended(said)) == sorted(ended_locally(local))
    assert contents(own.results("small")) == contents(local.results("small"))
    assert len(networks(own)) == 2
    assert cluster.squeue() == []
    assert "nothing to run" in own.make("run", "small", "PROFILE=slurm")
    assert own.make("verify", "small")


def ended_locally(local: Checkout) -> list[str]:
    logs = (local.results("small") / "logs").rglob("*.log")
    return [
        path.relative_to(local.results("small") / "logs")
        .with_suffix("")
        .as_posix()
        .replace("/", " ", 1)
        for path in logs
    ]


def killed_while_its_job_waits(cluster, own: Checkout, after: int) -> int:
    """Begin a run, and kill it when it has a job in the queue; return the number of this job."""
    run = begun(own)
    number = cluster.waiting(after=after)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    return number


@pytest.mark.slow
def test_what_ends_a_run_or_its_jobs_loses_nothing(cluster, own, tmp_path_factory):
    own.write(LONG)
    own.commit("a longer training")

    run = begun(own)  # Ctrl-C
    cluster.running("learned")
    refused = own.make("run", "small", "PROFILE=slurm", fails=True)
    assert "in use by a run" in refused
    assert cluster.squeue() != []
    os.killpg(run.pid, signal.SIGINT)
    began = time.monotonic()
    said = at_its_end(cluster, run)
    assert time.monotonic() - began < 20
    assert run.returncode != 0
    assert "goes on where this stopped" in said
    assert cluster.squeue() == []

    # a run is killed, with all that belongs to it on this machine, while its job waits
    cluster.set_partition("DOWN")
    number = killed_while_its_job_waits(cluster, own, 0)
    before = contents(own.results("small"))
    cluster.set_partition("UP")
    cluster.wait_for_end(number)
    (log,) = (own.results("small") / ".snakemake/slurm_logs").rglob(f"{number}.log")
    assert "the run that this job belongs to has ended" in log.read_text()
    assert contents(own.results("small")) == before

    # once more, and the next run finds its job; the node's own process dies; somebody cancels a job
    cluster.set_partition("DOWN")
    number = killed_while_its_job_waits(cluster, own, number)
    run = begun(own)
    cluster.waiting(after=number)
    cluster.set_partition("UP")
    number = cluster.running("learned", after=number)
    cluster.restart_slurmd()
    assert cluster.running("learned") == number
    subprocess.run(["scancel", str(number)], check=True)
    said = at_its_end(cluster, run)
    assert run.returncode != 0
    assert "jobs of an earlier run were still in the queue: 1 cancelled" in said
    assert f"train small/learned/seed0/a: was cancelled (job {number})" in said
    assert "PROFILE=slurm` goes on where this stopped" in said
    assert cluster.squeue() == []

    own.make("run", "small", "PROFILE=slurm")
    other = checkout(tmp_path_factory.mktemp("local") / "own", own.data)
    other.write(LONG)
    other.make("run", "small")
    assert contents(own.results("small")) == contents(other.results("small"))


@pytest.mark.slow
def test_jobs_without_enough_memory_or_time_are_tried_again_with_more(cluster, own):
    own.write(LONG)
    path = own.folder / "profiles/slurm/config.yaml"
    profile = yaml.safe_load(path.read_text())
    asked = ["train:mem_mb=attempt*attempt*300", "train:runtime=1 if attempt < 3 else 30"]
    path.write_text(yaml.safe_dump(profile | {"set-resources": asked}))
    own.commit("too little")
    run = begun(own)
    log = own.results("small") / "logs/train/small/learned/seed0/a.log"
    checkpoint = own.results("small") / "nodes/small/learned/seed0/a/dense.checkpoint"
    first = cluster.running("learned")
    second = cluster.running("learned", after=first)
    began = time.time()
    # when it learns: Slurm waits for ever for a process that is stopped while it is started
    while not checkpoint.exists() or checkpoint.stat().st_mtime < began:
        assert run.poll() is None
        time.sleep(0.2)
    # it does nothing more until its minute is over
    subprocess.run(["scancel", "--full", "--signal=STOP", str(second)], check=True)
    said = at_its_end(cluster, run, 240)
    assert run.returncode == 0, said
    name = "train small/learned/seed0/a"
    again = "; tried again"
    assert f"{name}: Slurm says OUT_OF_MEMORY (job {first}){again}" in said
    assert f"{name}: Slurm says TIMEOUT (job {second}){again}" in said
    assert "goes on after epoch" in log.read_text()


@pytest.mark.slow
def test_four_jobs_of_a_machine_with_four_gpus_get_four(cluster, own):
    tasks = ["a", "b", "c", "d"]
    sequences = {name: {"network": "small", "tasks": [name]} for name in tasks}
    own.write(
        SMALL
        | {
            "tasks": {name: FIRST | {"difficulty": at / 10} for at, name in enumerate(tasks)},
            "sequences": sequences,
            "methods": {"alone": {"type": "individual"}},
            "training": SMALL["training"] | {"epochs": 200},
        }
    )
    path = own.folder / "profiles/slurm/config.yaml"
    path.write_text(path.read_text().replace("gpu=0", "gpu=4"))
    own.commit("four sequences")
    run = begun(own)
    deadline, used = time.monotonic() + 60, []
    while time.monotonic() < deadline and len(used) < 4:
        logs = (own.results("small") / "logs/train").rglob("*.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        # what PyTorch says of a card that is none
        used = [line for line in lines if line.startswith("warning: PyTorch cannot use GPU ")]
        time.sleep(0.2)
    assert len(set(used)) == 4, used
    os.killpg(run.pid, signal.SIGINT)
    at_its_end(cluster, run)
    assert cluster.squeue() == []
