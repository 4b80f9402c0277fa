"""Processes that decode: results come in order, and no file stops those of others."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import psutil
import pytest

from acll.data import workers as module
from acll.data.workers import Lost, workers

CHUNKS = [list(range(begin, begin + 3)) for begin in range(0, 30, 3)]
ORPHANS = """
import sys, time
from acll.data.workers import workers
def function(part):
    return bytes(10_000_000)  # more than a pipe holds
with workers(function, 2) as pool:
    print(*(worker.process.pid for worker in pool.idle), flush=True)
    if sys.argv[1] == "busy":
        next(pool.map([[1]] * 50))
    time.sleep(60)
"""


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_order_whatever_takes_longer(processes):
    def slow_first(part):
        time.sleep(0.05 * (part < 3))
        return part * 2

    with workers(slow_first, processes) as pool:
        assert list(pool.map(CHUNKS)) == [[2 * part for part in chunk] for chunk in CHUNKS]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_part_at_which_its_process_dies_is_lost_and_no_other(processes):
    def deadly(part):
        if part in (4, 20):
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    with workers(deadly, processes) as pool:
        results = [result for chunk in pool.map(CHUNKS) for result in chunk]
    assert [part for part, result in enumerate(results) if isinstance(result, Lost)] == [4, 20]
    assert all(result == part for part, result in enumerate(results) if part not in (4, 20))


def test_a_part_that_never_ends_is_lost_and_no_other(monkeypatch):
    monkeypatch.setattr(module, "WORKER_PATIENCE", 0.5)

    def endless(part):
        while part == 4:
            time.sleep(1)
        return part

    with workers(endless, 2) as pool:
        results = [result for chunk in pool.map(CHUNKS[:3]) for result in chunk]
    assert [part for part, result in enumerate(results) if isinstance(result, Lost)] == [4]


def test_no_process_is_left_when_the_block_ends_early():
    with workers(lambda part: part, 2) as pool:
        pids = [worker.process.pid for worker in pool.idle]
        next(pool.map(CHUNKS))
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize(("how", "sent"), [("idle", signal.SIGTERM), ("busy", signal.SIGKILL)])
def test_processes_end_when_their_master_is_killed(how, sent):
    master = subprocess.Popen(
        [sys.executable, "-c", ORPHANS, how], stdout=subprocess.PIPE, text=True
    )
    orphans = [psutil.Process(int(pid)) for pid in master.stdout.readline().split()]
    time.sleep(0.3)
    master.send_signal(sent)
    master.wait()
    assert psutil.wait_procs(orphans, timeout=10)[1] == []


def test_a_process_that_is_killed_while_it_is_idle_is_replaced():
    with workers(lambda part: part, 1) as pool:
        pool.idle[0].process.kill()
        pool.idle[0].process.join()
        assert list(pool.map(CHUNKS)) == CHUNKS


def test_what_the_function_raises_is_raised_here():
    with (
        pytest.raises(RuntimeError, match="ZeroDivisionError"),
        workers(lambda part: 1 // part, 2) as pool,
    ):
        list(pool.map([[1], [0]]))


def dies_while_it_sends(connection, content):
    os.write(connection.fileno(), bytes(content)[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_part_at_whose_sending_its_process_is_killed_is_lost_and_no_other(processes):
    def deadly(part):
        if part == 4:
            Connection._send = dies_while_it_sends  # of this process alone
        return part

    with workers(deadly, processes) as pool:
        results = [result for chunk in pool.map(CHUNKS[:4]) for result in chunk]
    assert [part for part, result in enumerate(results) if isinstance(result, Lost)] == [4]
    assert results[4].why == "its process died of SIGKILL"
    assert results[4].by_machine


def test_a_part_that_no_process_lives_to_take_is_lost_and_no_other(monkeypatch):
    class Doomed(module._Worker):
        def __init__(self, function, others):
            super().__init__(function, others)
            self.process.kill()
            self.process.join()

    with workers(lambda part: part, 1) as pool:
        pool.idle[0].process.kill()
        pool.idle[0].process.join()
        monkeypatch.setattr(module, "_Worker", Doomed)
        (results,) = pool.map([[0, 1]])
    assert [result.why for result in results] == ["its process died of SIGKILL"] * 2


def test_a_process_whose_master_is_killed_while_it_sends_says_nothing(capfd):
    ours, theirs = module.multiprocessing.get_context("fork").Pipe()
    process = module.multiprocessing.get_context("fork").Process(
        target=module._work, args=(lambda part: part, theirs, [ours])
    )
    process.start()
    theirs.close()
    os.write(ours.fileno(), b"\0\0\0\x09half")
    ours.close()
    process.join(10)
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err
