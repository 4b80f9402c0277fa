# One network, many tasks, nothing forgotten. Run it with `make run CONFIG=<name>`; see README.md.


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/network.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/cluster.smk"


rule all:
    default_target: True
    input:
        everything,
    message:
        "all results"


# a few places on the way, for those who want to stop there


rule prepared:
    input:
        [
            path
            for job in JOBS.values()
            if job.rule in ("prepare", "vary")
            for path in job.all_outputs
        ],


rule networks:
    input:
        [path for job in JOBS.values() for path in job.outputs.get("network", ())],


rule tables_only:
    input:
        JOBS["tables", ""].all_outputs,


onstart:
    refuse_other_settings()
    bear_a_full_disk()
    acquire_run_lock()
    share_gpus()
    look_after_jobs()
    start_step_server({job.rule.name for job in workflow.dag.needrun_jobs()} & set(ARGUMENTS))
    take_sigterm_in_a_thread()


onsuccess:
    remove_checkpoints(Path(), JOBS.values())
    print(f"\n{job_summary(workflow.dag)}")


onerror:
    # Snakemake's own account is long, and what the steps had to say is far above
    here = [job for job in workflow.scheduler.failed if workflow.local_exec or job.is_local]
    away = [job for job in workflow.scheduler.failed if job not in here]
    said = errors_of_steps(job.log for job in here)
    said += errors_of_steps((job.log for job in away), silent=False)
    print("\n".join([*said, what_to_do(said, CONFIGURATION.name)]), file=sys.stderr)
