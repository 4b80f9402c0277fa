"""Lines of text for what `make verify`, `make leftovers` and the like find."""

from collections import Counter
from collections.abc import Sequence

from acll.sharing.leftovers import Leftover
from acll.sharing.verify import ResultFault

_SHOWN = 5  # results named for each reason


def faults_told(faults: Sequence[ResultFault]) -> list[str]:
    """Return lines on faults: those of one reason together, and how many follow from others."""
    groups: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        if fault.kind != "follows":
            groups.setdefault((fault.kind, fault.reason), []).append(fault.output)
    lines = []
    for (kind, reason), outputs in groups.items():
        lines.append(f"{kind:<12}{reason}")
        lines += [f"{'':12}  {output}" for output in outputs[:_SHOWN]]
        if len(outputs) > _SHOWN:
            lines.append(f"{'':12}  and {len(outputs) - _SHOWN} more")
    following = sum(fault.kind == "follows" for fault in faults)
    if following:
        lines.append(f"{'follows':<12}{following} more were made from what is stale")
    return lines


def faults_counted(faults: Sequence[ResultFault], results: int) -> str:
    """Return how many results have a fault, by kind, in a sentence. results: how many there are."""
    kinds = Counter("stale" if fault.kind == "follows" else fault.kind for fault in faults)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{len(faults)} of {results} results are not as this commit would make them ({counts})"


def leftovers_told(found: Sequence[Leftover]) -> list[str]:
    """Return a line for each group of leftovers: where, how many files, how large."""
    width = max((len(str(leftover.path)) for leftover in found), default=0)
    lines = []
    for leftover in found:
        count, megabytes = len(leftover.files), leftover.size / 1e6
        lines.append(f"{leftover.path!s:<{width}}  {count:>5} files  {megabytes:>9.2f} MB")
    return lines
