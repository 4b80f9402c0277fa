"""Which GPU a job uses; no card is needed, since CUDA is not asked."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acll.steps._gpu import JOBS_PER_GPU, visible_gpus

TAKE = (
    "import os; from acll.steps._gpu import take_gpu; take_gpu(); take_gpu();"
    "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"
)


def job(stack, gpus, shared):
    """Start a process that takes a GPU and keeps it until its input ends."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpus, JOBS_PER_GPU: str(shared)}
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.kill)
    return process


def gpu_of(process):
    """The GPU that a process sees, which is what it says last."""
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
        jobs = [job(stack, ",".join(names), 1) for _ in names]
        found = {gpu_of(one)[0]: one for one in jobs}
        assert set(found) == set(names)
        fifth = job(stack, ",".join(names), 1)
        assert fifth.stdout.readline() == "waits until one of 4 GPUs is free\n"
        found[names[2]].kill()
        assert gpu_of(fifth) == (names[2], [f"uses GPU {names[2]}"])


def test_jobs_share_a_gpu_if_told_so_and_fill_all_of_them_alike(names):
    with ExitStack() as stack:
        for _ in range(2):
            jobs = [job(stack, ",".join(names[:2]), 2) for _ in range(2)]
            assert {gpu_of(one)[0] for one in jobs} == set(names[:2])


def test_where_a_scheduler_gives_gpus_nobody_takes_slots(names):
    with ExitStack() as stack:
        jobs = [job(stack, names[0], 0) for _ in range(2)]
        assert [gpu_of(one) for one in jobs] == [(names[0], []), (names[0], [])]


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("", []),
        ("-1", []),
        ("0,2", ["0", "2"]),
        (" 1 , GPU-ab", ["1", "GPU-ab"]),
        ("3,-1,2", ["3"]),
        ("3,,2", ["3"]),
    ],
)
def test_what_is_hidden_is_not_used(named, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == gpus


@given(st.integers(0, 12))
def test_without_the_variable_each_device_file_is_a_gpu(tmp_path_factory, count):
    devices = tmp_path_factory.mktemp("dev")
    for name in ["nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(count))]:
        (devices / name).touch()
    assert visible_gpus({}, devices) == [str(number) for number in range(count)]
