"""Release a part of the weights that the task trained, at once or while it is trained on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acll.files import checkpoint_of
from acll.networks.build import build
from acll.networks.channels import ChannelGraph
from acll.networks.spec import Network
from acll.packing import task_state_file
from acll.packing.ownership import State
from acll.packing.tensor_file import content_key
from acll.parameters.node import NodeParams
from acll.parameters.prune import PruneParams
from acll.steps._run import run_step
from acll.steps._setup import free_of, learner_of, pruned_header
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learned import Scored, as_trained, release_learned
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig
from acll.training.release import Pruning, release

# the state after the release, masks of what is kept so far, and what else the header says
Released = tuple[State, State, dict[str, Any]]


@dataclass(frozen=True)
class Dense:
    """The dense network of a task.

    task: what its header says of the task. score: on the validation split. state: its state dict.
    free: boolean masks of what the task could train. train: its data, where the release is a
    training.
    """

    task: dict[str, Any]
    score: float
    state: State
    free: State
    train: Path | None


def main(
    *,
    dense: list[Path],
    parent: Path | None,
    choice: Path | None,
    held: list[Path],
    train: Path | None,
    pruned: Path,
    params: PruneParams,
    key: str = "",
) -> None:
    """Write the pruned network, with the masks of what it keeps.

    dense, held: of a method that grows also those of the wider network. Where the search has
    released and retrained what its choice keeps, that is taken over.
    """
    final, held_there = task_state_file.final_of(dense, held)
    state, _, header = task_state_file.load_state(final)
    (learned,) = header["tasks"]
    task = learned["task"]
    decided: dict[str, Any] = {"ratio": params.ratio}
    if choice is not None:
        decided = json.loads(choice.read_text(encoding="utf-8"))
    free = free_of(params.node, parent, state, header)
    about = pruned_header(learned, decided)
    taken = task_state_file.load_state(held_there) if held_there is not None else ({}, {}, {})
    if taken[0]:
        after, keep, of_trial = taken
        about["retrained"] = of_trial["retrained"]
    else:
        node = params.node.at_width(learned["width"])
        content = content_key(key, *dense, parent, choice, *held, train)
        checkpoint = Checkpoint(checkpoint_of(pruned), content)
        released_by = _by_scores if params.criterion == "learned" else _by_magnitude
        own = Dense(task, learned["score"], state, free, train)
        after, keep, result = released_by(node, params, own, decided["ratio"], checkpoint)
        about |= result
    task_state_file.save_state(pruned, after, about, keep)
    kept, total = (
        sum(int(mask.sum()) for mask in keep.values()),
        sum(int(mask.sum()) for mask in free.values()),
    )
    print(f"{task['name']}: keeps {kept:,} of {total:,} free weights")
    if total and not kept:
        what = "channel of each layer" if params.scope == "channel" else "weight"
        print(
            f"warning: a ratio of {decided['ratio']} has no room for one {what}; only what is "
            "the task's own learns"
        )


def _by_scores(
    node: NodeParams, params: PruneParams, dense: Dense, ratio: float, checkpoint: Checkpoint
) -> Released:
    """Release all but the largest scores: a smaller share is read. node: at its width.

    What keeps the share that it was trained with needs no retraining.
    """
    learner, config = _training(node, params, dense)
    scored, kept = Scored(dense.free, params.reuse), 1 - ratio
    if as_trained(learner.network, kept):
        return *scored.finished(dense.state), {"retrained": {"score": dense.score, "epoch": 0}}

    def taught(own: TaskLearner) -> TaskLearner:
        teacher = scored.dense(learner)
        return distilled(own, teacher, dense.state) if params.distill else own

    state = release_learned(learner, dense.state, scored, kept, config, taught, checkpoint)
    return state, scored.finished(state)[1], {}


def _by_magnitude(
    node: NodeParams, params: PruneParams, dense: Dense, ratio: float, checkpoint: Checkpoint
) -> Released:
    """Release the smallest weights. node: at its width."""
    channels = _channels(node.network, dense.task) if params.scope == "channel" else None
    pruning = Pruning(dense.free, params.scope, channels)
    if params.schedule is None:
        return *pruning.at_once(dense.state, ratio), {}
    learner, config = _training(node, params, dense)
    taught = distilled(learner, learner, dense.state) if params.distill else learner
    return *release(taught, dense.state, pruning, ratio, config, checkpoint), {}


def _training(node: NodeParams, params: PruneParams, dense: Dense) -> tuple[TaskLearner, FitConfig]:
    """Return the learner of the task, and the training of the release."""
    assert dense.train is not None  # the plan sees to it
    assert params.batches is not None
    assert params.schedule is not None
    learner = learner_of(node, dense.train, params.batches)
    return learner, FitConfig(params.schedule, node.seed_for("prune"), label=learner.info.name)


def _channels(network: Network, task: dict[str, Any]) -> ChannelGraph:
    built = build(network, task["kind"], len(task["classes"]), 0, pretrained=False)
    return ChannelGraph(built, torch.ones(1, network.channels, *task["image_size"]))


if __name__ == "__main__":
    run_step(main)
