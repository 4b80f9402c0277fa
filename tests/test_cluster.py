"""What a run on a cluster asks for, and how its queue is looked after; no Slurm is needed."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from acll import cluster
from acll.cluster import Queue, arguments_of, job_names, uses_slurm
from acll.config.checks import parse
from acll.demands import memory_mb, minutes
from acll.errors import UserError
from acll.plan import plan
from checkouts import SMALL
from conftest import ROOT

ACCOUNTS = "AccountingStorageType   = accounting_storage/slurmdbd\nMinJobAge   = 2 sec\n"
NO_ACCOUNTS = "AccountingStorageType   = (null)\nMinJobAge   = {} sec\n"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Let commands of Slurm say something; returns what writes one, and the file of their calls."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(cluster, "PathFinder", SimpleNamespace(find_spec=lambda *_: True))

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{script}\n')
        (folder / name).chmod(0o755)

    return write, calls


def says(commands, text: str) -> None:
    commands[0]("scontrol", f"cat <<'END'\n{text}END")


def test_a_profile_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(UserError, match=r"^profiles/slrum/config.yaml: .*; profiles here: slurm$"):
        arguments_of(ROOT, "slrum", ROOT / "results/demo")


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PathFinder", SimpleNamespace(find_spec=lambda *_: True))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^scontrol: there is no such command; .*PROFILE"):
        arguments_of(ROOT, "slurm", ROOT / "results/demo")


def test_without_the_executor_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(cluster, "PathFinder", SimpleNamespace(find_spec=lambda *_: None))
    with pytest.raises(UserError, match=r'pip install "acll\[slurm\]"'):
        arguments_of(ROOT, "slurm", ROOT / "results/demo")


def test_another_executor_needs_nothing_of_slurm(tmp_path):
    path = tmp_path / "profiles/clouds/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("executor: kubernetes\n")
    found = arguments_of(tmp_path, "clouds", tmp_path / "results/demo")
    assert found == [f"--profile={path.parent}"]
    assert not uses_slurm(found)
    path.write_text("executor: [\n")
    with pytest.raises(UserError, match="no YAML"):
        arguments_of(tmp_path, "clouds", tmp_path / "results/demo")


@pytest.mark.parametrize(
    ("said", "command"), [(ACCOUNTS, "sacct"), (NO_ACCOUNTS.format(300), "squeue")]
)
def test_jobs_are_looked_for_where_the_cluster_keeps_them(commands, said, command):
    says(commands, said)
    found = arguments_of(ROOT, "slurm", ROOT / "results/demo")
    assert f"--slurm-status-command={command}" in found
    assert uses_slurm(found)


def test_a_cluster_that_forgets_jobs_at_once_is_refused(commands):
    says(commands, NO_ACCOUNTS.format(10))
    with pytest.raises(UserError, match="forgets them 10 seconds"):
        arguments_of(ROOT, "slurm", ROOT / "results/demo")


def test_a_slurm_that_does_not_answer_is_quoted(commands):
    commands[0]("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"^scontrol show config: Unable to contact"):
        arguments_of(ROOT, "slurm", ROOT / "results/demo")


def test_only_jobs_of_these_results_are_cancelled(commands, tmp_path, capsys):
    results, other = tmp_path / "results/a", tmp_path / "results/b"
    calls = commands[1]
    listed = "\n".join([f"7 {job_names(results)}_x", f"8 {job_names(other)}_x", "9 mine"])
    commands[0]("squeue", f"grep -q scancel {calls} || echo '{listed}'")
    commands[0]("scancel", "")
    queue = Queue()
    assert queue.clear() == 0
    assert not calls.exists()  # nothing is known of a queue yet
    queue.watch(results)
    assert "scancel 7\n" in calls.read_text()
    assert capsys.readouterr().out.startswith("1 jobs of a run that was killed")
    assert queue.clear() == 0


def test_names_of_jobs_tell_results_apart_and_are_short(tmp_path):
    long = "a" * 200
    assert job_names(tmp_path / "one" / long) != job_names(tmp_path / "two" / long)
    assert len(job_names(tmp_path / long)) < 50


def test_jobs_are_looked_at_more_rarely_the_longer_they_take():
    workflow = SimpleNamespace(
        executor_settings=SimpleNamespace(init_seconds_before_status_checks=3)
    )
    pauses = [
        cluster._pause(SimpleNamespace(next_seconds_between_status_checks=at), workflow)
        for at in (3, 13, 23, 103, 180)
    ]
    assert pauses[:3] == pytest.approx([3.0, 3.6, 4.32])
    assert sorted(pauses) == pauses
    assert pauses[-1] <= 60


# --------------------------------------------------------------------------------------------------
# memory and time


CONFIGURATION = parse(SMALL)
JOBS = {(job.rule, job.name): job for job in plan(CONFIGURATION)}


def prepared(results: Path, size: int) -> Path:
    """Results with prepared images of so many bytes."""
    (results / "data").mkdir(parents=True)
    for name in ("a", "b"):
        for split in ("train", "test"):
            with (results / f"data/{name}.{split}.safetensors").open("wb") as file:
                file.truncate(size)
    return results


@pytest.mark.parametrize("at", sorted(JOBS), ids=" ".join)
def test_each_try_asks_for_more_and_for_no_longer_than_a_day(at, tmp_path):
    tries = [memory_mb(CONFIGURATION, JOBS[at], tmp_path, number) for number in (1, 2, 3)]
    assert tries == [tries[0], 2 * tries[0], 4 * tries[0]]
    times = [minutes(CONFIGURATION, JOBS[at], tmp_path, number, False) for number in (1, 2, 9)]
    assert times[1] == 2 * times[0]
    assert times[2] <= 24 * 60


def test_more_data_ask_for_more_and_a_gpu_for_less_time(tmp_path):
    job = JOBS["train", "small/half/seed0/a/b"]
    few, many = prepared(tmp_path / "few", 10**6), prepared(tmp_path / "many", 10**9)
    assert memory_mb(CONFIGURATION, job, few, 1) + 3000 < memory_mb(CONFIGURATION, job, many, 1)
    assert minutes(CONFIGURATION, job, few, 1, False) < minutes(CONFIGURATION, job, many, 1, False)
    assert minutes(CONFIGURATION, job, many, 1, True) < minutes(CONFIGURATION, job, many, 1, False)


def test_a_large_network_asks_for_more_memory(tmp_path):
    whole = SMALL | {"networks": {"small": {"backbone": "resnet50"}}}
    configuration = parse(whole)
    large = {(job.rule, job.name): job for job in plan(configuration)}
    at = ("train", "small/half/seed0/a/b")
    assert memory_mb(configuration, large[at], tmp_path, 1) > memory_mb(
        CONFIGURATION, JOBS[at], tmp_path, 1
    )


@given(epochs=some.integers(1, 500))
def test_a_search_asks_for_the_time_of_its_budget(epochs):
    configuration = parse(
        SMALL
        | {
            "methods": {"adaptive": {"ratio": {"search": "bayes"}}},
            "training": SMALL["training"] | {"epochs": epochs},
        }
    )
    jobs = {(job.rule, job.name): job for job in plan(configuration)}
    params = jobs["search", "small/adaptive/seed0/a/b"].params
    from acll.demands import _epochs

    assert _epochs(params) == epochs * (1 + params.search.budget)
