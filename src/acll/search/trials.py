"""Trials: what was tried and what came of it, each kept on disk as soon as it ends."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import pandas as pd

from acll.files import write_json

REFERENCE = "reference"  # nothing released
TRIAL = "brief"  # with brief retraining
CONFIRMATION = "full"  # with full retraining


@dataclass(frozen=True)
class Candidate:
    """A place in the search space: the kept share of all free weights and, with groups of layers,
    the shape: the log of each group's factor."""

    kept: float
    shape: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What one attempt gave on the validation split: the score of its best look, and how many
    epochs it ran (rounded to whole batches)."""

    score: float
    standard_error: float
    ran: float


@dataclass(frozen=True)
class Trial:
    """A row of the table of trials.

    epochs: length of the retraining; ran: how many of them there were, in whole batches; cost: in
    units of the dense training; needed: the score that would do; objective: what the strategy
    minimises over brief trials.
    """

    number: int
    role: str
    kept_share: float
    epochs: float
    ran: float
    score: float
    standard_error: float
    cost: float
    needed: float | None = None
    objective: float | None = None
    shape: dict[str, float] = field(default_factory=dict)


# Tells from the scores of the looks so far, and the standard error of the last, whether a training
# may end.
StopRule = Callable[[list[float], float], bool]
RunTrial = Callable[
    [Candidate, float, int, StopRule | None], Measured
]  # where, epochs, seed, when it may end


class TrialLog:
    """All trials of a search.

    One that was killed and starts again with the same `key` takes from disk what is there, and so
    gives the same trials and the same choice as one left alone.
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
        self, role: str, point: Candidate, epochs: float, run: Callable[[], Measured], cost: "Cost"
    ) -> Trial:
        """Make the trial, or take it from disk where it is known."""
        number = len(self.trials)
        known = self._known[number] if number < len(self._known) else None
        if known is not None and _same(known, role, point, epochs):
            # the file stays as it is: it may hold more than has been taken from it
            self.trials.append(replace(known, needed=None, objective=None))
            return self.trials[-1]
        got = run()
        measured = (got.ran, got.score, got.standard_error, cost(got.ran))
        self.trials.append(Trial(number, role, point.kept, epochs, *measured, shape=point.shape))
        self._write()
        return self.trials[-1]

    def note(self, trial: Trial) -> None:
        """Add what the search made of a trial."""
        self.trials[trial.number] = trial

    def remove(self) -> None:
        """Forget the file; the search has ended."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_json(self.path, {"key": self.key, "trials": [asdict(trial) for trial in self.trials]})


def _same(trial: Trial, role: str, point: Candidate, epochs: float) -> bool:
    return (trial.role, trial.kept_share, trial.epochs, trial.shape) == (
        role,
        point.kept,
        epochs,
        point.shape,
    )


def trials_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row for each trial; with groups of layers a column for each, the log of its factor."""
    rows = [asdict(trial) for trial in trials]
    flat = [
        row | {f"shape_{group}": value for group, value in row.pop("shape").items()} for row in rows
    ]
    return pd.DataFrame(
        flat, columns=None if flat else [one.name for one in fields(Trial) if one.name != "shape"]
    )


@dataclass(frozen=True)
class Cost:
    """What trainings cost, in units of the dense training.

    A forward pass over an image counts 1, forward and backward 3. Counted, not timed: what is tried
    must not depend on how busy a machine is.
    """

    train_samples: int
    validation_samples: int
    dense_epochs: int

    def __call__(self, epochs: float) -> float:
        """Of a retraining, looks at the validation split included."""
        return self._passes(epochs) / self._passes(self.dense_epochs)

    def _passes(self, epochs: float) -> float:
        return 3 * self.train_samples * epochs + self.validation_samples * max(1, math.ceil(epochs))
