"""Files appear whole or not at all, whatever happens to the processes that write them."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acll.errors import UserError
from acll.files import finished_path, unfinished_path, write_json, written

KILLED = """
import os, signal, sys
from pathlib import Path
from acll.files import written
with written(Path(sys.argv[1])) as beside:
    beside.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""
PATIENT = """
import sys, time
from pathlib import Path
from acll.files import written
for _ in range(50):
    with written(Path(sys.argv[1])) as beside, beside.open("w") as file:
        for _ in range(20):
            file.write(sys.argv[2])
            file.flush()
"""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_no_score(tmp_path, value):
    with pytest.raises(UserError, match="not finite"):
        write_json(tmp_path / "scores.json", {"rows": [{"score": value}]})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_is_gone_after_the_next_one(tmp_path):
    path = tmp_path / "file"
    assert (
        subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode
        == -signal.SIGKILL
    )
    assert not path.exists()
    with written(path) as beside:
        beside.write_text("new")
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "new"


def test_processes_that_write_at_once_take_turns(tmp_path):
    path = tmp_path / "file"
    with ThreadPoolExecutor(4) as pool:
        ends = pool.map(
            lambda one: subprocess.run([sys.executable, "-c", PATIENT, path, one], check=False),
            "abcd",
        )
        assert [end.returncode for end in ends] == [0] * 4
    assert path.read_text() in {letter * 20 for letter in "abcd"}
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), written(path) as beside, beside.open("w") as file:
        file.writelines(["half", 1])
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "old"


def test_what_a_library_writes_can_be_read_by_those_who_can_read_other_files(tmp_path):
    (tmp_path / "plain").write_text("x")
    with written(tmp_path / "made") as beside:
        beside.unlink()
        beside.touch(0o600)
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_name_that_was_meant_is_told_from_that_of_an_unfinished_file():
    for name in ("a/x.png", ".x", "x.partial", ".x.partial"):
        path = Path(name)
        assert finished_path(path) != unfinished_path(path)
        assert finished_path(unfinished_path(path)) == path
    for name in ("a/x.png", "x.partial", ".x"):
        assert finished_path(Path(name)) == Path(name)
