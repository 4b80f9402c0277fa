"""What can be wrong with raw data: one plain record for each file, one report for all of them."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from acll.errors import harmless
from acll.files import write_text

_SHOWN = 3  # files of a kind that a message names; the report has all

FaultKind = Literal[
    "unreadable", "machine", "missing", "elsewhere", "partner", "size", "label", "palette", "pages",
    "ignored", "bands", "exact copy", "near copy", "two labels", "group", "class", "likeness",
    "annotation", "column", "unused",
]  # fmt: skip

# what faults of each kind are called where they are counted
CALLED: dict[FaultKind, str] = {
    "unreadable": "files that cannot be read",  # no image, cut off, too large to be decoded whole
    # want of memory, or a process that was killed or late: never skipped, or data would depend on
    # the machine
    "machine": "files on which this machine failed",
    "missing": "files that are not there",  # although a table or an annotation names them
    "elsewhere": "files in odd places",  # where the layout has no images
    "partner": "images and masks without a partner",  # or two of one name
    "size": "masks of another size than their images",
    "label": "odd labels",  # outside the classes
    "palette": "masks whose palettes do not fit",  # an index has another colour than before
    "pages": "files of several images",
    "ignored": "masks without any class",
    "bands": "images with another number of channels",  # than most
    "exact copy": "copies in two splits",
    "near copy": "near copies in two splits",
    "two labels": "images with two labels",
    "group": "images of groups in two splits",
    "class": "classes without a sample in a split",
    "likeness": "classes of like names",  # that differ by their case, quotes or zeros alone
    "annotation": "oddities of annotation files",  # such as an id that two share
    "column": "columns that are not read",  # of a table, and may say the split
    "unused": "files that are not used",
}


@dataclass(frozen=True, order=True)
class DataFault:
    """One file that cannot be used, or that deserves a look, and why.

    Names and words come from outside, so they are made harmless here, for all who print them.
    """

    kind: FaultKind
    file: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", harmless(self.file))
        object.__setattr__(self, "message", harmless(self.message))


def write_faults(path: Path, **faults: Sequence[DataFault]) -> None:
    """Write every fault as a row of a CSV file: treated, kind, file, message.

    The name of an argument says how its faults were treated: `left_out=…`.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("treated", "kind", "file", "message"))
    for treated, of_treatment in faults.items():
        for fault in sorted(of_treatment):
            rows.writerow((treated.replace("_", " "), *astuple(fault)))
    write_text(path, text.getvalue())


def in_words(faults: Sequence[DataFault]) -> list[str]:
    """Return a line for each of the first few faults of each kind, in the order of the kinds."""
    lines = []
    for kind in get_args(FaultKind):
        of_kind = sorted(fault for fault in faults if fault.kind == kind)
        lines += [f"{fault.file}: {fault.message}" for fault in of_kind[:_SHOWN]]
        if len(of_kind) > _SHOWN:
            lines.append(f"… and {len(of_kind) - _SHOWN} more ({CALLED[kind]})")
    return lines


def counted(faults: Sequence[DataFault]) -> dict[str, int]:
    """Return the number of faults of each kind."""
    return dict(sorted(Counter(fault.kind for fault in faults).items()))


def noticed(found: Mapping[str, Any]) -> list[str]:
    """Return a text on files that were left out, and one on what deserves a look.

    found: the summary of a task. Each kind of fault is counted, with the first one in words.
    """
    texts = []
    for what, treated in (("left_out", "left out: "), ("warnings", "")):
        first = {fault["kind"]: fault for fault in reversed(found["faults"][what])}
        kinds = "; ".join(
            f"{CALLED[kind]}: {count} ({'' if count == 1 else 'first: '}{first[kind]['file']}: "
            f"{first[kind]['message']})"
            for kind, count in found[what].items()
        )
        if kinds:
            texts.append(f"{treated}{kinds}")
    return texts


def noticed_lines(name: str, found: Mapping[str, Any], report: str) -> list[str]:
    """Return a warning for each text of `noticed`. name: of the task; report: where all stands."""
    return [f"warning: {name}: {text}; see {report}" for text in noticed(found)]


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are, as one text."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
