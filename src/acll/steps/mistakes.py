"""Draw the worst mistakes of each method in a task, at the end of a sequence."""

from pathlib import Path

from acll.evaluation.examples import MISTAKES, evaluation_of, read_examples
from acll.evaluation.mistakes import MethodMistakes, caption_of, mistakes
from acll.evaluation.style import save_figure
from acll.parameters.report import MistakesParams
from acll.steps._run import run_step


def main(*, examples: list[Path], scores: list[Path], figure: Path, params: MistakesParams) -> None:
    """Write the figure. examples, scores: of the last network of each method."""
    rows = []
    for method, path, of_network in zip(params.methods, examples, scores, strict=True):
        found = evaluation_of(of_network, params.task)["mistakes"]
        shown = read_examples(path, params.task, MISTAKES) if found else None
        captions = [caption_of(one["truth"], one["predicted"], one["badness"]) for one in found]
        rows.append(MethodMistakes(method, shown, tuple(captions)))
    told = (
        "lowest mean IoU first"
        if any(one.examples is not None and len(one.examples.masks) for one in rows)
        else "truth → answer, with its probability"
    )
    title = f"{params.sequence}: {params.task}, worst mistakes at the end ({told})"
    save_figure(mistakes(title, rows), figure)


if __name__ == "__main__":
    run_step(main)
