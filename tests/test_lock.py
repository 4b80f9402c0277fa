"""One run at a time, and no job without its run."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acll import lock
from acll.errors import UserError
from acll.lock import ALIVE, LOCK, RUN, held, in_use, job

ENDED = "the run that this job belongs to has ended"
HELD = """
import sys, time
from pathlib import Path
from acll.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
# the run starts its job itself, so that the job inherits what it needs to know
RUNS_A_JOB = """
import subprocess, sys, time
from pathlib import Path
from acll.lock import held
JOB = '''
import signal, sys, time
from pathlib import Path
from acll.lock import job
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with job(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(60)
print("done", flush=True)
'''
with held(Path(sys.argv[1])):
    command = [sys.executable, "-c", JOB, *sys.argv[1:]]
    process = subprocess.Popen(command, start_new_session=True)
    print(process.pid, flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def running(program, *arguments):
    """A process that has begun; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def foreign_job(results):
    """A file that shares the lock as a job of an earlier run does."""
    (results / LOCK).parent.mkdir(exist_ok=True)
    with (results / LOCK).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


def killed_run(results):
    """The id of a run that has been killed."""
    with running(HELD, results) as process:
        assert process.stdout.readline() == "held\n"
    return json.loads((results / LOCK).read_text())["run"]


# --------------------------------------------------------------------------------------------------
# one run at a time


def test_one_process_at_a_time_and_no_trace_of_those_that_ended(tmp_path):
    assert in_use(tmp_path) is None
    with held(tmp_path):
        assert f"results/{tmp_path.name}: in use by a run on" in in_use(tmp_path)
        with pytest.raises(UserError, match="in use by a run on"), held(tmp_path):
            pass
    assert in_use(tmp_path) is None
    with held(tmp_path):
        pass


