"""What a run has to say at its end."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def job_summary(dag: Any) -> str:
    """Return what has run, and what was there already. dag: Snakemake's graph of jobs."""
    jobs = {job for job in dag.jobs if job.output}
    ran = Counter(job.rule.name for job in dag.needrun_jobs(exclude_finished=False) if job.output)
    rules = ", ".join(f"{count} {rule}" for rule, count in ran.items()) or "none"
    there = len(jobs) - ran.total()
    return (
        f"{ran.total()} of {len(jobs)} jobs have run ({rules}); the results of {there} were there"
    )


def errors_of_steps(lock: Path) -> list[str]:
    """Return what the failed steps of this run have said, the name of the log in front.

    lock: the file to which the run wrote its name when it began. The logs lie below the current
    folder.
    """
    began = lock.stat().st_mtime
    lines = []
    for path in sorted(Path("logs").rglob("*.log")):
        if path.stat().st_mtime >= began:
            said = path.read_text(encoding="utf-8", errors="replace").splitlines()
            job = path.relative_to("logs").with_suffix("")
            lines += [f"{job}: {line}" for line in said if line.startswith("error: ")]
    return lines


def what_to_do(said: Sequence[str]) -> str:
    """Return what to type after a run that failed. said: what its steps have said."""
    if any(": damaged: " in line for line in said):
        return "`make repair` puts back, or makes again, what is damaged; `make run` would not"
    return "`make run` goes on where this stopped"
