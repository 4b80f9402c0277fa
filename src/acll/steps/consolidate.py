"""Train a new task while what earlier ones need is drawn to where they left it: elastic weight consolidation."""

from pathlib import Path

from acll.baselines.ewc import consolidating
from acll.packing import container, file
from acll.packing.ownership import starting_state
from acll.settings import EWC
from acll.steps._run import StepSettings, run
from acll.training.session import Node, learner_of, train_dense


class Parameters(StepSettings):
    """What the dense network depends on, beside its inputs."""

    node: Node
    ewc: EWC


def main(*, train: Path, parent: Path, importance: Path, dense: Path, params: Parameters) -> None:
    """Write the dense network."""
    learner = learner_of(params.node, train)
    start = starting_state(file.read(parent), learner.header.kind, learner.network.state_dict())
    weights, _ = container.load(importance)
    own = consolidating(learner, start, weights, params.ewc.strength)
    train_dense(params.node, own, start, {}, dense, params.model_dump_json())


if __name__ == "__main__":
    run(main)
