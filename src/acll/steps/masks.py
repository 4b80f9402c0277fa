"""Draw test images of a segmentation task, and what each method makes of them."""

from pathlib import Path

from acll.evaluation.examples import SPREAD, evaluation_of, read_examples
from acll.evaluation.masks import MethodMasks, masks
from acll.evaluation.style import save_figure
from acll.parameters.report import MasksParams
from acll.steps._run import run_step


def main(*, examples: list[Path], scores: list[Path], figure: Path, params: MasksParams) -> None:
    """Write the figure. examples, scores: of each network, method by method."""
    files = iter(zip(examples, scores, strict=True))
    rows = []
    for method, count in zip(params.methods, params.networks, strict=True):
        own = [next(files) for _ in range(count)]
        shown = [read_examples(path, params.task, SPREAD) for path, _ in own]
        reached = tuple(float(evaluation_of(path, params.task)["score"]) for _, path in own)
        learned = shown[0] if count > 1 else None
        rows.append(MethodMasks(method, learned, shown[-1], reached))
    save_figure(masks(f"{params.sequence}: {params.task}", rows), figure)


if __name__ == "__main__":
    run_step(main)
