"""What runs again: the plans of two configurations are compared, and nothing is run."""

import ast
import copy
import itertools
import json
import os
import shlex
import subprocess
import typing
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from acll import parameters
from acll.config.checks import load_configuration, parse
from acll.config.given import Given
from acll.data.sources.registry import SOURCES, source
from acll.data.task import Task
from acll.errors import UserError
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork, PluginNetwork
from acll.parameters.base import Params
from acll.plan import ARGUMENTS, command, longest_chains, plan
from acll.registry import kinds
from acll.search.settings import Search
from acll.settings import Settings
from acll.sharing.planned import planned
from acll.sharing.raw import raw_identities
from acll.sharing.records import record_path
from conftest import ROOT

GENERATED = {"source": "generated", "kind": "classification", "classes": 3, "samples": 40}
TASK = GENERATED | {"image_size": 16, "difficulty": 0.1}
METHODS = {
    "adaptive": {"ratio": {"search": "tpe"}},
    "half": {"ratio": 0.5},
    "smallest": {"ratio": 0.5, "criterion": "magnitude"},
    "at_once": {"ratio": 0.5, "criterion": "magnitude", "release": "once"},
    "fine": {"type": "finetuning"},
    "still": {"type": "frozen"},
    "alone": {"type": "individual"},
    "joint": {"type": "joint"},
    "ewc": {"type": "ewc"},
    "lwf": {"type": "lwf"},
}
SMALL_NETWORK = BackboneNetwork(backbone="resnet_small")
WIDER = {"methods/wider": {"ratio": {"search": "tpe"}, "grow": 1.5}}
PACKED = ("prune", "retrain", "evaluate")
SEARCHED = ("search", *PACKED)
TAKEN = ("commit", "evaluate")
LAST = {"tables", "figures"}
PICTURES = ("trace", "masks", "mistakes")  # have tests of their own below
UNSET = object()
OF_FEW = {"of": "a_few", "permuted": 2}  # a series


def raw_configuration(*methods, tasks="abc", **changes):
    """Tasks a to d and masks m, one sequence on the network `small`. changes: `section/key/…`."""
    raw = {
        "name": "x",
        "tasks": {name: dict(TASK) for name in "abcd"}
        | {"m": TASK | {"kind": "segmentation"}, "digits": {"source": "digits", "image_size": 16}},
        "networks": {
            "small": {"backbone": "resnet_small"},
            "unet": {"decoder": "unet", "encoder": "resnet_small"},
        },
        "sequences": {"one": {"network": "small", "tasks": list(tasks)}},
        "methods": {name: METHODS[name] for name in methods or METHODS},
        "training": {"epochs": 4, "retrain_epochs": 2},
    }
    return put(raw, changes)


def put(raw, changes):
    raw = copy.deepcopy(raw)
    for path, value in changes.items():
        *way, last = path.split("/")
        place = raw
        for key in way:
            place = place.setdefault(key, {})
        if value is UNSET:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)  # a longer path may put something into it
    return raw


def jobs(*methods, tasks="abc", raw=None, weights=None, **changes):
    content = raw_configuration(*methods, tasks=tasks, **changes)
    return plan(parse(content), raw, weights)


def on_a_file(*methods, before=("x", "y"), identity="1", spec=SMALL_NETWORK, **changes):
    """The jobs of two sequences: `go` learns c and d after what a packed network has learned."""
    changes = {
        "networks/theirs": {"packed": "networks/theirs.safetensors"},
        "sequences/go": {"network": "theirs", "tasks": ["c", "d"]},
    } | changes
    content = parse(raw_configuration(*methods, **changes))
    return plan(content.opened({"theirs": Given(spec, before, identity)}))


def affected(before, after):
    """The titles of the jobs that would run, but pictures."""
    return titles(would_run(before, after))


def would_run(before, after):
    """The jobs that are new or changed, and what follows."""
    known = {(job.rule, job.name): job for job in before}
    made: set[str] = set()
    found = []
    for job in after:  # those that others need come first
        old = known.get((job.rule, job.name))
        same = old is not None and (old.text, old.inputs, old.outputs) == (
            job.text,
            job.inputs,
            job.outputs,
        )
        if not same or made & set(job.all_inputs):
            found.append(job)
            made |= set(job.all_outputs)
    return found


def titles(planned):
    return {job.title for job in planned if job.rule not in PICTURES}


def pictures(planned):
    return {job.title for job in planned if job.rule in PICTURES}


def of(rules, *prefixes, method="half", network="small", seed=0):
    """The jobs of some rules for the nodes of a method."""
    place = f"{network}/{method}/seed{seed}"
    return {f"{rule} {place}/{prefix}" for rule in rules for prefix in prefixes}


def first(task="a", network="small", seed=0, shared="learned"):
    """A training of a first task that methods share: the one with scores, or the plain one."""
    return {f"train {network}/{shared}/seed{seed}/{task}"}


def plain(task="a"):
    return first(task, shared="dense")


def prepared(tasks):
    return {f"prepare {task}" for task in tasks}


# ----------------------------------------------------------------------------------------------
# the jobs of each method


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("half", first() | of(PACKED, "a", "a/b")),
        ("adaptive", first() | of(SEARCHED, "a", "a/b", method="adaptive")),
        ("smallest", plain() | of(PACKED, "a", "a/b", method="smallest")),
        ("at_once", plain() | of(PACKED, "a", "a/b", method="at_once")),
        ("fine", plain() | of(TAKEN, "a", "a/b", method="fine")),
        ("still", plain() | of(TAKEN, "a", "a/b", method="still")),
        ("lwf", plain() | of(TAKEN, "a", "a/b", method="lwf")),
        ("ewc", plain() | of((*TAKEN, "remember"), "a", "a/b", method="ewc")),
        ("alone", plain() | plain("b") | of(TAKEN, "a", "b", method="alone")),
    ],
)
def test_a_method_has_its_jobs_and_no_others(method, expected):
    found = jobs(method, tasks="ab")
    later = of(["train"], "a/b", method=method) if method != "alone" else set()
    assert titles(found) == expected | later | prepared("ab") | {"sheets"} | LAST
    assert len(found) == len({job.title for job in found})


