"""What a search works on: attempts to release a share of what a task has trained."""

from collections.abc import Mapping

from torch import Tensor

from acll.packing.prune import Channels, pruned
from acll.search.run import Task
from acll.search.space import factors_of, groups_of
from acll.search.trials import Attempt, Cost, Measured, Point, Settled
from acll.seeds import derived
from acll.settings import Scope, Search
from acll.training.learner import TaskLearner
from acll.training.loop import Plan, fit, steps_of
from acll.training.metrics import Outcome, score, standard_error


def attempt_of(
    learner: TaskLearner,
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    scope: Scope,
    channels: Channels | None = None,
) -> Attempt:
    """A function of (point, epochs, seed, settled) for a task's dense state. Each attempt starts from that state anew.

    Attempts of the same length have the same number of looks at the validation split, and the best counts, as in the
    retraining that follows the search. channels: as `keep_masks` takes them. `settled` may end one whose outcome is
    certain.
    """

    def attempt(point: Point, epochs: float, seed: int, settled: Settled | None) -> Measured:
        looks: list[Outcome] = []
        scores: list[float] = []

        def watch(seen: tuple[Outcome, ...]) -> bool:
            (outcome,) = seen
            looks.append(outcome)
            scores.append(score(outcome))
            return settled is not None and settled(scores, standard_error(outcome, derived(seed, "bootstrap")))

        factors = factors_of(list(free), point.shape)
        start, keep = pruned(state, free, 1 - point.kept, scope, factors, channels)
        rate = learner.training.retrain_learning_rate
        plan = Plan(epochs, rate, seed, keep_state=False, label=f"  keep {point.kept:.4f}")
        fitted = fit(learner, start, plan, keep, watch=watch)
        best = looks[fitted.epoch - 1]
        ran = min(steps_of(epochs, learner.batches()) / learner.batches(), float(len(looks)))
        return Measured(fitted.score, standard_error(best, derived(seed, "bootstrap")), ran)

    return attempt


def task_of(
    learner: TaskLearner,
    state: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    scope: Scope,
    settings: Search,
    cap: float | None,
    seed: int,
    channels: Channels | None = None,
) -> Task:
    """The search's view of a task: its dense state, and which of its weights it may keep or release."""
    return Task(
        attempt=attempt_of(learner, state, free, scope, channels),
        cost=Cost(len(learner.train), len(learner.validation), learner.training.epochs),
        full_epochs=learner.training.retrain_epochs,
        groups=tuple(groups_of(list(free))) if settings.space == "groups" else (),
        cap=cap,
        free=sum(int(mask.sum()) for mask in free.values()),
        seed=seed,
    )
