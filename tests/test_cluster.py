"""What a run on a cluster asks for, and how its queue is looked after; no Slurm is needed."""

import asyncio
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from acll.cluster import jobs, profile, queue
from acll.cluster.demands import epochs_of, memory_mb, minutes
from acll.cluster.jobs import LACKED, Watch, tell_of_end, watch_jobs
from acll.cluster.profile import EXECUTOR, arguments_of, uses_slurm
from acll.cluster.queue import cancel_jobs, job_names, names_for_run
from acll.config.checks import parse
from acll.errors import UserError
from acll.lock import LOCK, RUN
from acll.plan import digest_of, plan
from acll.run_settings import PLAN_DIGEST
from acll.sharing.planned import jobs_of
from checkouts import SMALL, contents, finished
from conftest import ROOT

ACCOUNTS = "AccountingStorageType   = accounting_storage/slurmdbd\nMinJobAge   = 2 sec\n"
NO_ACCOUNTS = "AccountingStorageType   = (null)\nMinJobAge   = {} sec\n"


NAMES = "acll_demo_1"
FLAGS = re.MULTILINE | re.DOTALL


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Let commands of Slurm do something; returns what writes one, and the file of their calls."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(profile, "PathFinder", SimpleNamespace(find_spec=lambda *_: True))
    queue.settings_of_slurm.cache_clear()

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{script}\n')
        (folder / name).chmod(0o755)

    yield write, calls
    queue.settings_of_slurm.cache_clear()


def says(commands, text: str, name: str = "scontrol") -> None:
    commands[0](name, f"cat <<'END'\n{text}\nEND")


@pytest.mark.parametrize("name", ["slrum", "default", "/no/such", ".."])
def test_a_profile_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(UserError, match=rf"^{name}: .*; profiles here: slurm$"):
        arguments_of(ROOT, name, NAMES)


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "PathFinder", SimpleNamespace(find_spec=lambda *_: True))
    monkeypatch.setenv("PATH", str(tmp_path))
    queue.settings_of_slurm.cache_clear()
    with pytest.raises(UserError, match=r"^scontrol: there is no such command; .*PROFILE"):
        arguments_of(ROOT, "slurm", NAMES)


def test_without_the_executor_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(profile, "PathFinder", SimpleNamespace(find_spec=lambda *_: None))
    with pytest.raises(UserError, match=r'pip install "acll\[slurm\]"'):
        arguments_of(ROOT, "slurm", NAMES)


def test_another_executor_needs_nothing_of_slurm(tmp_path):
    path = tmp_path / "profiles/clouds/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("executor: kubernetes\n")
    found = arguments_of(tmp_path, "clouds", NAMES)
    assert found == [f"--profile={path.parent}", "--cores=10000"]
    assert not uses_slurm(found)
    path.write_text("executor: [\n")
    with pytest.raises(UserError, match="not valid YAML"):
        arguments_of(tmp_path, "clouds", NAMES)


def test_what_the_default_profile_would_override_is_refused(tmp_path):
    for name, text in (
        ("default", "resources: [gpu=4]\n"),
        ("clouds", "executor: x\nresources: [gpu=0]\n"),
    ):
        (tmp_path / "profiles" / name).mkdir(parents=True)
        (tmp_path / "profiles" / name / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^profiles/default/config.yaml: sets resources, too"):
        arguments_of(tmp_path, "clouds", NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs: 5", "`executor: slurm`, or another one, is missing"),
        ("executor: slurm\njobs: [", "line 2, or before it: not valid YAML: "),
        (
            "executor: slurm\ndefault-resources: [slurm_partiton=x]",
            "default-resources: 'slurm_partiton=x': there is no resource 'slurm_partiton' "
            "(did you mean slurm_partition or slurm_account?)",
        ),
        (
            "executor: slurm\nset-resources: {trian: {mem_mb: 50}}",
            "set-resources: 'trian:mem_mb=50': there is no rule 'trian' (did you mean train or "
            "retrain or trace?)",
        ),
        (
            "executor: slurm\nset-resources: ['train:memory=50']",
            "set-resources: 'train:memory=50': there is no resource 'memory'",
        ),
        (
            "executor: slurm\nset-threads: ['prepair=2']",
            "set-threads: 'prepair=2': there is no rule 'prepair' (did you mean prepare?)",
        ),
    ],
)
def test_what_is_misspelt_in_a_profile_is_refused(tmp_path, text, words):
    folder = tmp_path / "profiles/mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        arguments_of(tmp_path, "mine", NAMES)


