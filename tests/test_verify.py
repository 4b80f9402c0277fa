"""What verify, and the list of leftovers, say of results: on files, records and digests that are
put there by hand."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ConfigDict

from acll.cli.shares import _remedy
from acll.config.checks import parse
from acll.lock import held, in_use
from acll.parameters.base import Params
from acll.plan import Job, command, plan
from acll.sharing.changes import changes, input_changes
from acll.sharing.leftovers import remove, unnamed
from acll.sharing.records import (
    INCOMPLETE,
    METADATA,
    mark_path,
    read_record,
    record_path,
    recorded,
    unfinished,
)
from acll.sharing.report import reasons_told
from acll.sharing.to_run import Reason
from acll.sharing.verify import ResultFault, result_faults, settle_marks
from conftest import ROOT


class Given(Params):
    """Parameters of any step."""

    model_config = ConfigDict(extra="allow")


CODE = {"code": "abc", "torch": "2"}
TRAIN = Job("train", "a", {}, {"dense": ("nodes/a/dense",)}, Given(epochs=1), CODE)
PRUNE = Job(
    "prune",
    "a",
    {"dense": ("nodes/a/dense",)},
    {"pruned": ("nodes/a/pruned",), "kept": ("nodes/a/kept.csv",)},
    Given(ratio=0.5),
    CODE,
)
JOBS = [TRAIN, PRUNE]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(results: Path, name: str | Path, text: str) -> None:
    (results / name).parent.mkdir(parents=True, exist_ok=True)
    (results / name).write_text(text)


def run(results: Path, job: Job, code: str | None = None) -> None:
    """Leave what the job leaves; the content of an output is its name and the rule's."""
    inputs = {path: f"sha256:{sha((results / path).read_text())}" for path in job.all_inputs}
    record = {
        "code": code or command(job.rule),
        "input": sorted(job.all_inputs),
        "input_checksums": inputs,
        "params": [repr(job.text)],
        "record_format_version": 6,  # of Snakemake's records
    }
    for output in job.all_outputs:
        put(results, output, f"{output} of {job.rule}")
        put(results, record_path(output), json.dumps(record))
    put(
        results,
        job.digests,
        "".join(f"{sha(f'{output} of {job.rule}')}  {output}\n" for output in job.all_outputs),
    )
    for path in job.others:
        put(results, path, "said")


@pytest.fixture
def results(tmp_path) -> Path:
    for job in JOBS:
        run(tmp_path, job)
    return tmp_path


def told(results: Path, jobs=JOBS) -> dict[str, tuple[str, str]]:
    return {fault.output: (fault.kind, fault.reason) for fault in result_faults(results, jobs)}


def test_untouched_results_have_no_fault(results):
    assert told(results) == {}


def test_damage_is_named_and_what_was_made_before_it_happened_stands(results):
    put(results, "nodes/a/dense", "other")
    assert told(results) == {
        "nodes/a/dense": ("damaged", "its content (5 bytes) is not what its job wrote")
    }
    (results / "nodes/a/dense").unlink()
    assert told(results) == {"nodes/a/dense": ("missing", "the file is not there")}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"params": Given(epochs=2)}, "epochs 1 → 2"),
        ({"params": Given(epochs=True)}, "its parameters have changed"),
        ({"params": Given(epochs=1, cap=None)}, "its parameters have changed"),
        ({"external_digest": "x"}, "the weights that it starts from have changed"),
        ({"code": CODE | {"torch": "3"}}, "torch 2 → 3"),
        ({"code": CODE | {"code": "d"}}, "the code of its step has changed"),
        (
            {"params": Given(epochs=1, **{f"key{index}": 1 for index in range(5)})},
            "key0 none → 1; key1 none → 1; key2 none → 1; and 2 more",
        ),
        ({"params": Given(epochs=1, nodes=[1, 2, 3, 4])}, "nodes none → [1, 2, 3, 4]"),
        ({"inputs": {"train": ("data/b",)}}, "now also made from data/b"),
    ],
)
def test_another_job_makes_its_results_stale_and_what_follows_from_them(results, change, reason):
    found = told(results, [replace(TRAIN, **change), PRUNE])
    assert found.pop("nodes/a/dense") == ("stale", reason)
    assert found == dict.fromkeys(PRUNE.all_outputs, ("follows", "made from nodes/a/dense"))


