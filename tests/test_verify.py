"""What verify, and the list of leftovers, say of results: on files, records and digests that are put there by hand."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from acll.sharing.jobs import Job
from acll.sharing.leftovers import leftovers, remove
from acll.sharing.records import INCOMPLETE, METADATA, read_record, record_of, recorded
from acll.sharing.verify import verify

TRAIN = Job("train", ("nodes/a/dense",), (), "digests/train/a", ("logs/train/a", "benchmarks/train/a"), "train it",
            {"epochs": 1, "code": {"code": "abc", "torch": "2"}, "outside": ""})  # fmt: skip
PRUNE = Job("prune", ("nodes/a/pruned", "nodes/a/kept.csv"), ("nodes/a/dense",), "digests/prune/a",
            ("logs/prune/a", "benchmarks/prune/a"), "prune it", {"ratio": 0.5})  # fmt: skip
JOBS = [TRAIN, PRUNE]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(results: Path, name: str | Path, text: str) -> None:
    (results / name).parent.mkdir(parents=True, exist_ok=True)
    (results / name).write_text(text)


def run(results: Path, job: Job) -> None:
    """Leave what the job leaves; the content of an output is its name and the rule's."""
    inputs = {path: f"sha256:{sha((results / path).read_text())}" for path in job.inputs}
    record = {"code": job.command, "input": list(job.inputs), "input_checksums": inputs,
              "params": [repr(json.dumps(job.params))]}  # fmt: skip
    for output in job.outputs:
        put(results, output, f"{output} of {job.rule}")
        put(results, record_of(output), json.dumps(record))
    put(results, job.digests, "".join(f"{sha(f'{output} of {job.rule}')}  {output}\n" for output in job.outputs))
    for path in job.others:
        put(results, path, "said")


@pytest.fixture
def results(tmp_path) -> Path:
    for job in JOBS:
        run(tmp_path, job)
    return tmp_path


def told(results: Path, jobs=JOBS) -> dict[str, tuple[str, str]]:
    return {fault.output: (fault.kind, fault.reason) for fault in verify(results, jobs)}


def test_untouched_results_have_no_fault(results):
    assert told(results) == {}


def test_damage_is_named_and_what_was_made_before_it_happened_stands(results):
    put(results, "nodes/a/dense", "other")
    assert told(results) == {"nodes/a/dense": ("damaged", "its content (5 bytes) is not what its job wrote")}
    (results / "nodes/a/dense").unlink()
    assert told(results) == {"nodes/a/dense": ("missing", "the file is not there")}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"params": TRAIN.params | {"epochs": 2}}, "epochs 1 → 2"),
        ({"params": TRAIN.params | {"epochs": True}}, "its parameters have changed"),
        ({"params": TRAIN.params | {"cap": None}}, "its parameters have changed"),
        ({"params": TRAIN.params | {"outside": "x"}}, "the weights that it starts from have changed"),
        ({"params": TRAIN.params | {"code": {"code": "abc", "torch": "3"}}}, "torch 2 → 3"),
        ({"params": TRAIN.params | {"code": {"code": "d", "torch": "2"}}}, "the code of its step has changed"),
        ({"params": {f"key{index}": 1 for index in range(5)} | TRAIN.params},
         "key0 none → 1; key1 none → 1; key2 none → 1; and 2 more"),
        ({"params": TRAIN.params | {"nodes": [1, 2, 3, 4]}}, "nodes none → [1, 2, 3, 4]"),
        ({"command": "train it well"}, "the command of its rule has changed"),
        ({"inputs": ("data/b",)}, "other inputs: data/b and maybe more"),
    ],
)  # fmt: skip
def test_another_job_makes_its_results_stale_and_what_follows_from_them(results, change, reason):
    found = told(results, [replace(TRAIN, **change), PRUNE])
    assert found.pop("nodes/a/dense") == ("stale", reason)
    assert found == dict.fromkeys(PRUNE.outputs, ("follows", "made from nodes/a/dense"))


def test_what_was_made_from_another_input_is_stale(results):
    put(results, "nodes/a/dense", "trained anew")
    put(results, TRAIN.digests, f"{sha('trained anew')}  nodes/a/dense\n")
    assert told(results) == dict.fromkeys(PRUNE.outputs, ("stale", "made from another nodes/a/dense"))


@pytest.mark.parametrize("lost", [record_of("nodes/a/kept.csv"), PRUNE.digests])
def test_without_its_record_or_digest_nothing_is_known_of_a_result(results, lost):
    (results / lost).unlink()
    kinds = {output: kind for output, (kind, _) in told(results).items()}
    assert kinds["nodes/a/kept.csv"] == "unrecorded"


def test_what_a_killed_job_left_is_not_trusted(results):
    put(results, INCOMPLETE / record_of("nodes/a/pruned").relative_to(METADATA), "{}")
    assert told(results) == {"nodes/a/pruned": ("unrecorded", "its job was killed")}


def test_digests_of_a_rule_that_no_longer_makes_the_output_do_not_count(results):
    """A method that becomes fine-tuning: another rule makes the same file."""
    adopt = replace(PRUNE, rule="adopt", digests="digests/adopt/a", command="adopt it")
    run(results, adopt)
    assert told(results, [TRAIN, adopt]) == {}
    assert [str(group.path) for group in leftovers(results, [TRAIN, adopt])] == ["digests"]


@pytest.mark.parametrize("name", ["a", "nodes/small/adaptive/seed0/a/b/network.safetensors", "x/" * 400 + "y.csv"])
def test_records_lie_where_snakemake_puts_them(tmp_path, name):
    from snakemake.persistence.file import FilePersistence

    theirs = FilePersistence(path=tmp_path / ".snakemake")
    assert Path(theirs._record_path(theirs._metadata_path, name)) == tmp_path / record_of(name)
    put(tmp_path, record_of(name), "{")
    assert recorded(tmp_path) == {name}
    assert read_record(tmp_path, name) is None  # half of one is none


# --------------------------------------------------------------------------------------------------------------------
# leftovers


def test_only_what_runs_have_left_counts_and_unfinished_work_stays(results):
    put(results, "nodes/a/dense.checkpoint", "half-way")
    put(results, "nodes/notes.md", "mine")
    put(results, "report.html", "mine")
    assert leftovers(results, JOBS) == []
    put(results, "nodes/a/.pruned.17.partial", "of a killed job")
    assert [str(group.path) for group in leftovers(results, JOBS)] == ["nodes/a/.pruned.17.partial"]


def test_leftovers_are_told_by_folder_and_removed_whole(results):
    other = Job("train", ("nodes/b/c/dense",), (), "digests/train/b", ("logs/train/b", "benchmarks/train/b"), "", {})
    before = {path for path in results.rglob("*") if path.is_file()}
    run(results, other)
    put(results, "nodes/b/c/dense.checkpoint", "x")
    found = leftovers(results, JOBS)
    assert {str(group.path): len(group.files) for group in found} == {
        "nodes/b": 2, "digests": 1, "logs": 1, "benchmarks": 1, ".snakemake": 1,
    }  # fmt: skip
    remove(results, found)
    assert {path for path in results.rglob("*") if path.is_file()} == before
    assert not (results / "nodes/b").exists()
