"""Runs whose jobs a scheduler (Slurm) starts, on other machines.

Snakemake's executor submits jobs and asks what became of them. Here is what it leaves open: which
command tells that, how often it is asked, what a person hears of a job that the scheduler has
ended, which jobs are tried again, and that no job stays in the queue when its run is gone.
"""

import asyncio
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import yaml

from acll.errors import UserError

PLUGINS = Path(sys.prefix) / "slurm"  # where the Makefile puts the executor
PROFILES = "profiles"  # the folder of profiles, in a checkout or a project
_PACKAGE = "snakemake_executor_plugin_slurm"
_FORGOTTEN = 120  # seconds; a scheduler that forgets jobs sooner could forget one unseen
_SLOWER, _LONGEST = 1.2, 60.0  # by which the time between two looks grows; seconds at most
_INCREMENT = 10.0  # seconds by which the executor would make that time longer
_LEAVING = 15.0  # seconds that cancelled jobs may take to leave the queue
# states of Slurm that more time, more memory or another machine may mend
_TRY_AGAIN = {"BOOT_FAIL", "DEADLINE", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
_WANT = "Exceeded job memory limit"  # of slurmstepd


def arguments_of(root: Path, profile: str, results: Path) -> list[str]:
    """Return Snakemake's arguments for a profile of the folder `root`.

    Raises UserError where there is no such profile, or what it needs is not here.
    """
    path = root / PROFILES / profile / "config.yaml"
    if not path.is_file():
        known = sorted(one.parent.name for one in path.parents[1].glob("*/config.yaml"))
        there = ", ".join(name for name in known if name != "default") or "none"
        raise UserError(
            f"{path.relative_to(root)}: there is no such profile; profiles here: {there}"
        )
    arguments = [f"--profile={path.parent}"]
    if _settings(path).get("executor") != "slurm":
        return arguments
    if PathFinder.find_spec(_PACKAGE, [*sys.path, str(PLUGINS)]) is None:
        raise UserError('Snakemake\'s executor for Slurm is missing: pip install "acll[slurm]"')
    return [
        *arguments,
        f"--slurm-status-command={_status_command()}",
        f"--slurm-jobname-prefix={job_names(results)}",
    ]


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    return settings if isinstance(settings, dict) else {}


def uses_slurm(arguments: Sequence[str]) -> bool:
    """Return whether Snakemake's arguments, from `arguments_of`, are for Slurm."""
    return any(argument.startswith("--slurm-") for argument in arguments)


def job_names(results: Path) -> str:
    """Return how the names of all jobs in the queue begin that belong to some results."""
    where = hashlib.sha256(str(results.resolve()).encode()).hexdigest()
    return f"acll_{results.name[:20]}_{where[:10]}"


class Queue:
    """The jobs of a run in the queue of a scheduler: none may stay there when the run is gone."""

    def __init__(self) -> None:
        self._results: Path | None = None

    def watch(self, results: Path) -> None:
        """From now on answer for the jobs of some results, of which no other run is alive.

        Cancel those that a killed run has left. Raises UserError where that cannot be done.
        """
        self._results = results
        if left := self.clear():
            print(f"{left} jobs of a run that was killed were still in the queue: cancelled")

    def clear(self) -> int:
        """Cancel all that there are; return their number.

        Wait until they have left. Raises UserError where that cannot be done.
        """
        if self._results is None:
            return 0
        found = _jobs_in_queue(self._results)
        if found:
            _slurm("scancel", *found)
            deadline = time.monotonic() + _LEAVING
            while _jobs_in_queue(self._results) and time.monotonic() < deadline:
                time.sleep(0.5)
        return len(found)

    close = clear


def _jobs_in_queue(results: Path) -> list[str]:
    lines = _slurm("squeue", "--me", "--noheader", "--format=%A %j").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines]
    return [number for number, name in pairs if name.startswith(f"{job_names(results)}_")]


