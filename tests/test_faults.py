"""Runs that are stopped or disturbed at a random moment, and what the next one makes of them: the
same bytes as undisturbed.

`make test-slow` tries three moments, `make test-faults` twenty; `--faults N` any number. Moments
come from a seed.
"""

import contextlib
import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from checkouts import SMALL, Checkout, contents, ended, finished, jobs_in, small_disk

LATEST = 0.7  # of the time that an undisturbed run takes
HOW = (
    "SIGINT",
    "SIGTERM",
    "SIGKILL",
    "SIGKILL to Snakemake alone",
    "the clock set back",
    "the disk full",
)
ROOM = 2**28  # bytes of a disk of its own; a checkout with its run takes a tenth


def pytest_generate_tests(metafunc):
    """Each way to stop a run in turn, each at moments of its own."""
    if "moment" in metafunc.fixturenames:
        generator = random.Random(0)
        cases = [
            (HOW[index % len(HOW)], generator.uniform(0.05, LATEST))
            for index in range(metafunc.config.option.faults)
        ]
        metafunc.parametrize(
            ("how", "moment"),
            [
                pytest.param(how, moment, id=f"{how} after {moment:.0%}", marks=pytest.mark.slow)
                for how, moment in cases
            ],
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Checkout, dict[str, bytes], float]:
    """A checkout in whose clones nothing has run, what a run makes, and the seconds it takes."""
    own, seconds = finished(tmp_path_factory)
    own = replace(own, starts_server=True)  # which is killed, too
    return own, contents(own.results("small")), seconds


def start(own: Checkout, more: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen:
    return subprocess.Popen(
        own.command("run", "small"),
        cwd=own.folder,
        env=own.environment() | more,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # where the tests run in the background it is ignored, and so it would be here
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def share_made(own: Checkout, expected: dict[str, bytes]) -> float:
    return sum((own.results("small") / name).exists() for name in expected) / len(expected)


def processes_of(own: Checkout) -> list[psutil.Process]:
    """Whatever works in the checkout."""
    found = []
    for process in psutil.process_iter(["cwd"]):
        if str(process.info["cwd"] or "").startswith(str(own.folder)):
            found.append(process)
    return found


def runs(process: psutil.Process, word: str) -> bool:
    """Whether a word of its command line ends like this."""
    try:
        return any(part.endswith(word) for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def stop(own: Checkout, run: subprocess.Popen, how: str) -> None:
    """Stop a run, as a person, a batch system or a power cut would, and wait until it is gone."""
    if how == "SIGKILL to Snakemake alone":  # as the kernel does where memory ends: its jobs go on
        deadline = time.monotonic() + 60
        found: list[psutil.Process] = []
        while not found and time.monotonic() < deadline:
            found = [one for one in processes_of(own) if runs(one, "acll.cli.waiting")]
            time.sleep(0.05)
        assert found
        for process in found:
            process.kill()
        run.wait(120)  # not for the end of its output, which its jobs hold open
        return
    os.killpg(run.pid, getattr(signal, how.split()[0]))
    run.communicate(timeout=120)
    psutil.wait_procs(processes_of(own), timeout=120)
    assert processes_of(own) == []


@pytest.fixture
def place(tmp_path, how):
    """A folder for a clone, on a disk of its own where that is to be full."""
    path = tmp_path / "disk"
    path.mkdir()
    if how != "the disk full":
        yield path
        return
    with small_disk(path, ROOM):
        yield path


def set_back(own: Checkout) -> None:
    """Leave files as they look to whoever comes after the clock was set back by hours."""
    for path in own.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is at work
            status = path.lstat()
            times = [when + 10**13 for when in (status.st_atime_ns, status.st_mtime_ns)]
            os.utime(path, ns=tuple(times), follow_symlinks=False)


def fill(path: Path) -> None:
    """Leave no byte on the disk, whatever has room for it."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_a_run_that_was_disturbed_goes_on_to_the_same_bytes(undisturbed, place, how, moment):
    own, expected, seconds = undisturbed
    clone = own.clone(place / "clone")
    run = start(clone)
    # at that time, or sooner where the machine has become faster meanwhile
    latest = time.monotonic() + moment * seconds
    while time.monotonic() < latest and share_made(clone, expected) < LATEST:
        time.sleep(0.1)
    assert run.poll() is None
    if how == "the clock set back":
        set_back(clone)
        text, _ = run.communicate(timeout=600)
        assert run.returncode == 0, text
        assert len(ended(text)) == len(set(ended(text)))
        assert not jobs_in(clone.make("run", "small"))
    elif how == "the disk full":
        fill(place / "ballast")
        text, _ = run.communicate(timeout=600)
        assert run.returncode != 0, text
        assert "Traceback" not in text, text
        # how much is free depends on what the failed job has removed
        assert re.search(rf"the disk of {re.escape(str(place))} has [0-9.]+ MB free", text), text
        (place / "ballast").unlink()
        assert not jobs_in(again := clone.make("run", "small")) & set(ended(text)), text + again
    else:
        stop(clone, run, how)
        assert run.returncode != 0
        text = clone.make("run", "small")
        assert "error" not in text.lower(), text
    made = contents(clone.results("small"))
    assert {
        name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name)
    } == set()
    assert "all as this commit would make them" in clone.make("verify", "small")
    assert clone.planned(name="small") == set()
    shutil.rmtree(clone.folder)


# Snakemake, told to end while its main thread holds the lock that its handler of SIGTERM takes.
INTERRUPTED = """
import os, signal
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

finish = JobScheduler._finish_jobs

def interrupted(self):
    if self._tofinish:
        os.kill(os.getpid(), signal.SIGTERM)
    finish(self)

JobScheduler._finish_jobs = interrupted
main()
"""


@pytest.mark.slow
def test_a_run_ends_whenever_it_is_told_to(undisturbed, tmp_path):
    clone = undisturbed[0].clone(tmp_path / "clone")
    arguments = ["--configfile", "config/small.yaml", "--directory", "results/small"]
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        cwd=clone.folder,
        env=clone.environment(),
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    assert clone.planned(name="small") != set()


@pytest.mark.slow
def test_jobs_that_a_killed_run_left_at_work_are_stopped_and_go_on_from_their_checkpoints(
    undisturbed, tmp_path, request
):
    if request.config.option.faults < len(HOW):
        pytest.skip("takes a minute: part of `make test-faults`")
    clone = undisturbed[0].clone(tmp_path / "clone")
    longer = copy.deepcopy(SMALL)
    longer["tasks"]["a"]["training"] = {"epochs": 300}
    clone.write(longer)
    # without a server of steps, which would end them with the run
    run = start(clone, {"ACLL_STEP_SERVER": ""})
    checkpoint = clone.results("small") / "nodes/small/learned/seed0/a/dense.checkpoint"
    deadline = time.time() + 60
    while not checkpoint.exists() and time.time() < deadline:
        time.sleep(0.05)
    (left,) = (process for process in processes_of(clone) if runs(process, "acll.steps.train"))
    stop(clone, run, "SIGKILL to Snakemake alone")
    clone.make("run", "small")
    assert not left.is_running()
    log = (clone.results("small") / "logs/train/small/learned/seed0/a.log").read_text()
    assert "goes on after epoch" in log
    assert "all as this commit would make them" in clone.make("verify", "small")
