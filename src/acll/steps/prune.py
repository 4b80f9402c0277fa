"""Release the smallest of the weights that the task trained."""

import json
from pathlib import Path
from typing import Any

from acll.packing.prune import keep_masks
from acll.packing.stage import free_of, load_state, released, save_state
from acll.search.space import factors_of
from acll.settings import Scope
from acll.steps._run import StepSettings, run

FIGURES = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "cost")


class Parameters(StepSettings):
    """What the pruned network depends on, beside its inputs."""

    ratio: float | None  # fixed; None: the choice of the search
    scope: Scope


def main(*, dense: Path, parent: Path | None, choice: Path | None, pruned: Path, params: Parameters) -> None:
    """Write the pruned network, with the masks of what it keeps."""
    state, _, header = load_state(dense)
    decided: dict[str, Any] = {"ratio": params.ratio}
    if choice is not None:
        decided = json.loads(choice.read_text(encoding="utf-8"))
    free = free_of(parent, state, header["shared"])
    factors = factors_of(list(free), decided.get("shape", {}))
    keep = keep_masks({name: state[name] for name in free}, free, decided["ratio"], params.scope, factors)
    figures = {key: decided.get(key) for key in FIGURES}
    after = released(state, free, keep, header["norms"] if params.scope == "channel" else {})
    save_state(pruned, after, {"task": header["task"], "curve": header["curve"], "choice": figures}, keep)
    kept, total = sum(int(mask.sum()) for mask in keep.values()), sum(int(mask.sum()) for mask in free.values())
    print(f"{header['task']['name']}: keeps {kept:,} of {total:,} free weights")


if __name__ == "__main__":
    run(main)
