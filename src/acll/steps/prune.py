"""Release the smallest of the weights that the task trained."""

import json
from pathlib import Path
from typing import Any

from acll.packing import stage
from acll.search.space import factors_of
from acll.settings import Scope
from acll.steps._run import StepSettings, run
from acll.training.session import Node, channels_of, learner_of

FIGURES = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "cost")


class Parameters(StepSettings):
    """What the pruned network depends on, beside its inputs."""

    ratio: float | None  # fixed; None: the choice of the search
    scope: Scope
    node: Node | None  # given with the scope `channel`, which has to know the network


def main(
    *, dense: Path, parent: Path | None, choice: Path | None, train: Path | None, pruned: Path, params: Parameters
) -> None:
    """Write the pruned network, with the masks of what it keeps. train: given with `node`."""
    state, _, header = stage.load_state(dense)
    decided: dict[str, Any] = {"ratio": params.ratio}
    if choice is not None:
        decided = json.loads(choice.read_text(encoding="utf-8"))
    free = stage.free_of(parent, state, header["shared"])
    factors = factors_of(list(free), decided.get("shape", {}))
    channels = channels_of(learner_of(params.node, train)) if params.node is not None and train is not None else None
    after, keep = stage.pruned(state, free, decided["ratio"], params.scope, factors, channels)
    figures = {key: decided.get(key) for key in FIGURES}
    stage.save_state(pruned, after, {"task": header["task"], "curve": header["curve"], "choice": figures}, keep)
    kept, total = sum(int(mask.sum()) for mask in keep.values()), sum(int(mask.sum()) for mask in free.values())
    print(f"{header['task']['name']}: keeps {kept:,} of {total:,} free weights")


if __name__ == "__main__":
    run(main)
