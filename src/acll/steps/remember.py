"""Write what a method takes along to the next task, beside the network."""

from pathlib import Path

from acll.methods.registry import method
from acll.packing import packed_file, tensor_file
from acll.packing.ownership import task_state_dict
from acll.packing.task_state_file import load_state
from acll.parameters.commit import RememberParams
from acll.steps._run import run_step
from acll.steps._setup import learner_of


def main(
    *,
    network: Path,
    dense: Path,
    train: Path,
    memory_before: Path | None,
    memory: Path,
    params: RememberParams,
) -> None:
    """Write the memory of the tasks so far."""
    trained, _, _ = load_state(dense)
    learner = learner_of(params.node, train, params.batches)
    learner.network.load_state_dict(
        task_state_dict(packed_file.read_packed(network), learner.info.name)
    )
    earlier = tensor_file.load_tensors(memory_before)[0] if memory_before is not None else {}
    seed = params.node.seed_for("importance")
    after = method(params.type).remember(learner, trained, earlier, seed)
    tensor_file.save_tensors(memory, after, {})


if __name__ == "__main__":
    run_step(main)
