"""The search of a task's release ratio; docs/search.md says what happens and why.

The dense network's own score is the reference, or that of all that the cap allows, where that is
preferred and higher. A trial keeps a share, and releases and retrains as what follows the search
would. The answer is the smallest share that held in a trial, and what follows takes the result of
that trial over.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from acll.search.choice import holds, tolerance_of
from acll.search.posterior import Posterior, posterior
from acll.search.settings import Search
from acll.search.strategies import SUGGEST, SWEEPS, KnownTrials
from acll.search.trials import REFERENCE, TRIAL, Cost, RunTrial, Trial, TrialLog
from acll.settings import FEWEST_SAMPLES, expected_share

RESOLUTION = 1.3  # two kept shares by a smaller factor apart are as good as one
# standard deviation of a trial's score, in standard errors of the reference or in tolerances,
# whichever is more; docs/search.md says where from
NOISE = 1.0
# a share is tried if, once it scored as the reference, the answer would be no larger with this
# probability; docs/search.md says where from
BELIEF = 0.5
NO_ROOM = (
    "no weight is left free for this task: it trains its head, biases and normalisations alone; "
    "a larger network, or larger ratios or a cap for the tasks before, would leave it some"
)


@dataclass(frozen=True)
class SearchTask:
    """What a search works on.

    run_trial: releases, retrains and scores; without a threshold it scores the dense network.
    cost: what trainings cost. distill: whether trials learn from the dense network. release_epochs:
    how many epochs a kept share's release takes. one_release: whether trials share one release,
    which each takes further if need be. retrain_epochs: length of the retraining. cap: the largest
    share of the free weights that the task may keep; None: no bound. free: number of weights that
    are free. trained_share: that the dense network reads; below 1 it is a trial of this share.
    """

    run_trial: RunTrial
    cost: Cost
    distill: bool
    release_epochs: Callable[[float], float]
    one_release: bool
    retrain_epochs: float
    cap: float | None
    free: int
    seed: int
    trained_share: float


@dataclass(frozen=True)
class Choice:
    """What a search decided; `choice.json` of a node.

    Ratios are shares of the free weights that are released. ratio_searched: what the data ask for,
    a bound unless it was confirmed; None: nothing was searched. ratio: what is done, which the cap
    may make larger. ratio_low, ratio_high: between these the ratio lies with 90%, as far as the
    trials tell. cap: the largest share of the free weights that the task may keep; None: no bound.
    capped: whether the cap decided. confirmed: whether the share held in a trial. cost: in units of
    the dense training, less that trial, which is what follows; where the dense network is kept as
    it is, less the dearest one.
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

    Return the choice and all trials.
    """
    if task.free == 0:
        nothing = fixed(1 - task.trained_share, None)  # of earlier weights it reads what it did
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
        self.trials: list[Trial] = []  # without the reference

    def result(self) -> Choice:
        """Run the whole search and return what it decided."""
        self.reference = self._run_trial(REFERENCE, self.task.trained_share)
        bounds = (self.settings.min_tolerance, self.settings.max_tolerance)
        self.tolerance = tolerance_of(self.reference.standard_error, self.settings.z, *bounds)
        self.threshold = self.reference.score - self.tolerance
        self._note(self.reference, None)
        self.of_dense = self.threshold
        if self._dense_is_a_trial():
            self._try(self.task.trained_share)
        if self._prefers_score():
            self._try_most()
        while (share := self._next()) is not None:
            self._try(share)
        return self._choice()

    # ----------------------------------------------------------------------------------------------
    # what to try

    def _dense_is_a_trial(self) -> bool:
        """Return whether the dense network is the first trial: it keeps what it reads, and holds.

        Sweeps end at the first share that holds, so that nothing smaller would be tried.
        """
        share = self.task.trained_share
        within = self.lowest <= share <= self.limit and share < 1
        return within and self.settings.search not in SWEEPS

    def _prefers_score(self) -> bool:
        """Return whether all that the cap allows is tried first.

        Where the settings do not say: if the cap allows more than the dense network reads, which
        then is a trial itself, so that the budget is left for smaller shares.
        """
        if self.settings.prefer is not None:
            return self.settings.prefer == "score"
        more = self.task.cap is not None and self.limit >= RESOLUTION * self.task.trained_share
        return more and self._dense_is_a_trial()

    def _next(self) -> float | None:
        """Return the kept share to try next.

        None: the answer is settled, or the budget is spent. Of all trials one is free: the one that
        is taken over.
        """
        held = self._held()
        smallest = min((trial.kept_share for trial in held), default=self.limit)
        failed = [
            trial.kept_share
            for trial in self.trials
            if trial not in held and trial.kept_share <= smallest
        ]
        near = math.sqrt(RESOLUTION)
        so_far = self._posterior()
        low = self._credible(max(failed) * near if failed else self.lowest, so_far)
        high = smallest / near
        if low >= high:
            return self._most()
        known = KnownTrials(
            kept=[trial.kept_share for trial in self.trials],
            scores=[trial.score for trial in self.trials],
            threshold=self.threshold,
            tolerance=self.tolerance,
            low=low,
            high=high,
            lowest=self.lowest,
            expected=expected_share(self.task.free),
            posterior=so_far,
            seed=self.task.seed,
        )
        share = SUGGEST[self.settings.search](known)
        if share is None or share >= self.limit:
            return self._most()
        share = max(share, self.lowest)
        paid_for = not held or self.settings.search in SWEEPS
        return share if paid_for or self._affordable(share) else None

    def _most(self) -> float | None:
        """Return all that the task may keep, where nothing smaller held and it was not tried."""
        return None if self._most_was_tried() or self._held() else self.limit

    def _most_was_tried(self) -> bool:
        return any(trial.kept_share >= 1 - (1 - self.limit) for trial in self.trials)

    def _affordable(self, share: float) -> bool:
        """Return whether the budget has room for one more trial."""
        one = self._cost(self._added(share), self.task.retrain_epochs)
        return self._spent() + one <= self.settings.budget

    def _held(self) -> list[Trial]:
        return [
            trial
            for trial in self.trials
            if not trial.diverged and holds(trial.score, self.threshold)
        ]

    def _credible(self, low: float, so_far: Posterior) -> float:
        """Return the smallest share, from `low` on, that a good score would show to be enough.

        That is one of the goal and the tolerance together, as the reference has. Where a score says
        little, as on a few validation images, the share is near what is expected: a smaller one
        that held would have done so by chance. Sweeps go by a rule of their own.
        """
        if self.settings.search in SWEEPS:
            return low
        good = self.threshold + self.tolerance

        def shown(share: float) -> bool:
            return self._posterior((share, good)).quantile(BELIEF) <= share

        shares = [low, *(share for share in so_far.shares if share > low)]
        return float(shares[bisect_left(shares, True, hi=len(shares) - 1, key=shown)])

    def _posterior(self, *more: tuple[float, float]) -> Posterior:
        """Return what the trials tell, and with them what more of (kept share, score) would."""
        noise = NOISE * max(self.reference.standard_error, self.tolerance)
        known = [(trial.kept_share, trial.score) for trial in self.trials] + list(more)
        return posterior(
            [kept for kept, _ in known],
            [score for _, score in known],
            self.threshold,
            self.tolerance,
            noise,
            expected_share(self.task.free),
            self.lowest,
        )

    # ----------------------------------------------------------------------------------------------
    # the choice

    def _choice(self) -> Choice:
        known = self._posterior()
        confirmed = bool(self._held())
        if confirmed:
            wanted = min(trial.kept_share for trial in self._held())
        else:  # all that the task may keep, or more
            wanted = min(1.0, max(known.quantile(0.5), self.limit))
        low, high = (min(1.0, bound) for bound in known.interval())
        cap = self.task.cap
        enough = any(holds(trial.score, self.of_dense) for trial in self.trials)
        capped = cap is not None and not enough
        samples = self.task.cost.validation_samples
        warnings = _warnings(samples, wanted, cap if capped else None, confirmed)
        return Choice(
            ratio_searched=1 - wanted,
            ratio=1 - min(wanted, self.limit),
            ratio_low=1 - max(high, wanted),
            ratio_high=1 - min(low, wanted),
            cap=cap,
            capped=capped,
            confirmed=confirmed,
            strategy=self.settings.search,
            cost=self._spent(),
            reference_score=self.reference.score,
            standard_error=self.reference.standard_error,
            tolerance=self.tolerance,
            threshold=self.threshold,
            warnings=(*warnings, *self._diverged(), *self._overdrawn()),
        )

    def _diverged(self) -> list[str]:
        count = sum(trial.diverged for trial in self.log.trials)
        if not count:
            return []
        return [
            f"{count} of {len(self.trials)} trials diverged, and count as failed: smaller shares "
            "may do with a lower learning rate"
        ]

    def _overdrawn(self) -> list[str]:
        cost, budget = self._spent(), self.settings.budget
        if cost <= budget:
            return []
        why = "trials are made until one holds"
        return [f"the search cost {cost:.3f} dense trainings, its budget is {budget:g}: {why}"]

    # ----------------------------------------------------------------------------------------------
    # trials

    def _try(self, kept: float) -> None:
        """Run a trial of a kept share."""
        self._note(self._trial_of(kept), self.threshold)

    def _try_most(self) -> None:
        """Run a trial of all that the cap allows, to its end, and set the goal by it.

        The reference is its score where that is more than the dense network's. Where it is less,
        and by more than the tolerance, the goal is to be as good as this trial, unless the dense
        network is a trial, too.
        """
        dense_held = bool(self._held())
        if self._most_was_tried():
            return
        self.threshold = 0.0  # which every score reaches
        most = self._trial_of(self.limit)
        self.threshold = self.of_dense
        if not most.diverged:
            lowest = self.of_dense if dense_held else min(most.score, self.of_dense)
            self.threshold = max(most.score - self.tolerance, lowest)
        self._note(most, self.threshold)

    def _trial_of(self, kept: float) -> Trial:
        """Return one more trial, of a share rounded as it is where it comes from a ratio."""
        trial = self._run_trial(TRIAL, 1 - (1 - kept))
        self.trials.append(trial)
        return trial

    def _run_trial(self, role: str, kept: float) -> Trial:
        """Run one trial, or take it from the log."""
        if role == REFERENCE:
            run = partial(self.task.run_trial, kept, None)
            return self.log.measure(role, kept, 0.0, 0.0, run, self.task.cost)
        run = partial(self.task.run_trial, kept, self.threshold)
        added = self._added(kept)
        epochs = self.task.retrain_epochs
        return self.log.measure(role, kept, added, epochs, run, partial(self._cost, added))

    def _added(self, kept: float) -> float:
        """Return how many epochs of release a trial needs beyond those of the trials before it."""
        if not self.task.one_release:
            return self.task.release_epochs(kept)
        made = sum(trial.release_epochs for trial in self.trials)
        # it goes on by whole epochs
        return max(0.0, math.ceil(self.task.release_epochs(kept)) - made)

    def _cost(self, release_epochs: float, epochs: float) -> float:
        """Return the cost of so many epochs of release and of retraining."""
        cost = partial(self.task.cost, distill=self.task.distill)
        return cost(release_epochs) + cost(epochs)

    def _note(self, trial: Trial, threshold: float | None) -> None:
        """Add to a trial in the log what the search made of it, and print a line."""
        self.log.note(replace(trial, threshold=threshold))
        score = "diverged    " if trial.diverged else f"score {trial.score:.4f}"
        if threshold is not None:
            score += f"  (threshold {threshold:.4f})"
        what = f"{trial.role:9} {trial.epochs_run:6.2f} epochs  keep {trial.kept_share:.4f}"
        best = min((one.kept_share for one in self._held()), default=1.0)
        cost = f"cost {self._spent():.2f} of {self.settings.budget:g}"
        print(f"search: {what}  {score}  best ratio {1 - best:.4f}  {cost}", flush=True)

    def _spent(self) -> float:
        """Return what the search has cost so far, less the trial that is taken over.

        Where that is the dense network, the dearest trial stands in for the release and retraining
        that a fixed ratio needs.
        """
        spent = sum(trial.cost for trial in self.log.trials)
        following = min(self._held(), key=lambda trial: trial.kept_share, default=None)
        if following is None:
            return spent
        if following.epochs_run == 0:  # the dense network
            return spent - max(trial.cost for trial in self.trials)
        released = self.task.release_epochs(following.kept_share)
        return spent - self._cost(released, following.epochs_run)


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
        warnings.append("no smaller share held in a trial: all of the free weights are kept")
    return tuple(warnings)
