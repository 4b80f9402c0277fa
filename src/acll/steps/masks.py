"""Draw test images of a segmentation task, and what each method makes of them."""

from pathlib import Path

from acll.evaluation.examples import SPREAD, evaluation_of, read_examples
from acll.evaluation.masks import MethodMasks, masks
from acll.evaluation.style import save_figure
from acll.evaluation.words import METRIC_WORDS
from acll.parameters.report import MasksParams
from acll.steps._run import run_step


def main(*, examples: list[Path], scores: list[Path], figure: Path, params: MasksParams) -> None:
    """Write the figure. examples, scores: of each network, method by method."""
    files = iter(zip(examples, scores, strict=True))
    rows = []
    for method, count in zip(params.methods, params.networks, strict=True):
        own = [next(files) for _ in range(count)]
        shown = [read_examples(path, params.task, SPREAD) for path, _ in own]
        told = [evaluation_of(path, params.task) for _, path in own]
        reached = tuple(float(one["score"]) for one in told)
        learned = shown[0] if count > 1 else None
        rows.append(MethodMasks(method, learned, shown[-1], reached))
    metric = METRIC_WORDS[told[0]["metric"]]
    save_figure(masks(f"{params.sequence}: {params.task}", metric, rows), figure)


if __name__ == "__main__":
    run_step(main)
