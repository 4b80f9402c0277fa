"""Trainings of one task, of which the best is kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acll.files import checkpoint_of
from acll.methods.base import Start
from acll.packing.ownership import Packed, State
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, FitResult, fit
from acll.training.reuse import without_votes

PARTS = ("", "chosen")  # of the trainings that `TrainingRule.starts` gives


def fitted_best(
    starts: Sequence[Start], config: FitConfig, packed: Packed, path: Path, content: str
) -> tuple[FitResult, State]:
    """Return the training with the best validation, of equal ones the first, and its final state.

    packed: the network of the tasks before. path: of the dense network that is made; beside it each
    training keeps its last epoch, and goes on from there. content: all that it depends on. What is
    kept, and what it leaves out of earlier tasks' weights, is printed.
    """
    results = []
    for start, part in zip(starts, PARTS):
        own = replace(config, label=f"{config.label}, {part}") if part else config
        checkpoint = Checkpoint(checkpoint_of(path, part), content)
        results.append(fit(start.learner, start.state, own, start.masks, checkpoint))
    best = better_of(results)
    state = without_votes(best.state)
    print(f"{config.label}: kept epoch {best.epoch}, validation {best.score:.4f}")
    if len(results) > 1:
        print(f"{config.label}: {_choice_in_words(packed, state)}")
    return best, state


def better_of(results: Sequence[FitResult]) -> FitResult:
    """Return the training with the best validation; of equal ones the first."""
    return max(results, key=lambda one: one.score)


def _choice_in_words(packed: Packed, state: State) -> str:
    """Return how many weights of earlier tasks a state leaves out."""
    owned = {name: packed.owner[name] > 0 for name in packed.owner if name in state}
    total = sum(int(mask.sum()) for mask in owned.values())
    left_out = sum(
        int((mask & (state[name] == 0) & (packed.shared[name] != 0)).sum())
        for name, mask in owned.items()
    )
    if not left_out:
        return f"reads all {total:,} weights of earlier tasks: no choice was better"
    return f"leaves out {left_out:,} of {total:,} weights of earlier tasks"
