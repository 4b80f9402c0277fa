"""Take a trained network as it is, as its method says: what comes after training where nothing is
released."""

from pathlib import Path

from acll.data.prepared import header_from
from acll.methods.registry import method
from acll.packing import file
from acll.packing.stage import load_state
from acll.parameters.commit import CommitParams
from acll.steps._run import run
from acll.steps._setup import packed_before, record_of


def main(*, dense: Path, parent: Path | None, network: Path, params: CommitParams) -> None:
    """Write the network with one more task, or with all that were learned at once."""
    state, _, header = load_state(dense)
    records = [
        record_of(header_from(one["task"]), one["score"], one["curve"], {})
        for one in header["tasks"]
    ]
    file.write(
        network, method(params.type).commit(packed_before(params.node, parent), records, state)
    )


if __name__ == "__main__":
    run(main)
