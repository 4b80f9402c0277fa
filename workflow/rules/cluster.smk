# Jobs that a scheduler starts on other machines (profiles/slurm). While Snakemake reads the rules
# it does not know yet where jobs will run (`workflow.local_exec`).

from snakemake.jobs import Job

from acll.cluster.jobs import watch_jobs
from acll.cluster.queue import cancel_jobs, job_names
from acll.files import KEEP_CHECKPOINTS


# Steps of seconds are not worth a submission.
localrules:
    all,
    prepared,
    networks,
    tables_only,
    adopt,
    vary,
    sheets,
    trace,
    masks,
    mistakes,
    tables,
    figures,


def in_group(own) -> bool:
    """Return whether the scheduler gets a job as one with others of its node.

    Steps of a node follow one another, but for `evaluate` and `remember`: they would run side by
    side, and each asks for a GPU.
    """
    return own.rule in LEARNING and not (own.rule == "evaluate" and ("remember", own.name) in JOBS)


def submitted_with(own) -> list:
    """Return the jobs that the scheduler gets as one with a job, and itself."""
    if not in_group(own):
        return [own]
    ours = [JOBS[rule, own.name] for rule in LEARNING if (rule, own.name) in JOBS]
    return [one for one in ours if one is own or (in_group(one) and not is_there(one))]


def is_there(own) -> bool:
    return all(Path(path).exists() for path in own.all_outputs)


def group_of(rule):
    """Return a function that gives the group of a job: a submission costs seconds."""

    def group(wildcards):
        grouped = not workflow.local_exec and in_group(JOBS[rule, job_name(wildcards)])
        return f"node_{wildcards.node}" if grouped else None

    return quick(group)


for each in workflow.rules:
    if each.name in LEARNING:
        each.group = group_of(each.name)


def is_short(job) -> bool:
    """Return whether a job runs on the machine that submits the others."""
    if job.rule.name == "prepare":
        return not CONFIGURATION.tasks[job.wildcards.task].from_files
    return job.dag.workflow.is_local(job.rule)


Job.is_local = property(is_short)
if workflow.is_main_process:
    watch_jobs()


def look_after_jobs():
    """Get ready for jobs on other machines. No other run works on these results."""
    if workflow.local_exec:
        return
    # a node that is tried again takes over what its jobs had finished
    os.environ[KEEP_CHECKPOINTS] = "1"
    os.environ[PLAN_DIGEST] = digest_of(JOBS.values())
    if workflow.executor_plugin.name == "slurm":
        try:
            left = cancel_jobs(job_names(Path.cwd()))
        except UserError as error:
            sys.exit(f"error: {error}")
        if left:
            print(f"jobs of an earlier run were still in the queue: {left} cancelled", flush=True)
