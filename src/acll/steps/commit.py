"""Take a trained network as it is, as its method says: what comes after training where nothing is
released."""

from pathlib import Path

from acll.data.prepared import task_info_from
from acll.methods.registry import method
from acll.packing import packed_file
from acll.packing.task_state_file import load_state
from acll.parameters.commit import CommitParams
from acll.steps._run import run_step
from acll.steps._setup import packed_before, task_record


def main(*, dense: Path, parent: Path | None, network: Path, params: CommitParams) -> None:
    """Write the network with one more task, or with all that were learned at once."""
    state, _, header = load_state(dense)
    records = [
        task_record(
            task_info_from(one["task"]), one["metric"], one["score"], one["curve"], {}, one["width"]
        )
        for one in header["tasks"]
    ]
    packed_file.write_packed(
        network, method(params.type).commit(packed_before(params.node, parent), records, state)
    )


if __name__ == "__main__":
    run_step(main)
