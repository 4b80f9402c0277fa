"""The steps, called one after the other as the workflow does, in one process."""

import json
import os
import re
import signal
import subprocess
import sys
import typing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from acll.config.checks import parse
from acll.data import prepared
from acll.files import checkpoint_of, sha256
from acll.networks.channels import ChannelGraph
from acll.packing import packed_file
from acll.packing.load import network_of
from acll.packing.ownership import PackingError, task_state_dict
from acll.packing.prune import kept_count
from acll.packing.task_state_file import load_state, save_state
from acll.plan import plan
from acll.steps import _run, prepare
from acll.training.checkpoint import Checkpoint
from acll.training.learned import READ_OF_EARLIER
from conftest import ROOT, kept_counts, states_equal

NETWORK = {"backbone": "resnet_small", "width": 0.5}
GENERATED = {"source": "generated", "kind": "classification", "image_size": 8, "samples": 60}
TASKS = {
    "a": GENERATED | {"classes": 2, "difficulty": 0.0},
    "b": GENERATED | {"classes": 3, "difficulty": 0.5},
}
PICTURES = {"trace", "masks", "mistakes"}
LAST = {"sheets", "tables", "figures", *PICTURES}
MAGNITUDE = {"criterion": "magnitude"}


def call_and_die(job, folder, killed_after, monkeypatch):
    """Run a job that is killed when it has written so many checkpoints."""
    real, calls = Checkpoint.write, []

    def dies(*arguments):
        real(*arguments)
        calls.append(1)
        if len(calls) == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            call(job, folder)


@pytest.fixture(autouse=True)
def test_splits_stay_closed(monkeypatch):
    monkeypatch.setitem(prepared._allowed, "test", False)


def configuration(method, **changes):
    base = {
        "name": "tiny",
        "tasks": TASKS,
        "networks": {"small": NETWORK},
        "sequences": {"one": {"network": "small", "tasks": ["a", "b"]}},
        "methods": {"m": method},
        "training": {"epochs": 2, "retrain_epochs": 1, "batch_size": 16},
    }
    return parse(base | changes)


def searching(method=None, **changes):
    """Packing with a search, and a cap of 0.4 for every task. method: more of its settings."""
    # whatever is tried holds
    search = {"search": "tpe", "min_tolerance": 0.9, "max_tolerance": 0.95}
    own = {"ratio": search, "expected_tasks": 1, "tail_share": 0.4}
    return configuration(own | (method or {}), **changes)


def jobs_of(settings):
    return {job.title: job for job in plan(settings)}


def first_of(jobs):
    """The training of the first task."""
    return next(job for title, job in jobs.items() if re.fullmatch(r"train \S+/seed0/a", title))


def call(job, folder):
    """Run a job's step with what the workflow gives it."""
    main = import_module(f"acll.steps.{job.rule}").main
    hints = typing.get_type_hints(main)
    given = {
        name: _run._value(hints[name], [str(folder / path) for path in paths])
        for name, paths in (job.inputs | job.outputs).items()
    }
    params = json.dumps(json.loads(job.text)["params"])
    given["params"] = hints["params"].model_validate_json(params)
    if "key" in hints:
        given["key"] = job.text
    if job.rule == "prepare":
        given |= {"report": folder / job.others[1], "processes": 1}
    main(**given)


def made(settings, folder, without=LAST):
    """Run all jobs of a plan but those of some rules; return where each output lies."""
    jobs = [job for job in plan(settings) if job.rule not in without]
    for job in jobs:
        call(job, folder)
    return {path: folder / path for job in jobs for path in job.all_outputs}


def network_in(folder, method="m"):
    return folder / f"nodes/small/{method}/seed0/a/b/network.safetensors"


