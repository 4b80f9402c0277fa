"""Trainings of one task, of which the best is kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acll.files import checkpoint_of
from acll.methods.base import Start
from acll.packing.ownership import Packed, State
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, FitResult, TrainingError, fit
from acll.training.reuse import without_votes

PARTS = ("", "chosen")  # of the trainings that `TrainingRule.starts` gives


def fitted_best(
    starts: Sequence[Start], config: FitConfig, packed: Packed, path: Path, content: str
) -> tuple[FitResult, State]:
    """Return the training with the best validation, of equal ones the first, and its final state.

    packed: the network of the tasks before. path: of the dense network that is made; beside it each
    training keeps its last epoch, and goes on from there. content: all that it depends on. What is
    kept, and how many of earlier tasks' weights it reads, is printed. Raises TrainingError where
    the first one does not come to finite values.
    """
    assert len(starts) <= len(PARTS)
    results = []
    for start, part in zip(starts, PARTS):
        own = replace(config, label=f"{config.label}, {part}") if part else config
        checkpoint = Checkpoint(checkpoint_of(path, part), content)
        try:
            results.append(fit(start.learner, start.state, own, start.masks, checkpoint))
        except TrainingError as error:
            if not results:
                raise
            print(f"{own.label}: {error}; it is left out")  # another way has come to its end
    best = better_of(results)
    state = without_votes(best.state)
    print(f"{config.label}: kept epoch {best.epoch}, validation {best.score:.4f}")
    if len(starts) > 1:
        count = "all" if best is results[0] else _read_count(packed, state)
        print(f"{config.label}: reads {count} weights of earlier tasks")
    return best, state


def better_of(results: Sequence[FitResult]) -> FitResult:
    """Return the training with the best validation; of equal ones the first."""
    return max(results, key=lambda one: one.score)


def _read_count(packed: Packed, state: State) -> str:
    """Return in words how many of the weights of earlier tasks a state reads."""
    owned = {name: packed.owner[name] > 0 for name in packed.owner if name in state}
    total = sum(int(mask.sum()) for mask in owned.values())
    left_out = sum(
        int((mask & (state[name] == 0) & (packed.shared[name] != 0)).sum())
        for name, mask in owned.items()
    )
    return f"{total - left_out:,} of {total:,}"