def test_a_job_that_makes_one_file_more_makes_the_others_stale_and_none_unrecorded(results):
    more = replace(PRUNE, outputs={**PRUNE.outputs, "seen": ("nodes/a/seen.png",)})
    expected = {"pruned": "stale", "kept.csv": "stale", "seen.png": "missing"}
    for params, reason in (
        (PRUNE.params, "its job now makes nodes/a/seen.png, too"),
        (Given(ratio=0.6), "ratio 0.5 → 0.6"),
    ):
        faults = result_faults(results, [TRAIN, replace(more, params=params)])
        found = {fault.output.removeprefix("nodes/a/"): fault.kind for fault in faults}
        assert found == expected
        assert {fault.reason for fault in faults if fault.kind == "stale"} == {reason}


def test_another_command_makes_results_stale(results):
    run(results, TRAIN, code="train it well")
    assert told(results)["nodes/a/dense"] == ("stale", "the command of its rule has changed")


def test_of_prepared_data_what_comes_from_outside_are_raw_data(results):
    job = Job("prepare", "a", {}, {"train": ("data/a",)}, Given(), CODE)
    run(results, job)
    found = told(results, [replace(job, external_digest="x")])
    assert found == {"data/a": ("stale", "the raw data have changed")}


def test_what_was_made_from_another_input_is_stale(results):
    put(results, "nodes/a/dense", "trained anew")
    put(results, TRAIN.digests, f"{sha('trained anew')}  nodes/a/dense\n")
    assert told(results) == dict.fromkeys(
        PRUNE.all_outputs, ("stale", "made from another nodes/a/dense")
    )


@pytest.mark.parametrize("lost", [record_path("nodes/a/kept.csv"), PRUNE.digests])
def test_without_its_record_or_digest_nothing_is_known_of_a_result(results, lost):
    (results / lost).unlink()
    kinds = {output: kind for output, (kind, _) in told(results).items()}
    assert kinds["nodes/a/kept.csv"] == "unrecorded"


def test_what_a_killed_job_left_is_not_trusted(results):
    put(results, INCOMPLETE / record_path("nodes/a/pruned").relative_to(METADATA), "{}")
    assert told(results) == {"nodes/a/pruned": ("unfinished", "its job did not end")}


def test_marks_of_stopped_jobs_go_where_their_results_are_back(results):
    (again,), (pruned, _) = TRAIN.all_outputs, PRUNE.all_outputs
    for output in (again, pruned):
        put(results, mark_path(output), "{}")
    put(results, again, "half of it")
    settle_marks(results, JOBS)
    assert unfinished(results) == {again}
    put(results, mark_path(pruned), "{}")
    settle_marks(results, [TRAIN, replace(PRUNE, params=Given(ratio=0.6))])
    assert unfinished(results) == {again, pruned}


def test_digests_of_a_rule_that_no_longer_makes_the_output_do_not_count(results):
    """A method that becomes fine-tuning: another rule makes the same file."""
    commit = replace(PRUNE, rule="commit")
    run(results, commit)
    assert told(results, [TRAIN, commit]) == {}
    left = {file for group in unnamed(results, [TRAIN, commit]).leftovers for file in group.files}
    assert left == {Path(path) for path in (PRUNE.digests, *PRUNE.others)}


@pytest.mark.parametrize(
    "name", ["a", "nodes/small/adaptive/seed0/a/b/network.safetensors", "x/" * 400 + "y.csv"]
)
def test_records_lie_where_snakemake_puts_them(tmp_path, name):
    from snakemake.persistence.file import FilePersistence

    theirs = FilePersistence(path=tmp_path / ".snakemake")
    assert Path(theirs._record_path(theirs._metadata_path, name)) == tmp_path / record_path(name)
    put(tmp_path, record_path(name), "{")
    assert recorded(tmp_path) == {name}
    assert read_record(tmp_path, name) is None  # half of one is none


# --------------------------------------------------------------------------------------------------
# leftovers


def test_only_what_runs_have_left_counts_and_unfinished_work_stays(results):
    put(results, "nodes/a/dense.checkpoint", "half-way")
    put(results, "nodes/notes.md", "mine")
    put(results, "report.html", "mine")
    assert unnamed(results, JOBS).leftovers == []
    put(results, "nodes/a/.pruned.17.partial", "of a killed job")
    assert [str(group.path) for group in unnamed(results, JOBS).leftovers] == [
        "nodes/a/.pruned.17.partial"
    ]


def test_leftovers_are_told_by_folder_and_removed_whole(results):
    other = Job("train", "b", {}, {"dense": ("nodes/b/c/dense",)}, Given(), CODE)
    before = {path for path in results.rglob("*") if path.is_file()}
    run(results, other)
    put(results, "nodes/b/c/dense.checkpoint", "x")
    found = unnamed(results, JOBS).leftovers
    assert {str(group.path): len(group.files) for group in found} == {
        "nodes/b": 2,
        "digests": 1,
        "logs": 1,
        "benchmarks": 1,
        ".snakemake": 1,
    }
    remove(results, found)
    assert {path for path in results.rglob("*") if path.is_file()} == before
    assert not (results / "nodes/b").exists()