def test_by_channel_no_task_owns_a_weight_that_reads_nothing(tmp_path):
    made(searching(MAGNITUDE | {"scope": "channel"}), tmp_path, LAST | {"evaluate"})
    packed = packed_file.read_packed(network_in(tmp_path))
    ratios = [record.choice["ratio"] for record in packed.tasks]
    network = network_of(packed, packed.tasks[0], task_state_dict(packed, "a"))
    graph = ChannelGraph(network, torch.ones(1, 3, *packed.tasks[0].image_size))
    for position, ratio in enumerate(ratios, 1):
        used = {name: (owner >= 1) & (owner <= position) for name, owner in packed.owner.items()}
        idle = graph.idle({name: ~mask.flatten(1).any(dim=1) for name, mask in used.items()})
        for name, owner in packed.owner.items():
            assert not bool((owner[idle[name]] == position).any())
        assert (
            packed.tasks[position - 1].owned <= (1 - ratio) * packed.tasks[position - 1].free_before
        )
        # there is something that it could have kept
        assert any(bool(flags.any()) for flags in idle.values())


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ({}, "weight"),
        (MAGNITUDE, "weight"),
        (MAGNITUDE | {"scope": "global"}, "weight"),
        (MAGNITUDE | {"scope": "channel"}, "channel of each layer"),
    ],
    ids=str,
)
def test_a_ratio_that_keeps_nothing_is_said(tmp_path, capsys, method, what):
    for ratio in (0.5, 0.9999999):
        jobs = jobs_of(configuration(method | {"ratio": ratio}))
        if ratio == 0.5:
            call(jobs["prepare a"], tmp_path)
            call(first_of(jobs), tmp_path)
        call(jobs["prune small/m/seed0/a"], tmp_path)
        assert (
            f"warning: a ratio of {ratio} has no room for one {what}" in capsys.readouterr().out
        ) == (ratio > 0.5)


def test_the_same_seed_gives_the_same_bytes_in_every_file_and_another_gives_others(tmp_path):
    without = LAST - {"tables"}
    one, two = (made(searching(), tmp_path / name, without) for name in ("one", "two"))
    assert len(one) == 2 * 3 + 2 * (1 + 3 + 1 + 1 + 2) + 20
    for name in one:
        assert one[name].read_bytes() == two[name].read_bytes(), name
    other = made(searching(seeds=[1]), tmp_path / "other")
    for name in ("learned/seed0/a/dense", "m/seed0/a/network", "m/seed0/a/b/network"):
        first = one[f"nodes/small/{name}.safetensors"].read_bytes()
        name = name.replace("seed0", "seed1")
        assert first != other[f"nodes/small/{name}.safetensors"].read_bytes()
    left = {path for path in (tmp_path / "one").rglob("*") if path.is_file()} - set(one.values())
    # a checkpoint stays until somebody has accepted the result
    unfinished = {f"{name}.checkpoint" for name in ("dense", "held", "choice")}
    assert {path.name for path in left} == {"a.faults.csv", "b.faults.csv"} | unfinished


def test_two_tasks_are_learned_evaluated_and_tabled(tmp_path):
    done = made(searching(), tmp_path, LAST - {"tables"})
    packed = packed_file.read_packed(network_in(tmp_path))
    nodes = [f"nodes/small/m/seed0/{prefix}" for prefix in ("a", "a/b")]
    assert [record.name for record in packed.tasks] == ["a", "b"]
    for record, node in zip(packed.tasks, nodes):
        decided = json.loads(done[f"{node}/choice.json"].read_text())
        assert record.choice["ratio"] == decided["ratio"]
        assert decided["ratio"] >= 1 - 0.4 - 1e-9
        assert record.owned <= 0.4 * record.free_before
    trials, later = (pd.read_csv(done[f"{node}/trials.csv"]) for node in nodes)
    assert trials["role"].tolist()[:2] == ["reference", "trial"]
    assert decided["cost"] <= later["cost"].sum()
    table = pd.read_csv(tmp_path / "tables/scores.csv")
    assert table[["prefix", "task", "position"]].to_numpy().tolist() == [
        ["a", "a", 1],
        ["a+b", "a", 1],
        ["a+b", "b", 2],
    ]
    assert table["bit_exact"].all()
    assert (table["forgetting"] == 0).all()
    owned = table.loc[table["prefix"] == "a+b", "owned_share"].sum()
    assert owned + table.loc[table["prefix"] == "a+b", "free_share"].iloc[0] == pytest.approx(1)
    each = pd.read_csv(tmp_path / "tables/runs.csv")
    assert each["bytes"].tolist() == [network_in(tmp_path).stat().st_size]
    curves = pd.read_csv(tmp_path / "tables/curves.csv")
    assert curves.groupby("prefix").size().to_dict() == {"a": 2, "a+b": 2}  # epochs
    assert "m" in (tmp_path / "tables/tables.txt").read_text()
    every = pd.read_csv(tmp_path / "tables/trials.csv")
    assert every.groupby("prefix").size().to_dict() == {
        "a": len(trials), "a+b": len(later),
    }  # fmt: skip
    prepared_tasks = pd.read_csv(tmp_path / "tables/data.csv")
    assert prepared_tasks["task"].tolist() == ["a", "b"]
    assert (prepared_tasks[["train", "val", "test"]].sum(axis=1) == 60).all()


