"""Score every task of a node on its test split and check that nothing was forgotten; no other step reads tests."""

from dataclasses import asdict
from pathlib import Path

from acll.data import prepared
from acll.evaluation.score import evaluate
from acll.files import write_json
from acll.packing import file
from acll.packing.ownership import PackingError
from acll.steps._run import StepSettings, run
from acll.training.loop import prepare_process


class Parameters(StepSettings):
    """What the scores depend on, beside the inputs."""

    threads: int


def main(*, network: Path, tests: list[Path], scores: Path, params: Parameters) -> None:
    """Write the scores of all tasks of the node."""
    device = prepare_process(params.threads)
    prepared.allow_test()
    packed = file.read(network)
    by_name = {path.name.removesuffix(prepared.TEST): path for path in tests}
    evaluated = evaluate(packed, by_name, device)
    changed = [row.task for row in evaluated.rows if packed.record(row.task).frozen and not row.bit_exact]
    if changed:
        raise PackingError(f"{network}: the weights of {', '.join(changed)} are not what they were when learned")
    write_json(scores, asdict(evaluated))
    for row in evaluated.rows:
        print(f"{row.task}: {row.metric} {row.score:.4f}  {'bit-exact' if row.bit_exact else 'changed'}")


if __name__ == "__main__":
    run(main)
