"""What a search works on: attempts to release a share of what a task has trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from acll.packing.prune import Channels, pruned
from acll.search.run import SearchTask
from acll.search.settings import Search
from acll.search.space import factors_of, groups_of
from acll.search.trials import Candidate, Cost, Measured, RunTrial, StopRule
from acll.seeds import derived
from acll.settings import Scope
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit, steps_of
from acll.training.metrics import EvalResult, score, standard_error
from acll.training.settings import Schedule


@dataclass(frozen=True)
class Retraining:
    """What every trial of a search starts from, and how it retrains.

    state: the task's dense state dict. free: boolean masks of what the task could train. channels:
    as `keep_masks` takes them.
    """

    learner: TaskLearner
    schedule: Schedule
    state: Mapping[str, Tensor]
    free: Mapping[str, Tensor]
    scope: Scope
    channels: Channels | None = None


def trial_runner(retraining: Retraining) -> RunTrial:
    """Return a function of (point, epochs, seed, settled) that releases, retrains and scores, each
    time anew.

    Attempts of the same length have the same number of validations, and the best counts, as in the
    retraining that follows the search. `settled` may end one whose outcome is certain.
    """
    learner, free = retraining.learner, retraining.free

    def attempt(point: Candidate, epochs: float, seed: int, settled: StopRule | None) -> Measured:
        results: list[EvalResult] = []
        scores: list[float] = []

        def on_validation(seen: tuple[EvalResult, ...]) -> bool:
            (result,) = seen
            results.append(result)
            scores.append(score(result))
            return settled is not None and settled(
                scores, standard_error(result, derived(seed, "bootstrap"))
            )

        factors = factors_of(list(free), point.shape)
        start, keep = pruned(
            retraining.state, free, 1 - point.kept, retraining.scope, factors, retraining.channels
        )
        schedule = retraining.schedule.model_copy(update={"epochs": epochs})
        config = FitConfig(schedule, seed, keep_state=False, label=f"  keep {point.kept:.4f}")
        fitted = fit(learner, start, config, keep, on_validation=on_validation)
        best = results[fitted.epoch - 1]
        ran = min(steps_of(epochs, learner.batches()) / learner.batches(), float(len(results)))
        return Measured(fitted.score, standard_error(best, derived(seed, "bootstrap")), ran)

    return attempt


def search_task(
    retraining: Retraining, settings: Search, dense_epochs: int, cap: float | None, seed: int
) -> SearchTask:
    """Return the search's view of a task. cap: the largest share of the free weights that it may
    keep."""
    learner, free = retraining.learner, retraining.free
    return SearchTask(
        attempt=trial_runner(retraining),
        cost=Cost(len(learner.train), len(learner.validation), dense_epochs),
        full_epochs=int(retraining.schedule.epochs),
        groups=tuple(groups_of(list(free))) if settings.space == "groups" else (),
        cap=cap,
        free=sum(int(mask.sum()) for mask in free.values()),
        seed=seed,
    )
