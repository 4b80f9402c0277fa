"""Take a trained network as it is, as its method says: what comes after training where nothing is
released."""

from pathlib import Path

from acll.data.batches import splits_of
from acll.data.prepared import task_info_from
from acll.methods.registry import method
from acll.packing import packed_file
from acll.packing.task_state_file import load_state
from acll.parameters.commit import CommitParams
from acll.steps._calibration import calibrated
from acll.steps._gpu import prepare_device
from acll.steps._run import run_step
from acll.steps._setup import packed_before, task_record


def main(
    *, dense: Path, parent: Path | None, train: list[Path], network: Path, params: CommitParams
) -> None:
    """Write the network with one more task, or with all that were learned at once."""
    state, _, header = load_state(dense)
    records = [
        task_record(
            task_info_from(one["task"]), one["metric"], one["score"], one["curve"], {}, one["width"]
        )
        for one in header["tasks"]
    ]
    device = prepare_device(params.node.threads)
    before = packed_before(params.node, parent)
    after = method(params.type).commit(before, records, state)
    found = {info.name: validation for _, validation, info in map(splits_of, train)}
    packed_file.write_packed(network, calibrated(after, found, device))


if __name__ == "__main__":
    run_step(main)
