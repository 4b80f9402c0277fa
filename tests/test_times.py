"""Clocks that were set back, and files that are dated ahead: content decides, nothing is lost."""

import copy
import os
import time
from dataclasses import replace

import pytest

from acll.sharing.times import settle_times
from checkouts import SMALL, Checkout, contents, finished, jobs_in
from test_verify import JOBS, PRUNE, TRAIN, put, run, sha

HOURS = 3 * 3600
AFTER = {"tables", "figures"} | {
    f"{step} small/half/seed0/{prefix}"
    for step in ("prune", "retrain", "evaluate")
    for prefix in ("a", "a/b")
}


def date_ahead(folder) -> None:
    """What a clock that is set back by three hours makes of the files that are there."""
    for path in folder.rglob("*"):
        status = path.lstat()
        ahead = tuple(when + HOURS * 10**9 for when in (status.st_atime_ns, status.st_mtime_ns))
        os.utime(path, ns=ahead, follow_symlinks=False)


@pytest.fixture
def results(tmp_path):
    for job in JOBS:
        run(tmp_path, job)
    return tmp_path


def trained_anew(results) -> None:
    put(results, "nodes/a/dense", "trained anew")
    put(results, TRAIN.digests, f"{sha('trained anew')}  nodes/a/dense\n")


def is_newer(results, path, output) -> bool:
    return (results / path).stat().st_mtime > (results / output).stat().st_mtime


@pytest.mark.parametrize("when", [0, 1, 1e9, 3e9])
def test_what_was_made_from_another_input_is_older_than_it_whatever_its_time_was(results, when):
    trained_anew(results)
    os.utime(results / "nodes/a/dense", (when, when))
    for output in PRUNE.all_outputs:
        os.utime(results / output, (2e9, 2e9))
    settle_times(results, JOBS)
    for output in PRUNE.all_outputs:
        assert is_newer(results, "nodes/a/dense", output)
        assert (results / output).stat().st_mtime > 0  # which Snakemake takes for no time


def test_times_of_what_is_current_stay_and_those_to_come_become_now(results):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    settle_times(results, JOBS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    date_ahead(results)
    settle_times(results, JOBS)
    for job in JOBS:
        for output in job.all_outputs:
            assert (results / output).stat().st_mtime <= time.time()


def test_a_file_to_come_that_its_job_has_not_written_keeps_its_time(results):
    put(results, "nodes/a/dense", "by hand")
    date_ahead(results)
    settle_times(results, JOBS)
    assert is_newer(results, "nodes/a/dense", "nodes/a/pruned")


def test_what_is_not_there_or_not_recorded_is_left_to_the_run(results):
    other = replace(TRAIN, name="b", outputs={"dense": ("nodes/b/dense",)})
    settle_times(results / "nowhere", JOBS)
    (results / "nodes/a/dense").unlink()
    trained_anew(results)
    (results / "nodes/a/dense").unlink()
    settle_times(results, [other, *JOBS])


@pytest.fixture
def ahead(tmp_path_factory, tmp_path) -> Checkout:
    """A finished run, all files of which are dated three hours ahead."""
    own = finished(tmp_path_factory)[0].copy(tmp_path / "ahead")
    date_ahead(own.results("small"))
    date_ahead(own.folder / "config")
    return own


@pytest.mark.slow
def test_results_that_are_dated_ahead_stand_and_what_changes_is_made_once(ahead):
    expected = contents(ahead.results("small"))
    assert ahead.planned(name="small") == set()
    date_ahead(ahead.results("small"))
    longer = copy.deepcopy(SMALL)
    longer["tasks"]["b"]["training"] = {"epochs": 4}
    ahead.write(longer)
    last = {f"{step} small/half/seed0/a/b" for step in ("train", "prune", "retrain", "evaluate")}
    assert jobs_in(ahead.make("run", "small")) == last | {"tables", "figures"}
    assert ahead.planned(name="small") == set()
    page = (ahead.results("small") / "report.html").read_text()
    assert "epochs: 4" in page  # the report is that of these results
    ahead.write(SMALL)
    date_ahead(ahead.results("small"))
    ahead.make("run", "small")
    assert contents(ahead.results("small")) == expected


@pytest.mark.slow
def test_a_run_that_is_stopped_after_the_clock_was_set_back_goes_on_with_what_follows(ahead):
    """What was made from the network that was there before looks younger than the new one."""
    longer = copy.deepcopy(SMALL)
    longer["tasks"]["a"]["training"] = {"epochs": 4}
    ahead.write(longer)
    run = ["snakemake", "--configfile", "config/small.yaml", "--directory", "results/small"]
    dense = "nodes/small/learned/seed0/a/dense.safetensors"
    assert jobs_in(ahead.run(*run, dense)) == {"train small/learned/seed0/a"}
    assert ahead.planned(name="small") >= {"prune small/half/seed0/a"}
    text = ahead.make("run", "small")
    assert jobs_in(text) == AFTER | {"train small/half/seed0/a/b"}
    assert "all as this commit would make them" in ahead.make("verify", "small")
