"""Prepare a task: read and check its raw data, cut the splits, write the prepared files."""

from pathlib import Path

from acll.data.faults import noticed_lines
from acll.data.preparation import prepare
from acll.data.root import data_root, networks_channels
from acll.files import write_json
from acll.parameters.prepare import PrepareParams
from acll.settings import FEWEST_SAMPLES
from acll.steps._run import run_step


def main(
    *, train: Path, test: Path, summary: Path, report: Path, processes: int, params: PrepareParams
) -> None:
    """Write `<task>.train.safetensors`, `<task>.test.safetensors`, `<task>.json` and the report of
    faults."""
    channels = networks_channels(params.name)
    found = prepare(params.name, params.task, data_root(), train, test, report, processes, channels)
    write_json(summary, found)
    sizes = ", ".join(f"{split} {count}" for split, count in found["samples"].items())
    print(f"{params.name}: {len(found['classes'])} classes; {sizes}")
    seen_at = f"results/{Path.cwd().name}/{report}"
    for line in noticed_lines(params.name, found, seen_at):
        print(line)
    if found["samples"]["val"] < FEWEST_SAMPLES:
        few = f"{found['samples']['val']} validation samples"
        print(f"warning: {params.name}: {few}; below {FEWEST_SAMPLES} a score of them says little")


if __name__ == "__main__":
    run_step(main)
