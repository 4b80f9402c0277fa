"""The definitions of containers, as far as that goes without a daemon: they are linted, agree with
each other, and what they copy installs itself in a bare folder."""

import os
import re
import shutil
import subprocess

import pytest

from checkouts import BIN
from conftest import ROOT

DOCKERFILE = ROOT / "containers/Dockerfile"
DEFINITION = ROOT / "containers/apptainer.def"


def copied() -> list[str]:
    """What of the repository gets into an image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def section(name: str) -> list[str]:
    """The lines of a section of the definition."""
    text = DEFINITION.read_text()
    found = re.search(rf"^%{name}\n((?: {{4}}.*\n)+)", text, re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()]


def commands() -> list[str]:
    """What the Dockerfile runs, command by command."""
    text = DOCKERFILE.read_text().replace("\\\n", "")
    runs = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    return [" ".join(part.split()) for run in runs for part in run.split("&&")]


def test_the_dockerfile_is_linted():
    run = subprocess.run(
        [BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_both_definitions_make_the_same():
    assert [line.split()[0] for line in section("files")] == copied()
    assert {line.split()[1] for line in section("files")} == {"/opt/acll/"}
    assert [line for line in section("post") if not line.startswith("cd ")] == commands()
    bases = re.search(r"^FROM (.*)$", DOCKERFILE.read_text(), re.MULTILINE)[1]
    assert f"From: {bases}\n" in DEFINITION.read_text()


@pytest.mark.slow
def test_what_is_copied_installs_itself_in_a_bare_folder_and_runs_a_project(tmp_path):
    image = tmp_path / "opt"
    image.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, image / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, image / name)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["UV_COMPILE_BYTECODE"] = "0"  # which takes a minute; what runs here is little
    install = next(line for line in commands() if line.startswith("make "))
    subprocess.run(install.split(), cwd=image, env=environment, check=True)
    environment["PATH"] = f"{image}/.venv/bin:{os.environ['PATH']}"
    project = tmp_path / "project"
    for command in (["acll", "new", project], ["make", "-C", project, "check"]):
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
    assert (project / "profiles/slurm/config.yaml").is_file()