def test_a_method_with_masks_has_a_first_training_of_its_own_where_it_needs_one():
    def of_first(name, **changes):
        planned = jobs("fine", tasks="ab", **{f"methods/{name}": {"type": name}} | changes)
        (job,) = [job for job in planned if job.title == f"commit small/{name}/seed0/a"]
        return job.inputs["dense"]

    shared, given = ("nodes/small/dense/seed0/a/dense.safetensors",), "weights.safetensors"
    assert of_first("piggyback") == of_first("fine", **{"methods/fine": METHODS["fine"]}) == shared
    own = ("nodes/small/piggyback/seed0/a/dense.safetensors",)
    assert of_first("piggyback", **{"networks/small/weights": given}) == own
    assert of_first("wsn") == ("nodes/small/wsn/seed0/a/dense.safetensors",)


def test_what_wsn_remembers_comes_from_its_training():
    found = {job.title: job for job in jobs("half", tasks="ab", **{"methods/wsn": {"type": "wsn"}})}
    folder = "nodes/small/wsn/seed0/a"
    remembered = found["remember small/wsn/seed0/a"]
    assert remembered.inputs["dense"] == (f"{folder}/dense.safetensors",)
    assert found["train small/wsn/seed0/a/b"].inputs["memory"] == (f"{folder}/memory.safetensors",)


def test_a_network_grows_between_the_search_and_what_follows_it():
    found = {job.title: job for job in jobs("half", tasks="ab", **WIDER)}
    rules = ("train", "search", "grow", "prune", "retrain", "evaluate", "trace")
    own = of(rules, "a/b", method="wider") | of(rules[1:], "a", method="wider")
    assert {title for title in found if "/wider/" in title} == own
    folder = "nodes/small/wider/seed0/a/b"
    pruned, retrained = (found[f"{rule} small/wider/seed0/a/b"] for rule in ("prune", "retrain"))
    both = (f"{folder}/dense.safetensors", f"{folder}/grown.safetensors")
    assert pruned.inputs["dense"] == both
    assert retrained.inputs["dense"] == ()  # unless it learns from the dense network
    assert pruned.inputs["choice"] == (f"{folder}/grown_choice.json",)
    assert pruned.inputs["held"] == (
        f"{folder}/held.safetensors",
        f"{folder}/grown_held.safetensors",
    )
    assert found["trace small/wider/seed0/a/b"].all_inputs == (
        f"{folder}/grown_trials.csv",
        f"{folder}/grown_choice.json",
    )
    assert f"{folder}/grown_trials.csv" in found["tables"].inputs["trials"]
    assert f"{folder}/grown_choice.json" in found["figures"].inputs["choices"]


def test_a_search_has_the_cap_of_its_method_and_one_that_grows_asks_for_no_score():
    search = {"ratio": {"search": "bayes"}, "expected_tasks": 5}
    methods = {
        "plain": search,
        "equal": search | {"ratio": {"search": "fixed", "ratio": 0}},
        "wider": WIDER["methods/wider"] | search,
        "unbounded": search | {"cap": False},
    }
    changes = {f"methods/{name}": method for name, method in methods.items()}
    found = {job.title: job for job in jobs("half", tasks="a", **WIDER | changes)}
    of_search = {name: found[f"search small/{name}/seed0/a"].params for name in methods}
    caps = {name: params.cap for name, params in of_search.items()}
    assert caps == {"plain": 0.25, "equal": 0.2, "wider": 0.25, "unbounded": None}
    asked = {name: params.search.prefer for name, params in of_search.items()}
    assert asked == {"plain": None, "equal": None, "wider": "size", "unbounded": None}


def test_what_learns_from_the_dense_network_depends_on_it():
    changes = {"methods/wider": WIDER["methods/wider"] | {"distill": True}}
    found = {job.title: job for job in jobs("half", tasks="ab", **changes)}
    folder = "nodes/small/wider/seed0/a/b"
    both = (f"{folder}/dense.safetensors", f"{folder}/grown.safetensors")
    assert found["retrain small/wider/seed0/a/b"].inputs["dense"] == both


def test_another_factor_of_growth_trains_and_searches_no_dense_network_anew():
    more = {"methods/wider": WIDER["methods/wider"] | {"grow": 2.0}}
    again = of(("grow", *PACKED), "a", "a/b", method="wider")
    again |= of(("train", "search"), "a/b", method="wider")
    assert (
        affected(jobs("half", tasks="ab", **WIDER), jobs("half", tasks="ab", **more))
        == again | LAST
    )


def test_joint_training_is_one_job_for_all_tasks_whatever_their_order():
    found = jobs("joint", tasks="ab")
    own = of(("train", *TAKEN), "a+b", method="joint")
    assert titles(found) == own | prepared("ab") | {"sheets"} | LAST
    assert affected(found, jobs("joint", tasks="ba")) == LAST


def test_methods_share_one_of_two_trainings_of_first_tasks_but_joint_training_does_not():
    trained = [job.title for job in jobs(tasks="ab") if job.rule == "train"]
    assert len(trained) == len(set(trained))
    shared = first() | plain() | plain("b")  # b is the first of a network of its own
    later = set(METHODS) - {"alone", "joint"}
    own = of(["train"], "a+b", method="joint")
    own = own.union(*(of(["train"], "a/b", method=name) for name in later))
    assert set(trained) == shared | own


