"""What a run has to say at its end."""

import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from acll.data.root import ROOT_KEY
from acll.files import free_space
from acll.lock import run_began

PROFILE = "ACLL_PROFILE"  # the variable that names the profile of a run, if it has one
_LITTLE = 2**24  # bytes: with so few left a disk may have been full


def job_summary(dag: Any) -> str:
    """Return what has run, and what was there already. dag: Snakemake's graph of jobs."""
    jobs = {job for job in dag.jobs if job.output}
    ran = Counter(job.rule.name for job in dag.needrun_jobs(exclude_finished=False) if job.output)
    in_order = [rule.name for rule in dag.workflow.rules if rule.name in ran]
    rules = ", ".join(f"{ran[rule]} {rule}" for rule in in_order) or "none"
    there = len(jobs) - ran.total()
    return (
        f"{ran.total()} of {len(jobs)} jobs have run ({rules}); the results of {there} were there"
    )


def errors_of_steps(jobs: Iterable[Iterable[str]], silent: bool = True) -> list[str]:
    """Return for each failed job of this run what its step has said, and where its log lies.

    That is its errors or, of a step that ended without a word for the user, its last line. jobs:
    of each that failed its logs, below `logs` in the results, where this process works: several
    where steps are one job of a scheduler. silent: whether to name steps that have said nothing; of
    a job of a scheduler it has been told what became of it.
    """
    lines = []
    for job in sorted(sorted(paths) for paths in jobs):
        logs = logs_of_this_run(job)
        last = sorted(logs, key=lambda path: path.stat().st_mtime)[-1:]
        for path in [path for path in logs if errors_in(path)] or last:
            name = path.relative_to("logs").with_suffix("")
            words = errors_in(path) or _lines_of(path)[-1:]
            if not words and not silent:
                continue
            words = words or ["has said nothing"]
            lines += [f"{name}: {line}" for line in words]
            lines.append(f"  log: results/{Path.cwd().name}/{path}")
    return lines


def logs_of_this_run(paths: Iterable[str]) -> list[Path]:
    """Return the logs among files of jobs that this run has written; others are of earlier ones."""
    began = run_began(Path())
    logs = [path for path in map(Path, paths) if path.suffix == ".log" and path.is_file()]
    return [path for path in logs if path.stat().st_mtime >= began]


def errors_in(log: Path) -> list[str]:
    """Return what a step has said is wrong."""
    return [line for line in _lines_of(log) if line.startswith("error: ")]


def _lines_of(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line for line in lines if line.strip()]


def make_command(target: str, name: str) -> str:
    """Return what to type for a target of the Makefile, with the place of raw data if one is given.

    name: of the configuration. A run that has a profile goes on with it.
    """
    place, profile = os.environ.get(ROOT_KEY), os.environ.get(PROFILE)
    words = [f"make {target} CONFIG={name}"]
    words += [f"DATA={shlex.quote(place)}"] if place else []
    words += [f"PROFILE={shlex.quote(profile)}"] if profile and target == "run" else []
    return " ".join(words)


def what_to_do(said: Sequence[str], name: str) -> str:
    """Return what to type after a run that failed.

    said: what its steps have said. name: of its configuration.
    """
    run = f"`{make_command('run', name)}`"
    if any(": damaged: " in line for line in said):
        repair = f"`{make_command('repair', name)}`"
        return f"{repair} puts back, or makes again, what is damaged; {run} would not"
    if any(": error: " in line for line in said):
        return f"mend this, and {run} goes on where this stopped"
    logs = "; what fails again is told in its log" if said else ""
    return f"{run} goes on where this stopped{logs}"


def warn_of_full_disk(results: Path) -> None:
    """Print a line where the disk of the results has next to no room.

    At the end of a run, since Snakemake does not say which disk it could not write to.
    """
    if shutil.disk_usage(results).free < _LITTLE:
        said, run = free_space(results / "file"), make_command("run", results.absolute().name)
        print(f"{said}: make room, and `{run}` goes on where it stopped", file=sys.stderr)
