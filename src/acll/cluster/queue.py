"""The queue of Slurm: what is in it, and that no job stays there when its run is gone."""

import hashlib
import re
import secrets
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from acll.errors import UserError

_PATIENCE = 60  # seconds that a command of Slurm may take
_LEAVING = 15.0  # seconds that cancelled jobs may take to leave the queue


def ask_slurm(*command: str) -> str:
    """Return what a command of Slurm says. Raises UserError where it fails or does not answer."""
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]}: there is no such command; run this on a machine from which jobs are "
            "submitted to Slurm, or leave out PROFILE=…"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: Slurm does not answer") from None
    if run.returncode:
        said = " ".join(run.stderr.split()) or f"exit code {run.returncode}"
        raise UserError(f"{command[0]}: {said}")
    return run.stdout


@cache
def settings_of_slurm() -> dict[str, str]:
    """Return the settings of this cluster, by name."""
    said = ask_slurm("scontrol", "show", "config")
    return dict(re.findall(r"^(\w+) *= *(\S+)", said, re.MULTILINE))


def keeps_accounts() -> bool:
    """Return whether what became of jobs is recorded (`sacct`)."""
    return "slurmdbd" in settings_of_slurm().get("AccountingStorageType", "")


@cache
def most_cpus() -> int:
    """Return how many CPUs a job may ask for: those of the largest machine of the cluster.

    1 where Slurm does not say it.
    """
    try:
        said = ask_slurm("sinfo", "--noheader", "--format=%c")
    except UserError:
        return 1
    return max((int(number) for number in re.findall(r"\d+", said)), default=1)


def job_names(results: Path) -> str:
    """Return how the names of all jobs begin that belong to some results."""
    where = hashlib.sha256(str(results.resolve()).encode()).hexdigest()
    return f"acll_{results.name[:20]}_{where[:10]}_"


def names_for_run(results: Path) -> str:
    """Return how the names of the jobs of one run are to begin."""
    return job_names(results) + secrets.token_hex(4)


def cancel_jobs(names: str) -> int:
    """Cancel all jobs of this user in the queue whose names begin so; return how many there were.

    Wait until they have left it. Raises UserError where that cannot be done, or they do not leave.
    """
    found: set[str] = set()
    deadline = time.monotonic() + _LEAVING
    while there := _jobs_in_queue(names):
        if time.monotonic() > deadline:
            raise UserError(f"jobs that stay in the queue: {', '.join(there)}; try `scancel`")
        if not found.issuperset(there):
            found.update(there)
            ask_slurm("scancel", *there)
        time.sleep(0.5)
    return len(found)


def _jobs_in_queue(names: str) -> Sequence[str]:
    """Return their numbers, without those that Slurm is clearing up after, which may take hours."""
    lines = ask_slurm("squeue", "--me", "--noheader", "--format=%A %T %j").splitlines()
    parts = [(*line.split(" ", 2), "", "")[:3] for line in lines]
    return [
        number for number, state, name in parts if name.startswith(names) and state != "COMPLETING"
    ]