def _status_command() -> str:
    """Return the command that tells what became of jobs: of the accounting, or of the queue."""
    said = _slurm("scontrol", "show", "config")
    settings = dict(re.findall(r"^(\w+) *= *(\S+)", said, re.MULTILINE))
    if "slurmdbd" in settings.get("AccountingStorageType", ""):
        return "sacct"
    if int(settings.get("MinJobAge", 0)) < _FORGOTTEN:
        raise UserError(
            "this Slurm keeps no accounts of jobs, and forgets them "
            f"{settings.get('MinJobAge', 0)} seconds after their end (MinJobAge): too soon to see "
            f"what became of them; at least {_FORGOTTEN} are needed"
        )
    return "squeue"


def _slurm(*command: str) -> str:
    """Return what a command of Slurm says."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise UserError(
            f"{command[0]}: there is no such command; run this on a machine from which jobs are "
            "submitted to Slurm, or leave out PROFILE=…"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: Slurm does not answer") from None
    if run.returncode:
        raise UserError(f"{' '.join(command)}: {' '.join(run.stderr.split())}")
    return run.stdout


def watch_jobs(workflow: Any, began: float) -> None:
    """Change how Snakemake's executor for Slurm looks after its jobs.

    workflow: Snakemake's. began: the time at which this run began, in seconds.
    """
    executor = import_module(_PACKAGE).Executor

    async def sleep(self: Any) -> None:
        await asyncio.sleep(_pause(self, workflow))

    def print_job_error(
        self: Any, info: Any, msg: str | None = None, aux_logs: Sequence[str | None] = (), **_: Any
    ) -> None:
        job = info.job
        state = _state_in(msg or "", [Path(path) for path in aux_logs if path])
        # a person has cancelled it
        again = state in _TRY_AGAIN or (state != "CANCELLED" and not _has_said_why(job, began))
        if not again:
            job.attempt = job.restart_times + 1  # the last one
        jobs = list(job) if job.is_group() else [job]
        name = ", ".join(str(one.message) for one in jobs)
        goes_on = job.attempt <= job.restart_times
        words = f"{name}: " + (f"Slurm says {state}" if state else msg or "has failed")
        words += f" (job {info.external_jobid})" if info.external_jobid else ""
        what = "; tried again, with more memory and time" if goes_on else ""
        self.logger.warning(f"{words}{what}")

    # A job is one process on one machine: its Snakemake runs the steps itself. The executor would
    # have it start another one by srun, which takes seconds more.
    executor.additional_general_args = lambda self: "--executor local"
    executor.sleep = sleep
    executor.print_job_error = print_job_error


def _pause(executor: Any, workflow: Any) -> float:
    """Return the seconds until jobs are looked at again: few at first, more for long ones.

    The executor counts its looks in vain, each of which makes its own pause longer.
    """
    first = float(workflow.executor_settings.init_seconds_before_status_checks)
    in_vain = max(executor.next_seconds_between_status_checks - first, 0.0) / _INCREMENT
    return float(min(first * _SLOWER**in_vain, max(first, _LONGEST)))


def _state_in(message: str, logs: Sequence[Path]) -> str | None:
    """Return what Slurm calls the end of a job. message: of the executor. logs: of the job."""
    found = re.search(r"SLURM status is: '(\w+)", message)
    state = found[1] if found else None
    # where it watches memory without cgroups, it says so in the log alone
    if state == "FAILED" and any(_WANT in _text(path) for path in logs):
        return "OUT_OF_MEMORY"
    return state


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _has_said_why(job: Any, began: float) -> bool:
    """Return whether a step of a failed job has said what is wrong, which no retry would mend."""
    return any(
        line.startswith("error: ")
        for path in map(Path, job.log)
        if path.suffix == ".log" and path.is_file() and path.stat().st_mtime >= began
        for line in _text(path).splitlines()
    )
