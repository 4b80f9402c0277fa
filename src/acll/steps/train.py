"""Train a task's free weights on top of what earlier tasks own: the dense network of a node."""

from pathlib import Path
from typing import Literal

from acll.packing.ownership import free, starting_state, still
from acll.steps._run import StepSettings, run
from acll.training.session import Node, learner_of, parent_of, train_dense


class Parameters(StepSettings):
    """What the dense network depends on, beside its inputs."""

    node: Node
    free_weights: Literal["fresh", "zero", "pretrained"]
    freeze: Literal["nothing", "weights", "features"]  # of earlier tasks


def main(*, train: Path, parent: Path | None, dense: Path, params: Parameters) -> None:
    """Write the dense network: the state of the best epoch on the validation split."""
    learner = learner_of(params.node, train, pretrained=params.free_weights == "pretrained")
    before = parent_of(params.node, parent)
    kind = learner.header.kind
    start = starting_state(before, kind, learner.network.state_dict(), start_zero=params.free_weights == "zero")
    masks = {} if params.freeze == "nothing" else free(before, kind)
    if params.freeze == "features":
        masks |= still(before, start)
    train_dense(params.node, learner, start, masks, dense, params.model_dump_json())


if __name__ == "__main__":
    run(main)
