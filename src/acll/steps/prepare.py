"""Prepare a task: read its source, cut the splits, write the prepared files."""

from pathlib import Path

from acll.data import prepared
from acll.data.root import data_root
from acll.data.sources import read_splits
from acll.settings import AnyTask
from acll.steps._run import StepSettings, run


class Parameters(StepSettings):
    """What the prepared files depend on, beside the raw data."""

    name: str
    task: AnyTask


def main(*, train: Path, test: Path, params: Parameters) -> None:
    """Write `<task>.train.safetensors` and `<task>.test.safetensors`."""
    splits, classes = read_splits(params.task, data_root())
    prepared.write(params.name, params.task.kind, splits, classes, train, test)
    sizes = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
    print(f"{params.name}: {len(classes)} classes; {sizes}")


if __name__ == "__main__":
    run(main)
