"""Train a task's free weights on top of what earlier tasks own: the dense network of a node."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from acll.networks.partition import partition
from acll.packing.ownership import free, starting_state
from acll.packing.stage import save_state
from acll.steps._run import StepSettings, run
from acll.training.loop import Plan, Unfinished, fit
from acll.training.session import Node, learner_of, parent_of


class Parameters(StepSettings):
    """What the dense network depends on, beside its inputs."""

    node: Node
    free_weights: Literal["fresh", "zero", "pretrained"]
    freeze: bool  # whether the weights of earlier tasks stay as they are


def main(*, train: Path, parent: Path | None, dense: Path, params: Parameters) -> None:
    """Write the dense network: the state of the best epoch on the validation split."""
    node = params.node
    learner = learner_of(node, train, pretrained=params.free_weights == "pretrained")
    before = parent_of(node, parent)
    kind = learner.header.kind
    start = starting_state(before, kind, learner.network.state_dict(), start_zero=params.free_weights == "zero")
    masks = free(before, kind) if params.freeze else None
    plan = Plan(node.training.epochs, node.training.learning_rate, node.seed_for("train"), label=learner.header.name)
    unfinished = Unfinished(dense.with_suffix(".checkpoint"), params.model_dump_json())
    fitted = fit(learner, start, plan, masks, unfinished)
    header = {"shared": partition(learner.network).shared, "task": asdict(learner.header), "score": fitted.score}
    save_state(dense, fitted.state, header | {"curve": fitted.curve()})
    unfinished.path.unlink(missing_ok=True)
    print(f"{learner.header.name}: kept epoch {fitted.epoch}, validation {fitted.score:.4f}")


if __name__ == "__main__":
    run(main)
