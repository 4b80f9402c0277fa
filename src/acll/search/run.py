"""The search of a task's release ratio: reference, trials, choice, confirmation (see the README, "How it works")."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from acll.files import write_json
from acll.search.choice import smallest_share, tolerance_of
from acll.search.suggest import penalised, suggest
from acll.seeds import derived
from acll.settings import Search

FEWEST_SAMPLES = 50  # a validation split below this says little; the run warns


@dataclass(frozen=True)
class Measured:
    """What one attempt at a kept share gave on the validation split."""

    score: float
    standard_error: float


@dataclass(frozen=True)
class Trial:
    """A row of the table of trials. role: reference, trial, full_reference or confirmation."""

    number: int
    role: str
    kept_share: float
    epochs: int
    score: float
    standard_error: float
    loss: float | None = None


@dataclass(frozen=True)
class Choice:
    """What a search decided. Ratios are shares of the free weights that are released."""

    ratio_searched: float  # what the data ask for; a bound where `confirmed` and the cap say that it could not be tried
    ratio: float  # what is done: not less than the cap demands
    cap: float | None  # largest share of the free weights that the task may keep; None: no bound
    capped: bool
    reference_score: float
    standard_error: float
    tolerance: float
    threshold: float
    confirmed: bool
    warnings: tuple[str, ...] = field(default=())


Attempt = Callable[[float, int, int], Measured]  # kept share, epochs, seed → scores


def search(
    settings: Search, full_epochs: int, attempt: Attempt, cap: float | None, samples: int, seed: int, log: "TrialLog"
) -> tuple[Choice, list[Trial]]:
    """Find the largest ratio whose validation score is within the tolerance of the reference.

    attempt: releases all but a share of the free weights, retrains for some epochs and scores, in [0, 1]; full_epochs:
    length of the retraining that follows the search; samples: size of the validation split; cap: see `Choice`.
    The whole range up to 1 is searched whatever the cap, so that `ratio_searched` says what the task needs and the
    cap what it gets.
    """
    brief = max(1, round(settings.trial_share * full_epochs))
    reference = log.measure("reference", 1.0, brief, derived(seed, "reference"), attempt)
    tolerance = tolerance_of(reference.standard_error, settings.z, settings.min_tolerance, settings.max_tolerance)
    threshold = reference.score - tolerance
    kept, losses = [1.0], [penalised(1.0, reference.score, threshold, tolerance, settings.lower)]
    scores = [reference.score]
    for number in range(1, settings.trials + 1):
        share = suggest(settings, kept, losses, seed)
        measured = log.measure("trial", share, brief, derived(seed, "trial", number), attempt)
        kept.append(share)
        scores.append(measured.score)
        losses.append(penalised(share, measured.score, threshold, tolerance, settings.lower))
        log.note_loss(losses[-1])
        best = smallest_share(kept, scores, threshold)
        print(f"search: trial {number}/{settings.trials}  kept {share:.4f}  score {measured.score:.4f}  "
              f"(needed {threshold:.4f})  best so far: keep {best:.4f}", flush=True)  # fmt: skip
    wanted = smallest_share(kept, scores, threshold)
    limit = 1.0 if cap is None else cap
    confirmed = False
    if wanted < limit:
        wanted, confirmed = _confirm(settings, full_epochs, attempt, wanted, limit, tolerance, seed, log)
    capped = wanted > limit or (cap is not None and not confirmed)
    choice = Choice(
        ratio_searched=1 - wanted,
        ratio=1 - min(wanted, limit),
        cap=cap,
        capped=capped,
        reference_score=reference.score,
        standard_error=reference.standard_error,
        tolerance=tolerance,
        threshold=threshold,
        confirmed=confirmed,
        warnings=_warnings(samples, wanted, cap if capped else None, confirmed),
    )
    return choice, log.trials


def _confirm(
    settings: Search,
    epochs: int,
    attempt: Attempt,
    wanted: float,
    limit: float,
    tolerance: float,
    seed: int,
    log: "TrialLog",
) -> tuple[float, bool]:
    """The smallest of some shares from `wanted` up to the limit that holds with full retraining, and whether one did.

    The shares are evenly spaced on the log scale, the limit not among them: it needs no confirmation.

    It is compared with a reference of the same retraining: a longer one would flatter it.
    """
    own = derived(seed, "confirmation")
    reference = log.measure("full_reference", 1.0, epochs, own, attempt)
    steps = settings.confirmations
    for share in (wanted * (limit / wanted) ** (step / steps) for step in range(steps)):
        measured = log.measure("confirmation", share, epochs, own, attempt)
        holds = measured.score >= reference.score - tolerance - 1e-12
        print(f"search: confirmation  kept {share:.4f}  score {measured.score:.4f}  "
              f"(needed {reference.score - tolerance:.4f})  {'holds' if holds else 'fails'}", flush=True)  # fmt: skip
        if holds:
            return share, True
    return limit, False


def _warnings(samples: int, wanted: float, cap: float | None, confirmed: bool) -> tuple[str, ...]:
    """What a person should know of a choice; cap: the bound where it was hit, else None."""
    warnings = []
    if samples < FEWEST_SAMPLES:
        warnings.append(f"the validation split has {samples} samples; below {FEWEST_SAMPLES} the choice is coarse")
    if cap is not None:
        asked = f"{wanted:.3f}" if wanted > cap else "more"
        warnings.append(
            f"the task asks for {asked} of the free weights; its cap allows {cap:.3f}: "
            "a larger network, or fewer expected_tasks, would give it more"
        )
    elif not confirmed:
        warnings.append("no smaller share held with full retraining: all of the free weights are kept")
    return tuple(warnings)


class TrialLog:
    """All attempts of a search, each kept on disk as soon as it ends.

    A search that was killed and starts again with the same `key` takes them from there, and so gives the same
    trials and the same choice as one left alone.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.trials: list[Trial] = []
        self._known: list[Trial] = []
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key:
                self._known = [Trial(**row) for row in content["trials"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or one of another search: start anew

    def measure(self, role: str, kept: float, epochs: int, seed: int, attempt: Attempt) -> Measured:
        """The attempt's result, from disk where it is known."""
        number = len(self.trials)
        known = self._known[number] if number < len(self._known) else None
        if known is not None and (known.role, known.kept_share, known.epochs) == (role, kept, epochs):
            self.trials.append(known)
            return Measured(known.score, known.standard_error)
        measured = attempt(kept, epochs, seed)
        self.trials.append(Trial(number, role, kept, epochs, measured.score, measured.standard_error))
        self._write()
        return measured

    def note_loss(self, loss: float) -> None:
        """Add the search's loss to the last trial."""
        self.trials[-1] = Trial(**(asdict(self.trials[-1]) | {"loss": loss}))

    def remove(self) -> None:
        """Forget the file; the search has ended."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_json(self.path, {"key": self.key, "trials": [asdict(trial) for trial in self.trials]})
