"""Runs that are stopped at a random moment, and what the next one makes of them: the same bytes as undisturbed.

`make test` tries three moments, `make test-faults` twenty; `--faults N` any number. Moments come from a seed.
"""

import copy
import os
import random
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from checkouts import SMALL, Checkout, checkout, contents

LONGEST = 20.0  # seconds that an undisturbed run takes at least, on a machine with nothing else to do
HOW = ("SIGINT", "SIGTERM", "SIGKILL", "SIGKILL to Snakemake alone")


def pytest_generate_tests(metafunc):
    """Each way to stop a run in turn, each at moments of its own."""
    if "moment" in metafunc.fixturenames:
        generator = random.Random(0)
        cases = [
            (HOW[index % len(HOW)], generator.uniform(1, LONGEST)) for index in range(metafunc.config.option.faults)
        ]
        metafunc.parametrize(("how", "moment"), cases, ids=[f"{how} after {moment:.1f} s" for how, moment in cases])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Checkout, dict[str, bytes]]:
    """A checkout in which nothing has run, and what a run makes in it."""
    folder = tmp_path_factory.mktemp("faults")
    own = checkout(folder / "origin", folder / "nowhere")
    clone = own.clone(folder / "clone")
    clone.make("run", "small")
    return own, contents(clone.results("small"))


def start(own: Checkout) -> subprocess.Popen:
    return subprocess.Popen(own.command("run", "small"), cwd=own.folder, env=own.environment(), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip


def processes_of(own: Checkout) -> list[psutil.Process]:
    """Whatever works in the checkout."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if str(process.info["cwd"] or "").startswith(str(own.folder)):
            found.append(process)
    return found


def stop(own: Checkout, run: subprocess.Popen, how: str) -> None:
    """Stop a run, as a person, a batch system or a power cut would, and wait until it is gone."""
    if how == "SIGKILL to Snakemake alone":  # as the kernel does where memory ends: its jobs go on
        for process in processes_of(own):
            if any(word.endswith("bin/snakemake") for word in process.cmdline()):
                process.kill()
        run.wait(60)
        return
    os.killpg(run.pid, getattr(signal, how.split()[0]))
    run.communicate(timeout=120)
    psutil.wait_procs(processes_of(own), timeout=120)
    assert processes_of(own) == []


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(undisturbed, tmp_path, how, moment):
    own, expected = undisturbed
    clone = own.clone(tmp_path / "clone")
    run = start(clone)
    time.sleep(moment)
    if run.poll() is None:
        stop(clone, run, how)
    text = clone.make("run", "small")
    assert "error" not in text.lower(), text
    assert contents(clone.results("small")) == expected
    assert "all as this commit would make them" in clone.make("verify", "small")
    assert clone.planned(name="small") == set()
    shutil.rmtree(clone.folder)


def test_jobs_that_a_killed_run_left_at_work_are_stopped_and_go_on_from_their_checkpoints(undisturbed, tmp_path):
    clone = undisturbed[0].clone(tmp_path / "clone")
    longer = copy.deepcopy(SMALL)
    longer["tasks"]["a"]["training"] = {"epochs": 300}
    clone.write(longer)
    run = start(clone)
    checkpoint = clone.results("small") / "nodes/small/dense/seed0/a/dense.checkpoint"
    deadline = time.time() + 60
    while not checkpoint.exists() and time.time() < deadline:
        time.sleep(0.05)
    stop(clone, run, "SIGKILL to Snakemake alone")
    orphans = [process for process in processes_of(clone) if "acll.steps.train" in process.cmdline()]
    assert len(orphans) == 1
    text = clone.make("run", "small")
    assert "stopping 1 jobs that a killed run has left at work" in text
    assert not orphans[0].is_running()
    log = (clone.results("small") / "logs/train/small/dense/seed0/a.log").read_text()
    assert "goes on after epoch" in log
    assert "all as this commit would make them" in clone.make("verify", "small")
