"""Release the smallest of the weights that the task trained."""

import json
from pathlib import Path
from typing import Any

import torch

from acll.networks.build import build
from acll.networks.channels import ChannelGraph
from acll.networks.spec import Network
from acll.packing import prune, task_state_file
from acll.parameters.prune import PruneParams
from acll.search.space import factors_of
from acll.steps._run import run_step

CHOICE_KEYS = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "cost")


def main(
    *, dense: Path, parent: Path | None, choice: Path | None, pruned: Path, params: PruneParams
) -> None:
    """Write the pruned network, with the masks of what it keeps."""
    state, _, header = task_state_file.load_state(dense)
    (learned,) = header["tasks"]
    task = learned["task"]
    decided: dict[str, Any] = {"ratio": params.ratio}
    if choice is not None:
        decided = json.loads(choice.read_text(encoding="utf-8"))
    free = task_state_file.free_of(parent, state, header["shared"])
    factors = factors_of(list(free), decided.get("group_log_scale", {}))
    channels = _channels(params.network, task) if params.scope == "channel" else None
    after, keep = prune.pruned(state, free, decided["ratio"], params.scope, factors, channels)
    figures = {key: decided.get(key) for key in CHOICE_KEYS}
    task_state_file.save_state(
        pruned, after, {"task": task, "curve": learned["curve"], "choice": figures}, keep
    )
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


def _channels(network: Network, task: dict[str, Any]) -> ChannelGraph:
    built = build(network, task["kind"], len(task["classes"]), 0, pretrained=False)
    return ChannelGraph(built, torch.ones(1, network.channels, *task["image_size"]))


if __name__ == "__main__":
    run_step(main)
