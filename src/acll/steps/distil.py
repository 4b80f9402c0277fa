"""Train a new task while the heads of earlier ones keep their outputs: learning without forgetting."""

from pathlib import Path

from acll.baselines.lwf import distilling, with_earlier
from acll.packing import file
from acll.packing.ownership import starting_state
from acll.settings import LwF
from acll.steps._run import StepSettings, run
from acll.training.session import Node, learner_of, train_dense


class Parameters(StepSettings):
    """What the dense network depends on, beside its inputs."""

    node: Node
    lwf: LwF


def main(*, train: Path, parent: Path, dense: Path, params: Parameters) -> None:
    """Write the dense network, with the heads of earlier tasks."""
    learner = learner_of(params.node, train)
    before = file.read(parent)
    start = starting_state(before, learner.header.kind, learner.network.state_dict())
    own = distilling(learner, before, params.lwf, params.node.network)
    train_dense(params.node, own, with_earlier(start, before), {}, dense, params.model_dump_json())


if __name__ == "__main__":
    run(main)
