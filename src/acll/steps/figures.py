"""Draw the figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from acll.evaluation import examples as example_files
from acll.evaluation import figures as run_result_figures
from acll.evaluation import run_figures
from acll.evaluation.front_figures import fronts_figure
from acll.evaluation.masks import MethodMasks, masks
from acll.evaluation.mistakes import MethodMistakes, caption_of, mistakes
from acll.evaluation.style import save_figure
from acll.evaluation.tables import read_table
from acll.parameters.report import FiguresParams, MaskedTask, MistakenTask
from acll.steps._run import run_step


def main(
    *,
    tables: list[Path],
    trials: list[Path],
    choices: list[Path],
    packed: list[Path],
    examples: list[Path],
    shown: list[Path],
    mistakes: list[Path],
    mistaken: list[Path],
    figures: list[Path],
    params: FiguresParams,
) -> None:
    """Write the figures: charts of runs and, where there are any, of searches and packed networks;
    pictures of masks and mistakes."""
    folder = figures[0].parent
    table = {path.stem: read_table(path) for path in tables if path.suffix == ".csv"}
    _draw_results(table, folder)
    if params.packed:
        owned = {
            name.title: (list(name.tasks), _json(path)["layers"])
            for name, path in zip(params.packed, packed, strict=True)
        }
        save_figure(run_result_figures.shares(table["final"]), folder / "shares.svg")
        save_figure(run_figures.layers(owned), folder / "layers.svg")
    if params.fronts:
        save_figure(fronts_figure(table["front"]), folder / "front.svg")
    if params.searches:
        save_figure(run_figures.difficulty(table["final"]), folder / "difficulty.svg")
        traces = [
            (name, pd.read_csv(trial), _json(choice))
            for name, trial, choice in zip(params.searches, trials, choices, strict=True)
        ]
        save_figure(run_result_figures.searches(traces), folder / "search.svg")
        for trace in traces:
            save_figure(
                run_result_figures.searches([trace]), folder / "searches" / f"{trace[0]}.svg"
            )
    _draw_masks(params.masked, iter(zip(examples, shown, strict=True)), folder / "masks")
    worst = iter(zip(mistakes, mistaken, strict=True))
    _draw_mistakes(params.mistaken, worst, folder / "mistakes")


def _draw_results(table: dict[str, pd.DataFrame], folder: Path) -> None:
    save_figure(run_result_figures.scores(table["matrix"], table["final"]), folder / "scores.svg")
    save_figure(run_figures.matrices(table["matrix"]), folder / "matrix.svg")
    save_figure(run_figures.sizes(table["summary"]), folder / "sizes.svg")
    save_figure(run_figures.curves(table["curves"], table["final"]), folder / "curves.svg")


def _draw_masks(tasks: list[MaskedTask], files: Iterator[tuple[Path, Path]], folder: Path) -> None:
    """Draw what networks make of test images. files: examples and scores of each network, task by
    task."""
    for shown in tasks:
        rows = []
        for method, count in zip(shown.methods, shown.networks, strict=True):
            own = [next(files) for _ in range(count)]
            before_and_after = [
                example_files.read_examples(path, shown.task, example_files.SPREAD)
                for path, _ in own
            ]
            scores = tuple(_score(path, shown.task) for _, path in own)
            learned = before_and_after[0] if count > 1 else None
            rows.append(MethodMasks(method, learned, before_and_after[-1], scores))
        save_figure(
            masks(f"{shown.sequence}: {shown.task}", rows),
            folder / f"{shown.sequence}.{shown.task}.png",
        )


def _draw_mistakes(
    tasks: list[MistakenTask], files: Iterator[tuple[Path, Path]], folder: Path
) -> None:
    """Draw the worst mistakes. files: examples and scores of each network, task by task."""
    for shown in tasks:
        rows = []
        for method in shown.methods:
            path, scores = next(files)
            found = _row(scores, shown.task)["mistakes"]
            examples = (
                example_files.read_examples(path, shown.task, example_files.MISTAKES)
                if found
                else None
            )
            captions = [caption_of(one["truth"], one["predicted"], one["badness"]) for one in found]
            rows.append(MethodMistakes(method, examples, tuple(captions)))
        told = (
            "lowest mean IoU first"
            if any(one.examples is not None and len(one.examples.masks) for one in rows)
            else "truth → answer, with its probability"
        )
        title = f"{shown.sequence}: {shown.task}, worst mistakes at the end ({told})"
        save_figure(
            mistakes(title, rows),
            folder / f"{shown.sequence}.{shown.task}.png",
        )


def _score(path: Path, task: str) -> float:
    return float(_row(path, task)["score"])


def _row(path: Path, task: str) -> Any:
    """Return what the evaluation of a network wrote of a task."""
    return next(row for row in _json(path)["rows"] if row["task"] == task)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_step(main)
