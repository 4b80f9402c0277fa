"""What would run, as our planner says it and as Snakemake does: on results that are made up."""

import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from acll.sharing.planned import jobs_of
from acll.sharing.records import mark_path, record_path
from acll.sharing.report import reasons_told
from acll.sharing.to_run import reasons_to_run
from acll.sharing.verify import settle_marks
from checkouts import GENERATED, all_jobs_in
from conftest import ROOT
from planner import dry_run
from test_verify import JOBS, PRUNE, TRAIN, put, run, sha

HOURS = 3 * 3600


@pytest.fixture
def results(tmp_path) -> Path:
    for job in JOBS:
        run(tmp_path, job)
    return tmp_path


def told(results: Path, jobs=JOBS) -> dict[str, tuple[str, str]]:
    return {one.job.title: (one.kind, one.words) for one in reasons_to_run(results, jobs)}


def test_nothing_runs_where_all_is_as_it_was_made(results):
    assert told(results) == {}
    assert reasons_told([], 2) == ["nothing to run: the results of all 2 jobs are there"]


def test_what_has_made_nothing_yet_is_new(tmp_path):
    run(tmp_path, TRAIN)
    assert told(tmp_path) == {PRUNE.title: ("new", "not made yet")}


def test_what_is_lost_is_made_again_and_what_was_made_from_it(results):
    (results / "nodes/a/dense").unlink()
    assert told(results) == {
        TRAIN.title: ("missing", "nodes/a/dense is not there"),
        PRUNE.title: ("follows", f"after {TRAIN.title}"),
    }


def test_a_job_that_was_stopped_runs_again_unless_its_results_came_back(results):
    put(results, mark_path("nodes/a/pruned"), "{}")
    assert told(results) == {}
    put(results, "nodes/a/pruned", "half")
    assert told(results) == {PRUNE.title: ("missing", "it was stopped before its end")}


def test_an_edited_result_runs_what_was_made_from_it_and_a_copied_one_does_not(results):
    later = time.time() + 10
    os.utime(results / "nodes/a/dense", (later, later))
    assert told(results) == {}
    put(results, "nodes/a/dense", "by hand")
    os.utime(results / "nodes/a/dense", (later, later))
    assert told(results) == {PRUNE.title: ("changed", "made from another nodes/a/dense")}


def test_a_result_that_was_made_anew_counts_whatever_its_time(results):
    put(results, "nodes/a/dense", "anew")
    put(results, TRAIN.digests, f"{sha('anew')}  nodes/a/dense\n")
    os.utime(results / "nodes/a/dense", (1, 1))
    assert told(results) == {PRUNE.title: ("changed", "made from another nodes/a/dense")}


def test_looking_changes_nothing(results):
    put(results, "nodes/a/dense", "anew")
    os.utime(results / "nodes/a/dense", (4e9, 4e9))

    def state():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    files = [path for path in results.rglob("*") if path.is_file()]
    before = state()
    assert told(results)
    assert state() == before


# --------------------------------------------------------------------------------------------------
# against Snakemake


def edit_record(edit):
    def apply(results, job, output):
        path = results / record_path(output)
        record = json.loads(path.read_text())
        edit(record)
        path.write_text(json.dumps(record))

    return apply


def lose_input(record):
    if record["input"]:
        record["input_checksums"].pop(record["input"].pop())


def other_input(record):
    if record["input"]:
        record["input_checksums"][record["input"][-1]] = f"sha256:{sha('other')}"


def made_anew(results, job, output):
    put(results, output, "anew")
    lines = (results / job.digests).read_text().splitlines()
    own = [f"{sha('anew')}  {output}" if line.endswith(f"  {output}") else line for line in lines]
    put(results, job.digests, "\n".join(own) + "\n")


def dated(seconds):
    def apply(results, job, output):
        when = time.time() + seconds
        os.utime(results / output, (when, when))

    return apply


def edited(seconds):
    def apply(results, job, output):
        put(results, output, "edited")
        dated(seconds)(results, job, output)

    return apply


def linked(results, job, output):
    """As DVC links results into its cache; what is behind the link is younger, and edited."""
    target = results.parent / "cache" / output.replace("/", "_")
    target.parent.mkdir(exist_ok=True)
    target.write_text("edited")
    (results / output).unlink()
    (results / output).symlink_to(target)
    when = time.time() - HOURS
    os.utime(results / output, (when, when), follow_symlinks=False)


def old_benchmark(results, job, output):
    """An input was edited between the benchmark and the outputs."""
    ago = time.time() - HOURS
    os.utime(results / job.benchmark, (ago, ago))
    for path in job.all_inputs[:1]:
        edited(-HOURS / 2)(results, job, path)