def test_the_shared_training_of_packing_learns_scores_whatever_its_methods_do_later():
    method = {"ratio": 0.5, "free_weights": "zero", "reuse": "all"}
    before, after = (jobs("half", tasks="ab", **changes) for changes in ({}, {"methods/m": method}))
    assert not affected(before, after) & first()
    (rule,) = (job.params.rule for job in after if job.title in first())
    assert rule.criterion == "learned"
    (rule,) = (job.params.rule for job in jobs("smallest") if job.title in plain())
    assert rule.type == "individual"


def test_what_ranks_weights_decides_which_training_a_first_task_shares():
    changes = {"methods/half": METHODS["smallest"]}
    found = affected(jobs("half", "fine", tasks="ab"), jobs("half", "fine", tasks="ab", **changes))
    assert found == of(PACKED, "a") | of(("train", *PACKED), "a/b") | LAST


def test_a_later_training_of_ewc_has_the_memory_before_it_and_no_other_has_one():
    for job in jobs():
        if job.rule == "train":
            later = job.name.startswith("small/ewc/")
            parent = job.name.rpartition("/")[0]
            memory = (f"nodes/{parent}/memory.safetensors",) if later else ()
            assert job.inputs["memory"] == memory


@pytest.mark.parametrize(
    "planned", [jobs(seeds=[0, 1], orders="all"), on_a_file("half", "adaptive", orders="all")]
)
def test_every_input_is_made_before_and_every_output_once(planned):
    made: set[str] = set()
    for job in planned:
        assert set(job.all_inputs) <= made, job.title
        assert not set(job.all_outputs) & made, job.title
        assert len(set(job.all_outputs)) == len(job.all_outputs)
        made |= set(job.all_outputs)
        assert (tuple(job.inputs), tuple(job.outputs)) == ARGUMENTS[job.rule]


def test_only_evaluation_reads_test_splits():
    for job in jobs():
        assert any(path.endswith(".test.safetensors") for path in job.all_inputs) == (
            job.rule == "evaluate"
        )


# ----------------------------------------------------------------------------------------------
# what makes no difference


def reordered(value):
    """Keys in the other direction, at all levels."""
    if isinstance(value, dict):
        return {key: reordered(one) for key, one in reversed(value.items())}
    return value


def test_nothing_runs_where_nothing_has_changed():
    assert affected(jobs(), jobs()) == set()


def loaded(folder, text):
    path = folder / "x.yaml"
    path.write_text(text)
    return plan(load_configuration(path))


def test_comments_blank_lines_and_the_order_of_keys_make_no_difference(tmp_path):
    raw = raw_configuration("half", "adaptive")
    text = yaml.safe_dump(raw, sort_keys=False)
    before = loaded(tmp_path, text)
    assert titles(before) == titles(jobs("half", "adaptive"))
    lines = [f"{line}  # a comment\n\n" for line in text.splitlines()]
    assert affected(before, loaded(tmp_path, "# first\n" + "".join(lines))) == set()
    other = reordered(raw) | {"methods": raw["methods"]}
    text = yaml.safe_dump(other, sort_keys=False)
    assert text.splitlines()[0] != "name: x"
    assert affected(before, loaded(tmp_path, text)) == set()


def test_tables_and_figures_list_methods_and_sequences_in_the_order_of_the_configuration():
    assert affected(jobs("half", "fine"), jobs("fine", "half")) == LAST
    one, two = ({"network": "small", "tasks": list(tasks)} for tasks in ("ab", "ac"))
    before = jobs("half", sequences={"one": one, "two": two})
    assert affected(before, jobs("half", sequences={"two": two, "one": one})) == LAST


@pytest.mark.parametrize(
    ("methods", "changes"),
    [
        ((), {"training/momentum": 0.5}),  # of sgd
        ((), {"training/loss": "dice"}),  # of segmentation
        ((), {"tasks/b/training": {"momentum": 0.1, "loss": "dice"}}),
        ((), {"training/epochs": 4, "training/optimizer": "adamw"}),  # as they were
        (("fine", "still", "alone", "joint", "ewc", "lwf"), {"training/retrain_epochs": 9}),
        (("fine", "ewc", "lwf"), {"tasks/b/training": {"retrain_learning_rate": 0.5}}),
        (("joint",), {"tasks/b/training": {"epochs": 9, "learning_rate": 0.1}}),
        (("half", "fine"), {"tasks/d/image_size": 8}),  # which no sequence learns
        (("half", "fine"), {"networks/unet/encoder": "resnet18"}),
        ((), {"data_root": "elsewhere"}),
        ((), {"orders": "1 random", "sequences/one/tasks": ["a"]}),
    ],
)
def test_what_has_no_effect_runs_nothing(methods, changes):
    tasks = changes.get("sequences/one/tasks", "abc")
    before = jobs(*methods, tasks=tasks)
    assert affected(before, jobs(*methods, tasks=tasks, **changes)) == set()


def test_a_new_name_of_the_configuration_runs_nothing():
    assert affected(jobs(), jobs(name="y")) == set()


# ----------------------------------------------------------------------------------------------
# training


CHAIN = of(("train", *PACKED), "a/b", "a/b/c") | LAST


def test_the_epochs_of_a_task_run_it_and_all_later_ones_again():
    changes = {"tasks/b/training": {"epochs": 9}}
    assert affected(jobs("half"), jobs("half", **changes)) == CHAIN
    searched = of(("train", *SEARCHED), "a/b", "a/b/c", method="adaptive") | LAST
    assert affected(jobs("adaptive"), jobs("adaptive", **changes)) == searched
    alone = plain("b") | of(TAKEN, "b", method="alone") | LAST
    assert affected(jobs("alone"), jobs("alone", **changes)) == alone


@pytest.mark.parametrize("tasks", ["b", "a", "c"])
def test_values_that_change_places_are_another_training(tasks):
    one = {f"tasks/{tasks}/training": {"epochs": 3, "retrain_epochs": 7}}
    other = {f"tasks/{tasks}/training": {"epochs": 7, "retrain_epochs": 3}}
    expected = {
        "a": first() | of(PACKED, "a") | CHAIN,
        "b": CHAIN,
        "c": of(("train", *PACKED), "a/b/c") | LAST,
    }
    assert affected(jobs("half", **one), jobs("half", **other)) == expected[tasks]


