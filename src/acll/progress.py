"""The one progress bar, and the one line of an epoch."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeVar

_T = TypeVar("_T")


def progress_bar(
    items: Iterable[_T], label: str, total: int | None = None, unit: str = "it"
) -> Iterable[_T]:
    """Return the items, with a progress bar on the error output where that is a terminal.

    A bar leaves no line behind when it is done. A log gets none.
    """
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, label, total, leave=False, unit=unit)


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training, as a line in its log says it.

    number: how many epochs were made, of so many. validation: the score. loss: the mean. rate: the
    last learning rate. reads: share of the weights that is read; None where that is all of them.
    """

    label: str
    number: float
    of: float
    validation: float
    loss: float
    rate: float
    reads: float | None

    def __str__(self) -> str:
        # the score first: where a display is narrow it cuts the end
        line = (
            f"{self.label}: epoch {self.number:g}/{self.of:g}  validation {self.validation:.4f}  "
            f"loss {self.loss:.4f}  rate {self.rate:.3g}"
        )
        return line if self.reads is None else f"{line}  reads {self.reads:.4f}"

    @classmethod
    def read(cls, line: str) -> Self | None:
        """Return what a line of a log says; None where it is about something else."""
        found = _EPOCH.fullmatch(line)
        if found is None:
            return None
        label, reads = found[1], found[7]
        number, of, validation, loss, rate = map(float, found.groups()[1:6])
        share = None if reads is None else float(reads)
        return cls(label, number, of, validation, loss, rate, share)


_EPOCH = re.compile(
    r"(.+): epoch ([^/ ]+)/(\S+)  validation (\S+)  loss (\S+)  rate (\S+)(?:  reads (\S+))?"
)