def damaged_anew(results, job, output):
    """What was made anew was then damaged, with an old time."""
    made_anew(results, job, output)
    edited(-HOURS)(results, job, output)


def cut(results, job, output):
    path = results / record_path(output)
    path.write_text(path.read_text()[:-20])


CHANGES = {
    "output lost": lambda results, job, output: (results / output).unlink(),
    "record lost": lambda results, job, output: (results / record_path(output)).unlink(),
    "record cut": cut,
    "digests lost": lambda results, job, output: (results / job.digests).unlink(),
    "other parameters": edit_record(lambda record: record.update(params=[repr("{}")])),
    "other command": edit_record(lambda record: record.update(code="true")),
    "an input less": edit_record(lose_input),
    "an input that was another": edit_record(other_input),
    "made anew": made_anew,
    "edited now": edited(1),
    "edited, and dated back": edited(-HOURS),
    "edited, and dated ahead": edited(HOURS),
    "dated ahead": dated(HOURS),
    "no time at all": lambda results, job, output: os.utime(results / output, (0, 0)),
    "no parameters": edit_record(lambda record: record.update(params=[])),
    "parameters that are none": edit_record(lambda record: record.update(params=["'no'"])),
    "a link": linked,
    "an old benchmark": old_benchmark,
    "made anew and damaged": damaged_anew,
    "dated back": dated(-HOURS),
    "stopped": lambda results, job, output: put(results, mark_path(output), "{}"),
    "stopped half-way": lambda results, job, output: (
        put(results, mark_path(output), "{}"),
        edited(0)(results, job, output),
    ),
}


@pytest.fixture(scope="module")
def chains(tmp_path_factory) -> Path:
    """A folder with rules and a configuration of many sequences that share no task."""
    numbers = range(len(CHANGES) + 1)
    task = GENERATED | {"difficulty": 0.1}
    configuration = {
        "name": "chains",
        "tasks": {f"{name}{number}": task for number in numbers for name in "ab"},
        "networks": {"small": {"backbone": "resnet_small"}},
        "sequences": {
            f"s{number}": {"network": "small", "tasks": [f"a{number}", f"b{number}"]}
            for number in numbers
        },
        "methods": {"adaptive": {"ratio": {"search": "tpe"}}},
    }
    root = tmp_path_factory.mktemp("chains")
    for name in ("Snakefile", "workflow", "src", "profiles"):
        (root / name).symlink_to(ROOT / name)
    put(root, "config/chains.yaml", yaml.safe_dump(configuration))
    (root / "results/chains").mkdir(parents=True)
    return root


def ours_and_theirs(root: Path) -> tuple[set[str], set[str]]:
    """The jobs that would run, as our planner and as Snakemake says it."""
    results, jobs = root / "results/chains", jobs_of(root, "chains")
    ours = {reason.job.title for reason in reasons_to_run(results, jobs)}
    settle_marks(results, jobs)  # as `make run` does before Snakemake starts
    arguments = ["--configfile", "config/chains.yaml", "--directory", "results/chains"]
    code, text = dry_run(root, dict(os.environ), *arguments, "--quiet", "host")
    assert code == 0, text
    return ours, all_jobs_in(text)


def chain_of(title: str) -> str:
    """The sequence of a job; empty where it is of all."""
    number = re.search(r"[ab](\d+)$", title)
    return number[1] if number else ""


@pytest.mark.slow
def test_with_nothing_done_all_jobs_would_run(chains):
    ours, theirs = ours_and_theirs(chains)
    assert ours == theirs == {job.title for job in jobs_of(chains, "chains")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_after_changes_of_every_kind_the_jobs_are_those_of_snakemake(chains, tmp_path, seed):
    """Each change is in a sequence of its own, at a random place; one sequence has none."""
    shutil.copytree(chains, tmp_path, symlinks=True, dirs_exist_ok=True)
    results, generator = tmp_path / "results/chains", random.Random(seed)
    jobs = jobs_of(tmp_path, "chains")
    for job in jobs:
        run(results, job)
    (results / ".snakemake/incomplete").mkdir(exist_ok=True)
    for number, change in enumerate(CHANGES.values()):
        own = [job for job in jobs if chain_of(job.title) == str(number)]
        job = generator.choice(own)
        change(results, job, generator.choice(job.all_outputs))
    ours, theirs = ours_and_theirs(tmp_path)
    differing = {chain_of(title) for title in ours ^ theirs}
    assert {name for number, name in enumerate(CHANGES) if str(number) in differing} == set()
    assert ours == theirs
    assert not [title for title in ours if chain_of(title) == str(len(CHANGES))]
