"""Search how much of what the task trained can be released."""

from dataclasses import asdict
from pathlib import Path

import torch

from acll.files import checkpoint_of, write_json, write_text
from acll.networks.channels import ChannelGraph
from acll.packing.task_state_file import free_of, load_state
from acll.packing.tensor_file import content_key
from acll.parameters.search import SearchParams
from acll.search.retraining import Retraining, search_task
from acll.search.run import search
from acll.search.trials import TrialLog, trials_frame
from acll.steps._run import run_step
from acll.steps._setup import learner_of


def main(
    *,
    dense: Path,
    parent: Path | None,
    train: Path,
    trials: Path,
    choice: Path,
    params: SearchParams,
    key: str = "",
) -> None:
    """Write the table of trials and the choice.

    One that was killed goes on after its last trial.
    """
    node = params.node
    learner = learner_of(node, train, params.batches)
    state, _, header = load_state(dense)
    free = free_of(parent, state, header["shared"])
    count, total = (
        sum(int(count(mask)) for mask in free.values()) for count in (torch.sum, torch.numel)
    )
    print(f"{learner.info.name}: {count:,} of {total:,} weights are free")
    log = TrialLog(checkpoint_of(choice), content_key(key, dense, train, parent))
    channels = (
        ChannelGraph(learner.network, learner.some_images()) if params.scope == "channel" else None
    )
    retraining = Retraining(
        learner, params.schedule, state, free, params.scope, params.release, channels
    )
    seed = node.seed_for("search")
    task = search_task(retraining, params.search, params.dense_epochs, params.cap, seed)
    decided, rows = search(params.search, task, log)
    write_text(trials, trials_frame(rows).to_csv(index=False))
    write_json(choice, asdict(decided))
    for warning in decided.warnings:
        print(f"warning: {learner.info.name}: {warning}")
    if decided.ratio_searched is not None:
        between = f"{decided.ratio_low:.4f} to {decided.ratio_high:.4f}"
        print(f"{learner.info.name}: searched ratio {decided.ratio_searched:.4f} ({between})")
    print(f"{learner.info.name}: ratio {decided.ratio:.4f}")


if __name__ == "__main__":
    run_step(main)
