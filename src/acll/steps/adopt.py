"""Take a dense network as it is: what comes after training in methods that release nothing."""

from pathlib import Path

from acll.data.prepared import header_from
from acll.packing import file
from acll.packing.ownership import commit, free, overwrite
from acll.packing.stage import load_state
from acll.steps._run import StepSettings, run
from acll.training.session import Node, parent_of, record_of


class Parameters(StepSettings):
    """What the network depends on, beside its inputs."""

    node: Node
    frozen: bool  # whether earlier tasks keep their weights, or see from now on what this one has made of them


def main(*, dense: Path, parent: Path | None, network: Path, params: Parameters) -> None:
    """Write the network with one more task."""
    state, _, header = load_state(dense)
    before = parent_of(params.node, parent)
    record = record_of(header_from(header["task"]), header["score"], header["curve"], {})
    if params.frozen:
        after = commit(before, record, state, free(before, record.kind))
    else:
        after = overwrite(before, record, state)
    file.write(network, after)


if __name__ == "__main__":
    run(main)
