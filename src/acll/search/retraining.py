"""How a trial of the search is run: weights are released, the rest is retrained and scored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor

from acll.packing.ownership import State
from acll.search.choice import holds
from acll.search.run import SearchTask
from acll.search.settings import Search
from acll.search.trials import Cost, Measured, RunTrial
from acll.seeds import derived
from acll.settings import Release
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learned import (
    Scored,
    as_trained,
    release_epochs,
    release_learned,
    trained_share,
)
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, FitResult, OnValidation, TrainingError, fit, steps_of
from acll.training.metrics import EvalResult, score, standard_error
from acll.training.release import Pruning, ReleasePath
from acll.training.settings import Schedule

# is shown the kept share, the result and the masks of a trial that reached its threshold
OnHeld = Callable[[float, FitResult, State], None]


@dataclass(frozen=True)
class Retraining:
    """What every trial of a search starts from, and how it releases and retrains.

    learner: of the task. state: its trained state dict. way: what is free, and which of it is
    released. schedule: of release and retraining together. release: `once` or `gradual`, where
    the way is by magnitude. distill: whether both learn from the dense network, too. seeds: of the
    release and of the retraining that follow the search. checkpoints: where trials keep their last
    epoch, of release and retraining.
    """

    learner: TaskLearner
    schedule: Schedule
    state: Mapping[str, Tensor]
    way: Pruning | Scored
    release: Release
    distill: bool
    seeds: tuple[int, int]
    checkpoints: tuple[Checkpoint | None, Checkpoint | None] = (None, None)

    def parts(self) -> tuple[FitConfig | None, FitConfig]:
        """Return the release, if it is a training, and the retraining."""
        first, second = self.schedule.parts(self.release)
        config = FitConfig(second, self.seeds[1])
        if first is None:
            return None, config
        return FitConfig(first, self.seeds[0], keep_state=False, label="  release"), config

    def dense(self) -> TaskLearner:
        """Return the learner of the trained state, before anything is released."""
        if isinstance(self.way, Scored):
            return self.way.dense(self.learner)
        return self.learner

    def taught(self, learner: TaskLearner) -> TaskLearner:
        """Return a learner that learns from the trained state, too, if `distill` says so."""
        return distilled(learner, self.dense(), self.state) if self.distill else learner

    def trained_share(self) -> float:
        """Return the share of the weights that the dense network reads."""
        return trained_share(self.learner.network) if isinstance(self.way, Scored) else 1.0

    def release_epochs(self, kept: float) -> float:
        """Return how many epochs the release of all but a kept share takes."""
        first, _ = self.parts()
        if first is None:
            return 0.0
        if isinstance(self.way, Scored):
            share = trained_share(self.learner.network)
            own = release_epochs(first.epochs, share, kept)
            return _whole(own, self.learner) if own else 0.0
        path = ReleasePath(self.way, first.epochs * self.learner.steps())
        return path.step_of(kept) / self.learner.steps()


class _ByMagnitude:
    """Trials that begin on one path of release, which goes as far as trials have needed so far."""

    def __init__(self, retraining: Retraining, pruning: Pruning) -> None:
        self.retraining, self.pruning = retraining, pruning
        self.learner = retraining.taught(retraining.learner)
        self.path: ReleasePath | None = None
        self.error: TrainingError | None = None

    def begin(self, kept: float) -> tuple[TaskLearner, State, State]:
        """Return learner, state and masks of the retraining of a kept share. Raises
        TrainingError."""
        own, ratio = self.retraining, 1 - kept
        first, _ = own.parts()
        if first is None:
            return self.learner, *self.pruning.at_once(own.state, ratio)
        path = self.path or self._new(first)
        step = path.step_of(kept)
        found = path.at(step, own.state)
        if found is None and self.error is None:
            # a new one each time: the training takes up what its checkpoint remembers
            path = self.path = self._new(first)
            self._go_to(path, step, first)
            found = path.at(step, own.state)
        if found is None:
            assert self.error is not None
            raise self.error
        return self.learner, *self.pruning.at_once(found[0], ratio, found[1])

    def end(self, state: State, masks: State) -> tuple[State, State]:
        """Return the final state, and masks of what it keeps. Arguments: after the retraining."""
        return state, masks

    def _new(self, first: FitConfig) -> ReleasePath:
        return ReleasePath(self.pruning, first.epochs * self.learner.steps(), remember=True)

    def _go_to(self, path: ReleasePath, step: int, first: FitConfig) -> None:
        """Train along the path up to the end of the epoch that has this step."""
        own = self.retraining
        epochs = math.ceil(step / self.learner.steps())
        config = first.of_length(float(epochs))
        masks, checkpoint = self.pruning.free, own.checkpoints[0]
        try:
            fit(self.learner, own.state, config, masks, checkpoint, release=path)
        except TrainingError as error:
            self.error = error
        else:
            path.remember_end(epochs * self.learner.steps(), self.learner.network)


class _ByScores:
    """Trials that each shrink the share that is read, from the trained state on."""

    def __init__(self, retraining: Retraining, scored: Scored) -> None:
        self.retraining, self.scored = retraining, scored

    def begin(self, kept: float) -> tuple[TaskLearner, State, State]:
        """Return learner, state and masks of the retraining of a kept share. Raises
        TrainingError."""
        own = self.retraining
        first, _ = own.parts()
        assert first is not None
        state = release_learned(
            own.learner, own.state, self.scored, kept, first, own.taught, own.checkpoints[0]
        )
        learner = own.taught(self.scored.learner(own.learner, kept))
        return learner, state, dict(self.scored.free)

    def end(self, state: State, masks: State) -> tuple[State, State]:
        """Return the final state, and masks of what it keeps. Arguments: after the retraining."""
        return self.scored.finished(state)


def trial_runner(retraining: Retraining, on_held: OnHeld | None = None) -> RunTrial:
    """Return a function that runs one trial: it releases, retrains and scores.

    The score of a trial is that of its best validation, as in the retraining that follows the
    search. A trial that diverges has failed: it is the answer for that share, and no end of the
    search.
    """
    way, task = retraining.way, retraining.learner
    trials = (
        _ByScores(retraining, way) if isinstance(way, Scored) else _ByMagnitude(retraining, way)
    )
    _, second = retraining.parts()

    @cache
    def of_dense() -> Measured:
        return _of_dense(retraining.dense(), retraining.state)

    def run_trial(kept: float, threshold: float | None) -> Measured:
        if threshold is None:
            return of_dense()
        if isinstance(way, Scored) and as_trained(task.network, kept):
            return of_dense()  # it is there: nothing has to be handed over
        results: dict[int, EvalResult] = {}  # by epoch, from 1 on
        try:
            learner, start, may_move = trials.begin(kept)
        except TrainingError:
            return Measured(0.0, 0.0, 0.0, diverged=True)
        config = replace(second, label=f"  keep {kept:.4f}")
        ends = _ends(results, threshold, math.ceil(second.epochs))
        try:
            fitted = fit(learner, start, config, may_move, retraining.checkpoints[1], ends)
        except TrainingError as error:
            return Measured(0.0, 0.0, min(_whole(second.epochs, task), error.epochs), True)
        # a trial that was killed has no longer seen its first validations
        best = results.get(fitted.epoch) or _validated(learner, fitted.state)
        state, keep = trials.end(fitted.state, may_move)
        if on_held is not None and holds(fitted.score, threshold):
            on_held(kept, replace(fitted, state=state), keep)
        spread = standard_error(best, derived(second.seed, "bootstrap"))
        # There is one validation an epoch, and one after a last part of an epoch. So an ended
        # training had as many epochs as validations, and a whole one as many as its steps make.
        epochs_run = min(_whole(second.epochs, task), float(len(fitted.history)))
        return Measured(fitted.score, spread, epochs_run)

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


def _ends(results: dict[int, EvalResult], threshold: float, validations: int) -> OnValidation:
    """Return what notes each validation, and ends a trial that can hardly reach its threshold.

    That is so when half of the validations are over, and the score would stay below the threshold
    if each one to come gained as much as the last one did, and a standard error more. validations:
    how many there would be.
    """

    def ends(seen: tuple[EvalResult, ...], scores: list[float]) -> bool:
        (result,) = seen
        results[len(scores)] = result
        if len(scores) < max(2, validations / 2):
            return False
        best = max(scores)
        gain = max(0.0, best - max(scores[:-1]))
        reached = best + (validations - len(scores)) * gain + standard_error(result, 0)
        return not holds(reached, threshold)

    return ends


def _whole(epochs: float, learner: TaskLearner) -> float:
    """Return epochs rounded to whole steps."""
    return steps_of(epochs, learner.steps()) / learner.steps()


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
    learner = retraining.learner
    _, second = retraining.parts()
    return SearchTask(
        run_trial=trial_runner(retraining, on_held),
        cost=Cost(len(learner.train), len(learner.validation), dense_epochs),
        distill=retraining.distill,
        release_epochs=retraining.release_epochs,
        one_release=isinstance(retraining.way, Pruning),
        trained_share=retraining.trained_share(),
        retrain_epochs=second.epochs,
        cap=cap,
        free=sum(int(mask.sum()) for mask in retraining.way.free.values()),
        seed=seed,
    )
