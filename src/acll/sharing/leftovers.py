"""Results that the configuration no longer names: of tasks, methods, seeds or prefixes that were
taken out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.plan import Job
from acll.sharing import records

REPORT = Path("report.html")  # which `make report` writes there, and DVC leaves out
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
    """What runs have left in `results` and belongs to no job, in as few groups as tell it.

    Unfinished work stays its job's, and what no run has made is nobody's business here.
    """
    found, loose = _sorted_out(results, jobs)
    kept = {parent for path in set(found) - loose for parent in path.parents} | {Path()}
    groups: dict[Path, list[Path]] = {}
    for path in sorted(loose):
        groups.setdefault(_group(path, kept), []).append(path)
    return [
        Leftover(path, tuple(files), sum((results / file).stat().st_size for file in files))
        for path, files in groups.items()
    ]


def foreign(results: Path, jobs: Sequence[Job]) -> list[Path]:
    """What lies in `results` and was made by no run: nobody's business here, but DVC takes it
    along."""
    found, loose = _sorted_out(results, jobs)
    named = _named(jobs) | {REPORT}
    return [
        path
        for path in found
        if path not in named and path not in loose and path.parts[0] != ".snakemake"
    ]


def _sorted_out(results: Path, jobs: Sequence[Job]) -> tuple[list[Path], set[Path]]:
    """All files, and those of them that a run has left and no job names."""
    named = _named(jobs)
    made = {Path(output) for output in records.recorded(results) | records.unfinished(results)}
    found = [path.relative_to(results) for path in sorted(results.rglob("*")) if path.is_file()]
    return found, {
        path for path in found if path not in named and (path in made or _of_a_run(path))
    }


def _named(jobs: Sequence[Job]) -> set[Path]:
    outputs = {output for job in jobs for output in job.all_outputs}
    named = {Path(path) for job in jobs for path in (*job.all_outputs, job.digests, *job.others)}
    named |= {Path(output).with_suffix(".checkpoint") for output in outputs}
    return named | {records.record_path(output) for output in outputs}


def _of_a_run(path: Path) -> bool:
    """Whether a file is a run's own, though not a result."""
    if path.parts[0] == ".snakemake":
        return records.METADATA in path.parents
    return path.parts[0] in _ABOUT_JOBS or path.suffix in (".checkpoint", ".partial")


def _group(path: Path, kept: set[Path]) -> Path:
    if path.parts[0] in _ABOUT_JOBS:
        return Path(path.parts[0])
    above = [parent for parent in path.parents if parent not in kept]
    return above[-1] if above else path


def remove(results: Path, found: Sequence[Leftover]) -> None:
    """Delete the files, and folders that are left empty."""
    for leftover in found:
        for file in leftover.files:
            (results / file).unlink()
            for parent in file.parents:
                folder = results / parent
                if parent == Path() or any(folder.iterdir()):
                    break
                folder.rmdir()
