"""Trials: what was tried and what came of it, each kept on disk as soon as it ends."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import pandas as pd

from acll.files import write_json

# roles of trials
REFERENCE = "reference"  # nothing released: the dense network, or a short retraining of it
SHORT = "short"  # with a short release and retraining
FULL = "full"  # with the release and the retraining that follow the search
SCALE_PREFIX = "group_log_scale_"  # of the columns of groups


@dataclass(frozen=True)
class Candidate:
    """What a trial tries: a kept share and, with groups of layers, how much each group counts.

    kept: share of all free weights that is kept. group_log_scale: for each group the logarithm of
    the factor by which its magnitudes count; empty without groups.
    """

    kept: float
    group_log_scale: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a trial gave on the validation split.

    score, standard_error: of its best validation. epochs_run: how long it was, rounded to whole
    batches. diverged: whether release or retraining did not come to finite values; its score is 0
    then. validations: how many there were, 0: as of `Cost`.
    """

    score: float
    standard_error: float
    epochs_run: float
    diverged: bool = False
    validations: int = 0


@dataclass(frozen=True)
class Trial:
    """A row of the table of trials.

    epochs: length of release and retraining. epochs_run: how many of them were run, in whole
    batches. cost: in units of the dense training. threshold: the score from which on the share
    would have held. objective: what the strategy minimises over short trials. diverged: as of
    `Measured`.
    """

    number: int
    role: str
    kept_share: float
    epochs: float
    epochs_run: float
    score: float
    standard_error: float
    cost: float
    threshold: float | None = None
    objective: float | None = None
    diverged: bool = False
    group_log_scale: dict[str, float] = field(default_factory=dict)


# (candidate, epochs, seed, threshold) → its result. A full trial has no seed of its own, but those
# of what follows the search. It has a threshold, and ends as soon as it can hardly reach it.
RunTrial = Callable[[Candidate, float, int | None, float | None], Measured]


class TrialLog:
    """All trials of a search, in order, and their file.

    A search that was killed and starts again with the same `key` takes its trials from the file. So
    it has the same trials and the same choice as one left alone.
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

    def measure(
        self,
        role: str,
        candidate: Candidate,
        epochs: float,
        run: Callable[[], Measured],
        cost: Callable[[float, int], float],
    ) -> Trial:
        """Run the trial, or take it from the file where it is known; return its row.

        cost: of so many epochs and validations.
        """
        number = len(self.trials)
        known = self._known[number] if number < len(self._known) else None
        if known is not None and _is_trial_of(known, role, candidate, epochs):
            # the file stays as it is: it may hold more than has been taken from it
            self.trials.append(replace(known, threshold=None, objective=None))
            return self.trials[-1]
        got = run()
        trial = Trial(
            number=number,
            role=role,
            kept_share=candidate.kept,
            epochs=epochs,
            epochs_run=got.epochs_run,
            score=got.score,
            standard_error=got.standard_error,
            cost=cost(got.epochs_run, got.validations),
            diverged=got.diverged,
            group_log_scale=candidate.group_log_scale,
        )
        self.trials.append(trial)
        self._write()
        return trial

    def note(self, trial: Trial) -> None:
        """Replace the row of this number, once the search has judged the trial."""
        self.trials[trial.number] = trial

    def _write(self) -> None:
        write_json(self.path, {"key": self.key, "trials": [asdict(trial) for trial in self.trials]})


def _is_trial_of(trial: Trial, role: str, candidate: Candidate, epochs: float) -> bool:
    own = (trial.role, trial.kept_share, trial.epochs, trial.group_log_scale)
    return own == (role, candidate.kept, epochs, candidate.group_log_scale)


def trials_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for each trial.

    With groups of layers there is a column `group_log_scale_<group>` for each.
    """
    rows = []
    for trial in trials:
        row = asdict(trial)
        scales = row.pop("group_log_scale")
        rows.append(row | {f"{SCALE_PREFIX}{group}": value for group, value in scales.items()})
    if rows:
        return pd.DataFrame(rows)
    names = [one.name for one in fields(Trial) if one.name != "group_log_scale"]
    return pd.DataFrame(columns=names)


@dataclass(frozen=True)
class Cost:
    """What trainings cost, in units of the dense training.

    A forward pass over an image counts 1, forward and backward 3; where a trial learns from the
    dense network, its forward pass is one more. Costs are counted, not timed: what is tried must
    not depend on how busy a machine is.
    """

    train_samples: int
    validation_samples: int
    dense_epochs: int

    def __call__(self, epochs: float, validations: int = 0, distill: bool = False) -> float:
        """Return the cost of a trial of so many epochs, its validations included.

        validations: 0: one an epoch, and one after a last part of an epoch. distill: whether it
        learns from the dense network.
        """
        own = self._passes(epochs, validations, 3 + distill)
        return own / self._passes(self.dense_epochs, 0, 3)

    def _passes(self, epochs: float, validations: int, each: int) -> float:
        count = validations or max(1, math.ceil(epochs))
        return each * self.train_samples * epochs + self.validation_samples * count