@pytest.mark.slow
def test_tasks_of_both_kinds_are_scored_by_class_tabled_and_drawn(tmp_path):
    shapes = GENERATED | {"kind": "segmentation", "classes": 3, "difficulty": 0.3}
    both = configuration(
        {"ratio": 0.5},
        tasks=TASKS | {"b": shapes},
        networks={"small": {"decoder": "unet", "encoder": "resnet_small"}},
        methods={
            "m": {"ratio": 0.5},
            "less": {"ratio": 0.75},
            "alone": {"type": "individual"},
        },
    )
    done = made(both, tmp_path, set())
    assert all(path.is_file() for path in done.values())
    assert done["figures/front.svg"].stat().st_size > 0  # of two fixed ratios
    front = pd.read_csv(tmp_path / "tables/front.csv").set_index("method")
    assert front["on_front"].to_dict() == {"m": True, "less": True, "alone": False}
    packed = packed_file.read_packed(network_in(tmp_path))
    scores = json.loads(done["nodes/small/m/seed0/a/b/scores.json"].read_text())
    in_order = [layer.name for layer in packed_file.header_of(packed).layers]
    assert [name for name, _ in scores["layers"]] == in_order != sorted(in_order)

    classes = pd.read_csv(tmp_path / "tables/classes.csv")
    final = pd.read_csv(tmp_path / "tables/final.csv").set_index(["method", "task"])["score"]
    for (method, task), own in classes.groupby(["method", "task"]):
        if task == "a":
            mean = own["correct"].sum() / own["present"].sum()
        else:
            mean = own["iou"].mean()
            assert own["present"].sum() == 12 * 8 * 8  # every pixel of the test split
        assert final[method, task] == pytest.approx(mean)

    worst = pd.read_csv(tmp_path / "tables/mistakes.csv")
    assert worst.groupby(["method", "task"]).size().max() <= 8
    for _, own in worst.groupby(["method", "task"]):
        assert own["rank"].tolist() == list(range(1, len(own) + 1))
        assert (own["probability"].dropna().diff().dropna() <= 0).all()
        assert (own["mean_iou"].dropna().diff().dropna() >= 0).all()
    text = (tmp_path / "tables/tables.txt").read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "mixed: the mean of scores by several metrics" in text


def test_fine_tuning_overwrites_and_evaluation_says_so(tmp_path):
    made(configuration({"type": "finetuning"}), tmp_path)
    rows = json.loads((network_in(tmp_path).parent / "scores.json").read_text())["rows"]
    assert [row["bit_exact"] for row in rows] == [False, True]


OTHERS = ("finetuning", "frozen", "ewc", "lwf", "joint", "individual", "wsn", "piggyback")


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_is_learned_evaluated_and_tabled(tmp_path, method):
    made(configuration({"type": method}), tmp_path, LAST - {"tables"})
    table = pd.read_csv(tmp_path / "tables/final.csv")
    assert table["task"].tolist() == ["a", "b"]
    assert table["score"].between(0, 1).all()
    exact = pd.read_csv(tmp_path / "tables/scores.csv")["bit_exact"]
    assert exact.all() == (method not in ("finetuning", "ewc", "lwf"))


