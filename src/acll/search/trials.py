"""Trials: what was tried and what came of it, each kept on disk as soon as it ends."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from acll.files import write_json

# roles of trials
REFERENCE = "reference"  # the dense network, as it is
TRIAL = "trial"  # with the release and the retraining that follow the search


@dataclass(frozen=True)
class Measured:
    """What a trial gave on the validation split.

    score, standard_error: of its best validation. epochs_run: how long its retraining was, rounded
    to whole steps. diverged: whether release or retraining did not come to finite values; its
    score is 0 then.
    """

    score: float
    standard_error: float
    epochs_run: float
    diverged: bool = False


@dataclass(frozen=True)
class Trial:
    """A row of the table of trials.

    release_epochs: how many epochs of release it added to those of the trials before it. epochs:
    length of its retraining. epochs_run: how many of them were run, in whole steps. cost: in
    units of the dense training. threshold: the score from which on the share would have held.
    diverged: as of `Measured`.
    """

    number: int
    role: str
    kept_share: float
    release_epochs: float
    epochs: float
    epochs_run: float
    score: float
    standard_error: float
    cost: float
    threshold: float | None = None
    diverged: bool = False


# (kept share, threshold) → its result. Without a threshold the dense network is scored. A trial
# ends as soon as it can hardly reach its threshold.
RunTrial = Callable[[float, float | None], Measured]


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
        kept: float,
        release_epochs: float,
        epochs: float,
        run: Callable[[], Measured],
        cost: Callable[[float], float],
    ) -> Trial:
        """Run the trial, or take it from the file where it is known; return its row.

        cost: of so many epochs of retraining, with what the trial costs beside it.
        """
        number = len(self.trials)
        known = self._known[number] if number < len(self._known) else None
        if known is not None and (known.role, known.kept_share) == (role, kept):
            # the file stays as it is: it may hold more than has been taken from it
            self.trials.append(replace(known, threshold=None))
            return self.trials[-1]
        got = run()
        trial = Trial(
            number=number,
            role=role,
            kept_share=kept,
            release_epochs=release_epochs,
            epochs=epochs,
            epochs_run=got.epochs_run,
            score=got.score,
            standard_error=got.standard_error,
            cost=cost(got.epochs_run),
            diverged=got.diverged,
        )
        self.trials.append(trial)
        self._write()
        return trial

    def note(self, trial: Trial) -> None:
        """Replace the row of this number, once the search has judged the trial."""
        self.trials[trial.number] = trial

    def _write(self) -> None:
        write_json(self.path, {"key": self.key, "trials": [asdict(trial) for trial in self.trials]})


def trials_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for each trial."""
    return pd.DataFrame(map(asdict, trials), columns=[one.name for one in fields(Trial)])


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

    def __call__(self, epochs: float, distill: bool = False) -> float:
        """Return the cost of so many epochs, with a validation each, and one after a last part.

        distill: whether the dense network is learned from.
        """
        own = self._passes(epochs, 3 + distill)
        return own / self._passes(self.dense_epochs, 3)

    def _passes(self, epochs: float, each: int) -> float:
        return each * self.train_samples * epochs + self.validation_samples * math.ceil(epochs)
