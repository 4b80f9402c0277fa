"""Train a task on top of what earlier ones left, or several tasks at once: the dense network of a
node."""

from dataclasses import asdict
from pathlib import Path

from acll.files import checkpoint_of
from acll.methods.base import Before
from acll.networks.partition import partition
from acll.packing import tensor_file
from acll.packing.ownership import starting_state
from acll.packing.task_state_file import save_state
from acll.packing.tensor_file import content_key
from acll.parameters.train import TrainParams
from acll.steps._run import run_step
from acll.steps._setup import learner_of, packed_before
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, fit
from acll.training.metrics import score


def main(
    *,
    train: list[Path],
    parent: Path | None,
    memory: Path | None,
    dense: Path,
    params: TrainParams,
    key: str = "",
) -> None:
    """Write the dense network: the state of the best epoch on the validation split.

    One that was killed goes on from its last epoch.
    """
    packed, rule = packed_before(params.node, parent), params.rule
    node = params.node.at_width(packed.width)
    free_from = rule.free_from(len(node.prefix))
    learners = [
        learner_of(node, path, batches, pretrained=free_from == "pretrained")
        for path, batches in zip(train, params.batches, strict=True)
    ]
    remembered = tensor_file.load_tensors(memory)[0] if memory is not None else {}
    fresh = learners[0].network.state_dict()
    state = starting_state(packed, learners[0].info.kind, fresh, start_zero=free_from == "zero")
    start = rule.begin(learners, state, Before(packed, remembered))

    name = "joint" if len(learners) > 1 else learners[0].info.name
    config = FitConfig(params.schedule, node.seed_for("train"), label=name)
    checkpoint = Checkpoint(checkpoint_of(dense), content_key(key, *train, parent, memory))
    result = fit(start.learner, start.state, config, start.masks, checkpoint)

    scores, curve = [result.score], result.curve()
    if len(learners) > 1:
        start.learner.network.load_state_dict(result.state)
        scores, curve = [score(seen) for seen in start.learner.validate()], []
    tasks = [
        {"task": asdict(learner.info), "score": own, "curve": curve, "width": packed.width}
        for learner, own in zip(learners, scores, strict=True)
    ]
    save_state(
        dense, result.state, {"shared": partition(learners[0].network).shared, "tasks": tasks}
    )
    print(f"{name}: kept epoch {result.epoch}, validation {result.score:.4f}")


if __name__ == "__main__":
    run_step(main)
