# The configuration, its plan, and what all rules share. src/acll/plan.py says what depends on what.

import atexit
import contextlib
import functools
import inspect
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.utils import min_version

min_version("9.20")

BASE = Path(workflow.basedir)

# The package that these rules belong to comes first, for this process and for its jobs: that of
# this checkout, or the one that these rules are installed with (acll/workflow/Snakefile).
SOURCE = BASE / "src" if (BASE / "src").is_dir() else BASE.parent.parent
sys.path.insert(0, str(SOURCE))
os.environ["PYTHONPATH"] = str(SOURCE)
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["PYTHONWARNINGS"] = "ignore"  # of libraries among themselves; they would fill the logs

from acll.cluster.demands import memory_mb, minutes
from acll.cluster.jobs import LACKED
from acll.cluster.queue import most_cpus
from acll.data.root import CHANNELS_KEY, ROOT_KEY
from acll.errors import UserError
from acll.lock import RUN, held
from acll.lock import job as job_of_run
from acll.plan import ARGUMENTS, TRAININGS, command, digest_of, longest_chains
from acll.plugins import PLUGINS_KEY
from acll.run_settings import MARK, NO_RUN, PLAN_DIGEST, STAGE, odd_settings
from acll.run_summary import errors_of_steps, job_summary, warn_of_full_disk, what_to_do
from acll.sharing.leftovers import remove_checkpoints
from acll.sharing.place import refuse_place
from acll.sharing.planned import planned
from acll.sharing.times import settle_times
from acll.steps._client import SERVER
from acll.steps._gpu import ASKS_FOR_GPU, GPUS, JOBS_PER_GPU, gpus_here, hide_gpus
from acll.steps._server import StepServer, libraries_of


def read_plan():
    """Return the configuration and its jobs, by rule and name."""
    files = workflow.overwrite_configfiles
    if len(files) != 1 or workflow.config_settings.config:
        raise WorkflowError(
            "type `make run CONFIG=<name>`, or give one --configfile, no --config, and --directory"
        )
    configuration = Path(files[0]).absolute()
    # `config/` of a project that these rules may not lie in
    in_project = configuration.parent.name == "config"
    root = configuration.parent.parent.resolve() if in_project else BASE
    try:
        refuse_place(root, configuration.stem)
        # the file and not Snakemake's reading of it, which takes 1e-4 for text
        found = planned(configuration, root, Path.cwd())
        name = found.configuration.name
        if Path.cwd().name != name:
            # that of another configuration, whose results would be overwritten
            raise UserError(
                f"results belong into a folder of that name: add --directory results/{name}"
            )
        if workflow.is_main_process:
            settle_times(Path.cwd(), found.jobs)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    # no parameters, since no result depends on them
    os.environ[ROOT_KEY] = str(found.data_root)
    os.environ[CHANNELS_KEY] = json.dumps(found.configuration.channels_by_task())
    os.environ[PLUGINS_KEY] = json.dumps(found.configuration.plugins)  # their code is in the plan
    return found.configuration, {(job.rule, job.name): job for job in found.jobs}


CONFIGURATION, JOBS = read_plan()
CHAINS = longest_chains(JOBS.values())
LEARNING = {*TRAININGS, "prune", "commit", "remember", "evaluate"}  # rules that build networks


async def accept_any_time(dag, job, outputs):
    """Accept outputs that look older than their inputs.

    Snakemake would call the job failed, and remove them, where a clock was set back or the inputs
    were dated ahead.
    """


DAG.check_output_mtime = accept_any_time


def prepares(job) -> bool:
    return not job.is_group() and job.rule.name in ("prepare", "vary")


def goes_on(scheduler) -> bool:
    """Return whether to go on after failures: where nothing but preparation has failed."""
    failed = scheduler.failed
    return execution_goes_on() or (bool(failed) and all(map(prepares, failed)))


def execution_goes_on() -> bool:
    return workflow.execution_settings.keep_going


def jobs_to_run(scheduler) -> list:
    """Return the jobs that may start: after a failure the preparation of other tasks alone.

    So the faults of all raw data are told at once, and not those of one task a run.
    """
    ready = list(workflow.dag.ready_jobs)
    stopped = scheduler.failed and not execution_goes_on()
    return [job for job in ready if prepares(job)] if stopped else ready