def test_values_that_change_places_between_tasks_or_in_a_list_are_seen():
    one, other = {"noise": 0.2}, {"noise": 0.4}
    before = {"tasks/a": TASK | one, "tasks/b": TASK | other}
    after = {"tasks/a": TASK | other, "tasks/b": TASK | one}
    everything = titles(jobs("half", tasks="ab")) - prepared("cdm")
    assert affected(jobs("half", tasks="ab", **before), jobs("half", tasks="ab", **after)) == (
        everything
    )
    before = {"tasks/c/training": {"augmentation": ["flip", "shift"]}}
    after = {"tasks/c/training": {"augmentation": ["shift", "flip"]}}
    assert affected(jobs("half", **before), jobs("half", **after)) == (
        of(("train", *PACKED), "a/b/c") | LAST
    )


@pytest.mark.parametrize(
    ("change", "of_joint"),
    [
        ({"batch_size": 8}, True),
        ({"accumulate": 2}, True),
        ({"sampling": "balanced"}, True),
        ({"label_smoothing": 0.1}, True),
        ({"class_weights": "balanced"}, True),
        ({"augmentation": ["flip"]}, True),
        ({"mixed_precision": True}, True),
        ({"optimizer": "sgd"}, False),
        ({"weight_decay": 0.5}, False),
        ({"schedule": "step"}, False),
        ({"learning_rate": 0.5}, False),
        ({"ema": 0.9}, False),
        ({"patience": 3}, False),
    ],
)
def test_each_setting_of_a_training_is_seen(change, of_joint):
    changes = {"tasks/b/training": change}
    assert affected(jobs("half"), jobs("half", **changes)) == CHAIN
    joint = of(("train", *TAKEN), "a+b+c", method="joint") | LAST
    assert affected(jobs("joint"), jobs("joint", **changes)) == (joint if of_joint else set())


def test_each_step_that_learns_from_a_task_has_its_augmentation():
    given = ["crop", {"rotation": 30}, "mixup"]
    found = {}
    for job in jobs(tasks="ab", **WIDER, **{"tasks/b/training": {"augmentation": given}}):
        params = json.loads(job.text)["params"]
        params = params["search"] if job.rule == "grow" else params
        batches = params.get("batches") or []
        every = batches if isinstance(batches, list) else [batches]
        lists = [one["augmentation"] for one in every]
        if lists:
            # joint training has all tasks at once
            tasks = job.title.replace("+", "/").split("/")[-len(lists) :]
            assert lists == [given if task == "b" else [] for task in tasks]
            found.setdefault(job.rule, set()).update(tasks)
    rules = ("train", "search", "grow", "prune", "retrain", "remember")
    assert found == {rule: {"a", "b"} for rule in rules}


def test_settings_count_where_they_have_an_effect():
    sgd = {"training/optimizer": "sgd"}
    before, after = jobs("half", **sgd), jobs("half", **sgd, **{"training/momentum": 0.5})
    assert affected(before, after) == titles(before) - prepared("abc") - {"sheets"}
    masks = {"sequences/one": {"network": "unet", "tasks": ["a", "m"]}}
    after = jobs("half", **masks, **{"training/loss": "dice"})
    assert affected(jobs("half", **masks), after) == (
        of(("train", *PACKED), "a/m", network="unet") | LAST
    )


def test_retraining_alone_is_not_training():
    rules_of = {"half": PACKED, "smallest": PACKED, "adaptive": SEARCHED}
    for name, rules in (rules_of | {"at_once": ("retrain", "evaluate")}).items():
        own = of(rules, "a", method=name) | of(("train", *rules), "a/b", method=name)
        if name == "at_once":  # the parent is another
            own |= of(["prune"], "a/b", method=name)
        found = affected(
            jobs(name, tasks="ab"), jobs(name, tasks="ab", **{"training/retrain_epochs": 6})
        )
        assert found == own | LAST


def test_the_number_of_threads_runs_everything_that_computes_with_torch():
    everything = titles(jobs()) - prepared("abc") - {"sheets"}
    assert affected(jobs(), jobs(threads=2)) == everything


# ----------------------------------------------------------------------------------------------
# methods


@pytest.mark.parametrize(
    ("method", "change", "rules"),
    [
        ("adaptive", {"ratio": {"search": "tpe", "budget": 0.4}}, SEARCHED),
        ("adaptive", {"ratio": {"search": "tpe"}, "expected_tasks": 9}, SEARCHED),
        ("adaptive", {"ratio": {"search": "tpe"}, "cap": False}, SEARCHED),
        ("half", {"ratio": 0.6}, PACKED),
        ("half", {"ratio": 0.5, "distill": True}, PACKED),
        ("smallest", METHODS["smallest"] | {"scope": "global"}, PACKED),
        ("smallest", METHODS["at_once"], PACKED),
    ],
)
def test_what_comes_after_training_does_not_train_a_first_task_again(method, change, rules):
    found = affected(
        jobs(method, tasks="ab"), jobs(method, tasks="ab", **{f"methods/{method}": change})
    )
    own = of(rules, "a", method=method) | of(("train", *rules), "a/b", method=method)
    assert found == own | LAST


def test_settings_of_one_method_run_nothing_of_another():
    found = affected(jobs(), jobs(**{"methods/ewc": {"type": "ewc", "strength": 5}}))
    later = of(("train", *TAKEN, "remember"), "a/b", "a/b/c", method="ewc")
    assert found == later | LAST
    found = affected(jobs(), jobs(**{"methods/lwf": {"type": "lwf", "temperature": 1}}))
    assert found == of(("train", *TAKEN), "a/b", "a/b/c", method="lwf") | LAST


