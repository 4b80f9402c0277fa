"""Search how much of what the task trained can be released."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from acll.files import checkpoint_of, write_json, write_text
from acll.networks.channels import ChannelGraph
from acll.packing.ownership import PackingError, State
from acll.packing.task_state_file import load_state, save_state
from acll.packing.tensor_file import content_key
from acll.parameters.search import SearchParams
from acll.search.retraining import Retraining, search_task
from acll.search.run import Choice, search
from acll.search.trials import TrialLog, trials_frame
from acll.steps._run import run_step
from acll.steps._setup import free_of, learner_of, pruned_header
from acll.training.checkpoint import Checkpoint
from acll.training.learned import Scored
from acll.training.learner import TaskLearner
from acll.training.loop import FitResult
from acll.training.release import Pruning


@dataclass(frozen=True)
class DenseTask:
    """A task with its dense network: what a search works on.

    about: what the header of the dense network says of the task. free: boolean masks of what the
    task could train.
    """

    learner: TaskLearner
    about: dict[str, Any]
    state: State
    free: State


@dataclass(frozen=True)
class Found:
    """Where a search writes the table of its trials, its choice, and the trial it rests on."""

    trials: Path
    choice: Path
    held: Path


def main(
    *,
    dense: Path,
    parent: Path | None,
    train: Path,
    trials: Path,
    choice: Path,
    held: Path,
    params: SearchParams,
    key: str = "",
) -> None:
    """Write the table of trials, the choice, and what the trial came to that it rests on.

    One that was killed goes on after its last trial.
    """
    state, _, header = load_state(dense)
    (learned,) = header["tasks"]
    learner = learner_of(params.node.at_width(learned["width"]), train, params.batches)
    free = free_of(params.node, parent, state, header)
    content = content_key(key, dense, train, parent)
    task = DenseTask(learner, learned, state, free)
    search_dense(params, task, Found(trials, choice, held), content)


def search_dense(params: SearchParams, dense: DenseTask, found: Found, content: str) -> Choice:
    """Search the ratio of a task, write what was found, and return the choice.

    content: all that the result depends on. A search of the same content that was killed goes on.
    """
    node, learner, free = params.node, dense.learner, dense.free
    count, total = (
        sum(int(count(mask)) for mask in free.values()) for count in (torch.sum, torch.numel)
    )
    print(f"{learner.info.name}: {count:,} of {total:,} weights are free")
    log = TrialLog(checkpoint_of(found.choice), content)
    best = _Held(checkpoint_of(found.held), content)
    way: Pruning | Scored = Scored(free, params.reuse)
    if params.criterion == "magnitude":
        by_channel = params.scope == "channel"
        channels = ChannelGraph(learner.network, learner.some_images()) if by_channel else None
        way = Pruning(free, params.scope, channels)
    retraining = Retraining(
        learner,
        params.schedule,
        dense.state,
        way,
        params.release,
        params.distill,
        (node.seed_for("prune"), node.seed_for("retrain")),
        (
            Checkpoint(checkpoint_of(found.held, "release"), content),
            Checkpoint(checkpoint_of(found.held, "retrain"), content),
        ),
    )
    seed = node.seed_for("search")
    task = search_task(retraining, params.search, params.dense_epochs, params.cap, seed, best.write)
    decided, rows = search(params.search, task, log)
    write_text(found.trials, trials_frame(rows).to_csv(index=False))
    write_json(found.choice, asdict(decided))
    save_state(found.held, *best.of(decided, pruned_header(dense.about, asdict(decided))))
    for part in ("release", "retrain"):  # of trials, which are all known
        checkpoint_of(found.held, part).unlink(missing_ok=True)
    for warning in decided.warnings:
        print(f"warning: {learner.info.name}: {warning}")
    if decided.ratio_searched is not None:
        between = f"{decided.ratio_low:.4f} to {decided.ratio_high:.4f}"
        print(f"{learner.info.name}: searched ratio {decided.ratio_searched:.4f} ({between})")
    print(f"{learner.info.name}: ratio {decided.ratio:.4f}")
    return decided


class _Held:
    """The result of the smallest trial that held so far, in a file."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def write(self, kept: float, result: FitResult, keep: State) -> None:
        """Keep the result of a trial, unless a smaller one has held."""
        known = self._read()
        if known is None or kept < known[2]["kept"]:
            header = {"key": self.key, "kept": kept, "score": result.score, "epoch": result.epoch}
            save_state(self.path, result.state, header, keep)

    def of(self, decided: Choice, header: dict[str, Any]) -> tuple[State, dict[str, Any], State]:
        """Return state, header and masks of the trial that a choice rests on.

        They are those of the pruned network that is made of it, which DVC then stores once. All are
        empty where it rests on none, or the file was lost; then what follows makes it anew. header:
        of a pruned network.
        """
        known = self._read()
        if known is None or not decided.confirmed or 1 - known[2]["kept"] != decided.ratio_searched:
            return {}, {}, {}
        state, keep, of_trial = known
        retrained = {name: of_trial[name] for name in ("score", "epoch")}
        return state, header | {"retrained": retrained}, keep

    def _read(self) -> tuple[State, State, dict[str, Any]] | None:
        """Return what is in the file; None where it is none of this search."""
        try:
            known = load_state(self.path)
        except (OSError, PackingError):
            return None
        return known if known[2].get("key") == self.key else None


if __name__ == "__main__":
    run_step(main)