JobScheduler.keepgoing = property(goes_on, lambda scheduler, value: None)
JobScheduler.open_jobs = property(jobs_to_run)


def quick(function):
    """Tell Snakemake the parameters of a function, which it would look up at each of its calls."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


def inputs_of(rule):
    """Return the input function of a rule: the paths of its job, by what they are for."""

    def inputs(wildcards):
        refuse_other_settings()
        job = JOBS[rule, job_name(wildcards)]
        return {key: list(paths) for key, paths in job.inputs.items()}

    return quick(inputs)


def everything(wildcards):
    """Return all outputs, also of what is in between: a file that was deleted is made again."""
    refuse_other_settings()
    return [path for job in JOBS.values() for path in job.all_outputs]


def text_of(rule):
    """Return a function that gives the parameter of a rule's job."""

    def text(wildcards):
        refuse_other_settings()  # here, too: the first job of a chain has no inputs
        return JOBS[rule, job_name(wildcards)].text

    return quick(text)


def job_name(wildcards) -> str:
    """Return the name of a job: of its node, task or network, or the task of a sequence that it
    shows."""
    names = (getattr(wildcards, key, "") for key in ("node", "task", "network", "shown"))
    return next(filter(None, names), "")


def tasks_with(rule) -> str:
    """Return a regular expression for the tasks that have a job of the rule."""
    return "|".join(sorted(name for one, name in JOBS if one == rule)) or "(?!)"


def nodes_with(rule) -> str:
    """Return a regular expression for the nodes of the methods that have a job of the rule."""
    methods = sorted({name.split("/")[1] for one, name in JOBS if one == rule})
    return f"[a-z0-9_]+/({'|'.join(methods)})/seed[0-9]+(/[a-z0-9_+]+)+" if methods else "(?!)"


def of_longest_chain(rule):
    """Return a function that gives the priority of a job: jobs of the longest chain go first."""

    def priority(wildcards):
        return CHAINS[rule, job_name(wildcards)]

    return quick(priority)


def memory(rule):
    """Return a function that gives the MB of memory that a job asks for."""

    def asked(wildcards):
        own = JOBS[rule, job_name(wildcards)]
        return memory_mb(CONFIGURATION, own, Path(), LACKED[own.title]["memory"])

    return quick(asked)


def time_limit(rule):
    """Return a function that gives the minutes that a job asks for: none on this machine."""

    def asked(wildcards):
        if workflow.local_exec:
            return 0
        own = JOBS[rule, job_name(wildcards)]
        lacked, gpu = LACKED[own.title]["time"], bool(gpus(wildcards))
        return minutes(CONFIGURATION, own, submitted_with(own), Path(), lacked, gpu)

    return quick(asked)


@quick
def processes_of(wildcards) -> int:
    """Return in how many processes a task is prepared; no result depends on it."""
    if not CONFIGURATION.tasks[wildcards.task].from_files:
        return 1
    if workflow.local_exec or workflow.executor_plugin.name != "slurm":
        return 4
    return min(4, most_cpus())  # with more, a job would wait for ever


GPUS_HERE = gpus_here() if workflow.is_main_process else ()
# whether a person has said how many GPUs all jobs together may have
GPU_LIMIT_GIVEN = "gpu" in workflow.global_resources
if workflow.is_main_process and not GPU_LIMIT_GIVEN:
    # one job on each GPU; here, since Snakemake reads the limit before the run starts
    workflow.global_resources["gpu"] = max(len(GPUS_HERE), 1)


@quick
def gpus(wildcards) -> int:
    """Return how many GPUs a job asks for.

    On this machine it depends on whether there are any. Of other machines only the limit tells.
    """
    if not workflow.is_main_process:  # the run has told its jobs
        return int(os.environ.get(ASKS_FOR_GPU, 0))
    if workflow.local_exec:
        return int(bool(GPUS_HERE))
    return int(GPU_LIMIT_GIVEN and workflow.global_resources["gpu"].value > 0)


