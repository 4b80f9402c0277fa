"""Lines of text for what `make verify`, `make leftovers` and the like find."""

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from acll.node import LEARNED
from acll.sharing.leftovers import Leftover
from acll.sharing.to_run import Reason
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


def reasons_told(reasons: Sequence[Reason], jobs: int) -> list[str]:
    """Return a table of the jobs that a run would run, and why. jobs: how many there are in all.

    Jobs that have made nothing yet, and those that only follow others, are counted by rule.
    """
    if not reasons:
        return [f"nothing to run: the results of all {jobs} jobs are there"]
    lines = [f"{len(reasons)} of {jobs} jobs would run"]
    own = [reason for reason in reasons if reason.kind in ("changed", "missing")]
    if own:
        rows = [("", "job", "why")] + [("", one.job.title, one.words) for one in own]
        lines += tabulate(rows, headers="firstrow", tablefmt="plain").splitlines()
        said = [f"{one.job.title} {one.words}" for one in own]
        if any("dense" in words for words in said):
            lines.append("(dense: the trained network of a task, before pruning)")
        if any(f"/{LEARNED}/" in words for words in said):
            lines.append("(learned: the training of a first task that packing methods share)")
    for kind, words in (("new", "have no results yet"), ("follows", "follow from others")):
        rules = Counter(reason.job.rule for reason in reasons if reason.kind == kind)
        if rules:
            counts = ", ".join(f"{count} {rule}" for rule, count in rules.items())
            lines.append(f"{rules.total()} {words}: {counts}")
    return lines


def leftovers_told(found: Sequence[Leftover]) -> list[str]:
    """Return a line for each group of leftovers: where, how many files, how large."""
    width = max((len(str(leftover.path)) for leftover in found), default=0)
    lines = []
    for leftover in found:
        count, megabytes = len(leftover.files), leftover.size / 1e6
        lines.append(f"{leftover.path!s:<{width}}  {count:>5} files  {megabytes:>9.2f} MB")
    return lines
