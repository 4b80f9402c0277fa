"""Checkouts of this project as users have them: a git repository with two tiny configurations, DVC,
and raw data."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import cache_from_source
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from acll.config.checks import parse
from acll.networks.buildable import SOUND_NETWORKS, faults_and_notes
from acll.sharing.planned import CODE
from acll.sharing.raw import wanted_networks
from acll.steps._client import SERVER
from conftest import ROOT
from planner import dry_run
from step_server import step_server

GENERATED = {
    "source": "generated",
    "kind": "classification",
    "image_size": 8,
    "classes": 2,
    "samples": 40,
}
TINY = {
    "name": "tiny",
    "tasks": {
        "a": GENERATED | {"difficulty": 0.0},
        "b": {"source": "image_folder", "path": "raw", "image_size": 8,
              "training": {"epochs": 1, "retrain_epochs": 2}},
        "c": GENERATED | {"difficulty": 0.1, "training": {"epochs": 1}},
        "d": GENERATED | {"difficulty": 0.2},
    },
    "networks": {"small": {"backbone": "resnet_small"}},
    "sequences": {"one": {"network": "small", "tasks": ["a", "b", "c"]}},
    "methods": {"adaptive": {"ratio": {"search": "tpe", "budget": 0.5}, "expected_tasks": 3}},
    "seeds": [0],
    "training": {"epochs": 1, "retrain_epochs": 1, "batch_size": 16},
}  # fmt: skip
SMALL = {
    "name": "small",
    "tasks": {
        name: GENERATED | {"difficulty": difficulty}
        for name, difficulty in (("a", 0.0), ("b", 0.1), ("c", 0.2))
    },
    "networks": {"small": {"backbone": "resnet_small"}},
    "sequences": {"one": {"network": "small", "tasks": ["a", "b"]}},
    "methods": {"half": {"ratio": 0.5}},
    "training": {"epochs": 3, "retrain_epochs": 2, "batch_size": 16},
}
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Checkout:
    """A folder of its own with its own history; raw data lie elsewhere, or are not to be had.

    starts_server: whether its runs start a server of steps, as those of users, or have that of the
    tests.
    """

    folder: Path
    data: Path
    starts_server: bool = False

    def environment(self) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTEST", "ACLL"))
        }
        server = {} if self.starts_server else {SERVER: step_server()}
        return (
            kept
            | server
            | {
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PYTHONPATH": str(self.folder / "src"),
                "ACLL_DATA_ROOT": str(self.data),
            }
        )

    def run(self, *command: str, fails: bool = False) -> str:
        """What a command prints. It must end well, or with `fails` must not."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        text = result.stdout + result.stderr
        assert (result.returncode != 0) == fails, text
        assert "Traceback" not in text, text
        return text

    def make(self, target: str, name: str = "tiny", *arguments: str, fails: bool = False) -> str:
        return self.run(*self.command(target, name), *arguments, fails=fails)

    def command(self, target: str, name: str) -> list[str]:
        # the environment of the tests serves all checkouts, whatever the times of their
        # requirements
        return ["make", "--old-file=.venv/installed", target, f"CONFIG={name}"]

    def begun(self, name: str, *arguments: str) -> subprocess.Popen:
        """A run that goes on meanwhile, in a session of its own."""
        return subprocess.Popen(
            [*self.command("run", name), *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def commit(self, message: str = "change") -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def results(self, name: str = "tiny") -> Path:
        return self.folder / "results" / name

    def planned(self, configuration: dict | None = None, name: str = "tiny") -> set[str]:
        """The jobs that Snakemake would run, with this configuration in place of its own."""
        if configuration is not None:
            self.write(configuration)
        arguments = ["--configfile", f"config/{name}.yaml", "--directory", f"results/{name}"]
        code, text = dry_run(self.folder, self.environment(), *arguments, "--quiet", "host")
        assert code == 0, text
        assert "Traceback" not in text, text
        if configuration is not None:
            self.git("checkout", "--quiet", f"config/{name}.yaml")
        return jobs_in(text)

    def write(self, configuration: dict) -> None:
        text = yaml.safe_dump(configuration, sort_keys=False)
        (self.folder / f"config/{configuration['name']}.yaml").write_text(text)

    def clone(self, folder: Path, data: Path | None = None) -> "Checkout":
        subprocess.run(["git", "clone", "--quiet", self.folder, folder], check=True)
        other = replace(self, folder=folder, data=data or self.data)
        other.settle()
        return other

    def copy(self, folder: Path) -> "Checkout":
        """With all that lies in it: results, cache, records and history."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return replace(self, folder=folder)

    def settle(self) -> None:
        """Who commits here, and the environment."""
        self.git("config", "user.email", "colleague@example.org")
        self.git("config", "user.name", "Colleague")
        (self.folder / ".venv").symlink_to(BIN.parent)
        for name, known in known_files().items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(known, self.folder / name)
        (self.folder / ".git/info").mkdir(exist_ok=True)
        (self.folder / ".git/info/exclude").write_text(".venv\n")


READ_MODULES = f"""
import pathlib, sys
from acll.code import remembering
from acll.config.checks import parse
from acll.plan import plan
with remembering(pathlib.Path(sys.argv[1])):
    plan(parse({TINY}))
    plan(parse({SMALL}))
"""


@functools.cache
def known_files() -> dict[Path, Path]:
    """What commands note of the network of both configurations, and of the modules of the package.

    Without that each checkout would build the network and read all modules once more, which takes
    seconds. What is known goes by content.
    """
    folder = Path(tempfile.mkdtemp())
    found = {name: folder / name.name for name in (SOUND_NETWORKS, CODE)}
    nowhere = folder / "nowhere"
    networks = wanted_networks(parse(SMALL), nowhere, nowhere)
    assert faults_and_notes(networks, found[SOUND_NETWORKS]) == ([], [])
    # a process of its own: this one may have read modules before, and would note nothing
    subprocess.run([sys.executable, "-c", READ_MODULES, found[CODE]], check=True)
    return found


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Make a folder a disk of so many bytes; skip the test where that is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be made here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def jobs_in(text: str) -> set[str]:
    """The jobs that are named in what a run, or a dry run, prints, but pictures."""
    return without_pictures(all_jobs_in(text))


def all_jobs_in(text: str) -> set[str]:
    planned = re.findall(r"^Job \d+: (.*)$", text, re.MULTILINE)
    return {*planned, *ended(text)} - {"all results"}


def without_pictures(titles: Iterable[str]) -> set[str]:
    """Less the jobs that draw something of few networks, of which tests/test_plan.py tells."""
    return {one for one in titles if not one.startswith(("trace ", "masks ", "mistakes "))}


def ended(text: str) -> list[str]:
    """The jobs that a run says have ended, in the order of their ends."""
    return re.findall(r"^\d+ of \d+  (.*?) \(", text, re.MULTILINE)


def checkout(folder: Path, data: Path) -> Checkout:
    """A repository with this working tree, the two configurations and their stages; nothing has
    been run."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        if (
            (ROOT / name).is_file()
            and not name.startswith(("tests/", "docs/"))
            and name != "dvc.lock"
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
            compiled = Path(cache_from_source(name))  # by the time of its source, which stays
            if name.endswith(".py") and (ROOT / compiled).is_file():
                (folder / compiled).parent.mkdir(exist_ok=True)
                shutil.copy2(ROOT / compiled, folder / compiled)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
    own = Checkout(folder, data)
    own.settle()
    own.write(TINY)
    own.write(SMALL)
    stages = (folder / "dvc.yaml").read_text()
    stages = re.sub(r"foreach:\n(      - .*\n)+", "foreach:\n      - tiny\n      - small\n", stages)
    metrics = "".join(f"  - results/{name}/tables/metrics.json\n" for name in ("tiny", "small"))
    of_demo = stages.split("plots:\n")[1]
    plots = "".join(
        of_demo.replace("results/demo/", f"results/{name}/") for name in ("tiny", "small")
    )
    stages = f"{stages.split('metrics:')[0]}metrics:\n{metrics}plots:\n{plots}"
    (folder / "dvc.yaml").write_text(stages)
    own.commit("tiny configurations")
    return own


def finished(factory) -> tuple[Checkout, float]:
    """A checkout in which the small configuration has run, and how many seconds that took.

    All files of tests and all workers share it, since it is costly: to be copied or cloned, never
    to be changed.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, seconds = shared / "finished", shared / "finished.seconds"
    with FileLock(shared / "finished.lock"):
        if seconds.exists():
            return Checkout(folder, shared / "nowhere"), float(seconds.read_text())
        shutil.rmtree(folder, ignore_errors=True)
        own = checkout(folder, shared / "nowhere")
        begin = time.perf_counter()
        replace(own, starts_server=True).make("run", "small")
        seconds.write_text(str(time.perf_counter() - begin))
    return own, float(seconds.read_text())


def raw_images(folder: Path) -> Path:
    """A root of raw data with `raw/train/<class>/*.png`, two classes of ten images."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / "raw/train" / name).mkdir(parents=True)
        for index in range(10):
            pixels = generator.integers(100 * label, 100 * label + 100, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"raw/train/{name}/{index}.png")
    return folder


def contents(results: Path) -> dict[str, bytes]:
    """The bytes of what a run makes, less what differs from run to run."""
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file()
        and path.relative_to(results).parts[0] in ("data", "nodes", "tables", "figures", "digests")
    }