# --------------------------------------------------------------------------------------------------
# the lock


def test_one_process_at_a_time_and_no_trace_of_those_that_ended(tmp_path):
    assert in_use(tmp_path) is None
    with held(tmp_path):
        assert f"results/{tmp_path.name}: in use by a run on" in in_use(tmp_path)
        with pytest.raises(ValueError, match="in use by a run on"), held(tmp_path):
            pass
    assert in_use(tmp_path) is None
    with held(tmp_path):
        pass


def edited_demo(edit) -> dict[str, dict[str, str]]:
    """What differs in each job of the demo, by its title, after an edit of its configuration."""
    raw = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    before = {job.title: job for job in plan(parse(raw))}
    edit(raw)
    found = {}
    for job in plan(parse(raw)):
        old = before.get(job.title)
        if old is not None and old.text != job.text:
            found[job.title] = changes(json.loads(old.text), json.loads(job.text), job.rule)
        elif old is not None and set(old.all_inputs) != set(job.all_inputs):
            found[job.title] = [input_changes(old.all_inputs, job.all_inputs)]
    return found


def appended(raw):
    raw["tasks"]["extra"] = raw["tasks"]["digits"]
    raw["sequences"]["classify"]["tasks"].append("extra")


def with_sequence(raw):
    raw["sequences"]["more"] = {"network": "small", "tasks": ["digits"]}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (appended, "task extra of sequence classify is new"),
        (with_sequence, "sequence more is new"),
        (lambda raw: raw["methods"].update(si={"type": "ewc"}), "method si is new"),
        (
            lambda raw: raw["methods"].update(two={"ratio": {"search": "tpe", "budget": 2}}),
            "method two is new",
        ),
        (
            # the second of its front: now there is a figure of it
            lambda raw: raw["methods"].update(
                packnet90={"ratio": 0.9, "criterion": "magnitude", "release": "once"}
            ),
            "method packnet90 is new",
        ),
        (lambda raw: raw["methods"].pop("finetune"), "method finetune is gone"),
        (
            lambda raw: raw["sequences"]["classify"]["tasks"].reverse(),
            "sequence classify has its tasks in other orders",
        ),
    ],
)
def test_why_tables_and_figures_change_is_told_in_words_of_the_configuration(edit, reason):
    found = edited_demo(edit)
    assert found["tables"] == [reason]
    # figures list what packs; of other methods they see the tables alone
    packs = reason not in ("method si is new", "method finetune is gone")
    assert found.get("figures") == ([reason] if packs else None)
    if edit is appended:
        assert found["sheets"] == ["task extra is new"]


def test_a_budget_is_named_as_the_configuration_has_it():
    found = edited_demo(lambda raw: raw["methods"]["adaptive"]["ratio"].update(budget=9))
    (line,) = found["tables"]
    assert line.startswith("methods.adaptive.ratio.budget ")
    assert line.endswith(" → 9")


def test_what_makes_a_fixed_ratio_one_of_another_front_is_told():
    found = edited_demo(lambda raw: raw["methods"]["packnet50"].update(scope="global"))
    assert found["tables"] == ["methods.packnet50.front layer → global"]


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("dense", "(dense: the trained network of a task, before pruning)"),
        ("learned", "(learned: the training of a first task that packing methods share)"),
    ],
)
def test_the_plan_says_what_the_name_of_a_shared_training_means_where_it_has_it(word, meaning):
    shared = replace(TRAIN, name=f"small/{word}/seed0/a")
    told = {job.name: reasons_told([Reason(job, "changed", "x")], 2) for job in (shared, TRAIN)}
    assert told[shared.name][-1] == meaning
    assert not any(line.startswith("(") for line in [*told[shared.name][:-1], *told[TRAIN.name]])


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("stale", "follows"), "makes them anew"),
        (("missing", "stale"), "makes what has not been made"),
        (("missing", "unfinished"), "brings back first what DVC has"),
        (("unfinished",), "makes what has not been made"),
        (("missing", "damaged"), "mends this"),
    ],
)
def test_what_to_type_depends_on_what_is_wrong(kinds, words):
    faults = [ResultFault("tables/final.csv", kind, "") for kind in kinds]
    assert words in _remedy(faults, ROOT, "mine")