@pytest.mark.parametrize(
    "text", ["slurm-array-jobs: all", "default-resources: [mem_mb=1, slurm_cluster=two]"]
)
def test_what_would_not_be_looked_after_is_refused(tmp_path, text):
    (tmp_path / "profiles/mine").mkdir(parents=True)
    (tmp_path / "profiles/mine/config.yaml").write_text(f"executor: slurm\n{text}\n")
    with pytest.raises(UserError, match=r"profiles/mine/config.yaml: slurm.*: not supported"):
        arguments_of(tmp_path, "mine", NAMES)


def test_jobs_are_called_by_their_titles():
    """What a job has lacked is noted under its message, and looked up under its title."""
    found = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        rules = re.findall(
            r'^rule (\w+):.*?^    message:\n        "(.*?)"', path.read_text(), FLAGS
        )
        found |= dict(rules)
    assert found.keys() >= {"prepare", "train", "search", "grow", "prune", "retrain", "evaluate"}
    for rule, message in found.items():
        assert re.fullmatch(rf"{rule}( {{wildcards.(node|task|network|shown)}})?", message)


@pytest.mark.parametrize("said", [ACCOUNTS, NO_ACCOUNTS.format(300)])
def test_slurm_is_used_where_what_became_of_jobs_can_be_told(commands, said):
    says(commands, said)
    found = arguments_of(ROOT, "slurm", NAMES)
    assert f"--slurm-jobname-prefix={NAMES}" in found
    assert uses_slurm(found)


def test_a_cluster_that_forgets_jobs_at_once_is_refused(commands):
    says(commands, NO_ACCOUNTS.format(10))
    with pytest.raises(UserError, match="forgets them 10 seconds"):
        arguments_of(ROOT, "slurm", NAMES)


