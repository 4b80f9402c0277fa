"""How a trial of the search is run: weights are released, the rest is retrained and scored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from acll.packing.ownership import State
from acll.packing.prune import Channels
from acll.search.choice import holds
from acll.search.run import SearchTask
from acll.search.settings import Search
from acll.search.space import factors_of, groups_of
from acll.search.trials import Candidate, Cost, Measured, RunTrial
from acll.seeds import derived
from acll.settings import Release, Scope
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, FitResult, OnValidation, TrainingError, fit, steps_of
from acll.training.metrics import EvalResult, score, standard_error
from acll.training.release import Pruning, release
from acll.training.settings import Schedule

# is shown the kept share, the result and the masks of a full trial that reached its threshold
OnHeld = Callable[[float, FitResult, State], None]


@dataclass(frozen=True)
class Retraining:
    """What every trial of a search starts from, and how it releases and retrains.

    state: the task's dense state dict. free: boolean masks of what the task could train. schedule:
    of release and retraining together. distill: whether what follows the search, and full trials,
    learn from the dense network, too.
    seeds: of the release and of the retraining that follow the search. channels: as `keep_masks`
    takes them. checkpoints: where a full trial keeps its last epoch, of release and retraining.
    """

    learner: TaskLearner
    schedule: Schedule
    state: Mapping[str, Tensor]
    free: Mapping[str, Tensor]
    scope: Scope
    release: Release
    distill: bool
    seeds: tuple[int, int]
    channels: Channels | None = None
    checkpoints: tuple[Checkpoint | None, Checkpoint | None] = (None, None)


def trial_runner(retraining: Retraining, on_held: OnHeld | None = None) -> RunTrial:
    """Return a function that runs one trial: it releases, retrains and scores.

    Every trial starts from the dense state. Its score is that of its best validation after the
    release, as in the retraining that follows the search. Trials of the same length have the same
    number of validations, unless one ends early. One that diverges has failed: it is the answer for
    that share, and no end of the search.
    """
    dense, free = retraining.learner, retraining.free
    taught = distilled(dense, retraining.state) if retraining.distill else dense

    def run_trial(
        candidate: Candidate, epochs: float, seed: int | None, threshold: float | None
    ) -> Measured:
        if not epochs:
            return _of_dense(dense, retraining.state)
        schedule = retraining.schedule.model_copy(update={"epochs": epochs})
        first, second = schedule.parts(retraining.release)
        results: dict[int, EvalResult] = {}  # by epoch, from 1 on
        learner = taught
        (of_release, of_retraining), kept_in = retraining.seeds, retraining.checkpoints
        if seed is not None:  # a short trial: it only has to say where its own curve falls
            learner = dense
            (of_release, of_retraining), kept_in = (derived(seed, "release"), seed), (None, None)
        factors = factors_of(list(free), candidate.group_log_scale)
        pruning = Pruning(free, 1 - candidate.kept, retraining.scope, factors, retraining.channels)
        label = f"  keep {candidate.kept:.4f}"
        before = 0.0  # epochs
        try:
            if first is None:
                start, keep = pruning.at_once(retraining.state)
            else:
                config = FitConfig(first, of_release, label=label)
                start, keep = release(learner, retraining.state, pruning, config, kept_in[0])
                before = _whole(first.epochs, learner)
            config = FitConfig(second, of_retraining, keep_state=threshold is not None, label=label)
            ends = _ends(results, threshold, round(second.epochs))
            fitted = fit(learner, start, config, keep, kept_in[1], ends)
        except TrainingError as error:
            run = min(_whole(epochs, learner), before + error.epochs)
            return Measured(0.0, 0.0, run, diverged=True)
        if on_held is not None and threshold is not None and holds(fitted.score, threshold):
            on_held(candidate.kept, fitted, keep)
        # a trial that was killed has no longer seen its first validations
        best = results.get(fitted.epoch) or _validated(dense, fitted.state)
        spread = standard_error(best, derived(of_retraining, "bootstrap"))
        # There is one validation an epoch, and one after a last part of an epoch. So an ended
        # training had as many epochs as validations, and a whole one as many as its batches make.
        own = len(fitted.history)
        epochs_run = before + min(_whole(second.epochs, learner), float(own))
        return Measured(fitted.score, spread, epochs_run, validations=math.ceil(before) + own)

    return run_trial


def _of_dense(learner: TaskLearner, state: Mapping[str, Tensor]) -> Measured:
    """Return the score of the dense network, and its standard error."""
    seen = _validated(learner, state)
    return Measured(score(seen), standard_error(seen, 0), 0.0)


def _validated(learner: TaskLearner, state: Mapping[str, Tensor]) -> EvalResult:
    """Return what a state does on the validation split."""
    learner.network.load_state_dict(state)
    learner.network.to(learner.device)
    (seen,) = learner.validate()
    return seen


def _ends(
    results: dict[int, EvalResult], threshold: float | None, validations: int
) -> OnValidation:
    """Return what notes each validation, and ends a trial that can hardly reach its threshold.

    That is so when half of the validations are over, and the score would stay below the threshold
    if each one to come gained as much as the last one did, and a standard error more. validations:
    how many there would be.
    """

    def ends(seen: tuple[EvalResult, ...], scores: list[float]) -> bool:
        (result,) = seen
        results[len(scores)] = result
        if threshold is None or len(scores) < max(2, validations / 2):
            return False
        best = max(scores)
        gain = max(0.0, best - max(scores[:-1]))
        reached = best + (validations - len(scores)) * gain + standard_error(result, 0)
        return not holds(reached, threshold)

    return ends


def _whole(epochs: float, learner: TaskLearner) -> float:
    """Return epochs rounded to whole batches."""
    return steps_of(epochs, learner.batches()) / learner.batches()


def search_task(
    retraining: Retraining,
    settings: Search,
    dense_epochs: int,
    cap: float | None,
    seed: int,
    on_held: OnHeld | None = None,
) -> SearchTask:
    """Return what the search has to know of a task.

    dense_epochs: length of the dense training, the unit of costs. cap: the largest share of the
    free weights that the task may keep; None: no bound.
    """
    learner, free = retraining.learner, retraining.free
    return SearchTask(
        run_trial=trial_runner(retraining, on_held),
        cost=Cost(len(learner.train), len(learner.validation), dense_epochs),
        distill=retraining.distill,
        full_epochs=int(retraining.schedule.epochs),
        groups=tuple(groups_of(list(free))) if settings.space == "groups" else (),
        cap=cap,
        free=sum(int(mask.sum()) for mask in free.values()),
        seed=seed,
    )
