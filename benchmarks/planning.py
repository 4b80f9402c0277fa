"""How long it takes to say what has to run, and to verify it, for configurations of many nodes.

    python benchmarks/planning.py --nodes 1000 10000 --out docs/benchmarks/planning.csv

Makes synthetic configurations (orders of ten tasks under two methods) and plans each with nothing
done. Then it writes an empty file for each result, with the record and digest that a job would have
left, and plans and verifies that: medians of three, and the most memory that a process took. Last,
once, what Snakemake itself takes to find that nothing is to be done, as each run has it do. Rows
take the place of those of as many nodes.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from acll.config.checks import parse
from acll.config.tree import nodes
from acll.plan import Job, command
from acll.sharing.planned import jobs_of
from acll.sharing.records import record_path

ROOT = Path(__file__).resolve().parent.parent
TASKS = [f"task{index}" for index in range(10)]
METHODS = {"adaptive": {"ratio": {"search": "tpe"}}, "half": {"ratio": 0.5}}
EMPTY = hashlib.sha256(b"").hexdigest()
# Runs a command and says at its end the most KiB that it took. A process of its own: to the most of
# a process counts what the one had that has started it.
WITH_MEMORY = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def configuration(count: int) -> dict:
    """Random orders of the tasks, as many as make this number of nodes, or a few more."""
    generator = random.Random(0)
    task = {
        "source": "generated",
        "kind": "classification",
        "image_size": 8,
        "classes": 2,
        "samples": 40,
    }
    whole = {
        "name": "many",
        "tasks": {name: task | {"difficulty": 0.5} for name in TASKS},
        "networks": {"small": {"backbone": "resnet_small"}},
        "sequences": {"order0": {"network": "small", "tasks": TASKS}},
        "methods": METHODS,
    }
    sequences, most = whole["sequences"], len(TASKS) * len(METHODS)  # nodes that a sequence adds
    while (lacking := count - len(nodes(parse(whole)))) > 0:
        for _ in range(max(lacking // most, 1)):
            order = generator.sample(TASKS, len(TASKS))
            sequences[f"order{len(sequences)}"] = {"network": "small", "tasks": order}
    return whole


def pretend(results: Path, job: Job) -> None:
    """Leave what the job would have left, with empty files."""
    record = {
        "rule": job.rule,
        "input": sorted(job.all_inputs),
        "params": [repr(job.text)],
        "code": command(job.rule),
        "input_checksums": dict.fromkeys(job.all_inputs, f"sha256:{EMPTY}"),
        "record_format_version": 6,
        "incomplete": False,
    }
    texts = {results / record_path(output): json.dumps(record) for output in job.all_outputs}
    texts |= {results / output: "" for output in job.all_outputs}
    texts[results / job.digests] = "".join(f"{EMPTY}  {output}\n" for output in job.all_outputs)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def measured(count: int) -> dict:
    """A row for a configuration of so many nodes, or a few more."""
    whole = configuration(count)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("Snakefile", "workflow", "src", "profiles"):
            (root / name).symlink_to(ROOT / name)
        (root / "config").mkdir()
        (root / "config/many.yaml").write_text(yaml.safe_dump(whole))
        results = root / "results/many"
        snakemake = [
            "snakemake", "--configfile", "config/many.yaml", "--directory", "results/many",
            "--dry-run",
        ]  # fmt: skip
        plan, verify = (["acll", command, "config/many.yaml"] for command in ("plan", "verify"))
        jobs = jobs_of(root, "many")
        files = sum(len(job.all_outputs) for job in jobs)
        row = {"nodes": len(nodes(parse(whole))), "jobs": len(jobs), "results": files}
        everything = f"{len(jobs)} of {len(jobs)} jobs"
        row["plan_nothing_done"], _ = seconds_and_mb(root, plan, everything)
        for job in jobs:
            pretend(results, job)
        (results / ".snakemake/incomplete").mkdir(exist_ok=True)
        row["plan_all_done"], of_plan = seconds_and_mb(root, plan, "nothing to run")
        row["verify"], of_verify = seconds_and_mb(root, verify, f"{files} results, all as")
        row["memory_mb"] = max(of_plan, of_verify)
        found = seconds_and_mb(root, snakemake, "Nothing to be done", times=1)
        row["snakemake"], row["snakemake_memory_mb"] = found
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    table = pd.DataFrame([measured(count) for count in given.nodes]).round(1)
    print(table.to_string(index=False))
    if given.out:
        before = pd.read_csv(given.out) if given.out.exists() else table.iloc[:0]
        kept = before[~before["nodes"].isin(table["nodes"])]
        pd.concat([kept, table]).sort_values("nodes").to_csv(given.out, index=False)


def seconds_and_mb(
    root: Path, command: list[str], says: str, times: int = 3
) -> tuple[float, float]:
    """Medians of some runs of a command that ends well and says this: time, and most memory."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    taken, memory = [], []
    for _ in range(times):
        begin = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", WITH_MEMORY, *command],
            cwd=root, capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        taken.append(time.perf_counter() - begin)
        text = result.stdout + result.stderr
        if result.returncode or says not in text:
            sys.exit(text[-3000:])
        memory.append(int(result.stdout.split()[-1]) / 1024)
    return statistics.median(taken), statistics.median(memory)


if __name__ == "__main__":
    main()
