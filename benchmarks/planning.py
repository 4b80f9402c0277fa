"""How long it takes to say what has to run, for a configuration of a thousand nodes.

    python benchmarks/planning.py

Makes a synthetic configuration (orders of ten tasks under two methods), plans it three times with nothing done, lets
Snakemake mark all of it as done (empty files, real records), plans it three times again, and prints the medians.
"""

import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from acll.config import parse
from acll.tree import Node, nodes, searches

ROOT = Path(__file__).resolve().parent.parent
NODES = 1000
TASKS = [f"task{index}" for index in range(10)]
METHODS = {"adaptive": {"ratio": {"search": "tpe"}}, "half": {"ratio": 0.5}}


def configuration() -> dict:
    """Random orders of the tasks, as many as make the number of nodes."""
    generator = random.Random(0)
    sequences: dict[str, dict] = {}
    for index in itertools.count():
        sequences[f"order{index}"] = {"network": "small", "tasks": generator.sample(TASKS, len(TASKS))}
        task = {"source": "generated", "kind": "classification", "image_size": 8, "classes": 2, "samples": 40}
        whole = {
            "name": "many",
            "tasks": {name: task | {"difficulty": 0.5} for name in TASKS},
            "networks": {"small": {"backbone": "resnet_small"}},
            "sequences": sequences,
            "methods": METHODS,
        }
        if len(nodes(parse(whole))) >= NODES:
            return whole


def outputs(whole: dict) -> set[str]:
    """Every file that a run of it would leave."""
    parsed = parse(whole)
    files = {f"data/{task}.{split}.safetensors" for task in TASKS for split in ("train", "test")}
    files |= {f"tables/{name}" for name in ("scores.csv", "final.csv", "summary.csv", "metrics.json", "tables.txt")}
    files |= {f"figures/{name}.png" for name in ("scores", "shares", "search")}
    for node in nodes(parsed):
        files |= {node.dense, *(f"{node.folder}/{name}" for name in names(node, searches(parsed, node)))}
    return files


def names(node: Node, searched: bool) -> list[str]:
    """What a node of a packing method holds, beside its dense network."""
    return ["pruned.safetensors", "network.safetensors", "scores.json", *(["trials.csv", "choice.json"] * searched)]


def main() -> None:
    whole = configuration()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "many"
        path = Path(folder) / "many.yaml"
        path.write_text(yaml.safe_dump(whole))
        command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", path, "--directory", results]
        print(f"{len(nodes(parse(whole)))} nodes, {len(outputs(whole))} files")
        print(f"planning, nothing done: {seconds(command):.1f} s")
        for name in outputs(whole):
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            (results / name).touch()
        run([*command, "--touch", "--no-hooks", "--cores", "500"])
        print(f"planning, all done: {seconds(command):.1f} s")


def seconds(command: list) -> float:
    """Median of three dry-runs."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        run([*command, "--dry-run", "--quiet", "all"])
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def run(command: list) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)


if __name__ == "__main__":
    main()