def test_where_free_weights_start_counts_for_later_tasks_alone():
    changes = {"methods/half": {"ratio": 0.5, "free_weights": "zero"}}
    assert affected(jobs("half"), jobs("half", **changes)) == CHAIN


def test_what_tasks_read_of_earlier_ones_counts_for_all_tasks_but_the_first():
    changes = {"methods/half": {"ratio": 0.5, "reuse": "all"}}
    found = affected(jobs("half"), jobs("half", **changes))
    assert found == CHAIN
    # also where the network grows for the first one
    grows = ("train", "search", "grow", "prune", "retrain", "evaluate")
    before = jobs("half", tasks="ab", **WIDER)
    changes = {"methods/wider": WIDER["methods/wider"] | {"reuse": "all"}}
    found = affected(before, jobs("half", tasks="ab", **changes))
    assert found == of(grows, "a/b", method="wider") | LAST
    # by magnitude they read all, whether somebody says so or not
    changes = {"methods/smallest": METHODS["smallest"] | {"reuse": "all"}}
    assert affected(jobs("smallest"), jobs("smallest", **changes)) == set()


def test_a_method_that_becomes_another_runs_its_jobs_under_its_name():
    after = jobs("half", tasks="ab", **{"methods/half": {"type": "finetuning"}})
    own = of(TAKEN, "a") | of(("train", *TAKEN), "a/b") | LAST
    assert affected(jobs("half", tasks="ab"), after) == plain() | own
    by_magnitude = {"methods/half": METHODS["smallest"]}
    assert affected(jobs("half", tasks="ab", **by_magnitude), after) == own


def test_a_method_or_a_seed_more_runs_only_what_is_its_own():
    own = of(TAKEN, "a", method="fine") | of(("train", *TAKEN), "a/b", "a/b/c", method="fine")
    assert affected(jobs("half"), jobs("half", "fine")) == plain() | own | LAST
    assert affected(jobs("half", "still"), jobs("half", "still", "fine")) == own | LAST
    own = first(seed=1) | of(PACKED, "a", seed=1) | of(("train", *PACKED), "a/b", "a/b/c", seed=1)
    assert affected(jobs("half"), jobs("half", seeds=[0, 1])) == own | LAST


# ----------------------------------------------------------------------------------------------
# tasks, sequences and networks


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_network_more_runs_only_its_own_nodes(channels):
    changes = {
        "networks/other": {"backbone": "resnet_small", "channels": channels},
        "sequences/two": {"network": "other", "tasks": ["a", "b"]},
    }
    own = first(network="other") | of(PACKED, "a", network="other")
    own |= of(("train", *PACKED), "a/b", network="other")
    assert affected(jobs("half"), jobs("half", **changes)) == own | LAST


def test_a_task_more_at_the_end_runs_alone():
    own = prepared("c") | of(("train", *PACKED), "a/b/c") | {"sheets"} | LAST
    assert affected(jobs("half", tasks="ab"), jobs("half", tasks="abc")) == own
    alone = prepared("c") | plain("c") | of(TAKEN, "c", method="alone") | {"sheets"} | LAST
    assert affected(jobs("alone", tasks="ab"), jobs("alone", tasks="abc")) == alone


def test_the_last_two_tasks_in_the_other_order_run_alone():
    own = of(("train", *PACKED), "a/c", "a/c/b") | LAST
    assert affected(jobs("half", tasks="abc"), jobs("half", tasks="acb")) == own


def test_another_order_of_the_first_tasks_trains_what_begins_anew():
    own = of(("train", *PACKED), "b/a", "b/a/c") | of(PACKED, "b") | first("b") | LAST
    assert affected(jobs("half", tasks="abc"), jobs("half", tasks="bac")) == own


def test_an_end_that_is_left_out_runs_the_tables_alone():
    assert affected(jobs("half"), jobs("half", tasks="ab")) == {"sheets"} | LAST


def test_other_raw_data_of_a_task_run_it_and_what_was_made_of_it():
    raw = dict.fromkeys("abc", "1")
    found = affected(jobs("half", raw=raw), jobs("half", raw=raw | {"b": "2"}))
    assert found == prepared("b") | {"sheets"} | CHAIN
    found = affected(jobs("alone", raw=raw), jobs("alone", raw=raw | {"b": "2"}))
    own = plain("b") | of(TAKEN, "b", method="alone")
    assert found == prepared("b") | {"sheets"} | own | LAST
    assert affected(jobs("half", raw=raw), jobs("half", raw=raw | {"d": "2"})) == set()


def test_other_settings_of_a_task_prepare_it_anew():
    found = affected(jobs("half"), jobs("half", **{"tasks/b/noise": 0.5}))
    assert found == prepared("b") | {"sheets"} | CHAIN


def test_another_metric_trains_and_searches_a_task_anew_and_prepares_nothing():
    found = affected(jobs("half"), jobs("half", **{"tasks/b/metric": "macro_f1"}))
    assert found == CHAIN
    metrics = {
        job.name.rsplit("/", 1)[1]: job.params.batches[0].metric
        for job in jobs("half", **{"tasks/b/metric": "macro_f1"})
        if job.rule == "train"
    }
    assert metrics == {"a": "accuracy", "b": "macro_f1", "c": "accuracy"}


def test_another_file_of_weights_trains_its_network_anew_and_no_other():
    changes = {
        "networks/small/weights": "w.safetensors",
        "sequences/two": {"network": "unet", "tasks": ["a", "b"]},
    }
    weights = {"small": "1", "unet": "none"}
    before = jobs("half", weights=weights, **changes)
    after = jobs("half", weights=weights | {"small": "2"}, **changes)
    own = first() | of(PACKED, "a") | CHAIN
    assert affected(before, after) == own


# ----------------------------------------------------------------------------------------------
# parameters


