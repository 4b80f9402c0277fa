"""Results that other code or libraries have made, kept on purpose."""

import json
from dataclasses import replace

import pytest
import torch

from acll.files import sha256
from acll.packing import packed_file
from acll.packing.ownership import empty
from acll.sharing.accept import accept_results
from acll.sharing.records import MADE_WITH, record_path
from acll.sharing.verify import judged, result_faults
from test_verify import JOBS, PRUNE, TRAIN, Given, put, run

NEW = {"code": "def", "torch": "3"}
NEWER = [replace(job, code=NEW) for job in JOBS]
OUTPUTS = [output for job in JOBS for output in job.all_outputs]


@pytest.fixture
def results(tmp_path):
    for job in JOBS:
        run(tmp_path, job)
    return tmp_path


def test_a_kept_result_whose_parameters_were_damaged_is_stale(results):
    accept_results(results, NEWER)
    path = results / record_path("nodes/a/dense")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"params": ["'no'"]}))
    found = {one.output: one.kind for one in result_faults(results, NEWER)}
    assert found["nodes/a/dense"] == "stale"


def kept_of(results, jobs):
    return [one for one in judged(results, jobs) if one.kind == "kept"]


def test_what_differs_in_code_and_libraries_alone_is_kept_and_named(results):
    assert {fault.kind for fault in result_faults(results, NEWER)} == {"stale"}
    assert kept_of(results, NEWER) == []
    assert accept_results(results, NEWER) == OUTPUTS
    assert result_faults(results, NEWER) == []
    named = kept_of(results, NEWER)
    assert [one.output for one in named] == OUTPUTS
    assert {one.reason for one in named} == {"the code of its step has changed; torch 2 → 3"}
    assert accept_results(results, NEWER) == []
    # under the old code they are no longer current, and can be kept once more
    assert {fault.kind for fault in result_faults(results, JOBS)} == {"stale"}
    newest = [replace(job, code=NEW | {"torch": "4"}) for job in JOBS]
    assert accept_results(results, newest) == OUTPUTS
    assert {one.reason for one in kept_of(results, newest)} == {
        "the code of its step has changed; torch 2 → 4"
    }


def test_a_network_that_this_code_cannot_read_is_not_kept(tmp_path, monkeypatch):
    job = replace(TRAIN, outputs={"network": ("nodes/a/network",)})
    run(tmp_path, job)
    newer = [replace(job, code=NEW)]
    path = tmp_path / "nodes/a/network"
    packed_file.write_packed(path, empty({"backbone": "lenet"}, {"w": torch.zeros(2, 2)}, "m", 0))
    (tmp_path / job.digests).write_text(f"{sha256(path)}  nodes/a/network\n")
    with monkeypatch.context() as other_format:
        other_format.setattr(packed_file, "FORMAT", packed_file.FORMAT + 1)
        assert accept_results(tmp_path, newer) == []
    assert accept_results(tmp_path, newer) == ["nodes/a/network"]


def test_what_a_job_makes_anew_is_kept_no_longer(results):
    accept_results(results, NEWER)
    run(results, NEWER[0])
    assert [one.output for one in kept_of(results, NEWER)] == list(PRUNE.all_outputs)


@pytest.mark.parametrize(
    "change",
    [
        lambda job: replace(job, params=Given(epochs=2)),
        lambda job: replace(job, external_digest="other"),
        lambda job: replace(job, inputs={"other": ("nodes/b/dense",)}),
    ],
)
def test_other_parameters_data_and_inputs_are_never_kept(results, change):
    jobs = [change(NEWER[0]), NEWER[1]]
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert accept_results(results, jobs) == list(PRUNE.all_outputs)
    for output in TRAIN.all_outputs:
        path = results / record_path(output)
        assert path.read_bytes() == before[path]
    assert TRAIN.all_outputs[0] in [fault.output for fault in result_faults(results, jobs)]


def test_what_is_damaged_missing_or_unrecorded_is_not_kept(results):
    put(results, "nodes/a/dense", "other")
    (results / "nodes/a/kept.csv").unlink()
    assert accept_results(results, NEWER) == []
    (results / record_path("nodes/a/dense")).unlink()
    assert accept_results(results, NEWER) == []


def test_a_command_is_code(results):
    path = results / record_path("nodes/a/dense")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "another command"}))
    assert accept_results(results, JOBS) == ["nodes/a/dense"]
    assert json.loads(path.read_text())[MADE_WITH] == TRAIN.code
    (named,) = kept_of(results, JOBS)
    assert named.reason == "the command of its rule has changed"
