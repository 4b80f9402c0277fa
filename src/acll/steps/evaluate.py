"""Score the tasks of a node on their test splits and check that nothing was forgotten.

No other step reads test splits.
"""

from dataclasses import asdict
from pathlib import Path

from acll.data import prepared
from acll.evaluation.examples import write_examples
from acll.evaluation.predicted import examples_of, mistakes_of
from acll.evaluation.score import evaluate
from acll.files import write_json
from acll.packing import packed_file
from acll.packing.ownership import PackingError
from acll.parameters.evaluate import EvaluateParams
from acll.steps._gpu import prepare_device
from acll.steps._run import run_step


def main(
    *, network: Path, test: list[Path], scores: Path, examples: Path, params: EvaluateParams
) -> None:
    """Write the scores of all tasks of the node, and some images with what it makes of them.

    test: of the tasks that were learned here; what the network had learned before has no score.
    """
    device = prepare_device(params.threads)
    prepared.allow_test()
    packed = packed_file.read_packed(network)
    tests = {path.name.removesuffix(prepared.TEST): path for path in test}
    evaluated = evaluate(packed, tests, device)
    changed = [
        row.task for row in evaluated.rows if packed.record(row.task).frozen and not row.bit_exact
    ]
    if changed:
        raise PackingError(
            f"{network}: the weights of {', '.join(changed)} are not what they were when learned"
        )
    mistakes = mistakes_of(packed, tests, evaluated.rows, device)
    write_examples(examples, examples_of(packed, tests, device), mistakes)
    write_json(scores, asdict(evaluated))
    for row in evaluated.rows:
        scored = "no test images" if row.score is None else f"{row.metric} {row.score:.4f}"
        print(f"{row.task}: {scored}  {'bit-exact' if row.bit_exact else 'changed'}")


if __name__ == "__main__":
    run_step(main)
