"""Retrain what the task keeps, and commit it: the packed network of a node."""

from dataclasses import replace
from pathlib import Path

from acll.files import checkpoint_of
from acll.packing import packed_file
from acll.packing.ownership import commit, free
from acll.packing.task_state_file import final_of, load_state
from acll.packing.tensor_file import content_key
from acll.parameters.retrain import RetrainParams
from acll.steps._calibration import calibrated
from acll.steps._run import run_step
from acll.steps._setup import learner_of, packed_at, task_record
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learned import Scored
from acll.training.loop import FitConfig, FitResult, fit


def main(
    *,
    pruned: Path,
    dense: list[Path],
    parent: Path | None,
    train: Path,
    network: Path,
    params: RetrainParams,
    key: str = "",
) -> None:
    """Write the packed network with one more task.

    dense: the network that is learned from, too, if any, and the wider one of a method that grows.
    Where the search has retrained what its choice keeps, that is taken over: it has the bits that
    retraining would come to.
    """
    state, keep, header = load_state(pruned)
    width = header["width"]
    node = params.node.at_width(width)
    learner = learner_of(node, train, params.batches)
    name = learner.info.name
    packed = packed_at(params.node, parent, width)
    kind = learner.info.kind
    scored = Scored(free(packed, kind), params.reuse) if params.criterion == "learned" else None
    if "retrained" in header:
        result = FitResult(state, **header["retrained"])
    else:
        own, may_move = learner, keep
        if scored is not None:
            kept = 1 - header["choice"]["ratio"]
            own, may_move = scored.learner(learner, kept), dict(scored.free)
        if dense:
            teacher = scored.dense(learner) if scored is not None else learner
            own = distilled(own, teacher, load_state(final_of(dense, ())[0])[0])
        config = FitConfig(params.schedule, node.seed_for("retrain"), label=name)
        given = content_key(key, pruned, *dense, parent, train)
        checkpoint = Checkpoint(checkpoint_of(network), given)
        result = fit(own, state, config, may_move, checkpoint)
        if scored is not None:
            final, keep = scored.finished(result.state)
            result = replace(result, state=final)
    metric = params.batches.metric
    record = task_record(
        learner.info, metric, result.score, header["curve"], header["choice"], width
    )
    after = commit(packed, record, result.state, keep, params.reuse)
    after = calibrated(after, {name: learner.validation}, learner.device)
    packed_file.write_packed(network, after)
    what = f"kept epoch {result.epoch}" if result.epoch else "kept as it was trained"
    print(f"{name}: {what}, validation {result.score:.4f}")
    left = sum(int((owner == 0).sum()) for owner in after.owner.values())
    print(f"{name}: owns {after.tasks[-1].owned:,} weights; {left:,} are left free")
    if left == 0:
        print(
            "warning: no weight is left free; later tasks can only train their heads, biases "
            "and normalisations"
        )


if __name__ == "__main__":
    run_step(main)