def share_gpus():
    """Tell jobs whether each has a GPU, on this machine also which there are and how many share."""
    os.environ[ASKS_FOR_GPU] = str(gpus(None))
    if workflow.local_exec and GPUS_HERE:
        at_once = workflow.global_resources["gpu"].value
        os.environ[GPUS] = ",".join(GPUS_HERE)
        os.environ[JOBS_PER_GPU] = str(-(-at_once // len(GPUS_HERE)))


# whether DVC has started this process, for the stage of this configuration
IS_STAGE = os.environ.get(STAGE, "").endswith(f"run@{CONFIGURATION.name}")
SETTLED = threading.Event()  # that this process runs jobs, or has said why not


@functools.cache
def refuse_other_settings():
    """End this process where Snakemake is set to something that would make results wrong."""
    if not workflow.is_main_process:  # jobs have settings of their own
        if workflow.remote_exec:
            start_step_server(set(workflow.dag_settings.allowed_rules) & LEARNING)
        return
    SETTLED.set()
    mark = os.environ.get(MARK)
    is_run = workflow.execution_settings is not None and not workflow.dryrun
    if not is_run and (mark is not None or IS_STAGE):
        sys.exit(f"error: {NO_RUN}")  # of an exception Snakemake would show where it was raised
    odd = odd_settings(workflow) if workflow.execution_settings is not None else ""
    if odd:
        sys.exit(f"error: {odd}")
    if workflow.local_exec and workflow.global_resources["gpu"].value < 1:
        sys.exit("error: gpu=0: no job could run; CUDA_VISIBLE_DEVICES= hides all GPUs")
    if mark is not None:
        Path(mark).touch()


@atexit.register
def refuse_a_stage_that_does_not_run():
    """Let a stage of DVC fail in which Snakemake was set to do something else than to run.

    DVC would record the results that are there as those of the present configuration.
    """
    if IS_STAGE and workflow.is_main_process and not SETTLED.is_set():
        said = f"error: nothing was run; where no other error stands above: {NO_RUN}"
        print(said, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)  # the only way to another exit code at this point


RUN_LOCK = contextlib.ExitStack()  # as long as this process lives
if workflow.remote_exec:
    # before this Snakemake removes what its jobs are to make anew: their run may have ended, while
    # they waited, and another one be at work
    if RUN not in os.environ:
        sys.exit("error: the scheduler has not handed on the environment of the run to its job")
    # its records would say that it was made as the run had planned
    if os.environ.get(PLAN_DIGEST) != digest_of(JOBS.values()):
        sys.exit("error: the configuration, code or raw data have changed since the run began")
    try:
        RUN_LOCK.enter_context(job_of_run(Path.cwd()))
    except UserError as error:
        sys.exit(f"error: {error}")
    if os.environ.get(ASKS_FOR_GPU) == "0":
        hide_gpus()  # the machine may have some that are not for this job


def acquire_run_lock():
    try:
        RUN_LOCK.enter_context(held(Path.cwd()))
    except UserError as error:
        sys.exit(f"error: {error}")  # of an exception Snakemake would show where it was raised


def start_step_server(rules):
    """Start the process that forks the steps of some rules, where jobs run on this machine."""
    # the variable is set by whoever brings another server, or none
    if rules and workflow.local_exec and SERVER not in os.environ:
        libraries = libraries_of(CONFIGURATION) if rules & LEARNING else []
        with contextlib.suppress(OSError):  # steps start without it, too
            server = StepServer(sorted(rules), libraries, CONFIGURATION.threads)
            atexit.register(server.stop)


def bear_a_full_disk():
    """Say at the end which disk is full; a log that Snakemake cannot write hinders nothing."""
    logging.raiseExceptions = False
    atexit.register(warn_of_full_disk, Path.cwd())


def take_sigterm_in_a_thread():
    """Call Snakemake's handler of SIGTERM from a thread.

    The handler takes a lock that the main thread may hold at that moment. In the main thread, where
    Python calls handlers, it would wait for itself for ever (`JobScheduler.exit_gracefully`).
    """
    handler = signal.getsignal(signal.SIGTERM)
    signal.signal(
        signal.SIGTERM, lambda *signalled: threading.Thread(target=handler, args=signalled).start()
    )


wildcard_constraints:
    task="[a-z0-9_]+",
    network="[a-z0-9_]+",
    shown="[a-z0-9_]+\\.[a-z0-9_]+",
    node="[a-z0-9_]+/[a-z0-9_]+/seed[0-9]+(/[a-z0-9_+]+)+",