def test_a_slurm_that_does_not_answer_is_quoted(commands):
    commands[0]("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"^scontrol: Unable to contact"):
        arguments_of(ROOT, "slurm", NAMES)


def test_only_jobs_of_these_results_are_cancelled(commands, tmp_path):
    results, other = tmp_path / "results/a", tmp_path / "results/b"
    names = {7: f"RUNNING {job_names(results)}x_y", 8: f"PENDING {job_names(other)}x_y"}
    names |= {9: "RUNNING mine", 10: "", 11: f"COMPLETING {job_names(results)}z_y"}
    listed = "\n".join(f"{number} {name}" for number, name in names.items())
    commands[0]("squeue", f"grep -q scancel {commands[1]} || echo '{listed}'")
    commands[0]("scancel", "")
    assert cancel_jobs(job_names(results)) == 1
    assert "scancel 7\n" in commands[1].read_text()
    assert cancel_jobs(job_names(results)) == 0


def test_jobs_that_stay_in_the_queue_are_told(commands, monkeypatch):
    monkeypatch.setattr(queue, "_LEAVING", 0.6)
    says(commands, f"7 RUNNING {NAMES}", "squeue")
    commands[0]("scancel", "")
    with pytest.raises(UserError, match="stay in the queue: 7"):
        cancel_jobs(NAMES)
    assert commands[1].read_text().count("scancel") == 1


def test_names_of_jobs_tell_results_and_runs_apart_and_are_short(tmp_path):
    long = "a" * 200
    assert job_names(tmp_path / "one" / long) != job_names(tmp_path / "two" / long)
    name = names_for_run(tmp_path / long)
    assert name.startswith(job_names(tmp_path / long))
    assert name != names_for_run(tmp_path / long)
    assert len(name) <= 50  # which the executor demands


# --------------------------------------------------------------------------------------------------
# what became of jobs


class Run:
    """An executor, as far as it is needed, and what it was told."""

    def __init__(self) -> None:
        self.run_uuid, self.told, self.said = "run", {}, []
        self.logger = SimpleNamespace(warning=self.said.append)

    def report_job_success(self, info) -> None:
        self.told[info.external_jobid] = "success"

    def report_job_error(self, info, msg) -> None:
        self.told[info.external_jobid] = msg


def job(title: str = "train a", **settings):
    own = {"message": title, "attempt": 1, "restart_times": 2, "log": [], "output": []}
    own["resources"] = {"_cores": 1, "mem_mb": 50, "runtime": 60}
    failed = []
    return SimpleNamespace(
        **{**own, **settings},
        is_group=lambda: False,
        failed=failed,
        log_error=lambda: failed.append(title),
    )


def submitted(number: str | None, own=None, log: Path | None = None):
    return SimpleNamespace(
        external_jobid=number, job=own or job(), aux={"slurm_logfile": log} if log else None
    )


def looked(watch: Watch, run: Run, *infos) -> list[str]:
    """The numbers of the jobs that are still active after a look."""

    async def look():
        return [info.external_jobid async for info in watch.look(run, infos)]

    return asyncio.run(look())


def test_the_end_of_each_job_is_told_and_others_stay(commands):
    says(commands, NO_ACCOUNTS.format(300))
    says(commands, "1|COMPLETED|None\n2|RUNNING|None\n3|TIMEOUT|None\n4|PENDING|Priority", "squeue")
    run = Run()
    assert looked(Watch(), run, *map(submitted, "12345")) == ["2", "4", "5"]
    assert run.told == {"1": "success", "3": "TIMEOUT"}
    assert run.said == []


def test_accounts_tell_of_jobs_that_have_left_the_queue(commands):
    says(commands, ACCOUNTS)
    says(commands, "1|RUNNING|None", "squeue")
    says(commands, "2|CANCELLED by 1000\n3|COMPLETED", "sacct")
    run = Run()
    assert looked(Watch(), run, *map(submitted, "123")) == ["1"]
    assert run.told == {"2": "CANCELLED", "3": "success"}
    assert "--jobs=2,3" in commands[1].read_text()


def test_no_job_is_forgotten_where_slurm_does_not_answer(commands, monkeypatch):
    says(commands, NO_ACCOUNTS.format(300))
    monkeypatch.setattr(jobs, "_UNSEEN", 0.0)
    commands[0]("squeue", "echo 'Unable to contact' >&2; exit 1")
    watch, run = Watch(), Run()
    for _ in range(5):
        assert looked(watch, run, *map(submitted, "12")) == ["1", "2"]
    assert len(run.said) == 1  # once an outage
    assert run.said[0].endswith("; the run waits until it does")
    says(commands, "1|COMPLETED|None\n2|COMPLETED|None", "squeue")
    assert looked(watch, run, *map(submitted, "12")) == []
    assert run.told == {"1": "success", "2": "success"}


def test_a_job_that_slurm_has_forgotten_has_failed(commands, monkeypatch):
    says(commands, NO_ACCOUNTS.format(300))
    says(commands, "", "squeue")
    monkeypatch.setattr(jobs, "_UNSEEN", 0.0)
    watch, run = Watch(), Run()
    assert looked(watch, run, submitted("1")) == ["1"]
    assert looked(watch, run, submitted("1")) == ["1"]
    assert looked(watch, run, submitted("1")) == []
    assert run.told == {"1": "that there is no such job any more"}


def test_only_looks_one_after_another_make_a_job_forgotten(commands, monkeypatch):
    says(commands, NO_ACCOUNTS.format(300))
    monkeypatch.setattr(jobs, "_UNSEEN", 0.0)
    watch, run = Watch(), Run()
    for listed in ("", "", "1|RUNNING|None", "", ""):
        says(commands, listed, "squeue")
        assert looked(watch, run, submitted("1")) == ["1"]
    assert run.told == {}


def test_a_job_that_would_wait_for_ever_is_told_once(commands):
    says(commands, NO_ACCOUNTS.format(300))
    said = "1|PENDING|PartitionTimeLimit\n2|PENDING|Resources\n3|PENDING|PartitionConfig"
    says(commands, said, "squeue")
    watch, run = Watch(), Run()
    for _ in range(2):
        assert looked(watch, run, *map(submitted, "123")) == ["1", "2", "3"]
    assert [words[:76] for words in run.said] == [
        "train a: job 1 may wait for ever, Slurm says PartitionTimeLimit; it asks for",
        "train a: job 3 may wait for ever, Slurm says PartitionConfig; it asks for 1 ",
    ]


def test_jobs_are_looked_at_more_rarely_the_longer_nothing_happens(monkeypatch):
    watch, clock = Watch(), [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    watch._changed = 0.0
    pauses = []
    for clock[0] in (0.0, 10.0, 30.0, 100.0, 10_000.0):
        pauses.append(watch.pause)
    assert pauses == [3.0, 3.0, 6.0, 20.0, 60.0]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results of a run that has begun, in which this process works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / LOCK).parent.mkdir(parents=True)
    (tmp_path / LOCK).touch()
    LACKED.clear()
    return tmp_path


@pytest.mark.parametrize(
    ("state", "lack", "again"),
    [
        ("OUT_OF_MEMORY", "memory", True),
        ("TIMEOUT", "time", True),
        ("NODE_FAIL", None, True),
        ("PREEMPTED", None, True),
        ("FAILED", None, True),  # of which no step has said anything
        ("CANCELLED", None, False),
    ],
)
def test_a_job_is_tried_again_with_more_of_what_it_has_lacked(results, state, lack, again):
    run, own = Run(), job()
    tell_of_end(run, submitted("7", own), msg=state)
    said = "was cancelled" if state == "CANCELLED" else f"Slurm says {state}"
    assert run.said == [f"train a: {said} (job 7)" + ("; tried again" if again else "")]
    assert (own.attempt <= own.restart_times) == again
    assert dict(LACKED["train a"]) == ({lack: 1} if lack else {})


def test_what_a_step_has_said_is_not_tried_again_and_older_words_are_of_others(results):
    log = results / "train.log"
    log.write_text("error: a.png: damaged\n")
    run, own = Run(), job(log=[str(log)])
    tell_of_end(run, submitted("7", own), msg="FAILED")
    assert own.attempt > own.restart_times
    assert own.failed == ["train a"]  # the display hears of it
    began = (results / LOCK).stat().st_mtime
    os.utime(log, (began - 60, began - 60))
    other = job(log=[str(log)])
    tell_of_end(run, submitted("8", other), msg="FAILED")
    assert other.attempt <= other.restart_times
    assert other.failed == []


def test_why_the_snakemake_of_a_job_refuses_is_told_and_not_tried_again(results):
    words = "the configuration, code or raw data have changed since the run began"
    (results / "7.log").write_text(f"host: x\nerror: {words}\n")
    run, own = Run(), job()
    tell_of_end(run, submitted("7", own, results / "7.log"), msg="FAILED")
    assert run.said == [f"train a: {words} (job 7)"]
    assert own.attempt > own.restart_times


def test_what_the_last_try_asked_for_is_told_with_what_to_do(results):
    run = Run()
    tell_of_end(run, submitted("7", job(attempt=3)), msg="OUT_OF_MEMORY")
    asked = "it asked for 1 CPUs, 50 MB, 60 minutes: more in the profile, by set-resources"
    assert run.said == [f"train a: Slurm says OUT_OF_MEMORY; {asked} (job 7)"]


def test_memory_that_slurm_watches_itself_is_known_by_its_log(results):
    (results / "7.log").write_text("slurmstepd: error: Exceeded job memory limit\n")
    run = Run()
    tell_of_end(run, submitted("7", log=results / "7.log"), msg="FAILED")
    assert run.said == ["train a: Slurm says OUT_OF_MEMORY (job 7); tried again"]


def test_a_job_that_slurm_does_not_take_is_told_in_a_line_and_not_tried_again(results):
    run, own = Run(), job()
    said = "sbatch: error: invalid partition specified: gpus\nsbatch: error: no"
    words = f"SLURM sbatch failed. The error message was '{said}'.\n    sbatch call:\n  sbatch -x"
    tell_of_end(run, submitted(None, own), msg=words)
    assert run.said == [f"train a: not submitted: {' '.join(said.split())}"]
    assert own.attempt > own.restart_times


def watched(monkeypatch, submit) -> type:
    """An executor that submits so, with our look at its jobs."""
    executor = type("Executor", (Run,), {"run_job": submit})
    executor._report_job_error_threadsafe = lambda self, info, words: self.told.update(
        {info: words}
    )
    plugin = SimpleNamespace(Executor=executor, SubmittedJobInfo=lambda job: job)
    monkeypatch.setitem(sys.modules, EXECUTOR, plugin)
    watch_jobs()
    return executor


def test_a_submission_waits_until_slurm_answers(commands, monkeypatch):
    _, calls = commands
    commands[0]("squeue", f"[ $(grep -c squeue {calls}) -ge 3 ] || {{ echo no >&2; exit 1; }}")
    monkeypatch.setattr(jobs, "_FIRST", 0.01)
    taken = []
    own = watched(monkeypatch, lambda self, job: taken.append(job))()
    own.run_job("a job")
    assert taken == ["a job"]
    assert own.said == ["squeue: no; the run waits until it does"]


def test_a_group_that_the_executor_cannot_submit_is_told(commands, monkeypatch):
    """It fails where it tells of a group, which has no rule, and the run would wait for ever."""
    says(commands, "", "squeue")

    def fails(self, job) -> None:
        try:
            raise ValueError("--constraint is not allowed")
        except ValueError as error:
            raise AttributeError("rule") from error

    own = watched(monkeypatch, fails)()
    own.run_job("a group")
    assert own.told == {"a group": "--constraint is not allowed"}


@pytest.mark.slow
def test_a_job_of_a_run_that_has_ended_removes_nothing(tmp_path, tmp_path_factory):
    """It may have waited while another run went on."""
    own = finished(tmp_path_factory)[0].copy(tmp_path / "own")
    before = contents(own.results("small"))
    job_of_scheduler = [
        "snakemake", "--configfile", "config/small.yaml", "--directory", "results/small",
        "--target-jobs", "train:node=small/half/seed0/a/b", "--allowed-rules", "train", "--force",
        "--cores", "1", "--mode", "remote", "--executor", "local", "--nolock", "--no-hooks",
    ]  # fmt: skip
    digest = digest_of(jobs_of(own.folder, "small"))
    planned = ["env", f"{RUN}=0123", f"{PLAN_DIGEST}={digest}"]
    said = own.run(*planned, *job_of_scheduler, fails=True)
    assert "the run that this job belongs to has ended" in said
    own.write(SMALL | {"seeds": [1]})
    said = own.run(*planned, *job_of_scheduler, fails=True)
    assert "have changed since the run began" in said
    said = own.run(*job_of_scheduler, fails=True)
    assert "has not handed on the environment" in said
    assert contents(own.results("small")) == before


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


SHORT = {"vary", "sheets", "trace", "masks", "mistakes", "tables", "figures"}  # never submitted


@pytest.mark.parametrize("at", sorted(at for at in JOBS if at[0] not in SHORT), ids=" ".join)
def test_who_has_lacked_something_asks_for_twice_as_much(at, tmp_path):
    own = JOBS[at]
    asked = [memory_mb(CONFIGURATION, own, tmp_path, lacked) for lacked in (0, 1, 2)]
    assert asked == [asked[0], 2 * asked[0], 4 * asked[0]]
    times = [minutes(CONFIGURATION, own, [own], tmp_path, lacked, False) for lacked in (0, 1, 9)]
    assert times[1] == 2 * times[0]
    assert times[2] <= 24 * 60


def test_jobs_that_are_one_ask_for_no_longer_than_a_day_together(tmp_path):
    results = prepared(tmp_path / "many", 10**11)
    node = [own for own in JOBS.values() if own.name == "small/half/seed0/a/b"]
    assert len(node) == 4
    times = [minutes(CONFIGURATION, own, node, results, 0, False) for own in node]
    assert 23 * 60 < sum(times) <= 24 * 60 + len(node)
    assert min(times) >= 1


def test_more_data_ask_for_more_and_a_gpu_for_less_time(tmp_path):
    own = JOBS["train", "small/half/seed0/a/b"]
    few, many = prepared(tmp_path / "few", 10**6), prepared(tmp_path / "many", 10**9)

    def time_of(results: Path, gpu: bool) -> int:
        return minutes(CONFIGURATION, own, [own], results, 0, gpu)

    assert memory_mb(CONFIGURATION, own, few, 0) + 900 < memory_mb(CONFIGURATION, own, many, 0)
    most = prepared(tmp_path / "most", 10**12)  # no machine has that much
    assert memory_mb(CONFIGURATION, own, most, 0) < 12_000
    assert time_of(few, False) < time_of(many, False)
    assert time_of(many, True) < time_of(many, False)


def test_a_large_network_asks_for_more_memory(tmp_path):
    configuration = parse(SMALL | {"networks": {"small": {"backbone": "resnet50"}}})
    large = {(own.rule, own.name): own for own in plan(configuration)}
    at = ("train", "small/half/seed0/a/b")
    own = memory_mb(CONFIGURATION, JOBS[at], tmp_path, 0)
    assert memory_mb(configuration, large[at], tmp_path, 0) > own


@given(epochs=some.integers(1, 500))
def test_a_search_asks_for_the_time_of_its_budget(epochs):
    methods = {"adaptive": {"ratio": {"search": "bayes"}}}
    training = SMALL["training"] | {"epochs": epochs}
    found = plan(parse(SMALL | {"methods": methods, "training": training}))
    (own,) = [one for one in found if one.title == "search small/adaptive/seed0/a/b"]
    assert epochs_of(own.params) == epochs * (1 + own.params.search.budget)
