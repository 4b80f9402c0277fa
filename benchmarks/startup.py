"""How much of the time of a run's jobs is spent on starting their steps.

    python benchmarks/startup.py demo [--share]

Reads how long each job took (results/<name>/benchmarks, written by Snakemake), and measures, three
times and by the median, how long each step takes from its command to its first own line: with the
server that a run on one machine starts (`acll.steps._server`), and started by itself, with the
libraries of its network. The server's own start is counted once. Run it on a machine that has
nothing else to do. `--share` prints the share alone.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from acll.config.checks import load_configuration
from acll.steps._client import SERVER, THREADS
from acll.steps._server import StepServer, libraries_of

ROOT = Path(__file__).resolve().parent.parent
REPEATED = 3


def median_seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def asked_for_help(step: str, environment: dict[str, str]) -> None:
    """Start a step that imports all and then says how it is used."""
    command = [sys.executable, "-S", "-m", "acll.steps._client", step, "--help"]
    subprocess.run(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def main() -> None:
    name = sys.argv[1]
    folder = ROOT / f"results/{name}/benchmarks"
    if not folder.is_dir():
        sys.exit(f"{folder}: there is no such folder; run the pipeline first")
    configuration = load_configuration(ROOT / f"config/{name}.yaml")
    paths = sorted(folder.rglob("*.tsv"))
    steps = [path.relative_to(folder).parts[0].removesuffix(".tsv") for path in paths]
    threads = dict.fromkeys(THREADS, str(configuration.threads))
    libraries = libraries_of(configuration)
    imports = "; ".join(f"import {library}" for library in libraries) or "pass"
    late = median_seconds(lambda: subprocess.run([sys.executable, "-c", imports], check=True))
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path(".snakemake").mkdir()
        start = time.perf_counter()
        server = StepServer(sorted(set(steps)), libraries, configuration.threads)
        asked_for_help("train", threads)
        first = time.perf_counter() - start
        found = {}
        for step in dict.fromkeys(steps):
            forked = median_seconds(lambda step=step: asked_for_help(step, threads))
            by_itself = median_seconds(
                lambda step=step: asked_for_help(step, threads | {SERVER: ""})
            )
            found[step] = forked, by_itself + (late if step in ("train", "search") else 0.0)
        server.stop()
        os.chdir(ROOT)
    for step, path in zip(steps, paths, strict=True):
        seconds = float(pd.read_csv(path, sep="\t")["s"].iloc[0])
        rows.append((step, seconds, *found[step]))
    columns = ["step", "job_s", "start_s", "start_alone_s"]
    table = pd.DataFrame(rows, columns=columns).groupby("step", sort=False)
    summary = table.agg(
        jobs=("job_s", "size"),
        job_s=("job_s", "sum"),
        start_s=("start_s", "sum"),
        start_alone_s=("start_alone_s", "sum"),
    )
    summary.loc["the server"] = [0, 0.0, first, 0.0]
    summary.loc["all"] = summary.sum()
    summary["share"] = summary["start_s"] / summary["job_s"]
    summary["jobs"] = summary["jobs"].astype(int)
    if "--share" in sys.argv:
        print(summary.loc["all", "share"])
    else:
        print(summary.round(3).to_string())


if __name__ == "__main__":
    main()
