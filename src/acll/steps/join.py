"""Train one network on several tasks at once: joint training."""

from pathlib import Path

from acll.baselines.joint import Joint, joined
from acll.packing import file
from acll.settings import Training
from acll.steps._run import StepSettings, run
from acll.training.loop import Plan, Unfinished, fit
from acll.training.metrics import score
from acll.training.session import Node, learner_of, parent_of, record_of


class Parameters(StepSettings):
    """What the network depends on, beside its inputs."""

    node: Node  # its prefix has one step, of all tasks
    trainings: dict[str, Training]  # of the batches and losses of each task, in the order of their data


def main(*, trains: list[Path], network: Path, params: Parameters) -> None:
    """Write the network of all tasks: the state of the epoch with the best mean score on the validation splits."""
    node = params.node
    nodes = [node.model_copy(update={"training": training}) for training in params.trainings.values()]
    learners = tuple(learner_of(own, path, pretrained=True) for own, path in zip(nodes, trains, strict=True))
    before = parent_of(node, None)
    joint = Joint(learners, tuple(before.shared), node.training)
    plan = Plan(node.training.epochs, node.training.learning_rate, node.seed_for("train"), label="joint")
    unfinished = Unfinished(network.with_suffix(".checkpoint"), params.model_dump_json())
    fitted = fit(joint, joint.network.state_dict(), plan, None, unfinished)
    joint.network.load_state_dict(fitted.state)
    scores = [score(seen) for seen in joint.look()]
    records = [record_of(one.header, own, (), {}) for one, own in zip(learners, scores, strict=True)]
    file.write(network, joined(before, records, fitted.state))
    unfinished.path.unlink(missing_ok=True)
    print(f"kept epoch {fitted.epoch}, mean validation {fitted.score:.4f}")


if __name__ == "__main__":
    run(main)
