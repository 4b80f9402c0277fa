"""The jobs of a run that are with Slurm: how Snakemake's executor looks after them.

The executor submits them. What it does about their ends is replaced here: it forgets all jobs where
Slurm does not answer for a while, waits for ever for one that Slurm has forgotten or that sacct
calls "CANCELLED by 1000", and says nothing of a group of jobs that it cannot submit.
"""

import asyncio
import contextlib
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

from acll.cluster.profile import EXECUTOR
from acll.cluster.queue import ask_slurm, keeps_accounts
from acll.errors import UserError
from acll.files import checkpoints_of
from acll.run_summary import errors_in, logs_of_this_run

# what a job has lacked, by its title: how often each of "memory" and "time"
LACKED: dict[str, Counter[str]] = defaultdict(Counter)
_DONE = "COMPLETED"
# states in which a job is not at its end
_ALIVE = {
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING",
    "SIGNALING", "STAGE_OUT", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
}  # fmt: skip
_LACK = {"OUT_OF_MEMORY": "memory", "TIMEOUT": "time", "DEADLINE": "time"}
_KILLED = "Exceeded job memory limit"  # in the log, where memory is watched without cgroups
_ERROR = "error: "
_FORGOTTEN = "that there is no such job any more"
# reasons for which a job would wait for ever
_NEVER = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|"
    r".*MaxWallDurationPerJob.*|.*(Node|CPU|Mem|GRES|Cpu)\w*PerJob.*|InvalidAccount|InvalidQOS"
)
_FIRST, _LONGEST = 3.0, 60.0  # seconds between two looks: at least, at most
_SHARE = 0.2  # of the time since something has happened
_MISSED, _UNSEEN = 3, 60.0  # looks in which a job is not listed, seconds since the first of them


class Watch:
    """What is known of the jobs of one run."""

    def __init__(self) -> None:
        self._told: set[str] = set()  # jobs of which was told that they wait for ever
        self._missed: dict[str, list[float]] = defaultdict(list)
        self._known: set[str] = set()
        self._changed = time.monotonic()
        self._silent = False

    @property
    def pause(self) -> float:
        """The seconds until the next look: few where something has happened just now."""
        since = time.monotonic() - self._changed
        return min(max(_FIRST, _SHARE * since), _LONGEST)

    async def look(self, executor: Any, active: Sequence[Any]) -> AsyncIterator[Any]:
        """Tell Snakemake which jobs have ended; yield the others."""
        ids = {info.external_jobid for info in active}
        states = await asyncio.to_thread(self._states, executor, ids)
        if states is None or ids != self._known:
            self._changed = time.monotonic()
        self._known = set(ids)
        for info in active:
            number = info.external_jobid
            state, reason = ("PENDING", "") if states is None else states.get(number, ("", ""))
            if state:
                self._missed.pop(number, None)
            elif not self._is_forgotten(number):
                state = "PENDING"
            if state in _ALIVE:
                self._tell_of_waiting(executor, info, reason)
                yield info
                continue
            self._changed = time.monotonic()
            if state == _DONE:
                _remove(filter(None, [_log_of(info)]))
                executor.report_job_success(info)
            else:
                executor.report_job_error(info, msg=state or _FORGOTTEN)

    def _states(self, executor: Any, ids: set[str]) -> dict[str, tuple[str, str]] | None:
        """Return the state of each job that is known, and why it waits; None without an answer."""
        if not ids:
            return {}
        listed = f"--name={executor.run_uuid}"
        try:
            said = ask_slurm("squeue", "--noheader", "--states=all", listed, "--format=%A|%T|%r")
            states = _parsed(said)
            if (missing := ids - states.keys()) and keeps_accounts():
                said = ask_slurm(
                    "sacct", "--allocations", "--noheader", "--parsable2",
                    f"--jobs={','.join(sorted(missing))}", "--format=JobIDRaw,State",
                )  # fmt: skip
                states |= _parsed(said)
        except UserError as error:
            if not self._silent:
                executor.logger.warning(f"{error}; the run waits until it does")
            self._silent = True
            return None
        self._silent = False
        return states

    def _is_forgotten(self, number: str) -> bool:
        """Take note that a job is not listed; return whether that has been so for long."""
        looks = self._missed[number]
        looks.append(time.monotonic())
        return len(looks) >= _MISSED and looks[-1] - looks[0] >= _UNSEEN

    def _tell_of_waiting(self, executor: Any, info: Any, reason: str) -> None:
        if _NEVER.fullmatch(reason) and info.external_jobid not in self._told:
            self._told.add(info.external_jobid)
            named = reason in ("InvalidAccount", "InvalidQOS")
            what = "slurm_account or qos" if named else "set-resources or set-threads"
            executor.logger.warning(
                f"{_name(info.job)}: job {info.external_jobid} may wait for ever, Slurm says "
                f"{reason}; it asks for {_asked(info.job)}: Ctrl-C, change {what} in the profile, "
                "then run again"
            )


