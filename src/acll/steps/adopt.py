"""Plain fine-tuning: the newly trained state takes the place of the old one."""

from pathlib import Path

from acll.data.prepared import header_from
from acll.packing import file
from acll.packing.ownership import overwrite
from acll.packing.stage import load_state
from acll.steps._run import StepSettings, run
from acll.training.session import Node, parent_of, record_of


class Parameters(StepSettings):
    """What the network depends on, beside its inputs."""

    node: Node


def main(*, dense: Path, parent: Path | None, network: Path, params: Parameters) -> None:
    """Write the network with one more task; the earlier ones see its weights from now on."""
    state, _, header = load_state(dense)
    record = record_of(header_from(header["task"]), header["score"], header["curve"], {})
    file.write(network, overwrite(parent_of(params.node, parent), record, state))


if __name__ == "__main__":
    run(main)
