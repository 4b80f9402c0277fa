"""Settings of Snakemake on which results depend."""

from types import SimpleNamespace

import pytest
from snakemake.settings.types import (
    DAGSettings,
    ExecutionSettings,
    PersistenceBackend,
    RerunTrigger,
    SharedFSUsage,
    StorageSettings,
    WorkflowSettings,
)

from acll.run_settings import odd_settings

PARTS = {
    "dag_settings": DAGSettings,
    "execution_settings": ExecutionSettings,
    "storage_settings": StorageSettings,
    "workflow_settings": WorkflowSettings,
}
SOUND = {"dag_settings": {"max_checksum_file_size": 10**12, "force_incomplete": True}}


def told(part: str = "dag_settings", touch: bool = False, **changes) -> str:
    given = {name: dict(SOUND.get(name, {})) for name in PARTS}
    given[part] |= changes
    made = {name: kind(**given[name]) for name, kind in PARTS.items()}
    return odd_settings(SimpleNamespace(**made, touch=touch))


@pytest.mark.parametrize(
    ("part", "changes", "name"),
    [
        ("dag_settings", {"rerun_triggers": {RerunTrigger.MTIME}}, "rerun-triggers"),
        ("dag_settings", {"max_checksum_file_size": 10**6}, "max-checksum-file-size"),
        ("dag_settings", {"force_incomplete": False}, "rerun-incomplete"),
        ("dag_settings", {"trust_io_cache": True}, "trust-io-cache"),
        ("dag_settings", {"until": {"train"}}, "until"),
        ("dag_settings", {"omit_from": {"train"}}, "omit-from"),
        ("dag_settings", {"batch": "1/2"}, "batch"),
        ("dag_settings", {"allowed_rules": {"train"}}, "allowed-rules"),
        ("execution_settings", {"ignore_incomplete": True}, "ignore-incomplete"),
        ("execution_settings", {"keep_incomplete": True}, "keep-incomplete"),
        ("execution_settings", {"keep_metadata": False}, "drop-metadata"),
        ("execution_settings", {"no_hooks": True}, "no-hooks"),
        ("storage_settings", {"all_temp": True}, "all-temp"),
        ("storage_settings", {"default_storage_provider": "s3"}, "default-storage-provider"),
        ("storage_settings", {"shared_fs_usage": {SharedFSUsage.SOURCES}}, "shared-fs-usage"),
        ("workflow_settings", {"persistence_backend": PersistenceBackend.DB}, "persistence-"),
        ("workflow_settings", {"consider_ancient": {"train": {0}}}, "consider-ancient"),
        ("workflow_settings", {"cache": ["train"]}, "cache"),
    ],
)
def test_what_would_make_results_wrong_is_named(part, changes, name):
    assert f"results wrong: {name}" in told(part, **changes)


def test_touching_would_make_records_of_what_was_not_made():
    assert "results wrong: touch;" in told(touch=True)


def test_what_is_needed_and_what_makes_no_difference_is_not_refused():
    assert told() == ""
    assert told("execution_settings", latency_wait=60, retries=3, keep_going=True) == ""
    assert told("storage_settings", shared_fs_usage=SharedFSUsage.all()) == ""
