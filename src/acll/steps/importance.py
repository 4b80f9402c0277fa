"""How much the tasks so far need each parameter: what elastic weight consolidation takes along to the next task."""

from pathlib import Path

from acll.baselines.ewc import accumulated, fisher
from acll.packing import container, file
from acll.packing.ownership import effective
from acll.steps._run import StepSettings, run
from acll.training.session import Node, learner_of


class Parameters(StepSettings):
    """What the importance depends on, beside its inputs."""

    node: Node


def main(*, network: Path, before: Path | None, train: Path, importance: Path, params: Parameters) -> None:
    """Write the Fisher information, summed over the tasks so far."""
    learner = learner_of(params.node, train)
    learner.network.load_state_dict(effective(file.read(network), learner.header.name))
    earlier = container.load(before)[0] if before is not None else {}
    container.save(importance, accumulated(earlier, fisher(learner, params.node.seed_for("importance"))), {})


if __name__ == "__main__":
    run(main)