def with_every_source():
    """A task of each source, on a network that takes it; segmentation where there is a choice."""
    places = {"path": "x", "image_size": 32}
    tasks = {
        "digits": {"source": "digits", "image_size": 32},
        "generated": TASK | {"image_size": 32},
        "image_folder": places | {"source": "image_folder"},
        "mask_folder": places | {"source": "mask_folder", "classes": ["p", "q"]},
        "table": places | {"source": "table", "kind": "classification", "path": "x.csv"},
        "coco": places | {"source": "coco", "train": {"images": "i", "annotations": "t.json"}},
        "cub200": places | {"source": "cub200"},
        "torchvision": places
        | {"source": "torchvision", "dataset": "MNIST", "kind": "classification"},
    }
    assert sorted(tasks) == kinds(SOURCES)
    sequence = {"network": "unet", "tasks": list(tasks)}
    changes = {f"tasks/{name}": task for name, task in tasks.items()}
    return jobs(tasks="a", **changes, **{"sequences/one": sequence})


def keys_in(value):
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys_in(one)}
    return {key for one in value for key in keys_in(one)} if isinstance(value, list) else set()


def test_a_key_of_a_source_is_in_the_jobs_of_its_tasks_alone():
    own = {name: set(source(name).model_fields) - set(Task.model_fields) for name in kinds(SOURCES)}
    common = {"kind", "classes", "seed", "path"}  # keys of other things as well
    for job in with_every_source():
        keys = keys_in(json.loads(job.text)["params"])
        for name, fields_of in own.items():
            if job.title == f"prepare {name}":
                assert fields_of <= keys
            elif job.rule == "prepare":
                assert not keys & (fields_of - own[job.name])
            else:
                assert not keys & (fields_of - common)


def test_what_others_use_is_no_parameter_of_prepared_data():
    changes = {"tasks/b/training": {"epochs": 9}, "training/batch_size": 8, "threads": 3}
    found = affected(jobs("half"), jobs("half", **changes))
    assert not {title for title in found if title.startswith(("prepare", "sheets"))}


def test_parameters_come_back_from_their_text_as_they_were():
    masks = {"sequences/two": {"network": "unet", "tasks": ["m", "digits"]}}
    series = {"network": "small", "tasks": {"of": "a", "permuted": 2}}
    others = masks | WIDER | {"sequences/three": series}
    planned = [*jobs(seeds=[0, 1], orders="all", **others), *with_every_source()]
    planned += on_a_file("half")
    seen = set()
    for job in planned:
        text = json.dumps(json.loads(job.text)["params"])
        assert type(job.params).model_validate_json(text) == job.params, job.title
        assert json.dumps(json.loads(job.text), sort_keys=True) == job.text
        seen.add(type(job.params))
    assert seen == set(parameter_classes()) - {type(None)}


def test_the_text_of_a_job_has_every_setting_though_nobody_gave_it():
    """So that another default makes a result anew."""
    text = {job.title: job.text for job in jobs()}
    (training,) = (text[title] for title in of(["train"], "a/b", method="ewc"))
    assert '"strength": 1000.0' in training
    (searched,) = (text[title] for title in of(["search"], "a", method="adaptive"))
    assert all(f'"{name}"' in searched for name in Search.model_fields)
    assert all(f'"{name}"' in text["prepare a"] for name in Task.model_fields)


# ----------------------------------------------------------------------------------------------
# pictures, each from few files


def test_each_search_has_a_picture_and_each_task_of_a_sequence_one_of_its_mistakes():
    network = {"sequences/one/network": "unet"}
    found = jobs("adaptive", "half", "fine", tasks="am", **network)
    searches = of(["trace"], "a", "a/m", method="adaptive", network="unet")
    assert pictures(found) == searches | {"mistakes one.a", "mistakes one.m", "masks one.m"}


def test_pictures_of_mistakes_show_the_first_seed():
    found = jobs("half", tasks="ab", seeds=[7, 8])
    (own,) = [job for job in found if job.title == "mistakes one.a"]
    assert own.inputs["scores"] == ("nodes/small/half/seed7/a/b/scores.json",)


def test_a_picture_is_drawn_anew_where_what_it_shows_is_made_anew():
    before = jobs("adaptive", "half")
    change = {"methods/adaptive/ratio/budget": 9}
    mistakes = {f"mistakes one.{task}" for task in "abc"}
    searches = of(["trace"], "a", "a/b", "a/b/c", method="adaptive")
    assert pictures(would_run(before, jobs("adaptive", "half", **change))) == mistakes | searches
    assert pictures(would_run(before, jobs("half"))) == mistakes  # with a row less
    of_half = jobs("adaptive", "half", **{"methods/half/ratio": 0.6})
    assert pictures(would_run(before, of_half)) == mistakes
    longer = jobs("adaptive", "half", tasks="abcd")
    new = {"mistakes one.d"} | of(["trace"], "a/b/c/d", method="adaptive")
    assert pictures(would_run(before, longer)) == mistakes | new


def test_what_jobs_read_and_write_grows_with_the_nodes_and_not_with_their_square():
    """The record of each output names all inputs of its job."""

    def names(sequences):
        own = {f"sequences/s{n}": {"network": "small", "tasks": order} for n, order in sequences}
        found = jobs("adaptive", "half", tasks="abcd", **own)
        return sum(len(job.all_inputs) * len(job.all_outputs) for job in found)

    orders = list(enumerate(map(list, itertools.permutations("abcd"))))[1:]
    few, twice_as_many = names(orders[:8]), names(orders[:16])
    assert twice_as_many < 2.2 * few


# ----------------------------------------------------------------------------------------------
# the classes of parameters

# the user's own
SECTIONS = (Task, Search, BackboneNetwork, DecoderNetwork, PerceptronNetwork, PluginNetwork)


def parameter_classes():
    """The classes of all steps' parameters."""
    folder = Path(parameters.__path__[0])
    modules = [import_module(f"acll.parameters.{path.stem}") for path in folder.glob("[a-z]*.py")]
    return sorted(
        {
            one
            for module in modules
            for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, Params) and one not in (Params, Settings)
        }
        - {import_module("acll.parameters.node").NodeParams},
        key=lambda one: one.__name__,
    )