def test_evaluation_fails_and_writes_nothing_where_a_frozen_task_has_changed(tmp_path):
    settings = configuration({"ratio": 0.5})
    made(settings, tmp_path, LAST | {"evaluate"})
    packed = packed_file.read_packed(network_in(tmp_path))
    forged = replace(packed, tasks=(replace(packed.tasks[0], digest="0" * 64), packed.tasks[1]))
    packed_file.write_packed(network_in(tmp_path), forged)
    with pytest.raises(PackingError, match="the weights of a are not what they were when learned"):
        call(jobs_of(settings)["evaluate small/m/seed0/a/b"], tmp_path)
    assert not list(tmp_path.rglob("scores.json"))
    assert not list(tmp_path.rglob("examples.safetensors"))


def test_no_step_but_evaluation_can_open_a_test_split(tmp_path):
    jobs = jobs_of(configuration({"ratio": 0.5}))
    call(jobs["prepare a"], tmp_path)
    job = jobs["train small/learned/seed0/a"]
    with pytest.raises(prepared.TestSplitError, match="only evaluation may read a test split"):
        call(replace(job, inputs=job.inputs | {"train": ("data/a.test.safetensors",)}), tmp_path)
    assert not list(tmp_path.rglob("dense.safetensors"))
    sources = {path: path.read_text() for path in (ROOT / "src").rglob("*.py")}
    allowed = {path.name for path, text in sources.items() if ".allow_test()" in text}
    # evaluation, and what makes the test split of a variant from that of another task
    assert allowed == {"evaluate.py", "vary.py"}
    assert sum("allow_test(" in text for text in sources.values()) == 3  # it is defined, too
    reading = [job for job in jobs.values() if any(".test." in path for path in job.all_inputs)]
    assert {job.rule for job in reading} == {"evaluate"}
    series = {"network": "small", "tasks": {"of": "a", "permuted": 2}}
    with_series = configuration({"ratio": 0.5}, sequences={"one": series})
    reading = [job for job in plan(with_series) if any(".test." in path for path in job.all_inputs)]
    assert {job.rule for job in reading} == {"evaluate", "vary"}


def given_to(job):
    """The command line of a job's step, as the workflow has it, without digests."""
    command = [sys.executable, "-m", f"acll.steps.{job.rule}"]
    for name, paths in (job.inputs | job.outputs).items():
        command += [f"--{name.replace('_', '-')}", *paths]
    return [*command, *(["--report", "x.csv", "--processes", "1"] if job.rule == "prepare" else [])]


def run_step(job, folder, *extra):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "ACLL_DATA_ROOT": str(folder)}
    return subprocess.run(
        [*given_to(job), *extra],
        capture_output=True,
        text=True,
        env=environment,
        input=job.text,
        cwd=folder,
        check=False,
    )


def test_a_step_ends_with_its_message_alone_and_exit_code_one_and_writes_nothing(tmp_path):
    task = {"source": "image_folder", "path": "absent", "image_size": 8}
    jobs = jobs_of(configuration({"ratio": 0.5}, tasks=TASKS | {"a": task}))
    result = run_step(jobs["prepare a"], tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}/absent: there is no such file or folder; mend the path, or where data "
        "lies: data_root, DATA=… with make, ACLL_DATA_ROOT=… without"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_step_leaves_the_digests_of_its_outputs(tmp_path):
    job = jobs_of(configuration({"ratio": 0.5}))["prepare a"]
    extra = ["--digests", job.digests, "--outputs", *job.all_outputs]
    assert run_step(job, tmp_path, *extra).returncode == 0
    expected = [f"{sha256(tmp_path / path)}  {path}" for path in job.all_outputs]
    assert (tmp_path / job.digests).read_text().splitlines() == expected


def test_faults_are_told_with_a_path_from_where_the_run_was_started(tmp_path, capsys, monkeypatch):
    found = {
        "classes": ["x", "y"],
        "samples": {"train": 80, "val": 60, "test": 60},
        "left_out": {},
        "warnings": {"class": 2, "near copy": 1},
        "faults": {
            "left_out": [],
            "warnings": [
                {"kind": "class", "file": "test", "message": "has no sample of x"},
                {"kind": "class", "file": "val", "message": "has no sample of x"},
                {"kind": "near copy", "file": "b.png", "message": "is almost a.png"},
            ],
        },
    }
    monkeypatch.setattr(prepare, "prepare", lambda *given: found)
    (tmp_path / "results" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "results" / "mine")
    report = Path("logs/prepare/a.faults.csv")
    which = SimpleNamespace(name="a", task=None)
    prepare.main(
        train=Path("t"),
        test=Path("s"),
        summary=Path("a.json"),
        report=report,
        processes=1,
        params=which,
    )
    said = (
        "warning: a: classes without a sample in a split: 2 (first: test: has no sample of x); "
        "near copies in two splits: 1 (b.png: is almost a.png); see "
        "results/mine/logs/prepare/a.faults.csv\n"
    )
    assert said in capsys.readouterr().out


