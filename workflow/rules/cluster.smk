# Jobs that a scheduler starts on other machines (profiles/slurm). While Snakemake reads the rules
# it does not know yet where jobs will run (`workflow.local_exec`).

from snakemake.jobs import Job

from acll.cluster import watch_jobs
from acll.files import KEEP_CHECKPOINTS


# Steps of seconds are not worth a submission.
localrules:
    all,
    prepared,
    networks,
    tables_only,
    vary,
    sheets,
    tables,
    figures,


@quick
def group_of_node(wildcards):
    """Let the jobs of a node be one job of the scheduler, since each costs it seconds."""
    return None if workflow.local_exec else f"node_{wildcards.node}"


for each in workflow.rules:
    if each.name in LEARNING:
        each.group = group_of_node


def is_short(job) -> bool:
    """Return whether a job runs on the machine that submits the others."""
    if job.rule.name == "prepare":
        return not CONFIGURATION.tasks[job.wildcards.task].from_files
    return job.dag.workflow.is_local(job.rule)


Job.is_local = property(is_short)


def look_after_jobs():
    """Get ready for jobs on other machines."""
    if not workflow.local_exec:
        # a node that is tried again takes over what its jobs had finished
        os.environ[KEEP_CHECKPOINTS] = "1"
        if workflow.executor_plugin.name == "slurm":
            watch_jobs(workflow, BEGAN)