def inner(annotation):
    if isinstance(annotation, type):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from inner(argument)


def with_defaults(settings, seen):
    """The fields that have a default, of a class and of all within it."""
    if settings in seen or not isinstance(settings, type) or issubclass(settings, SECTIONS):
        return []
    seen.add(settings)
    found, annotations = [], []
    if issubclass(settings, BaseModel):
        annotations = [field.annotation for field in settings.model_fields.values()]
        found = [
            f"{settings.__name__}.{name}"
            for name, field in settings.model_fields.items()
            if not field.is_required()
        ]
    elif is_dataclass(settings):
        annotations = list(typing.get_type_hints(settings).values())
        found = [
            f"{settings.__name__}.{field.name}"
            for field in fields(settings)
            if field.default is not MISSING or field.default_factory is not MISSING
        ]
    for annotation in annotations:
        for one in inner(annotation):
            found += with_defaults(one, seen)
    return found


def test_no_parameter_has_a_default():
    """One that is forgotten must not pass as one that was given."""
    seen: set[type] = set()
    assert [name for one in parameter_classes() for name in with_defaults(one, seen)] == []
    assert {"Schedule", "Batches", "NodeParams", "Run", "LastPacked"} <= {
        one.__name__ for one in seen
    }


STEPS = Path(parameters.__path__[0]).parent / "steps"


def annotations_of_main(path):
    """Of a step, without its imports, which take seconds."""
    (main,) = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert not main.args.args
    return {one.arg: ast.unparse(one.annotation) for one in main.args.kwonlyargs}


def test_every_rule_has_a_step_whose_arguments_are_those_of_its_jobs():
    for rule, (inputs, outputs) in ARGUMENTS.items():
        hints = annotations_of_main(STEPS / f"{rule}.py")
        assert {*inputs, *outputs} == set(hints) - {
            "params", "key", "report", "processes",
        }  # fmt: skip
        assert hints["params"] in {one.__name__ for one in parameter_classes()}
        said = command(rule)
        assert all(f"{{input.{name}:q}}" in said for name in inputs)
        assert all(f"{{output.{name}:q}}" in said for name in outputs)


def test_a_network_that_cannot_take_what_is_prepared_is_refused_before_anything_is_trained(
    tmp_path,
):
    settings = {
        "name": "tiny",
        "tasks": {"a": {"source": "digits", "image_size": 8}},
        "networks": {"grey": {"backbone": "resnet_small"}},
        "sequences": {"one": {"network": "grey", "tasks": ["a"]}},
        "methods": {"half": {"ratio": 0.5}},
    }
    path, results = tmp_path / "tiny.yaml", tmp_path / "results"
    path.write_text(yaml.safe_dump(settings))
    (job,) = (job for job in planned(path, tmp_path, results).jobs if job.rule == "prepare")
    (summary,) = job.outputs["summary"]
    (results / "data").mkdir(parents=True)
    (results / summary).write_text(json.dumps({"channels": 3}))
    record = results / record_path(summary)
    record.parent.mkdir(parents=True)
    content = {"code": "", "input": [], "input_checksums": {}, "params": [repr(job.text)]}
    record.write_text(json.dumps(content))
    planned(path, tmp_path, results)
    settings["networks"]["wide"] = {"backbone": "resnet_small", "channels": 4}
    settings["sequences"]["two"] = {"network": "wide", "tasks": ["a"]}
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(
        UserError, match=r"tasks\.a: its images have 3 channels, a network .* takes 4"
    ):
        planned(path, tmp_path, results)


def test_more_paths_than_a_command_line_may_hold_reach_a_step(tmp_path):
    paths = " ".join(
        f"nodes/small/half/seed0/a/{number:040}/scores.json" for number in range(40_000)
    )
    params = {"params": {"nodes": [], "runs": [], "searches": [], "budgets": {}, "fixed": {}}}
    filled = {"{input.scores:q}": paths, "{output.tables:q}": "tables/x.csv", "{output:q}": "x"}
    filled |= {"{params.job:q}": shlex.quote(json.dumps(params))}
    filled |= {"{log.text:q}": "log", "{log.digests:q}": "digests"}
    text = command("tables").replace("{input.summaries:q}", "").replace("{input.trials:q}", "")
    text = text.replace("{{", "{").replace("}}", "}")
    for placeholder, value in filled.items():
        text = text.replace(placeholder, value)
    assert len(text) > 2**21  # what Linux takes
    (tmp_path / "script").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        ["bash", "script"], cwd=tmp_path, env=environment, check=False, capture_output=True
    )
    # it was told of 40,000 files for no node
    assert "zip() argument 2 is longer than argument 1" in (tmp_path / "log").read_text()


# --------------------------------------------------------------------------------------------------
# what goes first


def test_the_longest_chain_is_that_of_a_method_that_searches():
    """Three tasks: training, search and retraining of each, training and retraining, training."""
    chains = longest_chains(jobs("adaptive", "at_once", "fine"))
    assert chains["train", "small/learned/seed0/a"] == 9  # by scores: of the searching one
    assert chains["train", "small/adaptive/seed0/a/b"] == 6
    assert chains["retrain", "small/adaptive/seed0/a/b/c"] == 1
    assert chains["prune", "small/adaptive/seed0/a/b/c"] == 1
    assert chains["train", "small/dense/seed0/a"] == 6  # released at once
    assert chains["train", "small/fine/seed0/a/b"] == 2
    assert chains["tables", ""] == 0
    assert chains["prepare", "a"] == 9


# --------------------------------------------------------------------------------------------------
# series: what is decoded once