def watch_jobs() -> None:
    """Let the executor look after its jobs as this module does.

    Do nothing where it is not there.
    """
    plugin, watch = sys.modules.get(EXECUTOR), Watch()
    if plugin is None:
        return
    executor = plugin.Executor
    submit = executor.run_job

    def run_job(self: Any, job: Any) -> None:
        _await_slurm(self)
        try:
            submit(self, job)
        except Exception as error:  # it fails itself when it tells of a group
            words = str(error.__context__ or error)
            self._report_job_error_threadsafe(plugin.SubmittedJobInfo(job), words)

    async def sleep(_: Any) -> None:
        await asyncio.sleep(watch.pause)

    executor.run_job = run_job
    executor.sleep = sleep
    executor.check_active_jobs = lambda self, active: watch.look(self, active)
    executor.print_job_error = tell_of_end
    executor.handle_job_success = remove_checkpoints_of
    # A job is one process on one machine: its Snakemake runs the steps itself. The executor would
    # have it start another one by srun, which takes seconds more.
    executor.additional_general_args = lambda self: "--executor local"


def _await_slurm(executor: Any) -> None:
    """Wait until Slurm answers: a submission that fails ends the run."""
    is_told = False
    while True:
        try:
            ask_slurm("squeue", "--me", "--noheader", "--format=%A")
        except UserError as error:
            if not is_told:
                executor.logger.warning(f"{error}; the run waits until it does")
            is_told = True
            time.sleep(_FIRST)
        else:
            return


def tell_of_end(executor: Any, info: Any, msg: str | None = None, **_: Any) -> None:
    """Say in a line how a job has failed, and see to it that it is tried again where that helps.

    msg: its last state, or why it was not submitted.
    """
    job, name = info.job, _name(info.job)
    if info.external_jobid is None:
        found = re.search(r"error message was '(.*?)'\.?$", msg or "", re.DOTALL | re.MULTILINE)
        reason = " ".join((found[1] if found else msg or "").split())
        job.attempt = job.restart_times + 1  # the last one
        executor.logger.warning(f"{name}: not submitted: {reason}")
        return
    state, lack = msg or "", _lack(msg or "", _log_of(info))
    state = "OUT_OF_MEMORY" if lack == "memory" and state == "FAILED" else state
    logs = logs_of_this_run(job.log)
    # no other try would mend what a step has said, or the Snakemake that was to run it
    of_steps = [line for log in logs for line in errors_in(log)]
    of_job = errors_of_job(_log_of(info)) if not of_steps else []
    if state == "CANCELLED" or (state == "FAILED" and (of_steps or of_job)):
        job.attempt = job.restart_times + 1
    goes_on = job.attempt <= job.restart_times
    for one in _members(job):
        if lack:
            LACKED[str(one.message)][lack] += 1
        if not goes_on and logs_of_this_run(one.log):
            one.log_error()  # the display takes it away
    said = f"Slurm says {state}"
    if state == "FAILED" and of_job:
        said = of_job[0]
    elif state == "CANCELLED":
        said = "was cancelled"
    elif lack and not goes_on:
        said += f"; it asked for {_asked(job)}: more in the profile, by set-resources"
    what = "; tried again" if goes_on else ""
    executor.logger.warning(f"{name}: {said} (job {info.external_jobid}){what}")


def errors_of_job(log: Path | None) -> list[str]:
    """Return why the Snakemake of a job has not run its steps. log: of the job, by Slurm."""
    lines = [] if log is None else _text(log).splitlines()
    return [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]


def _asked(job: Any) -> str:
    """Return in words what a job has asked for."""
    asked = job.resources
    known = (
        ("{} CPUs", asked.get("_cores")),
        ("{} MB", asked.get("mem_mb")),
        ("{} minutes", asked.get("runtime")),
    )
    return ", ".join(words.format(value) for words, value in known if value)


def remove_checkpoints_of(_: Any, job: Any) -> None:
    """Remove what a job has left for another try, now that its outputs have been accepted."""
    outputs = [Path(path) for one in _members(job) for path in one.output]
    _remove(path for output in outputs for path in checkpoints_of(output))


def _lack(state: str, log: Path | None) -> str | None:
    """Return what a job has lacked: "memory", "time" or None."""
    if state == "FAILED" and log is not None and _KILLED in _text(log):
        return "memory"
    return _LACK.get(state)


def _members(job: Any) -> list[Any]:
    """Return the jobs of a group, or the one job."""
    return list(job) if job.is_group() else [job]


def _name(job: Any) -> str:
    """Return what a job is called; of a group the name of its node, and its rules."""
    titles = [str(one.message).partition(" ") for one in _members(job)]
    if len(titles) == 1:
        return "".join(titles[0])
    rules = ", ".join(sorted(rule for rule, _, _ in titles))
    return f"{titles[0][2]} ({rules})"


def _log_of(info: Any) -> Path | None:
    log = (info.aux or {}).get("slurm_logfile")
    return Path(log) if log is not None else None


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # it is only in the way
            path.unlink(missing_ok=True)


def _parsed(said: str) -> dict[str, tuple[str, str]]:
    """Return state and reason by the number of a job; of `CANCELLED by 1000` the first word."""
    found = {}
    for line in said.splitlines():
        number, state, reason = (*line.split("|"), "", "")[:3]
        if state.split():
            found[number.strip()] = (state.split()[0], reason.strip())
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
