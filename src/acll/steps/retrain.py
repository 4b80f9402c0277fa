"""Retrain what the task keeps, and commit it: the packed network of a node."""

from pathlib import Path

from acll.packing import file
from acll.packing.ownership import commit
from acll.packing.stage import load_state
from acll.steps._run import StepSettings, run
from acll.training.loop import Plan, Unfinished, fit
from acll.training.session import Node, learner_of, parent_of, record_of


class Parameters(StepSettings):
    """What the packed network depends on, beside its inputs."""

    node: Node


def main(*, pruned: Path, parent: Path | None, train: Path, network: Path, params: Parameters) -> None:
    """Write the packed network with one more task."""
    node = params.node
    learner = learner_of(node, train)
    state, keep, header = load_state(pruned)
    before = parent_of(node, parent)
    rate, seed = node.training.retrain_learning_rate, node.seed_for("retrain")
    plan = Plan(node.training.retrain_epochs, rate, seed, label=learner.header.name)
    unfinished = Unfinished(network.with_suffix(".checkpoint"), params.model_dump_json())
    fitted = fit(learner, state, plan, keep, unfinished)
    after = commit(
        before, record_of(learner.header, fitted.score, header["curve"], header["choice"]), fitted.state, keep
    )
    file.write(network, after)
    unfinished.path.unlink(missing_ok=True)
    print(f"{learner.header.name}: kept epoch {fitted.epoch}, validation {fitted.score:.4f}")
    left = sum(int((owner == 0).sum()) for owner in after.owner.values())
    print(f"{learner.header.name}: owns {after.tasks[-1].owned:,} weights; {left:,} are left free")
    if left == 0:
        print("warning: no weight is left free; later tasks can only train their heads, biases and normalisations")


if __name__ == "__main__":
    run(main)