def series(**changes):
    """The jobs of a sequence of variants of the task a."""
    return jobs("half", **{"sequences/one/tasks": {"of": "a"} | changes})


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"permuted": 3}, ["permuted_1", "permuted_2", "permuted_3"]),
        ({"noise": [0.1, 0.2]}, ["noise_0_1", "noise_0_2"]),
        ({"rotated": [10, 20]}, ["rotated_10", "rotated_20"]),
        ({"train_samples": [8, 9]}, ["train_samples_8", "train_samples_9"]),
    ],
)
def test_a_series_is_decoded_once_and_its_tasks_are_made_from_that(changes, names):
    whole = {"sequences/one/tasks": {"of": "a"} | changes}
    planned_jobs = jobs("half", **whole)
    assert {job.title for job in planned_jobs if job.rule == "prepare"} == {"prepare a"}
    own = {job.title: job for job in planned_jobs if job.rule == "vary"}
    assert own.keys() == {f"vary a_{name}" for name in names}
    for job in own.values():
        assert set(job.all_inputs) == {
            "data/a.train.safetensors", "data/a.test.safetensors", "data/a.json"
        }  # fmt: skip
    # nothing that is learned reads the task itself
    reading = {job.rule for job in planned_jobs if "data/a.train.safetensors" in job.all_inputs}
    assert reading == {"vary"}


def test_a_longer_series_makes_what_is_new_in_it_alone():
    before, after = series(permuted=2), series(permuted=3)
    found = {title for title in affected(before, after) if title.startswith(("prepare", "vary"))}
    assert found == {"vary a_permuted_3"}
    assert not {title for title in affected(before, after) if title.endswith("a_permuted_2")}


def test_raw_data_or_a_key_of_the_source_make_all_tasks_of_a_series_anew():
    raw = raw_configuration("half", **{"sequences/one/tasks": {"of": "a", "noise": [0.1, 0.2]}})
    made = {"prepare a", "vary a_noise_0_1", "vary a_noise_0_2"}
    before = plan(parse(raw), {"a": "1"})
    assert made <= affected(before, plan(parse(raw), {"a": "2"}))
    seed = put(raw, {"tasks/a/split_seed": 5})
    assert made <= affected(before, plan(parse(seed), {"a": "1"}))


def test_what_changes_splits_or_masks_is_decoded_by_itself():
    """Parts of the classes, and masks that are rotated."""
    parts = {job.title for job in series(split=2) if job.rule in ("prepare", "vary")}
    assert parts == {"prepare a_split_1_of_2", "prepare a_split_2_of_2"}
    changes = {
        "sequences/one": {"network": "unet", "tasks": {"of": "m", "rotated": [10, 20]}},
    }
    turned = {job.title for job in jobs("half", **changes) if job.rule in ("prepare", "vary")}
    assert turned == {"prepare m_rotated_10", "prepare m_rotated_20"}


@pytest.mark.parametrize(
    "sequences",
    [
        {
            "one/tasks": ["a", "a_few"],
            "two": {"network": "small", "tasks": {"of": "a_few", "permuted": 2}},
        },
        {"one/tasks": OF_FEW},
        {"one/tasks": {"of": "a", "rotated": [0, 10]}},
        {"one/tasks": ["a", "a_few", "a_few_turned"]},
    ],
)
def test_no_task_is_made_from_a_variant_and_no_file_is_made_twice(sequences):
    more = {"tasks/a_few": TASK | {"train_samples": 9}}
    more["tasks/a_few_turned"] = TASK | {"train_samples": 9, "rotate": 5}
    own = {f"sequences/{key}": value for key, value in sequences.items()}
    planned_jobs = jobs("half", **more, **own)
    outputs = [path for job in planned_jobs for path in job.all_outputs]
    assert len(outputs) == len(set(outputs))
    assert {job.title for job in planned_jobs if job.rule == "prepare"} == {"prepare a"}
    sources = {path for job in planned_jobs if job.rule == "vary" for path in job.all_inputs}
    assert sources == {"data/a.train.safetensors", "data/a.test.safetensors", "data/a.json"}


def test_a_series_of_a_task_of_few_samples_has_as_few():
    few = {"tasks/a/train_samples": 12, "sequences/one/tasks": {"of": "a", "permuted": 2}}
    own = [job for job in jobs("half", **few) if job.rule == "vary"]
    assert [job.params.train_samples for job in own] == [None, None]
    assert {job.inputs["source_train"] for job in own} == {("data/a.train.safetensors",)}


def test_networks_of_a_series_are_known_where_it_is_decoded():
    raw = raw_configuration("half", **{"sequences/one/tasks": {"of": "a", "permuted": 2}})
    assert parse(raw).channels_by_task() == {"a": [3]}
    assert parse(raw).prepared() == {"a"}


def test_a_series_is_planned_where_the_raw_data_of_its_task_are_known_from_a_record_alone(tmp_path):
    settings = {
        "name": "tiny",
        "tasks": {"a": {"source": "image_folder", "path": "pets", "image_size": 16}},
        "networks": {"small": {"backbone": "resnet_small"}},
        "sequences": {"one": {"network": "small", "tasks": {"of": "a", "permuted": 2}}},
        "methods": {"half": {"ratio": 0.5}},
    }
    path, results = tmp_path / "tiny.yaml", tmp_path / "results"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="there is no such file or folder"):
        planned(path, tmp_path, results)
    (job,) = (job for job in plan(parse(settings), {"a": "known"}) if job.rule == "prepare")
    record = results / record_path(job.outputs["train"][0])
    record.parent.mkdir(parents=True)
    content = {"code": "", "input": [], "input_checksums": {}, "params": [repr(job.text)]}
    record.write_text(json.dumps(content))
    found = {one.rule: one for one in planned(path, tmp_path, results).jobs}
    assert found["prepare"].external_digest == "known"
    configuration = parse(settings)
    names = raw_identities(configuration, configuration.tasks, tmp_path / "data", results, tmp_path)
    assert set(names.values()) == {"known"}
    assert len(names) == 3
