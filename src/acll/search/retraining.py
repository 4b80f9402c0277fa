"""How a trial of the search is run: weights are released, the rest is retrained and scored."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from acll.packing.prune import Channels
from acll.search.run import SearchTask
from acll.search.settings import Search
from acll.search.space import factors_of, groups_of
from acll.search.trials import Candidate, Cost, Measured, RunTrial, StopRule
from acll.seeds import derived
from acll.settings import Release, Scope
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, TrainingError, fit, steps_of
from acll.training.metrics import EvalResult, score, standard_error
from acll.training.release import Pruning, release
from acll.training.settings import Schedule


@dataclass(frozen=True)
class Retraining:
    """What every trial of a search starts from, and how it releases and retrains.

    state: the task's dense state dict. free: boolean masks of what the task could train. schedule:
    of release and retraining together. channels: as `keep_masks` takes them.
    """

    learner: TaskLearner
    schedule: Schedule
    state: Mapping[str, Tensor]
    free: Mapping[str, Tensor]
    scope: Scope
    release: Release
    channels: Channels | None = None


def trial_runner(retraining: Retraining) -> RunTrial:
    """Return a function that runs one trial: it releases, retrains and scores.

    Every trial starts from the dense state. Its score is that of its best validation, as in the
    retraining that follows the search. Trials of the same length have the same number of
    validations, unless a stop rule ends one whose result is certain. One whose retraining diverges
    has failed: it is the answer for that share, and no end of the search.
    """
    learner, free = retraining.learner, retraining.free

    def run_trial(
        candidate: Candidate, epochs: float, seed: int, stop_rule: StopRule | None
    ) -> Measured:
        results: list[EvalResult] = []
        scores: list[float] = []

        def on_validation(seen: tuple[EvalResult, ...]) -> bool:
            (result,) = seen
            results.append(result)
            scores.append(score(result))
            if stop_rule is None:
                return False
            return stop_rule(scores, standard_error(result, derived(seed, "bootstrap")))

        factors = factors_of(list(free), candidate.group_log_scale)
        pruning = Pruning(free, 1 - candidate.kept, retraining.scope, factors, retraining.channels)
        schedule = retraining.schedule.model_copy(update={"epochs": epochs})
        first, second = schedule.parts(retraining.release)
        label = f"  keep {candidate.kept:.4f}"
        before = 0.0  # epochs
        try:
            if first is None:
                start, keep = pruning.at_once(retraining.state)
            else:
                config = FitConfig(first, derived(seed, "release"), label=label)
                start, keep = release(learner, retraining.state, pruning, config)
                before = _whole(first.epochs, learner)
            config = FitConfig(second, seed, keep_state=False, label=label)
            fitted = fit(learner, start, config, keep, on_validation=on_validation)
        except TrainingError as error:
            run = min(_whole(epochs, learner), before + error.epochs)
            return Measured(0.0, 0.0, run, diverged=True)
        best = results[fitted.epoch - 1]
        # There is one validation an epoch, and one after a last part of an epoch. So an ended
        # training had as many epochs as validations, and a whole one as many as its batches make.
        epochs_run = before + min(_whole(second.epochs, learner), float(len(results)))
        return Measured(fitted.score, standard_error(best, derived(seed, "bootstrap")), epochs_run)

    return run_trial


def _whole(epochs: float, learner: TaskLearner) -> float:
    """Return epochs rounded to whole batches."""
    return steps_of(epochs, learner.batches()) / learner.batches()


def search_task(
    retraining: Retraining, settings: Search, dense_epochs: int, cap: float | None, seed: int
) -> SearchTask:
    """Return what the search has to know of a task.

    dense_epochs: length of the dense training, the unit of costs. cap: the largest share of the
    free weights that the task may keep; None: no bound.
    """
    learner, free = retraining.learner, retraining.free
    return SearchTask(
        run_trial=trial_runner(retraining),
        cost=Cost(len(learner.train), len(learner.validation), dense_epochs),
        full_epochs=int(retraining.schedule.epochs),
        groups=tuple(groups_of(list(free))) if settings.space == "groups" else (),
        cap=cap,
        free=sum(int(mask.sum()) for mask in free.values()),
        seed=seed,
    )
