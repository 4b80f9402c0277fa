"""The steps, called one after the other as the workflow does, in one process."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch

from acll.config import parse
from acll.data import prepared
from acll.networks.channels import ChannelGraph
from acll.packing import file
from acll.packing.ownership import PackingError, effective
from acll.serving.restore import network_of
from acll.steps import adopt, evaluate, prepare, prune, retrain, search, tables, train
from conftest import ROOT

TRAINING = {"epochs": 2, "batch_size": 16}
NETWORK = {"backbone": "resnet_small"}
GENERATED = {"source": "generated", "kind": "classification", "image_size": 8, "samples": 60}
TASKS = {
    "a": GENERATED | {"classes": 2, "difficulty": 0.0},
    "b": GENERATED | {"classes": 3, "difficulty": 0.5},
}


@pytest.fixture(autouse=True)
def test_splits_stay_closed(monkeypatch):
    monkeypatch.setitem(prepared._allowed, "test", False)


def node(*prefix, method="adaptive", seed=0):
    training = parse(configuration()).training_of(prefix[-1]).model_dump()
    return {"network": NETWORK, "method": method, "seed": seed, "prefix": list(prefix), "training": training,
            "threads": 1}  # fmt: skip


def configuration(**changes):
    base = {
        "name": "tiny",
        "tasks": TASKS,
        "networks": {"small": NETWORK},
        "sequences": {"one": {"network": "small", "tasks": ["a", "b"]}},
        "methods": {"adaptive": {"ratio": 0.5}},
        "training": {"epochs": 2, "retrain_epochs": 1, "batch_size": 16},
    }
    return base | changes


def prepare_task(name, folder):
    files = {"train": folder / f"{name}.train.safetensors", "test": folder / f"{name}.test.safetensors"}
    params = prepare.Parameters.model_validate({"name": name, "task": configuration()["tasks"][name]})
    others = {"summary": folder / f"{name}.json", "report": folder / f"{name}.faults.csv"}
    prepare.main(**files, **others, processes=1, params=params)
    return files


def adaptive_chain(folder, seed=0, scope="layer"):
    """Two tasks, with a search; returns all files by name."""
    made, parent = {}, None
    for prefix in (("a",), ("a", "b")):
        own = node(*prefix, seed=seed)
        here = folder.joinpath(*prefix)
        data = prepare_task(prefix[-1], folder)
        paths = {name: here / f"{name}.safetensors" for name in ("dense", "pruned", "network")}
        start = "pretrained" if parent is None else "fresh"
        train.main(
            train=data["train"], parent=parent, dense=paths["dense"],
            params=train.Parameters.model_validate({"node": own, "free_weights": start, "freeze": "weights"}),
        )  # fmt: skip
        settings = {"search": "tpe", "budget": 0.5}
        search.main(
            dense=paths["dense"], parent=parent, train=data["train"], trials=here / "trials.csv",
            choice=here / "choice.json",
            params=search.Parameters.model_validate({"node": own, "search": settings, "scope": scope, "cap": 0.4}),
        )  # fmt: skip
        prune.main(
            dense=paths["dense"], parent=parent, choice=here / "choice.json", pruned=paths["pruned"],
            params=prune.Parameters.model_validate(
                {"ratio": None, "scope": scope, "network": own["network"]}
            ),
        )  # fmt: skip
        retrain.main(
            pruned=paths["pruned"], parent=parent, train=data["train"], network=paths["network"],
            params=retrain.Parameters.model_validate({"node": own}),
        )  # fmt: skip
        parent = paths["network"]
        made |= {f"{'/'.join(prefix)}/{name}": path for name, path in paths.items()}
        made[f"{'/'.join(prefix)}/trials"] = here / "trials.csv"
        made[f"{'/'.join(prefix)}/choice"] = here / "choice.json"
    return made


def test_by_channel_no_task_owns_a_weight_that_reads_nothing(tmp_path):
    made = adaptive_chain(tmp_path, scope="channel")
    packed = file.read(made["a/b/network"])
    ratios = [record.choice["ratio"] for record in packed.tasks]
    network = network_of(packed, packed.tasks[0], effective(packed, "a"))
    graph = ChannelGraph(network, torch.ones(1, 3, *packed.tasks[0].image_size))
    for position, ratio in enumerate(ratios, 1):
        used = {name: (owner >= 1) & (owner <= position) for name, owner in packed.owner.items()}
        idle = graph.idle({name: ~mask.flatten(1).any(dim=1) for name, mask in used.items()})
        for name, owner in packed.owner.items():
            assert not bool((owner[idle[name]] == position).any())
        assert packed.tasks[position - 1].owned <= (1 - ratio) * packed.tasks[position - 1].free_before
        assert any(bool(flags.any()) for flags in idle.values())  # there is something that it could have kept


@pytest.mark.parametrize(
    ("scope", "what"), [("channel", "channel of each layer"), ("layer", "weight"), ("global", "weight")]
)
def test_a_ratio_that_keeps_nothing_is_said(tmp_path, capsys, scope, what):
    own, data = node("a"), prepare_task("a", tmp_path)
    train.main(
        train=data["train"], parent=None, dense=tmp_path / "dense.safetensors",
        params=train.Parameters.model_validate({"node": own, "free_weights": "pretrained", "freeze": "weights"}),
    )  # fmt: skip
    for ratio in (0.5, 0.9999999):
        prune.main(
            dense=tmp_path / "dense.safetensors", parent=None, choice=None, pruned=tmp_path / "pruned.safetensors",
            params=prune.Parameters.model_validate({"ratio": ratio, "scope": scope, "network": own["network"]}),
        )  # fmt: skip
        assert (f"warning: a ratio of {ratio} has no room for one {what}" in capsys.readouterr().out) == (ratio > 0.5)


def test_the_same_seed_gives_the_same_bytes_in_every_file_and_another_gives_others(tmp_path):
    one, two = adaptive_chain(tmp_path / "one"), adaptive_chain(tmp_path / "two")
    assert len(one) == 10
    for name in one:
        assert one[name].read_bytes() == two[name].read_bytes(), name
    other = adaptive_chain(tmp_path / "other", seed=1)
    for name in ("a/dense", "a/network", "a/b/network", "a/trials"):
        assert one[name].read_bytes() != other[name].read_bytes()
    left = [
        path.name for path in (tmp_path / "one").rglob("*") if path.name.startswith(".") or "checkpoint" in path.name
    ]
    assert left == []


def test_two_tasks_are_learned_evaluated_and_tabled(tmp_path):
    made = adaptive_chain(tmp_path)
    packed = file.read(made["a/b/network"])
    assert [record.name for record in packed.tasks] == ["a", "b"]
    for record, choice in zip(packed.tasks, ("a/choice", "a/b/choice")):
        decided = json.loads(made[choice].read_text())
        assert record.choice["ratio"] == decided["ratio"]
        assert decided["ratio"] >= 1 - 0.4 - 1e-9
        assert record.owned <= 0.4 * record.free_before
    trials = pd.read_csv(made["a/trials"])
    assert trials["role"].tolist()[:3] == ["reference", "reference", "brief"]
    assert decided["cost"] == pytest.approx(pd.read_csv(made["a/b/trials"])["cost"].sum())
    tests = [tmp_path / f"{name}.test.safetensors" for name in ("a", "b")]
    scores = []
    for name, count in (("a", 1), ("a/b", 2)):
        scores.append(tmp_path / f"{count}.json")
        evaluate.main(
            network=made[f"{name}/network"], tests=tests[:count], scores=scores[-1],
            params=evaluate.Parameters(threads=1),
        )  # fmt: skip
    prefixes = [["a"], ["a", "b"]]
    names = [{"network": "small", "method": "adaptive", "seed": 0, "prefix": prefix} for prefix in prefixes]
    run = {"sequence": "one", "network": "small", "method": "adaptive", "type": "packing", "seed": 0}
    tables.main(
        node_scores=scores, summaries=[tmp_path / f"{name}.json" for name in "ab"],
        trials=[made["a/trials"], made["a/b/trials"]], folder=tmp_path / "tables",
        params=tables.Parameters.model_validate({
            "nodes": names, "runs": [run | {"tasks": ["a", "b"], "stages": [["a"], ["a+b"]]}],
            "searches": ["small/adaptive/seed0/a", "small/adaptive/seed0/a/b"], "budgets": {"adaptive": 0.5},
        }),
    )  # fmt: skip
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
    assert each["bytes"].tolist() == [made["a/b/network"].stat().st_size]
    curves = pd.read_csv(tmp_path / "tables/curves.csv")
    assert curves.groupby("prefix").size().to_dict() == {"a": 2, "a+b": 2}  # epochs
    assert "adaptive" in (tmp_path / "tables/tables.txt").read_text()
    every = pd.read_csv(tmp_path / "tables/trials.csv")
    assert every.groupby("prefix").size().to_dict() == {
        "a": len(trials), "a+b": len(pd.read_csv(made["a/b/trials"])),
    }  # fmt: skip
    prepared_tasks = pd.read_csv(tmp_path / "tables/data.csv")
    assert prepared_tasks["task"].tolist() == ["a", "b"]
    assert (prepared_tasks[["train", "val", "test"]].sum(axis=1) == 60).all()


def test_fine_tuning_overwrites_and_evaluation_says_so(tmp_path):
    parent = None
    for prefix in (("a",), ("a", "b")):
        own, data = node(*prefix, method="finetune"), prepare_task(prefix[-1], tmp_path)
        dense, network = (tmp_path.joinpath(*prefix, name) for name in ("dense.safetensors", "network.safetensors"))
        settings = {"node": own, "free_weights": "fresh", "freeze": "weights" if parent is None else "nothing"}
        train.main(
            train=data["train"], parent=parent, dense=dense, params=train.Parameters.model_validate(settings)
        )  # fmt: skip
        adopted = adopt.Parameters.model_validate({"node": own, "frozen": False})
        adopt.main(dense=dense, parent=parent, network=network, params=adopted)
        parent = network
    tests = [tmp_path / f"{name}.test.safetensors" for name in ("a", "b")]
    arguments = {"network": parent, "tests": tests, "scores": tmp_path / "scores.json"}
    evaluate.main(**arguments, params=evaluate.Parameters(threads=1))
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    assert [row["bit_exact"] for row in rows] == [False, True]


def test_evaluation_fails_and_writes_nothing_where_a_frozen_task_has_changed(tmp_path):
    made = adaptive_chain(tmp_path)
    packed = file.read(made["a/b/network"])
    forged = replace(packed, tasks=(replace(packed.tasks[0], digest="0" * 64), packed.tasks[1]))
    file.write(tmp_path / "forged.safetensors", forged)
    tests = [tmp_path / f"{name}.test.safetensors" for name in ("a", "b")]
    with pytest.raises(PackingError, match="the weights of a are not what they were when learned"):
        evaluate.main(
            network=tmp_path / "forged.safetensors", tests=tests, scores=tmp_path / "scores.json",
            params=evaluate.Parameters(threads=1),
        )  # fmt: skip
    assert not (tmp_path / "scores.json").exists()


def test_no_step_but_evaluation_can_open_a_test_split(tmp_path):
    data = prepare_task("a", tmp_path)
    settings = {"node": node("a"), "free_weights": "pretrained", "freeze": "weights"}
    with pytest.raises(prepared.TestSplitError, match="only evaluation may read a test split"):
        train.main(
            train=data["test"], parent=None, dense=tmp_path / "dense.safetensors",
            params=train.Parameters.model_validate(settings),
        )  # fmt: skip
    assert not (tmp_path / "dense.safetensors").exists()
    steps = ROOT / "src/acll/steps"
    sources = {path: path.read_text() for path in (ROOT / "src").rglob("*.py")}
    assert sum("allow_test(" in text for text in sources.values()) == 3  # defined, and called twice
    assert all("allow_test()" in sources[steps / name] for name in ("evaluate.py", "examples.py"))


def run_step(name, *arguments, params, root=None):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "ACLL_DATA_ROOT": str(root or ".")}
    command = [sys.executable, "-m", f"acll.steps.{name}", *map(str, arguments), "--params", "/dev/stdin"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, input=params, check=False)


def test_a_step_ends_with_its_message_alone_and_exit_code_one_and_writes_nothing(tmp_path):
    task = {"source": "image_folder", "path": "absent", "image_size": 8}
    params = json.dumps({"name": "x", "task": task})
    result = run_step(
        "prepare", "--train", tmp_path / "x.train.safetensors", "--test", tmp_path / "x.test.safetensors",
        "--summary", tmp_path / "x.json", "--report", tmp_path / "x.csv", "--processes", "1",
        params=params, root=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}/absent: there is no such folder; set data_root, or say where it is with DATA=…"
    ]
    assert list(tmp_path.iterdir()) == []


def test_prepare_needs_no_torch(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps({"name": "a", "task": TASKS["a"]}))
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['prepare', '--train', '{tmp_path}/a.train.safetensors',"
        f" '--test', '{tmp_path}/a.test.safetensors', '--summary', '{tmp_path}/a.json',"
        f" '--report', '{tmp_path}/a.csv', '--processes', '1',"
        f" '--params', '{tmp_path}/params.json']\n"
        "runpy.run_module('acll.steps.prepare', run_name='__main__', alter_sys=True)\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr


def test_a_training_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path):
    data = prepare_task("b", tmp_path)
    own = node("b")
    own["training"] |= {"epochs": 20}
    params = json.dumps({"node": own, "free_weights": "pretrained", "freeze": "weights"})

    def arguments(name):
        dense = tmp_path / name / "dense.safetensors"
        return ["--train", data["train"], "--parent", "--dense", dense]

    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    (tmp_path / "params.json").write_text(params)
    command = [sys.executable, "-m", "acll.steps.train", *map(str, arguments("killed"))]
    command += ["--params", str(tmp_path / "params.json")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "epoch 5/20" in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/dense.safetensors").exists()
    resumed = run_step("train", *arguments("killed"), params=params)
    assert resumed.returncode == 0
    assert "goes on after epoch" in resumed.stdout
    assert run_step("train", *arguments("alone"), params=params).returncode == 0
    expected = (tmp_path / "alone/dense.safetensors").read_bytes()
    assert (tmp_path / "killed/dense.safetensors").read_bytes() == expected
    left = sorted(path.name for path in (tmp_path / "killed").iterdir() if not path.name.endswith(".partial"))
    assert left == ["dense.safetensors"]