def test_a_run_of_another_process_is_named_and_the_next_begins_when_it_is_killed(tmp_path):
    with running(HELD, tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        assert f"(process {process.pid}); wait for its end" in in_use(tmp_path)
        with pytest.raises(UserError, match=f"process {process.pid}"), held(tmp_path):
            pass
        process.kill()
        process.wait()
        assert in_use(tmp_path) is None
        with held(tmp_path):
            assert f"process {os.getpid()}" in in_use(tmp_path)


def test_a_run_that_has_ended_and_that_nobody_has_collected_is_no_run(tmp_path):
    with running(HELD, tmp_path) as process:
        process.stdout.readline()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # and it stays a zombie
        assert in_use(tmp_path) is None
        with held(tmp_path):
            pass


@pytest.mark.parametrize("before", [None, "another"])
def test_the_environment_names_the_run_as_long_as_it_lasts(tmp_path, monkeypatch, before):
    monkeypatch.delenv(RUN, raising=False)
    if before is not None:
        monkeypatch.setenv(RUN, before)
    seen = []
    for _ in range(2):
        with contextlib.suppress(KeyError), held(tmp_path):
            seen.append(os.environ[RUN])
            assert json.loads((tmp_path / LOCK).read_text())["run"] == os.environ[RUN]
            raise KeyError
        assert os.environ.get(RUN) == before
    assert len({*seen, before}) == 3


def test_a_run_waits_for_jobs_of_a_killed_one_and_says_so(tmp_path, capsys):
    killed_run(tmp_path)
    with foreign_job(tmp_path) as file:
        assert "in use by jobs of a run that was killed" in in_use(tmp_path)
        release = subprocess.Popen(["sleep", "1.5"], stdin=file)  # which has the lock as long
    with held(tmp_path):
        assert release.wait() == 0
    assert capsys.readouterr().out.count("waiting until the jobs of a killed run") == 1


def test_jobs_that_do_not_end_are_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STOPPING", 0.2)
    killed_run(tmp_path)
    refused = pytest.raises(UserError, match="in use by jobs of a run that was killed; stop them")
    with foreign_job(tmp_path), refused, held(tmp_path):
        pass


def test_whoever_looks_at_a_lock_for_a_moment_does_not_keep_a_run_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_MOMENT", 10.0)
    with contextlib.ExitStack() as looking:
        (tmp_path / ALIVE).parent.mkdir()
        file = looking.enter_context((tmp_path / ALIVE).open("a+b"))
        fcntl.flock(file, fcntl.LOCK_SH)
        let_go = subprocess.Popen(["sleep", "0.3"], stdin=file)
        looking.close()
        with held(tmp_path):
            assert let_go.wait() == 0


def test_a_lock_file_of_no_run_is_in_nobodys_way(tmp_path):
    (tmp_path / LOCK).parent.mkdir()
    for content in ("", "[1]", "{", '{"host": "x"}', "null"):
        (tmp_path / LOCK).write_text(content)
        assert in_use(tmp_path) is None
        with foreign_job(tmp_path):
            assert "in use by another run that has just begun" in in_use(tmp_path)
        with held(tmp_path):
            assert "in use by a run on" in in_use(tmp_path)


def test_results_in_which_nothing_may_be_written_are_refused_in_words(tmp_path):
    (tmp_path / ".snakemake").write_text("a file, which even root cannot make a folder of")
    with pytest.raises(UserError, match=r"run\.lock: cannot be written: "), held(tmp_path):
        pass


# --------------------------------------------------------------------------------------------------
# how files are opened


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the kernel: (name, kind of lock, how the file was open)."""
    found = set()

    def flock(file, kind, real=fcntl.flock):
        descriptor = file if isinstance(file, int) else file.fileno()
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        found.add((name, kind & ~fcntl.LOCK_NB, mode))
        return real(file, kind)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    return found


def test_a_lock_that_is_held_alone_is_of_a_file_open_for_writing(tmp_path, asked):
    with held(tmp_path):
        assert in_use(tmp_path) is not None
        with job(tmp_path):
            time.sleep(0.6)
    alone = {(name, mode) for name, kind, mode in asked if kind == fcntl.LOCK_EX}
    assert alone == {("run.lock", os.O_RDWR), ("run.alive", os.O_RDWR)}
    assert {mode for _, kind, mode in asked if kind == fcntl.LOCK_SH} <= {os.O_RDWR, os.O_RDONLY}


def test_where_files_may_only_be_read_it_is_known_whether_a_run_lives(tmp_path, monkeypatch, asked):
    def read_only(path, mode="r", *arguments, real=lock.Path.open, **more):
        if mode.strip("bt") != "r":
            raise PermissionError(13, "Permission denied")
        return real(path, mode, *arguments, **more)

    with held(tmp_path):
        asked.clear()
        with monkeypatch.context() as patched:
            patched.setattr(lock.Path, "open", read_only)
            assert "in use by a run on" in in_use(tmp_path)
            refused = pytest.raises(UserError, match="cannot be written: Permission denied")
            with refused, held(tmp_path):
                pass
        assert asked == {("run.alive", fcntl.LOCK_SH, os.O_RDONLY)}
    monkeypatch.setattr(lock.Path, "open", read_only)
    assert in_use(tmp_path) is None
    (tmp_path / ALIVE).unlink()
    assert in_use(tmp_path) is None


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(UserError, match="has no locks"), held(tmp_path):
        pass


# --------------------------------------------------------------------------------------------------
# jobs


def test_a_job_without_a_run_needs_no_lock(tmp_path, monkeypatch):
    monkeypatch.delenv(RUN, raising=False)
    with job(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_job_keeps_the_lock_from_others_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STOPPING", 0.1)
    monkeypatch.setattr(lock, "_end_with_run", lambda alive, done: None)  # it does not notice
    with contextlib.ExitStack() as run:
        run.enter_context(held(tmp_path))
        with job(tmp_path):
            run.close()
            assert "in use by jobs of a run that was killed" in in_use(tmp_path)
            with pytest.raises(UserError, match="in use by jobs"), held(tmp_path):
                pass
    assert in_use(tmp_path) is None


def test_a_job_of_another_run_is_refused(tmp_path, monkeypatch):
    earlier = killed_run(tmp_path)
    with held(tmp_path), monkeypatch.context() as environment:
        environment.setenv(RUN, earlier)
        with pytest.raises(UserError, match=ENDED), job(tmp_path):
            raise AssertionError


def test_a_job_of_a_run_that_was_killed_is_refused_though_no_other_has_begun(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN, killed_run(tmp_path))
    with pytest.raises(UserError, match=ENDED), job(tmp_path):
        raise AssertionError


def test_a_job_whose_results_are_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN, "0123")
    with pytest.raises(UserError, match=f"make run CONFIG={tmp_path.name}"), job(tmp_path):
        raise AssertionError


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("how", ["plain", pytest.param("deaf", marks=pytest.mark.slow)])
def test_a_job_of_a_killed_run_stops_by_itself_and_the_next_run_begins(tmp_path, sent, how):
    if how == "deaf" and sent == signal.SIGTERM:
        pytest.skip("takes seconds, and is the same")
    with running(RUNS_A_JOB, tmp_path, how) as run:
        pid = int(run.stdout.readline())
        assert run.stdout.readline() == "at work\n"
        time.sleep(1.2)
        os.kill(pid, 0)  # while its run lives it is left alone
        run.send_signal(sent)
        run.wait(5)
        begin = time.monotonic()
        with held(tmp_path):
            took = time.monotonic() - begin
        assert took < (5 if how == "plain" else 12)  # about 1 and 6
        output, errors = run.communicate(timeout=5)  # the job has closed its ends
    assert output == ""
    assert re.fullmatch("stops, since the run that it belongs to has ended\n", errors)


def test_a_job_that_is_done_is_not_stopped(tmp_path, capfd):
    with held(tmp_path), job(tmp_path):
        pass
    time.sleep(0.6)
    assert capfd.readouterr().err == ""
