"""Let a network segment a few test images, for a figure. After `evaluate` the only step that reads a test split."""

from pathlib import Path

from acll.data import prepared
from acll.evaluation.examples import examples as examples_of
from acll.evaluation.masks import write
from acll.packing import file
from acll.steps._run import StepSettings, run
from acll.training.loop import prepare_process


class Parameters(StepSettings):
    """What the predictions depend on, beside the inputs."""

    task: str
    threads: int


def main(*, network: Path, test: Path, examples: Path, params: Parameters) -> None:
    """Write images, truth and predictions."""
    device = prepare_process(params.threads)
    prepared.allow_test()
    write(examples, examples_of(file.read(network), params.task, test, device))


if __name__ == "__main__":
    run(main)
