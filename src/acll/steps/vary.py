"""Make the prepared files of a task of a series from those of the task that the series is of."""

import json
from pathlib import Path

from acll.data import prepared
from acll.data.faults import noticed_lines
from acll.data.variation import vary
from acll.files import write_json
from acll.parameters.vary import VaryParams
from acll.steps._run import run_step


def main(
    *,
    source_train: Path,
    source_test: Path,
    source_summary: Path,
    train: Path,
    test: Path,
    summary: Path,
    params: VaryParams,
) -> None:
    """Write `<task>.train.safetensors`, `<task>.test.safetensors` and `<task>.json`."""
    prepared.allow_test()  # to write that of the variant
    about = json.loads(source_summary.read_text(encoding="utf-8"))
    found = vary(params.name, params, (source_train, source_test), about, (train, test))
    write_json(summary, found)
    sizes = ", ".join(f"{split} {count}" for split, count in found["samples"].items())
    print(f"{params.name}: {len(found['classes'])} classes; {sizes}")
    if params.train_samples is not None:  # else they are those of the task that it is made from
        for line in noticed_lines(params.name, found, f"results/{Path.cwd().name}/report.html"):
            print(line)


if __name__ == "__main__":
    run_step(main)
