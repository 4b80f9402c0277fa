"""The one progress bar."""

import sys
from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("T")


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
