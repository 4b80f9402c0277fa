"""Settings of Snakemake on which results depend.

The default profile sets them. It goes before the profiles of a user (--profile, SNAKEMAKE_PROFILE),
and not before --workflow-profile and the command line.
"""

from typing import Any

from snakemake.settings.types import PersistenceBackend, RerunTrigger, SharedFSUsage

# what jobs share with their run: the lock, results and their records, the environment, the code
_SHARED = {
    SharedFSUsage.INPUT_OUTPUT,
    SharedFSUsage.PERSISTENCE,
    SharedFSUsage.SOFTWARE_DEPLOYMENT,
    SharedFSUsage.SOURCES,
}
# The variable of the environment that names a file, which a run makes when it plans its jobs: where
# a profile makes Snakemake do something else (a dry run, a list), `make run` must not go on.
MARK = "ACLL_RUN_MARK"
# The variable by which the jobs of a scheduler know what their run has planned.
PLAN_DIGEST = "ACLL_PLAN_DIGEST"
STAGE = "DVC_STAGE"  # DVC sets this variable for the command of a stage
NO_RUN = (
    "Snakemake is set to do something else than to run (a dry run, a list, a clean-up, say); take "
    "that out of the profile that --profile or SNAKEMAKE_PROFILE names"
)
_LARGEST = 10**12  # bytes of a file that needs a checksum


def odd_settings(workflow: Any) -> str:
    """Return which settings would make results wrong, and what to do; empty where none would.

    workflow: Snakemake's, of a run or a dry run that is about to plan its jobs.
    """
    dag, execution = workflow.dag_settings, workflow.execution_settings
    files, general = workflow.storage_settings, workflow.workflow_settings
    sound = {
        "rerun-triggers": set(dag.rerun_triggers) == set(RerunTrigger.all()),
        "max-checksum-file-size": dag.max_checksum_file_size >= _LARGEST,
        "rerun-incomplete": dag.force_incomplete,
        "ignore-incomplete": not execution.ignore_incomplete,
        "keep-incomplete": not execution.keep_incomplete,
        "drop-metadata": execution.keep_metadata,
        "no-hooks": not execution.no_hooks,
        "trust-io-cache": not dag.trust_io_cache,
        "persistence-backend": general.persistence_backend == PersistenceBackend.FILE,
        "consider-ancient": not general.consider_ancient,
        "cache": not general.cache,
        "touch": not workflow.touch,
        "all-temp": not files.all_temp,
        "default-storage-provider": files.default_storage_provider is None,
        "shared-fs-usage": set(files.shared_fs_usage) >= _SHARED,
        # what they leave out would pass for done
        "target-jobs": not dag.target_jobs,
        "until": not dag.until,
        "omit-from": not dag.omit_from,
        "batch": not dag.batch,
        "allowed-rules": not dag.allowed_rules,
    }
    odd = [name for name, is_sound in sound.items() if not is_sound]
    if not odd:
        return ""
    return (
        f"Snakemake is set to what would make results wrong: {', '.join(odd)}; take that out of "
        "the command line or the profile, and put into a --workflow-profile what "
        "profiles/default/config.yaml says"
    )
