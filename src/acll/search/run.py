"""The search of a task's release ratio: reference, trials at rising cost, confirmation, choice (see
docs/search.md).

Brief trials say about where the score begins to fall; full retraining, from there on, decides. The
answer is the smallest kept share that was seen to hold.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from acll.search.choice import (
    crossing_below_top,
    monotone_fit,
    ratio_interval,
    residuals_of,
    tolerance_of,
)
from acll.search.settings import Search
from acll.search.strategies import STEP, SUGGEST, KnownTrials, draw, objective_of
from acll.search.trials import (
    CONFIRMATION,
    REFERENCE,
    TRIAL,
    Candidate,
    Cost,
    RunTrial,
    StopRule,
    Trial,
    TrialLog,
)
from acll.seeds import derived

FEWEST_SAMPLES = 50  # a validation split below this says little; the run warns
BRIEF = 1 / 16  # length of brief retraining, in full ones
BRIEF_SHARE = 0.25  # how much of what the reference leaves of the budget brief trials may spend
FEWEST_TRIALS, MOST_TRIALS = 4, 12
FULL_PER_SHORT = (
    0.35  # what is needed with full retraining, in what is needed with brief retraining: about
)
STEP_FACTOR = 1.5  # by which factor the next kept share with full retraining is smaller or larger
RESOLUTION = 1.3  # two kept shares by a smaller factor apart are as good as one
FAILURES_BEFORE_REMEASURE = 2  # failures in a row after which the reference is measured once more
# larger shares that are tried, whatever the budget, when the first with full retraining fails
FALLBACKS = 3
LEAST_NOISE = 0.5  # of one training's score, in standard errors of the reference
SHAPES = 16  # trials of shapes, with groups of layers
SHAPE_RANGE = math.log(3)  # by how much the magnitudes of a group may count more or less


@dataclass(frozen=True)
class SearchTask:
    """What a search works on. attempt: releases, retrains and scores; full_epochs: length of the
    retraining that follows; groups: names of the groups of layers, none for one ratio; cap: largest
    share that the task may keep."""

    attempt: RunTrial
    cost: Cost
    full_epochs: int
    groups: tuple[str, ...]
    cap: float | None
    free: int  # number of weights that the task may keep
    seed: int


@dataclass(frozen=True)
class Choice:
    """What a search decided. Ratios are shares of the free weights that are released."""

    ratio_searched: (
        float | None
    )  # what the data ask for, a bound unless it was confirmed; None: nothing was searched
    ratio: float  # what is done: not less than the cap demands
    ratio_low: float  # between these two the ratio lies, as far as the trials tell (90%)
    ratio_high: float
    cap: float | None  # largest share of the free weights that the task may keep; None: no bound
    capped: bool
    confirmed: bool
    strategy: str
    cost: float  # in units of the dense training
    reference_score: float | None = None
    standard_error: float | None = None
    tolerance: float | None = None
    threshold: float | None = None
    shape: dict[str, float] = field(default_factory=dict)  # logs of the factors of groups of layers
    warnings: tuple[str, ...] = field(default=())


def fixed(ratio: float, cap: float | None) -> Choice:
    """The choice that needs no search: this ratio, or what the cap demands."""
    done = max(ratio, 0.0 if cap is None else 1 - cap)
    capped = done > ratio
    # 0 asks for all that may be had
    warnings = (
        (f"a ratio of {ratio:.3f} was asked for; the cap demands {done:.3f}",)
        if capped and ratio
        else ()
    )
    return Choice(None, done, done, done, cap, capped, False, "fixed", 0.0, warnings=warnings)


def search(settings: Search, task: SearchTask, log: TrialLog) -> tuple[Choice, list[Trial]]:
    """Find the largest ratio whose validation score is within the tolerance of the reference.

    The whole range up to 1 is searched with brief trials whatever the cap, so that `ratio_searched`
    says what the task needs and the cap what it gets.
    """
    if task.free == 0:
        return replace(
            fixed(0.0, None), strategy=settings.search, cap=task.cap, warnings=(NO_ROOM,)
        ), []
    if settings.search == "fixed":
        assert settings.ratio is not None  # the configuration sees to it
        return fixed(settings.ratio, task.cap), []
    return _Search(settings, task, log).result(), log.trials


NO_ROOM = (
    "no weight is left free for this task: it trains its head, biases and normalisations "
    "alone; a larger network, "
    "or larger ratios or a cap for the tasks before, would leave it some"
)


class _Search:
    """One search: the trials so far, and what they have cost."""

    def __init__(self, settings: Search, task: SearchTask, log: TrialLog) -> None:
        self.settings, self.task, self.log = settings, task, log
        self.limit = 1.0 if task.cap is None else task.cap
        self.lowest = min(settings.lower, self.limit)
        self.full_cost = task.cost(task.full_epochs)
        self.shape: dict[str, float] = {}
        self.best = 1.0  # smallest kept share that seems to do, so far

    def result(self) -> Choice:
        self.reference = self._measure(REFERENCE, 1.0, self.task.full_epochs)
        bounds = (self.settings.min_tolerance, self.settings.max_tolerance)
        self.tolerance = tolerance_of(self.reference.standard_error, self.settings.z, *bounds)
        self.threshold = self.reference.score - self.tolerance
        self._note(self.reference, None)
        brief = BRIEF * self.task.full_epochs
        trials = self._brief(brief)
        if self.task.groups and self._find_shape(brief, self.best):
            trials = self._brief(brief)
        kept, scores = _kept(trials), _scores(trials)
        estimate = crossing_below_top(kept, scores, self.tolerance)
        wanted, confirmed = self._confirm(max(self.settings.lower, estimate * FULL_PER_SHORT))
        full = [trial for trial in self.log.trials if trial.role == CONFIRMATION]
        noise = max(
            float(residuals_of(kept, scores).std()), LEAST_NOISE * self.reference.standard_error
        )
        own = derived(self.task.seed, "bootstrap")
        low, high = (
            ratio_interval(_kept(full), _scores(full), self.threshold, noise, own)
            if full
            else (wanted, 1.0)
        )
        return self._choice(wanted, min(low, wanted), max(high, wanted), confirmed)

    def _choice(self, wanted: float, low: float, high: float, confirmed: bool) -> Choice:
        cap = self.task.cap
        capped = cap is not None and not confirmed
        return Choice(
            ratio_searched=1 - wanted,
            ratio=1 - min(wanted, self.limit),
            ratio_low=1 - high,
            ratio_high=1 - low,
            cap=cap,
            capped=capped,
            confirmed=confirmed,
            strategy=self.settings.search,
            cost=self._spent(),
            reference_score=self.reference.score,
            standard_error=self.reference.standard_error,
            tolerance=self.tolerance,
            threshold=self.threshold,
            shape=self.shape,
            warnings=(
                *_warnings(
                    self.task.cost.validation_samples, wanted, cap if capped else None, confirmed
                ),
                *self._overdrawn(),
            ),
        )

    def _overdrawn(self) -> list[str]:
        cost, budget = self._spent(), self.settings.budget
        if cost <= budget:
            return []
        why = (
            "a reference, a few brief trials, and retrainings until one holds are made "
            "whatever the budget"
        )
        return [f"the search cost {cost:.3f} dense trainings, its budget is {budget:g}: {why}"]

    # ----------------------------------------------------------------------------------------------
    # brief trials

    def _brief(self, epochs: float) -> list[Trial]:
        """Trials of brief retraining, the reference first, as the strategy wants them and the
        budget allows."""
        left = (self.settings.budget - self._spent()) * BRIEF_SHARE
        number = int(np.clip(left / self.task.cost(epochs) - 1, FEWEST_TRIALS, MOST_TRIALS))
        low, seed = self.settings.lower, derived(self.task.seed, "brief", *self.shape)
        trials = [self._measure(REFERENCE, 1.0, epochs)]
        self._note(trials[0], None)
        for _ in range(number):
            kept, scores = _kept(trials), _scores(trials)
            threshold = float(monotone_fit(kept, scores)[1][-1]) - self.tolerance
            suggested = SUGGEST[self.settings.search](
                KnownTrials(low, kept, scores, threshold, self.tolerance, seed)
            )
            if suggested is None:
                break
            trial = self._measure(TRIAL, suggested, epochs)
            objective = objective_of(trial.kept_share, trial.score, threshold, self.tolerance, low)
            trials.append(trial)
            self.best = crossing_below_top(_kept(trials), _scores(trials), self.tolerance)
            self._note(trial, threshold, objective)
        return trials

    def _find_shape(self, epochs: float, kept: float) -> bool:
        """Which groups' weights should count more: the best score at one kept share of all, where
        it matters. Whether any shape is better than none. Strategies that are sweeps leave the
        shape to TPE. Half of what the budget leaves beside one full retraining may be spent; for
        fewer than a few trials it is not worth it."""
        affordable = (
            (self.settings.budget - self._spent() - self.full_cost) / 2 / self.task.cost(epochs)
        )
        if affordable < FEWEST_TRIALS:
            return False
        share = max(self.settings.lower, kept / STEP)
        bounds = dict.fromkeys(self.task.groups, (-SHAPE_RANGE, SHAPE_RANGE))
        points: list[dict[str, float]] = []
        losses: list[float] = []
        seed = derived(self.task.seed, "shape")
        strategy = self.settings.search if self.settings.search in ("anneal", "random") else "tpe"
        for number in range(min(SHAPES, int(affordable))):
            shape = (
                dict.fromkeys(self.task.groups, 0.0)
                if number == 0
                else draw(strategy, bounds, points, losses, seed)
            )
            trial = self._measure(TRIAL, share, epochs, shape)
            points.append(shape)
            losses.append(-trial.score)
            self._note(trial, None, losses[-1])
        best = int(np.argmin(losses))
        self.shape = points[best] if best > 0 else {}
        return best > 0

    # ----------------------------------------------------------------------------------------------
    # full retraining

    def _confirm(self, guess: float) -> tuple[float, bool]:
        """(kept share that is wanted, whether full retraining held with it).

        From the guess on: smaller ones while they hold, larger ones until one does, then between
        the two. Where none may be tried or none holds it is what was asked for, or all that the
        task may have.
        """
        if guess > 2 * self.limit:
            return guess, False
        tried: list[Trial] = []
        share: float | None = max(self.lowest, min(guess, self.limit / RESOLUTION))
        while share is not None:
            trial = self._measure(CONFIRMATION, share, self.task.full_epochs)
            tried.append(trial)
            held = self._held(tried)
            self.best = min(held, default=self.best)
            self._note(trial, self.threshold)
            if len(tried) == FAILURES_BEFORE_REMEASURE and not held:
                self._doubt()
                held = self._held(tried)
            share = self._next(_kept(tried), held)
        return (min(held), True) if held else (max(guess, self.limit), False)

    def _next(self, tried: list[float], held: list[float]) -> float | None:
        """The share to try next with full retraining; None where the answer is settled or the
        budget spent."""
        affordable = self._spent() + self.full_cost <= self.settings.budget
        if not held:
            # by rising steps: where the first few fail, the guess was far off
            share = min(
                max(tried) * STEP_FACTOR ** max(1, len(tried) - 1),
                math.sqrt(max(tried) * self.limit),
            )
            worth = self.limit / max(tried) >= RESOLUTION
            return share if worth and (affordable or len(tried) <= FALLBACKS) else None
        failed = [share for share in tried if share < min(held)]
        below = max(self.lowest, min(held) / STEP_FACTOR ** len(held))
        share = math.sqrt(min(held) * max(failed)) if failed else below
        return share if affordable and min(held) / share >= math.sqrt(RESOLUTION) else None

    def _held(self, tried: list[Trial]) -> list[float]:
        return [trial.kept_share for trial in tried if trial.score >= self.threshold - 1e-12]

    def _doubt(self) -> None:
        """Measure the reference once more: a lucky one would let everything fail."""
        again = self._measure(REFERENCE, 1.0, self.task.full_epochs, again=1)
        score = (self.reference.score + again.score) / 2
        self.reference = replace(self.reference, score=score)
        self.threshold = score - self.tolerance
        self._note(again, None)

    # ----------------------------------------------------------------------------------------------
    # trials

    def _measure(
        self,
        role: str,
        kept: float,
        epochs: float,
        shape: dict[str, float] | None = None,
        again: int = 0,
    ) -> Trial:
        point = Candidate(kept, self.shape if shape is None else shape)
        settled = _decided(self.threshold, round(epochs)) if role == CONFIRMATION else None
        # full retraining has one seed, so that reference and confirmations differ by nothing but
        # the kept share
        number = again if epochs == self.task.full_epochs else len(self.log.trials)
        seed = derived(self.task.seed, "trial", number)
        run = partial(self.task.attempt, point, epochs, seed, settled)
        return self.log.measure(role, point, epochs, run, self.task.cost)

    def _note(self, trial: Trial, needed: float | None, objective: float | None = None) -> None:
        self.log.note(replace(trial, needed=needed, objective=objective))
        wanted = "" if needed is None else f"  (needed {needed:.4f})"
        factors = " ".join(f"{math.exp(value):.2f}" for value in trial.shape.values())
        shape = f"  factors of groups {factors}" if any(trial.shape.values()) else ""
        what = (
            f"{trial.role:9} {trial.ran:6.2f} epochs  keep {trial.kept_share:.4f}  score "
            f"{trial.score:.4f}"
        )
        so_far = (
            f"best ratio {1 - self.best:.4f}  cost {self._spent():.2f} of {self.settings.budget:g}"
        )
        print(f"search: {what}{wanted}{shape}  {so_far}", flush=True)

    def _spent(self) -> float:
        return sum(trial.cost for trial in self.log.trials)


def _kept(trials: list[Trial]) -> list[float]:
    return [trial.kept_share for trial in trials]


def _scores(trials: list[Trial]) -> list[float]:
    return [trial.score for trial in trials]


def _decided(threshold: float, looks: int) -> StopRule:
    """Whether a confirmation can end: it holds, since its best look counts, or it can hardly win
    any more: half of its looks are over, and if each to come gained as much as the last one, and a
    standard error more, it would fall short."""

    def decided(scores: list[float], standard_error: float) -> bool:
        best = max(scores)
        if best >= threshold - 1e-12:
            return True
        if len(scores) < max(2, looks / 2):
            return False
        gain = max(0.0, best - max(scores[:-1]))
        return best + (looks - len(scores)) * gain + standard_error < threshold

    return decided


def _warnings(samples: int, wanted: float, cap: float | None, confirmed: bool) -> tuple[str, ...]:
    """What a person should know of a choice; cap: the bound where it was hit, else None."""
    warnings = []
    if samples < FEWEST_SAMPLES:
        warnings.append(
            f"the validation split has {samples} samples; below {FEWEST_SAMPLES} the choice is "
            "coarse"
        )
    if cap is not None:
        asked = f"{wanted:.3f}" if wanted > cap else "more"
        warnings.append(
            f"the task asks for {asked} of the free weights; its cap allows {cap:.3f}: "
            "a larger network, or another cap (expected_tasks, tail_share), would give it more"
        )
    elif not confirmed:
        warnings.append(
            "no smaller share held with full retraining: all of the free weights are kept"
        )
    return tuple(warnings)
