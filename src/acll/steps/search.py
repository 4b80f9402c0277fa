"""Search how much of what the task trained can be released."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from acll.files import write_json, write_text
from acll.packing.file import content_key
from acll.packing.stage import free_of, load_state
from acll.search.attempt import attempt_of
from acll.search.run import TrialLog, search
from acll.settings import Search
from acll.steps._run import StepSettings, run
from acll.training.session import Node, learner_of


class Parameters(StepSettings):
    """What the choice depends on, beside its inputs."""

    node: Node
    search: Search
    scope: str
    cap: float | None


def main(*, dense: Path, parent: Path | None, train: Path, trials: Path, choice: Path, params: Parameters) -> None:
    """Write the table of trials and the choice."""
    node = params.node
    learner = learner_of(node, train)
    state, _, header = load_state(dense)
    free = free_of(parent, state, header["shared"])
    log = TrialLog(trials.with_suffix(".checkpoint"), content_key(params.model_dump_json(), dense, train, parent))
    decided, rows = search(
        params.search,
        node.training.retrain_epochs,
        attempt_of(learner, state, free, params.scope),
        params.cap,
        len(learner.validation),
        node.seed_for("search"),
        log,
    )
    write_text(trials, pd.DataFrame(map(asdict, rows)).to_csv(index=False))
    write_json(choice, asdict(decided))
    log.remove()
    for warning in decided.warnings:
        print(f"warning: {learner.header.name}: {warning}")
    print(f"{learner.header.name}: searched ratio {decided.ratio_searched:.4f}, ratio {decided.ratio:.4f}")


if __name__ == "__main__":
    run(main)
