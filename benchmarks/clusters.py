"""What a run costs under Slurm, against one on the same machine without.

    python benchmarks/clusters.py --out docs/benchmarks/clusters.csv

Needs a Slurm that answers (`sinfo`), best one of this machine alone. Runs the demo twice in clones:
by `make run`, and by `make run PROFILE=slurm`. A row for each: its seconds, how many jobs were
submitted, how many seconds these ran for and how many of them were steps, and how many networks are
those of the other run, byte for byte.
"""

import argparse
import csv
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from acll.cluster.queue import job_names
from acll.files import sha256

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["where", "seconds", "jobs", "in_jobs", "in_steps", "networks", "equal"]


def clone(folder: Path) -> Path:
    """A clone of the last commit that uses this environment."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    (folder / ".venv").symlink_to(Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")).resolve())
    (folder / ".git/info/exclude").write_text(".venv\n")
    return folder


def seconds_of(shown: str) -> int:
    """The seconds of what squeue shows as [[hours:]minutes:]seconds."""
    total = 0
    for part in shown.split(":"):
        total = 60 * total + int(part)
    return total


def watch(names: str, found: dict[str, int], done: threading.Event) -> None:
    """Note the running time of all jobs whose names begin so, until told to end."""
    command = ["squeue", "--noheader", "--states=all", "--format=%A %M %j"]
    while not done.wait(1.0):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in said.splitlines():
            number, shown, name = line.split(maxsplit=2)
            if name.startswith(names):
                found[number] = seconds_of(shown)


def run(folder: Path, *arguments: str) -> tuple[float, dict[str, int]]:
    """Run the demo; return its seconds, and the running time of each job."""
    found: dict[str, int] = {}
    done = threading.Event()
    if arguments:
        names = job_names(folder / "results/demo")
        threading.Thread(target=watch, args=(names, found, done), daemon=True).start()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    began = time.perf_counter()
    command = ["make", "--old-file=.venv/installed", "run", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    seconds = time.perf_counter() - began
    time.sleep(2)  # for the last look
    done.set()
    return seconds, found


def steps(folder: Path, submitted: bool) -> float:
    """The seconds of all steps, or of those of nodes, which are submitted."""
    total = 0.0
    for path in (folder / "results/demo/benchmarks").rglob("*.tsv"):
        if not submitted or "seed" in path.as_posix():
            with path.open() as file:
                total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    return total


def networks(folder: Path) -> dict[str, str]:
    results = folder / "results/demo"
    paths = results.glob("nodes/**/network.safetensors")
    return {path.relative_to(results).as_posix(): sha256(path) for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary:
        local, cluster = (clone(Path(temporary) / name) for name in ("local", "slurm"))
        local_seconds, _ = run(local)
        seconds, found = run(cluster, "PROFILE=slurm")
        ours, others = networks(local), networks(cluster)
        equal = sum(others.get(path) == digest for path, digest in ours.items())
        body = [
            ["local", f"{local_seconds:.1f}", 0, "", f"{steps(local, False):.1f}", len(ours), ""],
            [
                "slurm",
                f"{seconds:.1f}",
                len(found),
                sum(found.values()),
                f"{steps(cluster, True):.1f}",
                len(others),
                equal,
            ],
        ]
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *body])


if __name__ == "__main__":
    main()
