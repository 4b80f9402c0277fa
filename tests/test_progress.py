"""What a run says while it goes."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from acll.run_summary import job_summary, what_to_do
from snakemake_logger_plugin_acll.progress import Progress, Running, earlier_seconds, shown


def after(jobs, planned, earlier=None) -> Progress:
    """Progress when jobs (rule, seconds) have run one after another."""
    progress, now = Progress(planned, earlier or {}, 0.0), 0.0
    for number, (rule, seconds) in enumerate(jobs):
        progress.start(number, Running(rule, f"{rule} {number}", None, now))
        now += seconds
        progress.end(number, now)
    progress.now = now
    return progress


def test_lines_name_the_job_its_number_its_time_and_the_time_left():
    progress = after([("train", 10.0)] * 2, {"train": 5})
    progress.start(2, Running("train", "train c", None, 20.0))
    assert progress.end(2, 30.0) == "3 of 5  train c (10 s); about 20 s left"


def test_the_time_left_is_that_of_the_same_rules():
    progress = after(
        [("train", 60.0), ("search", 100.0), ("prune", 1.0)], {"train": 3, "search": 2, "prune": 11}
    )
    assert progress.seconds_left(161.0) == pytest.approx(2 * 60 + 100 + 10)


def test_rules_that_have_not_run_are_judged_by_earlier_runs_and_else_by_all_jobs():
    jobs = [("train", 10.0)] * 3
    assert after(jobs, {"train": 5, "search": 2}).seconds_left(30.0) == pytest.approx(40)
    assert after(jobs, {"train": 5, "search": 2}, {"search": 40.0}).seconds_left(
        30.0
    ) == pytest.approx(100)


def test_jobs_side_by_side_take_less_time_and_what_runs_is_partly_done():
    progress = Progress({"train": 8}, {}, 0.0)
    for number in range(4):
        progress.start(number, Running("train", "train", None, 10.0 * (number // 2)))
    for number in range(4):
        progress.end(number, 10.0 * (number // 2) + 10)
    assert progress.seconds_left(20.0) == pytest.approx(20)
    progress.start(4, Running("train", "train", None, 20.0))
    progress.start(5, Running("train", "train", None, 20.0))
    assert progress.seconds_left(25.0) == pytest.approx(15)


def test_a_job_of_a_scheduler_is_at_work_from_its_first_line_to_its_end(tmp_path):
    log, benchmark = tmp_path / "a.log", tmp_path / "a.tsv"
    log.write_text("of an earlier run\n")
    benchmark.write_text("s\th:m:s\n99.0\t0:01:39\n")
    for path in (log, benchmark):
        os.utime(path, (1000.0, 1000.0))
    job = Running("train", "train a", log, 0.0, benchmark, submitted=2000.0)
    assert not job.at_work
    os.utime(log, (2010.0, 2010.0))
    assert job.at_work
    os.utime(benchmark, (2030.0, 2030.0))
    assert not job.at_work  # others that are one job of the scheduler with it may be
    progress = Progress({"train": 1}, {}, 0.0)
    progress.start(0, job)
    assert progress.end(0, 400.0) == "1 of 1  train a (2 min)"  # without what it has waited


def test_the_time_left_is_not_judged_by_jobs_of_other_kinds_and_at_the_end_there_is_none():
    assert after([("prepare", 1.0)] * 2, {"prepare": 2, "train": 2}).seconds_left(2.0) is None
    assert (
        after([("prepare", 1.0)] * 2, {"prepare": 2, "train": 2}, {"train": 5.0}).seconds_left(2.0)
        == 10
    )
    assert after([("train", 1.0)] * 5, {"train": 5}).seconds_left(5.0) is None


@given(
    some.lists(some.tuples(some.sampled_from("abc"), some.floats(0, 1e5)), min_size=3),
    some.integers(1, 9),
)
def test_the_time_left_is_never_negative(jobs, more):
    planned = {rule: sum(own == rule for own, _ in jobs) + more for rule in "abc"}
    progress = after(jobs, planned, dict.fromkeys("abc", 7.0))
    progress.start(-1, Running("a", "a", None, progress.now))
    for later in (0.0, 1e9):
        assert progress.seconds_left(progress.now + later) >= 0


def test_times_are_shown_as_people_say_them():
    assert [shown(seconds) for seconds in (0.2, 59, 61, 3599, 3600, 5400)] == [
        "0 s", "59 s", "1 min", "1 h 0 min", "1 h 0 min", "1 h 30 min",
    ]  # fmt: skip


def test_earlier_times_come_from_benchmarks(tmp_path):
    for name, seconds in (("train/a/b.tsv", 3.0), ("train/c.tsv", 5.0), ("tables.tsv", 1.0)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"s\th:m:s\n{seconds}\t0:00:03\n")
    assert earlier_seconds(tmp_path) == {"train": 4.0, "tables": 1.0}
    assert earlier_seconds(tmp_path / "absent") == {}


def test_after_a_run_that_failed_the_command_that_helps_is_named(monkeypatch):
    monkeypatch.delenv("ACLL_DATA_ROOT", raising=False)
    damaged = "evaluate/a: error: nodes/a/network.safetensors: damaged: it does not agree"
    assert "`make repair CONFIG=x`" in what_to_do(["train/b: error: no", damaged], "x")
    assert what_to_do(["b: error: no"], "x").startswith("mend this, and `make run CONFIG=x`")
    assert what_to_do(["train/b: Killed"], "x").startswith("`make run CONFIG=x` goes on")
    monkeypatch.setenv("ACLL_DATA_ROOT", "/my images")  # of DATA="/my images"
    assert "`make repair CONFIG=x DATA='/my images'`" in what_to_do([damaged], "x")
    again = "`make run CONFIG=x DATA='/my images'` goes on"
    assert what_to_do(["train/b: Killed"], "x").startswith(again)


@dataclass(eq=False)
class Job:
    """What a summary asks of one of Snakemake's jobs."""

    rule: SimpleNamespace
    output: list[str]


def test_jobs_that_have_run_are_counted_in_the_order_of_the_workflow():
    rules = {name: SimpleNamespace(name=name) for name in ("prepare", "train", "tables", "all")}
    done = [Job(rules[name], [name]) for name in ("tables", "train", "prepare", "train")]
    there, target = Job(rules["prepare"], ["there"]), Job(rules["all"], [])
    dag = SimpleNamespace(
        jobs=[*done, there, target],
        needrun_jobs=lambda exclude_finished: [*done, target],
        workflow=SimpleNamespace(rules=rules.values()),
    )
    told = "4 of 5 jobs have run (1 prepare, 2 train, 1 tables); the results of 1 were there"
    assert job_summary(dag) == told
