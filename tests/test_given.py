"""Sequences that go on from a packed network that was made elsewhere."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from acll.config.checks import ConfigurationError, faults_of_opened, parse
from acll.config.given import Given
from acll.data import prepared
from acll.data.root import ROOT_KEY
from acll.errors import UserError
from acll.evaluation.proof import proofs_of
from acll.evaluation.report import report_page
from acll.evaluation.tables import read_table
from acll.files import sha256
from acll.networks.spec import DecoderNetwork
from acll.node import Node
from acll.packing import packed_file
from acll.packing.ownership import PackingError, task_state_dict
from acll.plan import plan
from acll.sharing import given
from acll.sharing.given import open_given
from acll.sharing.planned import jobs_of
from acll.sharing.raw import not_here, wanted_networks, weight_identities
from acll.sharing.records import record_path
from acll.sharing.to_run import reasons_to_run
from checkouts import SMALL, finished, jobs_in, without_pictures
from conftest import states_equal, tiny_packed
from test_plan import (
    LAST,
    PACKED,
    SEARCHED,
    SMALL_NETWORK,
    affected,
    of,
    on_a_file,
    pictures,
    raw_configuration,
    titles,
)
from test_plan import prepared as prepares
from test_steps import NETWORK, TASKS, call

FILE = "networks/theirs.safetensors"
GO = {"network": "theirs", "tasks": ["c", "d"]}
ALONE = {"sequences": {"go": GO}}
THEIRS = {"networks/theirs": {"packed": FILE}}
ADOPTED = "given/theirs.safetensors"


def nodes(rules, *prefixes, method="half"):
    return of(rules, *prefixes, method=method, network="theirs")


# --------------------------------------------------------------------------------------------------
# jobs


def test_a_sequence_goes_on_from_a_file_with_these_jobs_and_no_others():
    planned = on_a_file("half", "adaptive", **ALONE)
    assert titles(planned) == {
        *prepares("cd"),
        *LAST,
        "sheets",
        "adopt theirs",
        *nodes(("train", *PACKED), "x/y/c", "x/y/c/d"),
        *nodes(("train", *SEARCHED), "x/y/c", "x/y/c/d", method="adaptive"),
    }
    assert {one for one in pictures(planned) if "mistakes" in one} == {
        "mistakes go.c",
        "mistakes go.d",
    }


def test_only_the_first_node_reads_the_file_and_only_new_tasks_are_scored():
    planned = {job.title: job for job in on_a_file("half", **ALONE)}
    train, later = (planned[f"train theirs/half/seed0/{name}"] for name in ("x/y/c", "x/y/c/d"))
    assert train.inputs["parent"] == (ADOPTED,)
    assert later.inputs["parent"] == ("nodes/theirs/half/seed0/x/y/c/network.safetensors",)
    for name, tasks in (("x/y/c", "c"), ("x/y/c/d", "cd")):
        job = planned[f"evaluate theirs/half/seed0/{name}"]
        assert job.inputs["test"] == tuple(f"data/{task}.test.safetensors" for task in tasks)


def test_what_a_method_remembers_begins_with_the_first_new_task():
    changes = ALONE | {"methods/wsn": {"type": "wsn"}}
    planned = {job.title: job for job in on_a_file("half", **changes)}
    memory = "nodes/theirs/wsn/seed0/x/y/c/memory.safetensors"
    for rule, key in (("train", "memory"), ("remember", "memory_before")):
        assert planned[f"{rule} theirs/wsn/seed0/x/y/c"].inputs[key] == ()
        assert planned[f"{rule} theirs/wsn/seed0/x/y/c/d"].inputs[key] == (memory,)


def test_a_new_task_is_learned_as_if_the_sequence_had_learned_what_is_in_the_file():
    """Seeds, cap, share, what is read of earlier tasks and where free weights start."""
    methods = {
        "grows": {"ratio": {"search": "tpe"}, "grow": 1.5},
        "equal": {"ratio": {"search": "fixed", "ratio": 0.5}},
        "zero": {"ratio": 0.5, "free_weights": "zero"},
        "masks": {"type": "piggyback"},
    }
    changes = {f"methods/{name}": method for name, method in methods.items()}
    sequences = {
        "one": {"network": "small", "tasks": list("abcd")},
        "go": {"network": "theirs", "tasks": ["c", "d"]},
    }
    own = ("half", "adaptive", "smallest", "at_once", "still")
    planned = on_a_file(*own, before=("a", "b"), **(changes | {"sequences": sequences}))
    texts = {job.title: job.text for job in planned if job.rule not in ("trace", "adopt")}
    of_file = [title for title in texts if " theirs/" in title]
    assert len(of_file) == 2 * sum(
        len((*parse(raw_configuration(**changes)).methods[name].rules(), "evaluate"))
        for name in (*own, *methods)
    )
    for title in of_file:
        assert texts[title] == texts[title.replace(" theirs/", " small/")], title


def test_another_file_makes_anew_what_was_made_of_it_and_nothing_else():
    before, after = (on_a_file("half", identity=identity) for identity in "12")
    assert titles(before) >= of(PACKED, "a/b/c")
    assert affected(before, after) == {
        "adopt theirs",
        *nodes(("train", *PACKED), "x/y/c", "x/y/c/d"),
        *LAST,
    }
    # with other tasks its nodes have other names
    other = affected(before, on_a_file("half", before=("x",), identity="2"))
    assert other == {"adopt theirs", *nodes(("train", *PACKED), "x/c", "x/c/d"), *LAST}


def test_a_sequence_more_on_a_file_runs_nothing_of_others():
    without = on_a_file("half", **{"sequences": {"one": {"network": "small", "tasks": ["a"]}}})
    assert "adopt theirs" not in titles(without)  # which nobody goes on from
    sequences = {"one": {"network": "small", "tasks": ["a"]}, "go": GO}
    assert affected(without, on_a_file("half", sequences=sequences)) == {
        "adopt theirs",
        *prepares("cd"),
        "sheets",
        *nodes(("train", *PACKED), "x/y/c", "x/y/c/d"),
        *LAST,
    }


def test_new_tasks_alone_change_places():
    planned = on_a_file("half", orders="all", **ALONE)
    found = {job.name.partition("seed0/")[2] for job in planned if job.rule == "evaluate"}
    assert found == {"x/y/c", "x/y/c/d", "x/y/d", "x/y/d/c"}


def test_masks_are_drawn_of_new_tasks():
    changes = {"sequences": {"go": {"network": "theirs", "tasks": ["m"]}}}
    spec = DecoderNetwork(decoder="unet", encoder="resnet_small")
    planned = {job.title: job for job in on_a_file("half", spec=spec, **changes)}
    assert {one for one in planned if one.startswith("masks")} == {"masks go.m"}
    assert planned["masks go.m"].params.networks == [1]


# --------------------------------------------------------------------------------------------------
# what cannot be


def settings(*methods, **changes):
    return parse(raw_configuration(*(methods or ("half",)), **(THEIRS | ALONE | changes)))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"networks/theirs/packed": "../theirs.safetensors"},
            r"networks\.theirs\.packed = '\.\./theirs\.safetensors': must lie below data_root",
        ),
        (
            {"networks/theirs/packed": "theirs.pth"},
            r"networks\.theirs\.packed = 'theirs\.pth': must be the path of a packed network",
        ),
        (
            {"networks/theirs/backbone": "lenet"},
            r"networks\.theirs\.backbone: unknown key \(it belongs to `networks\.<name>`, for cl",
        ),
        ({"networks/theirs/packed": 3}, r"networks\.theirs\.packed = 3: must be text"),
        (
            {"sequences/go/network": "thers"},
            r"sequences\.go\.network = 'thers': there is no such network \(did you mean theirs\?\)",
        ),
    ],
)
def test_a_fault_of_the_configuration_is_told_without_the_file(changes, line):
    with pytest.raises(ConfigurationError, match=line):
        settings(**changes)


def written(root: Path, packed) -> Path:
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    packed_file.write_packed(path, packed)
    return path


def test_what_a_file_says_is_its_network_and_its_tasks(tmp_path):
    path = written(tmp_path, tiny_packed("x", "y", spec=SMALL_NETWORK, size=16))
    opened = open_given(settings(), tmp_path, tmp_path / "results")
    assert opened.given == {"theirs": Given(SMALL_NETWORK, ("x", "y"), sha256(path))}
    assert opened.tasks_before("theirs") == ("x", "y")
    assert opened.tasks_before("small") == ()


@pytest.mark.parametrize(
    ("methods", "changes", "lines"),
    [
        (
            ("half",),
            {"sequences/go/tasks": ["c", "a"]},
            [
                "sequences.go.tasks = 'a': networks.theirs has learned a task of that name; give "
                "this one another"
            ],
        ),
        (
            ("half", "still", "fine", "alone"),
            {},
            [
                f"methods.{name}: {kind} cannot go on from networks.theirs: it changes earlier "
                "tasks, needs their data, or makes networks of its own; frozen, packing, piggyback "
                "and wsn can"
                for name, kind in (("fine", "finetuning"), ("alone", "individual"))
            ],
        ),
        (
            ("half",),
            {"sequences/go/tasks": ["m"]},
            ["sequences.go.tasks = 'm': a segmentation task needs a network with a decoder"],
        ),
        (
            ("half",),
            {
                "networks/theirs": {"packed": "wide.safetensors"},
                "methods/wider": {"ratio": {"search": "tpe"}, "grow": 2},
            },
            [
                "methods.wider.grow: networks.theirs cannot become wider: a perceptron has no "
                "width; resnet_small, lenet, conv_small have one",
                "tasks.c.image_size = [16, 16]: must be [4, 4], the image_size of its perceptron",
                "tasks.d.image_size = [16, 16]: must be [4, 4], the image_size of its perceptron",
            ],
        ),
    ],
    ids=["names", "methods", "kind", "network"],
)
def test_what_does_not_go_with_a_file_is_told_before_any_job(tmp_path, methods, changes, lines):
    written(tmp_path, tiny_packed("a", spec=SMALL_NETWORK, size=16))
    packed_file.write_packed(tmp_path / "wide.safetensors", tiny_packed("a"))
    with pytest.raises(UserError) as raised:
        open_given(settings(*methods, **changes), tmp_path, tmp_path / "results")
    assert sorted(str(raised.value).splitlines()) == sorted(lines)


def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path):
    def told() -> str:
        with pytest.raises(UserError) as raised:
            open_given(settings(), tmp_path, tmp_path / "results")
        assert "\n" not in str(raised.value)
        return str(raised.value)

    key = f"networks.theirs.packed = '{FILE}': "
    assert told() == f"{key}there is no such file in {tmp_path}"
    packed = tiny_packed("a", "b", spec=SMALL_NETWORK, size=16)
    changing = replace(packed, tasks=tuple(replace(one, frozen=False) for one in packed.tasks))
    path = written(tmp_path, replace(changing, method="fine"))
    assert told().startswith(f"{key}{path}: learned by a method that changes earlier tasks, fine")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert told().startswith(f"{key}{path}: not a file of acll, or damaged")
    path.unlink()
    path.mkdir()
    assert told().startswith(f"{key}{path}: is a folder, not a file of acll")


def test_more_tasks_than_a_network_holds_are_refused(tmp_path):
    content = settings()
    told = Given(SMALL_NETWORK, tuple(f"t{number}" for number in range(254)), "1")
    assert (
        "sequences.go.tasks: networks.theirs has learned 254 tasks and can learn 1 more"
        in faults_of_opened(content.opened({"theirs": told}))
    )


def test_weights_of_a_file_are_needed_where_new_tasks_start_from_them_alone(tmp_path):
    spec = SMALL_NETWORK.model_copy(update={"weights": "theirs.pth"})
    told = {"theirs": Given(spec, ("x",), "1")}
    nowhere = tmp_path / "nowhere"
    identities = weight_identities(settings().opened(told), tmp_path, nowhere)
    assert identities == {"theirs": "", "small": "none", "unet": "none"}
    assert wanted_networks(settings().opened(told), tmp_path, nowhere) == {}
    needy = settings(**{"methods/half": {"ratio": 0.5, "free_weights": "pretrained"}})
    with pytest.raises(UserError, match=r"networks\.theirs\.weights = 'theirs\.pth': there is no"):
        weight_identities(needy.opened(told), tmp_path, nowhere)
    (tmp_path / "theirs.pth").write_bytes(b"1")
    (name,) = wanted_networks(needy.opened(told), tmp_path, nowhere)
    assert name == "theirs"


def test_the_record_of_its_copy_says_what_a_file_was_also_where_it_is_not_here(
    tmp_path, monkeypatch
):
    root, results = tmp_path / "data", tmp_path / "results"
    path = written(root, tiny_packed("x", "y", spec=SMALL_NETWORK, size=16))
    here = open_given(settings(), root, results)
    (job,) = (job for job in plan(here) if job.rule == "adopt")
    record = results / record_path(ADOPTED)
    record.parent.mkdir(parents=True)
    content = {"code": "", "input": [], "input_checksums": {}, "params": [repr(job.text)]}
    record.write_text(json.dumps(content))
    assert not_here(here, root, results) == []
    # the file itself is read where it is another one; that takes torch, and so seconds
    with monkeypatch.context() as patch:
        patch.setattr(given, "_read", lambda path: pytest.fail("it is known"))
        assert open_given(settings(), root, results).given == here.given
    content = path.read_bytes()
    other = written(root, tiny_packed("z", spec=SMALL_NETWORK, size=16))
    assert open_given(settings(), root, results).tasks_before("theirs") == ("z",)
    other.write_bytes(content)
    path.unlink()
    absent = open_given(settings(), root, results)
    assert absent.given == here.given
    assert not_here(absent, root, results) == ["the packed network theirs"]
    # another file was never here
    with pytest.raises(UserError, match="there is no such file"):
        open_given(settings(**{"networks/theirs/packed": "b.safetensors"}), root, results)


# --------------------------------------------------------------------------------------------------
# runs, by the steps

C = TASKS["b"] | {"classes": 2, "difficulty": 0.2}
ROADS = C | {"kind": "segmentation"}
UNET = {"decoder": "unet", "encoder": "resnet_small", "width": 0.25}
METHODS = {
    "half": {"ratio": 0.5},
    "grows": {"ratio": {"search": "tpe", "budget": 0.5}, "expected_tasks": 9, "grow": 1.2},
    "smallest": {"ratio": 0.5, "criterion": "magnitude"},
    "masks": {"type": "piggyback"},
    "still": {"type": "frozen"},
    "winning": {"type": "wsn"},
}


@pytest.fixture(autouse=True)
def test_splits_stay_closed(monkeypatch):
    monkeypatch.setitem(prepared._allowed, "test", False)


def small(network, sequence, method, tasks):
    return {
        "name": "tiny",
        "tasks": tasks,
        "networks": {network: NETWORK},
        "sequences": {"one": {"network": network, "tasks": list(sequence)}},
        "methods": {method: METHODS[method]},
        "training": {"epochs": 1, "retrain_epochs": 1, "batch_size": 16},
    }


def ran(settings, folder, monkeypatch, without=("sheets", "trace", "masks", "mistakes")):
    monkeypatch.setenv(ROOT_KEY, str(folder / "data_root"))
    opened = open_given(settings, folder / "data_root", folder)
    for job in plan(opened):
        if job.rule not in without:
            call(job, folder)
    return opened


def old_states(path: Path, *tasks: str):
    packed = packed_file.read_packed(path)
    return [task_state_dict(packed, task) for task in tasks]


@pytest.mark.parametrize("method", METHODS)
def test_a_task_on_a_file_is_what_appending_it_would_have_made_byte_for_byte(
    tmp_path, monkeypatch, method
):
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    without = ("sheets", "evaluate", "tables", "figures", "trace", "masks", "mistakes")
    ran(parse(small("small", "abc", method, TASKS | {"c": C})), whole, monkeypatch, without=without)
    place = f"{method}/seed0/a/b"
    (alone / "data_root/networks").mkdir(parents=True)
    theirs = shutil.copy(
        whole / f"nodes/small/{place}/network.safetensors", alone / "data_root" / FILE
    )
    content = small("theirs", "c", method, {"c": C})
    content["networks"] = {"theirs": {"packed": FILE}}
    ran(parse(content), alone, monkeypatch, without=without)
    assert (alone / ADOPTED).read_bytes() == Path(theirs).read_bytes()
    appended, found = (
        folder / f"nodes/{network}/{place}/c/network.safetensors"
        for folder, network in ((whole, "small"), (alone, "theirs"))
    )
    before, after = old_states(theirs, "a", "b"), old_states(found, "a", "b")
    assert all(map(states_equal, before, after))
    assert [one.name for one in packed_file.open_packed(found).header.tasks] == ["a", "b", "c"]
    # wsn goes on from the scores that it remembers, which no file has
    assert (found.read_bytes() == appended.read_bytes()) == (method != "winning")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What a run left on a file with two tasks: one more of each kind, and a second method."""
    folder = tmp_path_factory.mktemp("results")
    packed = tiny_packed("x", "y: segmentation", spec=DecoderNetwork(**UNET), size=16, classes=2)
    first, second = packed.tasks
    by_another_method = replace(packed, tasks=(replace(first, choice={}), second))
    written(folder / "data_root", by_another_method)
    content = small("theirs", ["c", "roads"], "half", {"c": C, "roads": ROADS})
    content["networks"] = {"theirs": {"packed": FILE}}
    content["methods"] |= {"searched": {"ratio": {"search": "tpe", "budget": 0.5}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prepared._allowed, "test", False)
        ran(parse(content), folder, patch, without=("sheets",))
    return folder


def test_old_tasks_are_in_the_tables_without_a_score_and_count_in_no_mean(results):
    final = read_table(results / "tables/final.csv")
    half = final[final["method"] == "half"].set_index("task")
    assert list(half.index) == ["x", "y", "c", "roads"]
    assert list(half["position"]) == [1, 2, 3, 4]
    assert half["bit_exact"].all()
    old, new = half.loc[["x", "y"]], half.loc[["c", "roads"]]
    assert old[["score", "score_when_learned", "forgetting"]].isna().all().all()
    assert (old["samples"] == 0).all()
    assert (half["owned_share"] > 0).all()
    assert (new["forgetting"] == 0).all()
    runs = read_table(results / "tables/runs.csv").set_index("method").loc["half"]
    assert runs["mean_score"] == pytest.approx(new["score"].mean())
    assert runs["worst_score"] == new["score"].min()
    assert runs["mean_forgetting"] == runs["backward_transfer"] == 0
    assert pd.isna(runs["forward_transfer"])  # nobody learned these tasks alone
    # the file is that of all four tasks, and so is what it is compared with
    assert runs["size"] == pytest.approx(half["bytes"].iloc[0] / half["alone_bytes"].sum())
    assert runs["owned_share"] == pytest.approx(1 - half["free_share"].iloc[0])
    for name in ("classes", "measures", "mistakes"):
        assert set(read_table(results / f"tables/{name}.csv")["task"]) == {"c", "roads"}
    matrix = read_table(results / "tables/matrix.csv")
    stages = matrix[matrix["method"] == "half"][["stage", "task"]].to_numpy().tolist()
    assert stages == [[3, "c"], [4, "c"], [4, "roads"]]
    plotted = read_table(results / "tables/plot.csv")["result"]
    assert list(plotted) == [
        f"one {method} {task}" for method in ("half", "searched") for task in ("c", "roads")
    ]


def test_the_console_says_why_old_tasks_have_no_score(results):
    text = (results / "tables/tables.txt").read_text()
    assert re.search(r"^one +half +x +\d+\.\d%$", text, re.MULTILINE)
    assert (
        "one: x and y, which the network theirs had learned before, have no score: their images "
        "are not here. The weights that they read are, bit for bit, those with which they were "
        "learned." in " ".join(text.split())
    )
    assert "nan" not in text


def test_the_report_and_figures_tell_old_tasks_from_new_ones(results):
    page = report_page(results, "configuration")
    assert "the network theirs, which had learned x and y before, learned 2 tasks" in page
    boards = page.partition("test scores at the end")[2].partition("mean over tasks")[0]
    assert "x (accuracy)" in boards
    assert "nan" not in boards
    shares = (results / "figures/shares.svg").read_text()
    assert "half: x owns" in shares
    final = read_table(results / "tables/final.csv").groupby("method")
    for method, free in final["free_share"].first().items():
        assert f"{method}: {free:.1%} free" in shares
    scores = (results / "figures/scores.svg").read_text()
    assert "roads after roads" in scores
    assert "y after" not in scores


def test_that_nothing_was_forgotten_is_proved_against_the_file(results, tmp_path):
    names = [
        Node.of(path.parent.relative_to(results / "nodes").as_posix())
        for path in sorted(results.glob("nodes/theirs/half/**/network.safetensors"))
    ]
    proofs = proofs_of(results, sorted(names, key=lambda node: node.position))
    assert [(proof.task, proof.equal) for proof in proofs] == [
        (task, True) for task in ("x", "y", "c", "x", "y", "c", "roads")
    ]
    shutil.copytree(results / "nodes", tmp_path / "nodes")
    with pytest.raises(PackingError, match=r"x/y/network\.safetensors: there is no such file"):
        proofs_of(tmp_path, names)


def test_a_file_whose_task_is_not_what_was_learned_is_not_adopted(tmp_path, monkeypatch):
    packed = tiny_packed("x", "y", spec=SMALL_NETWORK, size=16)
    state = packed.private["y"]
    state[next(name for name in state if name.startswith("head."))].view(-1)[0] += 1
    path = written(tmp_path, packed)
    monkeypatch.setenv(ROOT_KEY, str(tmp_path))
    (job,) = (
        job for job in plan(open_given(settings(), tmp_path, tmp_path)) if job.rule == "adopt"
    )
    with pytest.raises(PackingError, match=re.escape(f"{path}: y is not what it was when")):
        call(job, tmp_path)
    assert not (tmp_path / ADOPTED).exists()


# --------------------------------------------------------------------------------------------------
# a run as a user starts it


@pytest.mark.slow
def test_a_run_on_a_file_runs_again_where_the_file_changes_and_is_whole_without_it(
    tmp_path_factory, tmp_path, monkeypatch
):
    own = finished(tmp_path_factory)[0].copy(tmp_path / "checkout")
    own = replace(own, data=tmp_path / "data")
    theirs = own.results("small") / "nodes/small/half/seed0/a/b/network.safetensors"
    path = own.data / FILE
    path.parent.mkdir(parents=True)
    shutil.copy(theirs, path)
    content = SMALL | {
        "name": "more",
        "tasks": {"c": SMALL["tasks"]["c"]},
        "networks": {"theirs": {"packed": FILE}},
        "sequences": {"go": {"network": "theirs", "tasks": ["c"]}},
    }
    own.write(content)
    learned = {
        f"{rule} theirs/half/seed0/a/b/c" for rule in ("train", "prune", "retrain", "evaluate")
    }
    ends = {"tables", "figures"}
    text = own.make("run", "more")
    assert jobs_in(text) == {"prepare c", "sheets", "adopt theirs"} | learned | ends
    link = own.results("more") / "networks/go-half-seed0.safetensors"
    assert all(map(states_equal, old_states(theirs, "a", "b"), old_states(link, "a", "b")))
    path.rename(path.with_suffix(".away"))
    text = own.make("verify", "more")
    assert "taken to be what they were when they were read: the packed network theirs" in text
    assert "all as this commit would make them" in text
    monkeypatch.setenv(ROOT_KEY, str(own.data))
    assert reasons_to_run(own.results("more"), jobs_of(own.folder, "more")) == []
    # the same tasks, with other bytes
    packed = packed_file.read_packed(theirs)
    first, second = packed.tasks
    packed_file.write_packed(path, replace(packed, tasks=(first, replace(second, temperature=2.0))))
    changed = {"adopt theirs"} | learned | ends
    assert own.planned(name="more") == changed
    reasons = reasons_to_run(own.results("more"), jobs_of(own.folder, "more"))
    assert without_pictures(one.job.title for one in reasons) == changed
    assert reasons[0].words == "the file of the packed network has changed"
