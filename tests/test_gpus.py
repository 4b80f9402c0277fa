"""Which GPU a job uses; no card is needed, since CUDA is not asked."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acll.steps import _gpu
from acll.steps._gpu import GPUS, JOBS_PER_GPU, gpus_here, listed_gpus, visible_gpus
from conftest import driver

TAKE = (
    "import os; from acll.steps._gpu import take_gpu; take_gpu(); take_gpu();"
    "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"
)


def job(stack, gpus, shared):
    """Start a process that takes a GPU and keeps it until its input ends."""
    environment = os.environ | {GPUS: ",".join(gpus), JOBS_PER_GPU: str(shared)}
    environment["CUDA_VISIBLE_DEVICES"] = "as before"
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def gpu_of(process):
    """The GPU that a process sees, which it says last, and what it has said before."""
    lines = [process.stdout.readline().strip()]
    while lines[-1].startswith(("uses", "waits")):
        lines.append(process.stdout.readline().strip())
    return lines[-1], lines[:-1]


@pytest.fixture
def names():
    """Names of four GPUs that no other test uses at the same time."""
    return [f"GPU-{os.getpid()}-{number}" for number in range(4)]


def test_four_jobs_get_four_gpus_and_a_fifth_waits_for_the_end_of_one(names):
    with ExitStack() as stack:
        jobs = [job(stack, names, 1) for _ in names]
        found = {gpu_of(one)[0]: one for one in jobs}
        assert set(found) == set(names)
        fifth = job(stack, names, 1)
        assert fifth.stdout.readline() == "waits until one of 4 GPUs is free\n"
        found[names[2]].kill()
        assert gpu_of(fifth) == (names[2], [f"uses GPU {names[2]}"])


def test_jobs_share_a_gpu_if_told_so_and_fill_all_of_them_alike(names):
    with ExitStack() as stack:
        for _ in range(2):
            jobs = [job(stack, names[:2], 2) for _ in range(2)]
            assert {gpu_of(one)[0] for one in jobs} == set(names[:2])


def test_where_a_run_names_no_gpus_nobody_takes_slots():
    with ExitStack() as stack:
        jobs = [job(stack, [], 1) for _ in range(2)]
        assert [gpu_of(one) for one in jobs] == [("as before", []), ("as before", [])]


CARDS = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa11)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ab22)
  MIG 3g.20gb     Device  0: (UUID: MIG-c3)
  MIG 3g.20gb     Device  1: (UUID: MIG-d4)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-ee55)
"""
WHOLE = ["GPU-aa11", "GPU-ab22", "GPU-ee55"]


def test_parts_stand_in_place_of_the_gpu_that_has_them():
    assert listed_gpus(CARDS) == ["GPU-aa11", "MIG-c3", "MIG-d4", "GPU-ee55"]
    assert listed_gpus("No devices found.\n") == []


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        (None, WHOLE),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", ["GPU-ee55", "GPU-aa11"]),
        (" 1 , GPU-ee55", ["GPU-ab22", "GPU-ee55"]),
        ("GPU-e", ["GPU-ee55"]),
        ("GPU-a", []),  # two begin so
        ("0,7,1", ["GPU-aa11"]),
        ("0,,1", ["GPU-aa11"]),
        ("0,0", ["GPU-aa11"]),
    ],
)
def test_what_is_hidden_is_not_used(named, gpus):
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert visible_gpus(WHOLE, environment) == tuple(gpus)


@given(st.text(alphabet="0129-, GPUabe", max_size=20))
def test_whatever_is_named_only_gpus_that_are_there_are_used_each_once(named):
    found = visible_gpus(WHOLE, {"CUDA_VISIBLE_DEVICES": named})
    assert len(set(found)) == len(found)
    assert set(found) <= set(WHOLE)
    assert visible_gpus([], {"CUDA_VISIBLE_DEVICES": named}) == ()


@pytest.mark.parametrize(("says", "code", "gpus"), [(CARDS, 0, 4), (CARDS, 9, 0), ("", 0, 0)])
def test_a_driver_that_fails_is_no_gpu(tmp_path, monkeypatch, says, code, gpus):
    monkeypatch.setenv("PATH", str(driver(tmp_path, says, code)), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(gpus_here()) == gpus


@pytest.mark.parametrize(("named", "gpus"), [(None, ("0", "1")), ("1", ("1",)), ("2", ())])
def test_without_the_tool_of_the_driver_devices_are_counted(tmp_path, monkeypatch, named, gpus):
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia3"):
        (tmp_path / name).touch()
    monkeypatch.setattr(_gpu, "_DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus_here() == gpus


def test_all_steps_that_take_a_gpu_and_no_others_ask_for_one_and_for_their_threads():
    root = Path(__file__).parents[1]
    takes = {
        path.stem
        for path in (root / "src/acll/steps").glob("[!_]*.py")
        if re.search(r"\b(prepare_device|learner_of)\(", path.read_text())
    }
    texts = [path.read_text() for path in sorted((root / "workflow/rules").glob("*.smk"))]
    rules = dict(re.findall(r"^rule (\w+):\n(.*?)^(?=\S|\Z)", "\n".join(texts), re.M | re.S))
    assert {name for name, text in rules.items() if "gpu=gpus" in text} == takes
    for name in takes:
        assert "threads: CONFIGURATION.threads" in rules[name], name
