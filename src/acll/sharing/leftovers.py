"""Leftovers: results of runs that the configuration does not name.

They are of tasks, methods, seeds or prefixes that were taken out of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.files import UNFINISHED, checkpoints_of
from acll.plan import Job
from acll.sharing import records
from acll.sharing.short_names import NETWORKS

REPORT = Path("report.html")  # of `make report`, below the results; DVC leaves it out
_ABOUT_JOBS = {"logs", "benchmarks", "digests", ".snakemake"}


@dataclass(frozen=True)
class Leftover:
    """Files that belong together, under the highest folder that holds nothing else.

    Paths are below the results.
    """

    path: Path
    files: tuple[Path, ...]
    size: int  # bytes


def leftovers(results: Path, jobs: Sequence[Job]) -> list[Leftover]:
    """Return what runs have left in `results` and belongs to no job, in as few groups as possible.

    Unfinished work belongs to its job. Files that no run has made are no leftovers: see `foreign`.
    """
    found, loose = _sorted_out(results, jobs)
    # a group is the highest folder in which nothing is kept
    kept = {parent for path in set(found) - loose for parent in path.parents} | {Path()}
    groups: dict[Path, list[Path]] = {}
    for path in sorted(loose):
        groups.setdefault(_group(path, kept), []).append(path)
    return [
        Leftover(path, tuple(files), sum(_size(results / file) for file in files))
        for path, files in groups.items()
    ]


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for one that a run has renamed or removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def foreign(results: Path, jobs: Sequence[Job]) -> list[Path]:
    """Return the files in `results` that no run has made; DVC versions and shares them."""
    found, loose = _sorted_out(results, jobs)
    named = _named(jobs) | {REPORT}
    return [
        path
        for path in found
        if path not in named and path not in loose and path.parts[0] != ".snakemake"
    ]


def _sorted_out(results: Path, jobs: Sequence[Job]) -> tuple[list[Path], set[Path]]:
    """Return (all files, those of them that a run has left and no job names), below `results`."""
    named = _named(jobs)
    made = {Path(output) for output in records.recorded(results) | records.unfinished(results)}
    found = [path.relative_to(results) for path in sorted(results.rglob("*")) if path.is_file()]
    found = [path for path in found if path.parts[0] != NETWORKS.name]  # links to what is there
    loose = {path for path in found if path not in named and (path in made or _of_a_run(path))}
    return found, loose


def _named(jobs: Sequence[Job]) -> set[Path]:
    """Return every file that some job may leave, below the results."""
    outputs = {output for job in jobs for output in job.all_outputs}
    named = {Path(path) for job in jobs for path in (*job.all_outputs, job.digests, *job.others)}
    named |= {path for output in outputs for path in checkpoints_of(Path(output))}
    return named | {records.record_path(output) for output in outputs}


def _of_a_run(path: Path) -> bool:
    """Return whether a file is of a run, though not a result: a log, a record, unfinished work."""
    if path.parts[0] == ".snakemake":
        return records.METADATA in path.parents
    return path.parts[0] in _ABOUT_JOBS or path.suffix in (".checkpoint", UNFINISHED)


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
