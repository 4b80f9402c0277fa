"""The search of a task's release ratio; docs/search.md says what happens and why.

The dense network's own score is the reference. Short trials say about where the score begins to
fall. Full trials, from there on, decide: they release and retrain as what follows the search would,
and the answer is the smallest kept share with which one held. What follows takes its result over.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from acll.search.choice import (
    crossing_below_top,
    holds,
    ratio_interval,
    residuals_of,
    tolerance_of,
    top_of_fit,
)
from acll.search.settings import Search
from acll.search.strategies import SUGGEST, SWEEP_FACTOR, KnownTrials, draw, objective_of
from acll.search.trials import (
    FULL,
    REFERENCE,
    SHORT,
    Candidate,
    Cost,
    RunTrial,
    Trial,
    TrialLog,
)
from acll.seeds import derived
from acll.settings import FEWEST_SAMPLES

SHORT_LENGTH = 1 / 16  # length of short trials, in full ones
SHORT_SHARE = 0.5  # how much of the budget short trials may spend
FEWEST_TRIALS, MOST_TRIALS = 6, 12  # short trials, whatever the budget
# Short trials say how many weights the task needs for a score that is this share below their best:
# there their curve is steep, so noise moves the answer little.
SHORT_DROP = 0.1
# Of n such weights, about this times the root of n hold in a full trial: docs/search.md.
FULL_PER_ROOT = 85.0
STEP_FACTOR = 1.5  # by which factor the next kept share of a full trial is smaller or larger
RESOLUTION = 1.3  # two kept shares by a smaller factor apart are as good as one
# larger shares that are tried, whatever the budget, when the first full trial fails
FALLBACKS = 3
LEAST_NOISE = 0.5  # of one training's score, in standard errors of the reference
GROUP_TRIALS = 16  # trials of scales, with groups of layers
LOG_SCALE_RANGE = math.log(3)  # a group's magnitudes count from a third to three times as much
NO_ROOM = (
    "no weight is left free for this task: it trains its head, biases and normalisations alone; "
    "a larger network, or larger ratios or a cap for the tasks before, would leave it some"
)


@dataclass(frozen=True)
class SearchTask:
    """What a search works on.

    run_trial: releases, retrains and scores; with 0 epochs it scores the dense network. cost: what
    trainings cost. distill: whether full trials learn from the dense network. full_epochs: length
    of the release and the retraining that follow the search. groups: names of the groups of layers;
    none for one ratio. cap: the largest share of the free weights that the task may keep; None: no
    bound. free: number of weights that are free.
    """

    run_trial: RunTrial
    cost: Cost
    distill: bool
    full_epochs: int
    groups: tuple[str, ...]
    cap: float | None
    free: int
    seed: int


@dataclass(frozen=True)
class Choice:
    """What a search decided; `choice.json` of a node.

    Ratios are shares of the free weights that are released. ratio_searched: what the data ask for,
    a bound unless it was confirmed; None: nothing was searched. ratio: what is done, which the cap
    may make larger. ratio_low, ratio_high: between these the ratio lies with 90%, as far as the
    trials tell. cap: the largest share of the free weights that the task may keep; None: no bound.
    capped: whether the cap decided. confirmed: whether the share held in a full trial. cost: in
    units of the dense training, less that full trial, which is what follows. group_log_scale:
    logarithm of the factor of each group of layers; empty without groups.
    """

    ratio_searched: float | None
    ratio: float
    ratio_low: float
    ratio_high: float
    cap: float | None
    capped: bool
    confirmed: bool
    strategy: str
    cost: float
    reference_score: float | None = None
    standard_error: float | None = None
    tolerance: float | None = None
    threshold: float | None = None
    group_log_scale: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=())


def fixed(ratio: float, cap: float | None) -> Choice:
    """Return the choice that needs no search: this ratio, or what the cap demands."""
    done = max(ratio, 0.0 if cap is None else 1 - cap)
    capped = done > ratio
    warnings: tuple[str, ...] = ()
    if capped and ratio:  # a ratio of 0 asks for all that may be had, whatever that is
        warnings = (f"a ratio of {ratio:.3f} was asked for; the cap demands {done:.3f}",)
    return Choice(None, done, done, done, cap, capped, False, "fixed", 0.0, warnings=warnings)


def search(settings: Search, task: SearchTask, log: TrialLog) -> tuple[Choice, list[Trial]]:
    """Find the largest ratio whose validation score is within the tolerance of the reference.

    Return the choice and all trials. Short trials try the whole range up to 1, whatever the cap: so
    `ratio_searched` says what the task needs, and the cap what it gets.
    """
    if task.free == 0:
        nothing = fixed(0.0, None)
        choice = replace(nothing, strategy=settings.search, cap=task.cap, warnings=(NO_ROOM,))
        return choice, []
    if settings.search == "fixed":
        assert settings.ratio is not None  # the configuration sees to it
        return fixed(settings.ratio, task.cap), []
    return _Search(settings, task, log).result(), log.trials


class _Search:
    """One search: the trials so far, and what they have cost."""

    def __init__(self, settings: Search, task: SearchTask, log: TrialLog) -> None:
        self.settings, self.task, self.log = settings, task, log
        self.limit = 1.0 if task.cap is None else task.cap
        self.lowest = min(settings.lower, self.limit)
        self.full_cost = task.cost(task.full_epochs, distill=task.distill)
        self.following = 0.0  # cost of the full trial whose result is taken over
        self.group_log_scale: dict[str, float] = {}
        self.best = 1.0  # smallest kept share that seems to do, so far
        self.short = 1.0  # the share with which short trials come near to their best score

    def result(self) -> Choice:
        """Run the whole search and return what it decided."""
        self.reference = self._run_trial(REFERENCE, 1.0, 0.0)
        bounds = (self.settings.min_tolerance, self.settings.max_tolerance)
        self.tolerance = tolerance_of(self.reference.standard_error, self.settings.z, *bounds)
        self.threshold = self.reference.score - self.tolerance
        self._note(self.reference, None)
        epochs = SHORT_LENGTH * self.task.full_epochs
        trials = self._short_trials(epochs)
        if self.task.groups and self._find_group_log_scale(epochs, self.best):
            trials = self._short_trials(epochs)  # once more, along the scales that were found
        kept, scores = _kept(trials), _scores(trials)
        self.short = _short_answer(kept, scores)
        guess = max(self.settings.lower, self._expected(self.short))
        wanted, confirmed = self._full_trials(guess)
        noise = max(
            float(residuals_of(kept, scores).std()), LEAST_NOISE * self.reference.standard_error
        )
        low, high = self._interval(wanted, noise)
        return self._choice(wanted, min(low, wanted), max(high, wanted), confirmed)

    def _expected(self, short: float) -> float:
        """Return the kept share that full trials may need. short: what short trials need."""
        weights = FULL_PER_ROOT * math.sqrt(short * self.task.free)
        # fewer than in short trials: where these need few weights, the rule says too much
        return min(weights / self.task.free, short)

    def _interval(self, wanted: float, noise: float) -> tuple[float, float]:
        """Return bounds of the kept share.

        noise: standard deviation of the score of one training.
        """
        full = [trial for trial in self.log.trials if trial.role == FULL]
        if not full:
            return wanted, 1.0
        seed = derived(self.task.seed, "bootstrap")
        return ratio_interval(_kept(full), _scores(full), self.threshold, noise, seed)

    def _choice(self, wanted: float, low: float, high: float, confirmed: bool) -> Choice:
        """Return the choice. wanted, low, high: kept shares."""
        cap = self.task.cap
        capped = cap is not None and not confirmed
        samples = self.task.cost.validation_samples
        warnings = _warnings(samples, wanted, cap if capped else None, confirmed)
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
            group_log_scale=self.group_log_scale,
            warnings=(*warnings, *self._diverged(), *self._overdrawn()),
        )

    def _diverged(self) -> list[str]:
        count = sum(trial.diverged for trial in self.log.trials)
        if not count:
            return []
        return [
            f"{count} of {len(self.log.trials)} trials diverged, and count as failed: smaller "
            "shares may do with a lower learning rate"
        ]

    def _overdrawn(self) -> list[str]:
        cost, budget = self._spent(), self.settings.budget
        if cost <= budget:
            return []
        why = "a few short trials, and full ones until one holds, are made whatever the budget"
        return [f"the search cost {cost:.3f} dense trainings, its budget is {budget:g}: {why}"]

    # ----------------------------------------------------------------------------------------------
    # short trials

    def _short_trials(self, epochs: float) -> list[Trial]:
        """Run short trials: a reference, then what the strategy asks for.

        Return them in order. Their number is what the budget allows, within bounds. Where the
        reference diverges, short trials say nothing, and it stays alone.
        """
        room = self.settings.budget * SHORT_SHARE
        # less the reference, which is a trial, too
        number = int(np.clip(room / self.task.cost(epochs) - 1, FEWEST_TRIALS, MOST_TRIALS))
        low = self.settings.lower
        # The words of a seed are part of its value: another word would draw other shares.
        seed = derived(self.task.seed, "brief", *self.group_log_scale)
        trials = [self._run_trial(REFERENCE, 1.0, epochs)]
        self._note(trials[0], None)
        if trials[0].diverged:
            number = 0
        for _ in range(number):
            kept, scores = _kept(trials), _scores(trials)
            # of short trials: their scores are lower than those of full ones
            top = top_of_fit(kept, scores)
            drop = max(SHORT_DROP * top, self.tolerance)
            threshold = top - drop
            known = KnownTrials(low, kept, scores, threshold, drop, seed)
            suggested = SUGGEST[self.settings.search](known)
            if suggested is None:
                break
            trial = self._run_trial(SHORT, suggested, epochs)
            objective = objective_of(trial.kept_share, trial.score, threshold, drop, low)
            trials.append(trial)
            self.best = self._expected(_short_answer(_kept(trials), _scores(trials)))
            self._note(trial, threshold, objective)
        return trials

    def _find_group_log_scale(self, epochs: float, kept: float) -> bool:
        """Find by short trials which groups' weights should count more.

        All trials have one kept share, somewhat below `kept`: there it matters what is kept. Return
        whether any scales are better than none. Half of what the budget leaves may be spent; where
        that is fewer than a few trials, none are run.
        """
        left = self.settings.budget - self._spent()
        affordable = left / 2 / self.task.cost(epochs)
        if affordable < FEWEST_TRIALS:
            return False
        share = max(self.settings.lower, kept / SWEEP_FACTOR)
        bounds = dict.fromkeys(self.task.groups, (-LOG_SCALE_RANGE, LOG_SCALE_RANGE))
        points: list[dict[str, float]] = []
        losses: list[float] = []
        seed = derived(self.task.seed, "shape")  # the word is part of the value of the seed
        # sweeps know one number only: TPE finds the scales for them
        strategy = self.settings.search if self.settings.search in ("anneal", "random") else "tpe"
        for number in range(min(GROUP_TRIALS, int(affordable))):
            if number == 0:  # all factors 1: what the others have to be better than
                scales = dict.fromkeys(self.task.groups, 0.0)
            else:
                scales = draw(strategy, bounds, points, losses, seed)
            trial = self._run_trial(SHORT, share, epochs, scales)
            points.append(scales)
            losses.append(-trial.score)
            self._note(trial, None, losses[-1])
        best = int(np.argmin(losses))
        self.group_log_scale = points[best] if best > 0 else {}
        return best > 0

    # ----------------------------------------------------------------------------------------------
    # full trials

    def _full_trials(self, guess: float) -> tuple[float, bool]:
        """Run full trials from the kept share `guess` on.

        Smaller shares are tried while they hold, larger ones until one does, then those between.
        Return the smallest that held, and True. Where none held, return the guess, or all that the
        task may keep if that is more, and False. Where the guess is far above the cap, none is
        tried.
        """
        if guess > 2 * self.limit:
            return guess, False
        tried: list[Trial] = []
        share: float | None = max(self.lowest, min(guess, self.limit / RESOLUTION))
        while share is not None:
            trial = self._run_trial(FULL, share, self.task.full_epochs)
            tried.append(trial)
            held = self._held(tried)
            smallest = min(held, default=None)
            self.best = self.best if smallest is None else smallest
            self.following = sum(one.cost for one in tried if one.kept_share == smallest)
            self._note(trial, self.threshold)
            share = self._next(_kept(tried), held)
        return (min(held), True) if held else (max(guess, self.limit), False)

    def _next(self, tried: list[float], held: list[float]) -> float | None:
        """Return the kept share to try next in a full trial.

        None: the answer is settled, or the budget is spent. Of all full trials one is free: the one
        that is taken over.
        """
        another = self.full_cost if held else 0.0
        affordable = self._spent() + another <= self.settings.budget
        if not held:
            largest = max(tried)
            # by rising steps: where the first few fail, the guess was far off
            step = STEP_FACTOR ** max(1, len(tried) - 1)
            share = min(largest * step, math.sqrt(largest * self.limit))
            if len(tried) == FALLBACKS:  # the last one: more than short trials need is not needed
                share = max(share, min(self.short, self.limit / RESOLUTION))
            worth = self.limit / largest >= RESOLUTION
            return share if worth and (affordable or len(tried) <= FALLBACKS) else None
        smallest = min(held)
        failed = [share for share in tried if share < smallest]
        if failed:
            share = math.sqrt(smallest * max(failed))  # the middle, on the log scale
        else:
            share = max(self.lowest, smallest / STEP_FACTOR ** len(held))
        return share if affordable and smallest / share >= math.sqrt(RESOLUTION) else None

    def _held(self, tried: list[Trial]) -> list[float]:
        return [trial.kept_share for trial in tried if holds(trial.score, self.threshold)]

    # ----------------------------------------------------------------------------------------------
    # trials

    def _run_trial(
        self,
        role: str,
        kept: float,
        epochs: float,
        group_log_scale: dict[str, float] | None = None,
    ) -> Trial:
        """Run one trial, or take it from the log.

        group_log_scale: None: the scales that were found.
        """
        scales = self.group_log_scale if group_log_scale is None else group_log_scale
        candidate = Candidate(kept, scales)
        # full trials are what follows the search, and differ by nothing but the kept share
        threshold: float | None = self.threshold if role == FULL else None
        seed = None if role == FULL else derived(self.task.seed, "trial", len(self.log.trials))
        run = partial(self.task.run_trial, candidate, epochs, seed, threshold)
        cost = partial(self.task.cost, distill=role == FULL and self.task.distill)
        return self.log.measure(role, candidate, epochs, run, cost)

    def _note(self, trial: Trial, threshold: float | None, objective: float | None = None) -> None:
        """Add to a trial in the log what the search made of it, and print a line."""
        self.log.note(replace(trial, threshold=threshold, objective=objective))
        score = "diverged    " if trial.diverged else f"score {trial.score:.4f}"
        if threshold is not None:
            score += f"  (threshold {threshold:.4f})"
        if any(trial.group_log_scale.values()):
            factors = [f"{math.exp(value):.2f}" for value in trial.group_log_scale.values()]
            score += f"  factors of groups {' '.join(factors)}"
        what = f"{trial.role:9} {trial.epochs_run:6.2f} epochs  keep {trial.kept_share:.4f}"
        cost = f"cost {self._spent():.2f} of {self.settings.budget:g}"
        print(f"search: {what}  {score}  best ratio {1 - self.best:.4f}  {cost}", flush=True)

    def _spent(self) -> float:
        """Return what the search has cost so far, less the trial that is taken over."""
        return sum(trial.cost for trial in self.log.trials) - self.following


def _short_answer(kept: list[float], scores: list[float]) -> float:
    """Return the share with which short trials come near to their best score."""
    return crossing_below_top(kept, scores, SHORT_DROP * top_of_fit(kept, scores))


def _kept(trials: list[Trial]) -> list[float]:
    return [trial.kept_share for trial in trials]


def _scores(trials: list[Trial]) -> list[float]:
    return [trial.score for trial in trials]


def _warnings(samples: int, wanted: float, cap: float | None, confirmed: bool) -> tuple[str, ...]:
    """Return what a person should know of a choice.

    samples: of the validation split. wanted: the kept share. cap: the bound where it was hit, else
    None.
    """
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
        warnings.append("no smaller share held in a full trial: all of the free weights are kept")
    return tuple(warnings)
