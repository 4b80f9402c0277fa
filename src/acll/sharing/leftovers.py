"""Leftovers: results of runs that the configuration does not name.

They are of tasks, methods, seeds or prefixes that were taken out of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.files import UNFINISHED, checkpoints_of, files_below
from acll.plan import Job
from acll.sharing import records
from acll.sharing.short_names import NETWORKS

REPORT = Path("report.html")  # of `make report`, below the results; DVC leaves it out
_CHECKPOINT = ".checkpoint"
_ABOUT_JOBS = {"logs", "benchmarks", "digests", ".snakemake"}


@dataclass(frozen=True)
class Leftover:
    """Files that belong together, under the highest folder that holds nothing else.

    Paths are below the results.
    """

    path: Path
    files: tuple[Path, ...]
    size: int  # bytes


@dataclass(frozen=True)
class Unnamed:
    """The files among results that no job of the configuration makes.

    leftovers: what runs have left, in as few groups as possible; foreign: what no run has made, and
    DVC versions and shares. Paths are below the results.
    """

    leftovers: list[Leftover]
    foreign: list[Path]


def unnamed(results: Path, jobs: Sequence[Job]) -> Unnamed:
    """Return the files in `results` that no job makes. Unfinished work belongs to its job."""
    # the links in `networks/` lead to what is there
    found = [path for path in files_below(results) if _top(path) != NETWORKS.name]
    named = _named(jobs, [path for path in found if path.endswith(_CHECKPOINT)])
    made = records.recorded(results) | records.unfinished(results)
    others = [path for path in found if path not in named]
    loose = [path for path in others if path in made or _of_a_run(path)]
    strange = set(others).difference(loose)
    # a group is the highest folder in which nothing is kept
    kept = {Path()}
    for folder in {Path(path).parent for path in found if path in named or path in strange}:
        kept |= {folder, *folder.parents}
    groups: dict[Path, list[Path]] = {}
    for path in map(Path, loose):
        groups.setdefault(_group(path, kept), []).append(path)
    left = [
        Leftover(path, tuple(files), sum(_size(results / file) for file in files))
        for path, files in groups.items()
    ]
    foreign = [
        Path(path)
        for path in sorted(strange)
        if path != str(REPORT) and _top(path) != records.METADATA.parts[0]
    ]
    return Unnamed(left, foreign)


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for one that a run has renamed or removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _named(jobs: Sequence[Job], checkpoints: Sequence[str]) -> set[str]:
    """Return every file that some job may leave, of checkpoints those that are there."""
    named: set[str] = set()
    for job in jobs:
        named |= {*job.all_outputs, job.digests, *job.others}
        named |= {records.record_name(output) for output in job.all_outputs}
    if checkpoints:
        outputs = (output for job in jobs for output in job.all_outputs)
        named |= {str(path) for output in outputs for path in checkpoints_of(Path(output))}
    return named


def _top(path: str) -> str:
    return path.partition("/")[0]


def _of_a_run(path: str) -> bool:
    """Return whether a file is of a run, though not a result: a log, a record, unfinished work."""
    if _top(path) == records.METADATA.parts[0]:
        return records.METADATA in Path(path).parents
    return _top(path) in _ABOUT_JOBS or path.endswith((_CHECKPOINT, UNFINISHED))


def _group(path: Path, kept: set[Path]) -> Path:
    """Return the highest folder of a file that is not in `kept`; the file where there is none."""
    if path.parts[0] in _ABOUT_JOBS:
        return Path(path.parts[0])
    above = [parent for parent in path.parents if parent not in kept]
    return above[-1] if above else path


def remove_checkpoints(results: Path, jobs: Sequence[Job]) -> None:
    """Delete the unfinished work of jobs that have ended since."""
    begun = records.unfinished(results)
    for job in jobs:
        if all((results / one).is_file() and one not in begun for one in job.all_outputs):
            for output in job.all_outputs:
                for path in checkpoints_of(results / output):
                    path.unlink(missing_ok=True)


def remove(results: Path, found: Sequence[Leftover]) -> None:
    """Delete leftovers, and folders that are then empty."""
    for leftover in found:
        for file in leftover.files:
            (results / file).unlink()
            for parent in file.parents:
                folder = results / parent
                if parent == Path() or any(folder.iterdir()):
                    break
                folder.rmdir()
