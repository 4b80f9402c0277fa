"""What a person sees of a run: in a terminal, in a log, after Ctrl-C, where a job has failed."""

import copy
import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import termios
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from PIL import Image

from checkouts import ROOT, SMALL, Checkout, checkout, ended
from snakemake_logger_plugin_acll.progress import Progress, Running, last_line, warnings_in

pytestmark = pytest.mark.slow


def goes_on(own: Checkout) -> str:
    """What is said of a run that stopped: the command has the place of raw data."""
    return f"`make run CONFIG=small DATA={own.data}` goes on where this stopped"


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command that runs in a terminal of its own."""

    def __init__(self, command, **how):
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))

        def take_it():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_it,
            **how,
        )
        os.close(slave)
        self.said = ""

    def read_until(self, word, seconds=120):
        """Read what it shows until a word comes, or to its end where there is none."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                part = os.read(self._master, 4096)
            except OSError:  # it has ended
                assert word is None, self.said
                return
            self.said += part.decode(errors="replace")
            if word is not None and word in self.said:
                return
        pytest.fail(f"no {word!r} in {self.said}")

    def type(self, text):
        os.write(self._master, text.encode())


def works(process):
    """Whether a process lives, and not only waits for somebody to take note of its end."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def own(tmp_path):
    found = checkout(tmp_path / "checkout", tmp_path / "nowhere")
    found = replace(found, starts_server=True)  # which Ctrl-C has to end
    longer = copy.deepcopy(SMALL)
    longer["tasks"]["a"]["training"] = {"epochs": 300}
    found.write(longer)
    found.commit()
    return found


def test_a_terminal_shows_what_runs_and_ctrl_c_ends_it_in_two_seconds_with_a_line(own):
    terminal = Terminal(own.command("run", "small"), cwd=own.folder, env=own.environment())
    terminal.read_until("/300")
    assert "train small/learned/seed0/a" in terminal.said
    assert re.search(r"\d+ of \d+ jobs", terminal.said)
    at_work = psutil.Process(terminal.process.pid).children(recursive=True)
    terminal.said, start = "", time.monotonic()
    terminal.type("\x03")
    terminal.read_until(None)
    assert terminal.process.wait() == -signal.SIGINT  # a shell calls this 130
    assert time.monotonic() - start < 2
    assert [process for process in at_work if works(process)] == []
    # the display may have been drawn once more before
    *_, last = [line for line in ESCAPES.sub("", terminal.said).splitlines() if line.strip()]
    assert last == f"interrupted: {goes_on(own)}"
    own.write(SMALL)
    assert "train small/learned/seed0/a" in ended(own.make("run", "small"))


def test_a_log_has_a_line_a_job_and_no_words_of_snakemake(own):
    own.write(SMALL)
    text = own.make("run", "small")
    assert len(ended(text)) == len(set(ended(text))) > 10
    for word in (
        "Building DAG",
        "Job stats",
        "rule train",
        "Select jobs",
        "started",
        "Complete log",
    ):
        assert word not in text
    said = own.make("run", "small", "V=1")
    assert "Nothing to be done" in said or "Building DAG" in said


def test_where_raw_data_are_missing_it_is_told_and_snakemake_is_never_run(own):
    faulty = copy.deepcopy(SMALL)
    faulty["tasks"]["a"] = {"source": "image_folder", "path": "gone", "image_size": 8}
    own.write(faulty)
    said = own.run("acll", "run", "config/small.yaml", fails=True)
    assert said.startswith("error: config/small.yaml: tasks.a: ")
    assert "gone" in said
    assert not (own.folder / "results/small").exists()


def test_snakemake_has_the_code_of_the_checkout_whose_rules_it_runs(own):
    with (own.folder / "src/acll/plan.py").open("a") as file:
        file.write("raise RuntimeError('the code of this checkout')\n")
    environment = {key: value for key, value in own.environment().items() if key != "PYTHONPATH"}
    result = subprocess.run(
        ["acll", "run", "config/small.yaml"],
        cwd=own.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "the code of this checkout" in result.stderr + result.stdout


def test_a_job_that_fails_is_named_with_its_reason_and_its_log_and_nothing_else(own):
    broken = copy.deepcopy(SMALL)
    broken["training"] = broken.get("training", {}) | {"learning_rate": 1e9, "optimizer": "sgd"}
    own.write(broken)
    text = own.make("run", "small", fails=True)
    failing = text[text.index("failed  ") :].splitlines()
    rest = [line for line in failing if not re.match(r"(failed|\d+ of \d+)  ", line)]
    assert re.fullmatch(
        r"train/small/learned/seed0/\w+: error: .* lower the learning rate", rest[0]
    )
    assert re.fullmatch(r"  log: results/small/logs/train/small/learned/seed0/\w+\.log", rest[1])
    assert f"mend this, and {goes_on(own)}" in rest
    assert len(rest) <= 8, text
    assert (own.folder / rest[1].removeprefix("  log: ")).is_file()


def test_faults_of_all_tasks_are_told_by_one_run_and_nothing_else_begins_after_the_first(own):
    raw = own.data
    for task in ("a", "b", "c"):
        for name in ("x", "y"):
            (raw / task / "train" / name).mkdir(parents=True)
            for number in range(10):
                values = np.full((8, 8), 20 * number + (name == "y"), np.uint8)
                Image.fromarray(values).save(raw / task / "train" / name / f"{number}.png")
    for task in ("a", "c"):
        (raw / task / "train/x/3.png").write_bytes(b"rubbish")
    folder = {"source": "image_folder", "image_size": 8}
    broken = copy.deepcopy(SMALL) | {
        "tasks": {task: folder | {"path": task} for task in ("a", "b", "c")},
        "sequences": {"one": {"network": "small", "tasks": ["a", "b", "c"]}},
    }
    own.write(broken)
    own.commit()
    text = own.make("run", "small", fails=True)
    for task in ("a", "c"):
        assert f"prepare/{task}: error: " in text
    assert ended(text) == ["prepare b"]
    assert text.count(f"mend this, and {goes_on(own)}") == 1


def test_the_display_reads_logs_that_are_absent_growing_or_of_other_bytes(tmp_path):
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    assert warnings_in(log) == []
    log.write_bytes(b"warning: a: few\nan \xff epoch\n\n")
    assert last_line(log) in ("", "an \N{REPLACEMENT CHARACTER} epoch")
    assert warnings_in(log) == ["warning: a: few"]
    progress = Progress({"train": 1}, {}, 0.0)
    progress.start(1, Running("train", "train a", log, 0.0))
    assert progress.fail(1, 3.0) == ["failed  train a (3 s)"]
    assert progress.fail(1, 3.0) == []


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("makefile", ["Makefile", "src/acll/cli/project/Makefile"])
def test_make_never_ends_well_where_its_run_was_interrupted(tmp_path, makefile, deaf):
    """A script starts what has `&` deaf to Ctrl-C; the run listens all the same."""
    shutil.copy(ROOT / makefile, tmp_path / "Makefile")
    (tmp_path / ".git").mkdir()
    program = tmp_path / ".venv/bin/acll"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 130\n")
    program.chmod(0o755)
    handler = signal.SIG_IGN if deaf else signal.SIG_DFL
    made = subprocess.run(
        ["make", "--old-file=.venv/installed", "run"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        capture_output=True,
        text=True,
    )
    assert made.returncode == (2 if deaf else -signal.SIGINT), made.stderr
    assert deaf or made.stderr == ""
