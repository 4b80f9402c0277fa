"""How a trial of the search is run: weights are released, the rest is retrained and scored."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

    state: the task's dense state dict. schedule: of release and retraining together. distill:
    whether both learn from the dense network, too. seeds: of the release and of the retraining that
    follow the search. checkpoints: where trials keep their last epoch, of release and retraining.
    """

    learner: TaskLearner
    schedule: Schedule
    state: Mapping[str, Tensor]
    pruning: Pruning
    release: Release
    distill: bool
    seeds: tuple[int, int]
    checkpoints: tuple[Checkpoint | None, Checkpoint | None] = (None, None)

    def taught(self) -> TaskLearner:
        """Return the learner of trials."""
        return distilled(self.learner, self.state) if self.distill else self.learner

    def path(self, remember: bool = False) -> ReleasePath | None:
        """Return the beginning of the path of a gradual release."""
        first, _ = self.schedule.parts(self.release)
        if first is None:
            return None
        return ReleasePath(self.pruning, first.epochs * self.learner.batches(), remember)

    def release_epochs(self, kept: float) -> float:
        """Return how many epochs the release of all but a kept share takes."""
        path = self.path()
        return 0.0 if path is None else path.step_of(kept) / self.learner.batches()


@dataclass
class _Released:
    """The dense network, released as far as trials have needed so far."""

    retraining: Retraining
    learner: TaskLearner
    path: ReleasePath | None = None
    error: TrainingError | None = None

    def at(self, kept: float) -> tuple[State, State]:
        """Return state and masks where a kept share leaves the path. Raises TrainingError."""
        own, ratio = self.retraining, 1 - kept
        path = self.path or own.path(remember=True)
        if path is None:
            return own.pruning.at_once(own.state, ratio)
        step = path.step_of(kept)
        found = path.at(step, own.state)
        if found is None and self.error is None:
            # a new one each time: the training takes up what its checkpoint remembers
            path = self.path = own.path(remember=True)
            assert path is not None
            self._go_to(path, step)
            found = path.at(step, own.state)
        if found is None:
            assert self.error is not None
            raise self.error
        return own.pruning.at_once(found[0], ratio, found[1])

    def _go_to(self, path: ReleasePath, step: int) -> None:
        """Train along the path up to the end of the epoch that has this step."""
        own = self.retraining
        first, _ = own.schedule.parts(own.release)
        assert first is not None
        epochs = math.ceil(step / self.learner.batches())
        config = FitConfig(first, own.seeds[0], keep_state=False, label="  release")
        config = config.of_length(float(epochs))
        masks, checkpoint = own.pruning.free, own.checkpoints[0]
        try:
            fit(self.learner, own.state, config, masks, checkpoint, release=path)
        except TrainingError as error:
            self.error = error
        else:
            path.remember_end(epochs * self.learner.batches(), self.learner.network)


def trial_runner(retraining: Retraining, on_held: OnHeld | None = None) -> RunTrial:
    """Return a function that runs one trial: it releases, retrains and scores.

    All trials begin on one path of release. The score of a trial is that of its best validation, as
    in the retraining that follows the search. A trial that diverges has failed: it is the answer
    for that share, and no end of the search.
    """
    dense, taught = retraining.learner, retraining.taught()
    released = _Released(retraining, taught)
    _, second = retraining.schedule.parts(retraining.release)
    _, of_retraining = retraining.seeds

    def run_trial(kept: float, threshold: float | None) -> Measured:
        if threshold is None:
            return _of_dense(dense, retraining.state)
        results: dict[int, EvalResult] = {}  # by epoch, from 1 on
        try:
            start, keep = released.at(kept)
        except TrainingError:
            return Measured(0.0, 0.0, 0.0, diverged=True)
        config = FitConfig(second, of_retraining, label=f"  keep {kept:.4f}")
        ends = _ends(results, threshold, math.ceil(second.epochs))
        try:
            fitted = fit(taught, start, config, keep, retraining.checkpoints[1], ends)
        except TrainingError as error:
            return Measured(0.0, 0.0, min(_whole(second.epochs, dense), error.epochs), True)
        if on_held is not None and holds(fitted.score, threshold):
            on_held(kept, fitted, keep)
        # a trial that was killed has no longer seen its first validations
        best = results.get(fitted.epoch) or _validated(dense, fitted.state)
        spread = standard_error(best, derived(of_retraining, "bootstrap"))
        # There is one validation an epoch, and one after a last part of an epoch. So an ended
        # training had as many epochs as validations, and a whole one as many as its batches make.
        epochs_run = min(_whole(second.epochs, dense), float(len(fitted.history)))
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
    learner = retraining.learner
    _, second = retraining.schedule.parts(retraining.release)
    return SearchTask(
        run_trial=trial_runner(retraining, on_held),
        cost=Cost(len(learner.train), len(learner.validation), dense_epochs),
        distill=retraining.distill,
        release_epochs=retraining.release_epochs,
        retrain_epochs=second.epochs,
        cap=cap,
        free=sum(int(mask.sum()) for mask in retraining.pruning.free.values()),
        seed=seed,
    )