def test_prepare_needs_no_torch(tmp_path):
    job = jobs_of(configuration({"ratio": 0.5}))["prepare a"]
    code = (
        "import sys, runpy\n"
        f"sys.argv = {given_to(job)[2:]!r}\n"
        "runpy.run_module('acll.steps.prepare', run_name='__main__', alter_sys=True)\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        input=job.text,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_training_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path):
    training = {"epochs": 20, "retrain_epochs": 1, "batch_size": 16}
    job = jobs_of(configuration({"ratio": 0.5}, training=training))["train small/learned/seed0/a"]
    for name in ("killed", "alone"):
        call(jobs_of(configuration({"ratio": 0.5}))["prepare a"], tmp_path / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    (tmp_path / "params.json").write_text(job.text)
    dense = tmp_path / "killed" / job.all_outputs[0]
    with (tmp_path / "params.json").open() as params:
        process = subprocess.Popen(
            given_to(job),
            env=environment,
            stdin=params,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path / "killed",
        )
        for line in process.stdout:
            if "epoch 5/20" in line:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    assert not dense.exists()
    resumed = run_step(job, tmp_path / "killed")
    assert resumed.returncode == 0
    assert "goes on after epoch" in resumed.stdout
    assert run_step(job, tmp_path / "alone").returncode == 0
    expected = tmp_path / "alone" / job.all_outputs[0]
    assert dense.read_bytes() == expected.read_bytes()
    # whoever does not accept the result and removes it has it back without a training
    dense.unlink()
    again = run_step(job, tmp_path / "killed", "--outputs", *job.all_outputs)
    assert "goes on after epoch 20 of 20" in again.stdout
    assert dense.read_bytes() == expected.read_bytes()
    assert checkpoint_of(dense).exists()
    # whoever reads it has accepted it
    following = jobs_of(configuration({"ratio": 0.5}, training=training))["prune small/m/seed0/a"]
    named = ("--outputs", *following.all_outputs)
    assert run_step(following, tmp_path / "killed", *named).returncode == 0
    left = sorted(path.name for path in dense.parent.iterdir() if path.suffix != ".partial")
    assert left == ["dense.safetensors"]


@pytest.mark.parametrize("criterion", ["learned", "magnitude"])
@pytest.mark.parametrize("killed_after", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_release_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path, capsys, monkeypatch, killed_after, criterion
):
    training = {"epochs": 1, "retrain_epochs": 6, "batch_size": 16}
    jobs = jobs_of(configuration({"ratio": 0.995, "criterion": criterion}, training=training))
    job = jobs["prune small/m/seed0/a"]
    for folder in (tmp_path / "killed", tmp_path / "alone"):
        call(jobs["prepare a"], folder)
        call(first_of(jobs), folder)
    call(job, tmp_path / "alone")
    call_and_die(job, tmp_path / "killed", killed_after, monkeypatch)
    (path,) = job.all_outputs
    assert not (tmp_path / "killed" / path).exists()
    capsys.readouterr()
    call(job, tmp_path / "killed")
    assert f"goes on after epoch {killed_after} of 3" in capsys.readouterr().out
    assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()


@pytest.mark.parametrize(
    ("method", "killed_after"),
    [
        ({"type": "piggyback"}, 3),
        *(
            pytest.param({"type": kind}, epoch, marks=pytest.mark.slow)
            for kind, epoch in [("wsn", 1), ("wsn", 3), ("piggyback", 1)]
        ),
        ({"ratio": 0.5}, 1),
        pytest.param({"ratio": 0.5}, 3, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_training_with_masks_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, method, killed_after
):
    training = {"epochs": 4, "batch_size": 16}
    jobs = [*plan(configuration(method, training=training))]
    job = next(job for job in jobs if job.title == "train small/m/seed0/a/b")
    before = [one for one in jobs[: jobs.index(job)] if one.rule not in {"sheets", "evaluate"}]
    for folder in (tmp_path / "killed", tmp_path / "alone"):
        for one in before:
            call(one, folder)
    call(job, tmp_path / "alone")
    call_and_die(job, tmp_path / "killed", killed_after, monkeypatch)
    call(job, tmp_path / "killed")
    (path,) = job.all_outputs
    assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes()


def test_a_release_at_once_reads_no_images_and_moves_nothing(tmp_path):
    jobs = jobs_of(configuration(MAGNITUDE | {"ratio": 0.7, "release": "once"}))
    job = jobs["prune small/m/seed0/a"]
    call(jobs["prepare a"], tmp_path)
    call(first_of(jobs), tmp_path)
    assert not any(path.startswith("data/") for path in job.all_inputs)
    call(job, tmp_path)
    (path,) = job.all_outputs
    dense, _, _ = load_state(tmp_path / "nodes/small/dense/seed0/a/dense.safetensors")
    state, keep, _ = load_state(tmp_path / path)
    kept = {name: torch.where(mask, dense[name], 0.0) for name, mask in keep.items()}
    assert states_equal(state, dense | kept)


@pytest.mark.parametrize(
    "criterion", ["learned", pytest.param("magnitude", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rule", ["train", "prune", "retrain"])
def test_a_training_that_was_killed_does_not_go_on_with_other_data_or_another_job(
    tmp_path, capsys, rule, criterion
):
    jobs = jobs_of(configuration({"ratio": 0.99, "criterion": criterion}))
    for job in (jobs["prepare a"], first_of(jobs), jobs["prune small/m/seed0/a"]):
        call(job, tmp_path)
    job = first_of(jobs) if rule == "train" else jobs[f"{rule} small/m/seed0/a"]

    def goes_on(job):
        capsys.readouterr()
        call(job, tmp_path)
        return "goes on" in capsys.readouterr().out

    goes_on(job)
    assert goes_on(job)
    assert not goes_on(replace(job, code=job.code | {"code": "edited"}))
    assert not goes_on(job)
    other = GENERATED | {"classes": 2, "difficulty": 0.9}
    call(jobs_of(configuration({"ratio": 0.5}, tasks=TASKS | {"a": other}))["prepare a"], tmp_path)
    assert not goes_on(job)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        MAGNITUDE,
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"search": {"budget": 9.0}},
                {"distill": True},
                {"reuse": "all", "search": {"search": "tpe", "budget": 9.0}},
                MAGNITUDE | {"scope": "global", "release": "once"},
                MAGNITUDE | {"scope": "channel", "distill": True},
                MAGNITUDE | {"scope": "global", "search": {"search": "tpe", "budget": 9.0}},
            )
        ),
    ],
    ids=str,
)
def test_what_a_search_hands_over_is_what_pruning_and_retraining_would_make(tmp_path, settings):
    # whatever is tried holds
    search = {"search": "bayes", "min_tolerance": 0.9, "max_tolerance": 0.95}
    search |= settings.get("search", {})
    others = {key: value for key, value in settings.items() if key != "search"}
    training = {"epochs": 2, "retrain_epochs": 3, "batch_size": 16}
    jobs = jobs_of(configuration({"ratio": search, "cap": False} | others, training=training))
    for job in (jobs["prepare a"], jobs["prepare b"], first_of(jobs)):
        call(job, tmp_path)
    for rule in ("search", "prune", "retrain"):
        call(jobs[f"{rule} small/m/seed0/a"], tmp_path)
    after = [jobs[f"{rule} small/m/seed0/a/b"] for rule in ("train", "search", "prune", "retrain")]
    for job in after:
        call(job, tmp_path)
    held, pruned = (tmp_path / after[1].outputs["held"][0], tmp_path / after[2].all_outputs[0])
    # what keeps all that it was trained with is the dense network, and there already
    finished = load_state(pruned)[2]["choice"]["ratio"] == 0.9
    assert finished == (not load_state(held)[0])
    assert finished == (held.read_bytes() != pruned.read_bytes())
    network = network_in(tmp_path).read_bytes()
    save_state(held, {}, {}, {})
    for job in after[2:]:
        call(job, tmp_path)
    assert pruned.read_bytes() != network
    assert ("retrained" in load_state(pruned)[2]) == finished
    assert network_in(tmp_path).read_bytes() == network


@pytest.mark.parametrize("criterion", ["learned", "magnitude"])
def test_a_release_of_nearly_everything_takes_half_of_the_epochs_of_retraining_and_no_more(
    tmp_path, capsys, criterion
):
    settings = {"ratio": 0.9999, "criterion": criterion}
    training = {"epochs": 1, "retrain_epochs": 6, "batch_size": 16}
    jobs = jobs_of(configuration(settings, training=training))
    for job in (jobs["prepare a"], first_of(jobs)):
        call(job, tmp_path)
    capsys.readouterr()
    call(jobs["prune small/m/seed0/a"], tmp_path)
    said = capsys.readouterr().out
    assert set(re.findall(r"epoch (\S+)", said)) == {"1/3", "2/3", "3/3"}


@pytest.mark.parametrize("ratio", [0.8, {"search": "tpe", "budget": 0.5}], ids=["fixed", "search"])
def test_what_a_task_chose_to_read_is_in_its_network_and_evaluation_finds_it_unchanged(
    tmp_path, ratio
):
    made(configuration({"ratio": ratio}), tmp_path)
    packed = packed_file.read_packed(network_in(tmp_path))
    first, second = packed.tasks
    assert packed.unread.keys() == {"b"}
    state = task_state_dict(packed, "b")
    # of the free weights what the ratio says, of those of the first task in each layer half
    sizes = {name: owner.numel() for name, owner in packed.owner.items()}
    of_first_task = kept_counts(sizes, first.choice["ratio"])
    were_free = {name: sizes[name] - count for name, count in of_first_task.items()}
    of_second_task = kept_counts(were_free, second.choice["ratio"])
    for name, owner in packed.owner.items():
        of_first, unread = owner == 1, packed.unread["b"].get(name)
        count = int(of_first.sum())
        assert count == of_first_task[name]
        assert int((owner == 2).sum()) == of_second_task[name]
        left_out = 0 if unread is None else int(unread.sum())
        assert count - left_out == kept_count(count, 1 - READ_OF_EARLIER)
        read = of_first if unread is None else of_first & ~unread
        assert torch.equal(state[name], packed.shared[name] * (read | (owner == 2)))
    scores = json.loads((tmp_path / "nodes/small/m/seed0/a/b/scores.json").read_text())
    shares = [row["unread_share"] for row in scores["rows"]]
    gone = sum(int(mask.sum()) for mask in packed.unread["b"].values())
    assert shares == [0.0, pytest.approx(gone / first.owned)]
    assert all(row["bit_exact"] for row in scores["rows"])


@pytest.mark.parametrize("method", [{"reuse": "all"}, MAGNITUDE], ids=str)
def test_a_task_that_does_not_choose_reads_all_weights_of_earlier_tasks(tmp_path, method):
    made(configuration(method | {"ratio": 0.8}), tmp_path)
    packed = packed_file.read_packed(network_in(tmp_path))
    assert packed.unread == {}
    state = task_state_dict(packed, "b")
    for name, owner in packed.owner.items():
        assert torch.equal(state[name], torch.where(owner > 0, packed.shared[name], 0.0))
    scores = json.loads((tmp_path / "nodes/small/m/seed0/a/b/scores.json").read_text())
    assert [row["unread_share"] for row in scores["rows"]] == [0.0, 0.0]


def test_a_first_task_has_nothing_to_choose(tmp_path):
    settings = [configuration({"ratio": 0.8, "reuse": reuse}) for reuse in ("all", "chosen")]
    one, two = (
        made(own, tmp_path / str(number), LAST | {"evaluate"})
        for number, own in enumerate(settings)
    )
    for path in one:
        alike = one[path].read_bytes() == two[path].read_bytes()
        assert alike == ("/a/b/" not in path), path
