"""The tree of prefixes, what steps depend on in code, and the tables."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll import closure as closures
from acll.closure import closure, code_of
from acll.config import parse
from acll.evaluation.tables import (
    COLUMNS,
    amiss,
    data_table,
    final_table,
    metrics_of,
    plot_table,
    readable,
    scores_table,
    summary_table,
)
from acll.tree import Node, nodes, searches

PROPERTY = settings(max_examples=25, deadline=None)
NAMES = ("a", "b", "c", "d")


def configuration(*sequences, methods=None, seeds=(0,)):
    """Sequences of tasks a to d on the network `small`."""
    return parse(
        {
            "name": "x",
            "tasks": {name: {"source": "digits", "image_size": 16} for name in NAMES},
            "networks": {"small": {"backbone": "resnet_small"}},
            "sequences": {f"s{index}": {"network": "small", "tasks": list(s)} for index, s in enumerate(sequences)},
            "methods": methods or {"half": {"ratio": 0.5}},
            "seeds": list(seeds),
        }
    )


METHODS = {"adaptive": {"ratio": {"search": "tpe"}}, "half": {"ratio": 0.5}, "fine": {"type": "finetuning"}}
sequences = st.lists(st.permutations(NAMES).flatmap(lambda all_: st.integers(1, 4).map(lambda n: all_[:n])), min_size=1)


def prefixes(found):
    return ["".join(node.prefix) for node in found]


# --------------------------------------------------------------------------------------------------------------------
# the tree


def test_sequences_that_begin_alike_share_their_nodes():
    assert prefixes(nodes(configuration("abc", "abd", "b"))) == ["a", "b", "ab", "abc", "abd"]


@PROPERTY
@given(sequences)
def test_there_is_one_node_for_each_prefix_method_and_seed(drawn):
    found = nodes(configuration(*drawn, methods=METHODS, seeds=(3, 5)))
    wanted = {"".join(tasks[:length]) for tasks in drawn for length in range(1, len(tasks) + 1)}
    assert len(found) == len(set(found)) == 6 * len(wanted)
    assert set(prefixes(found)) == wanted
    assert {(node.method, node.seed) for node in found} == {(name, seed) for name in METHODS for seed in (3, 5)}


@PROPERTY
@given(sequences)
def test_parents_come_before_their_children(drawn):
    found = nodes(configuration(*drawn, methods=METHODS))
    for index, node in enumerate(found):
        assert (node.parent is None) == (node.position == 1)
        assert node.parent is None or node.parent in found[:index]


@PROPERTY
@given(sequences)
def test_folders_are_unique_and_nest_as_prefixes_do(drawn):
    found = nodes(configuration(*drawn, methods=METHODS, seeds=(0, 1)))
    assert len({node.folder for node in found}) == len(found)
    for node in found:
        if node.parent is not None:
            assert node.folder == f"{node.parent.folder}/{node.task}"


def test_all_orders_of_three_tasks_cost_a_tree():
    orders = ("abc", "acb", "bac", "bca", "cab", "cba")
    assert len(nodes(configuration(*orders))) == sum(math.perm(3, length) for length in (1, 2, 3)) == 15


def test_appending_a_task_adds_one_node_for_each_method_and_seed_and_changes_no_other():
    before = nodes(configuration("abc", methods=METHODS, seeds=(0, 1)))
    after = nodes(configuration("abcd", methods=METHODS, seeds=(0, 1)))
    assert set(before) < set(after)
    assert {node.prefix for node in set(after) - set(before)} == {("a", "b", "c", "d")}
    assert len(after) == len(before) + 6


def test_a_node_knows_its_task_its_place_and_its_folder():
    node = Node("small", "half", 3, ("a", "b"))
    assert (node.task, node.position) == ("b", 2)
    assert node.parent == Node("small", "half", 3, ("a",))
    assert node.folder == "nodes/small/half/seed3/a/b"


@PROPERTY
@given(sequences)
def test_dense_networks_of_first_tasks_are_shared_by_methods_and_no_others(drawn):
    found = nodes(configuration(*drawn, methods=METHODS, seeds=(0, 1)))
    first = [node for node in found if node.position == 1]
    later = [node for node in found if node.position > 1]
    assert len({node.dense for node in first}) == len(first) / len(METHODS)
    assert len({node.dense for node in later}) == len(later)
    assert not {node.dense for node in first} & {node.dense for node in later}
    for node in first:
        assert node.dense == f"nodes/small/dense/seed{node.seed}/{node.task}/dense.safetensors"
    for node in later:
        assert node.dense == f"{node.folder}/dense.safetensors"


def test_what_is_searched_depends_on_the_method():
    found = configuration("a", methods=METHODS)
    assert {node.method: searches(found, node) for node in nodes(found)} == {
        "adaptive": True,
        "half": False,
        "fine": False,
    }


# --------------------------------------------------------------------------------------------------------------------
# what steps depend on in code

PACKAGE = Path(closures.__file__).parent
STEPS = sorted(path.stem for path in (PACKAGE / "steps").glob("[a-z]*.py"))


def parts(step):
    files, libraries = closure(f"acll.steps.{step}")
    return {path.relative_to(PACKAGE).as_posix() for path in files}, libraries


@pytest.mark.parametrize("step", STEPS)
def test_a_step_depends_on_itself_and_on_what_all_steps_share(step):
    files, _ = parts(step)
    assert {f"steps/{step}.py", "steps/_run.py", "settings.py", "errors.py"} <= files


@pytest.mark.parametrize(
    ("step", "without"),
    [
        ("tables", {"torch", "torchvision", "segmentation_models_pytorch", "hyperopt"}),
        ("figures", {"torch", "torchvision", "segmentation_models_pytorch", "hyperopt"}),
        ("prepare", {"torch", "segmentation_models_pytorch", "hyperopt"}),
        ("sheet", {"torch", "torchvision", "segmentation_models_pytorch", "hyperopt"}),
        ("prune", {"torchvision", "segmentation_models_pytorch", "hyperopt"}),
    ],
)
def test_steps_without_a_network_need_none_of_its_libraries(step, without):
    assert not parts(step)[1] & without
    assert not set(code_of(f"acll.steps.{step}")) & without


@pytest.mark.parametrize(
    ("step", "depends", "other"),
    [
        (
            "train",
            {"training/loop.py", "networks/build.py", "data/batches.py"},
            {"search/run.py", "data/sources/generated.py"},
        ),
        (
            "search",
            {"training/loop.py", "search/run.py", "search/strategies.py", "packing/prune.py"},
            {"data/sources/folders.py"},
        ),
        ("prune", {"packing/prune.py"}, {"training/loop.py", "networks/build.py", "search/run.py"}),
        ("evaluate", {"evaluation/score.py", "packing/file.py"}, {"search/run.py", "packing/prune.py"}),
        (
            "prepare",
            {"data/sources/generated.py", "data/sources/folders.py", "data/splits.py"},
            {"training/loop.py", "tree.py"},
        ),
        ("tables", {"evaluation/tables.py"}, {"evaluation/score.py", "training/loop.py", "tree.py"}),
    ],
)
def test_steps_depend_on_the_modules_that_they_use_and_no_others(step, depends, other):
    files, _ = parts(step)
    assert depends <= files
    assert not other & files


@pytest.mark.parametrize("step", ["tables", "prepare"])
def test_every_module_that_a_step_loads_is_among_those_it_depends_on(step):
    """Packages' `__init__` files are empty and so need not be."""
    code = (
        f"import acll.steps.{step}, sys; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('acll')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) > 4
    files, _ = closure(f"acll.steps.{step}")
    assert all(path.stat().st_size == 0 for path in map(Path, loaded) if path not in files)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package to be edited."""
    shutil.copytree(PACKAGE, tmp_path / "acll", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(closures, "_root", lambda: tmp_path / "acll")
    yield tmp_path / "acll"
    closures._imports.cache_clear()


def codes():
    return {step: code_of(f"acll.steps.{step}")["code"] for step in STEPS}


def changed(before):
    return {step for step, code in codes().items() if code != before[step]}


def test_the_code_of_a_step_does_not_depend_on_where_the_package_lies(copied, monkeypatch):
    there = codes()
    monkeypatch.undo()
    assert codes() == there


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("training/learner.py", {"adopt", "retrain", "search", "train"}),
        ("search/strategies.py", {"search"}),
        ("data/sources/generated.py", {"prepare"}),
        ("evaluation/score.py", {"evaluate"}),
        ("evaluation/figures.py", {"figures"}),
        ("packing/prune.py", {"prune", "search"}),
        ("settings.py", set(STEPS)),
        ("config.py", set()),
        ("tree.py", set()),
        ("cli.py", set()),
    ],
)
def test_an_edited_module_changes_the_code_of_exactly_the_steps_that_use_it(copied, module, steps):
    before = codes()
    (copied / module).write_text((copied / module).read_text() + "\n# edited\n")
    assert changed(before) == steps


def test_imports_within_functions_count(copied):
    (copied / "steps/late.py").write_text(
        "def late():\n    from acll.data.sources import generated\n    import torch.nn\n"
    )
    files, libraries = closure("acll.steps.late")
    assert copied / "data/sources/generated.py" in files
    assert libraries >= {"torch", "numpy"}


def test_modules_that_import_each_other_are_no_trouble(copied):
    (copied / "one.py").write_text("import acll.two\n")
    (copied / "two.py").write_text("from acll import one\n")
    assert closure("acll.one")[0] >= {copied / "one.py", copied / "two.py"}


# --------------------------------------------------------------------------------------------------------------------
# tables


def row(task, position, score, exact=True, choice=None, owned=0.25):
    return {
        "task": task,
        "position": position,
        "kind": "classification",
        "metric": "accuracy",
        "score": score,
        "samples": 10,
        "bit_exact": exact,
        "owned_share": owned,
        "choice": choice or {},
    }


CHOICE = {"ratio_searched": 0.9, "ratio": 0.75, "cap": 0.25, "capped": True, "threshold": 0.8}
FOUND = {
    ("small", "half", 0, ("a",)): {"rows": [row("a", 1, 0.9, choice=CHOICE)], "free_share": 0.75, "device": "cpu"},
    ("small", "half", 0, ("a", "b")): {
        "rows": [row("a", 1, 0.9, choice=CHOICE), row("b", 2, 0.5)],
        "free_share": 0.5,
        "device": "cpu",
    },
    ("small", "fine", 0, ("a",)): {"rows": [row("a", 1, 0.95, owned=None)], "free_share": None, "device": "cpu"},
    ("small", "fine", 0, ("a", "b")): {
        "rows": [row("a", 1, 0.25, False, owned=None), row("b", 2, 0.75, owned=None)],
        "free_share": None,
        "device": "cpu",
    },
}


def scores_of(found=FOUND):
    return scores_table(found)


def test_scores_have_a_row_for_each_node_and_task_with_all_columns():
    table = scores_of()
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["method"], table["prefix"], table["task"], table["position"])) == [
        ("fine", "a", "a", 1),
        ("fine", "a+b", "a", 1),
        ("fine", "a+b", "b", 2),
        ("half", "a", "a", 1),
        ("half", "a+b", "a", 1),
        ("half", "a+b", "b", 2),
    ]


def test_forgetting_is_the_score_when_learned_minus_the_score_now():
    table = scores_of().set_index(["method", "prefix", "task"])
    forgotten = table.loc[("fine", "a+b", "a")]
    assert (forgotten["score_when_learned"], forgotten["score"]) == (0.95, 0.25)
    assert forgotten["forgetting"] == pytest.approx(0.7)
    assert (table.drop(("fine", "a+b", "a"))["forgetting"] == 0).all()
    assert (table["score_when_learned"] - table["forgetting"]).tolist() == pytest.approx(table["score"].tolist())


def test_a_task_that_got_better_has_negative_forgetting():
    found = {
        ("small", "fine", 0, ("a",)): {"rows": [row("a", 1, 0.5)], "free_share": 0.0, "device": "cpu"},
        ("small", "fine", 0, ("a", "b")): {
            "rows": [row("a", 1, 0.6), row("b", 2, 0.5)],
            "free_share": 0.0,
            "device": "cpu",
        },
    }
    assert scores_of(found)["forgetting"].tolist() == pytest.approx([0, -0.1, 0])


def test_the_ratios_of_a_search_have_columns_of_their_own_and_are_empty_without_one():
    table = scores_of()
    searched = table[(table["method"] == "half") & (table["task"] == "a")]
    for name in ("ratio_searched", "ratio", "cap", "capped"):
        assert searched[name].tolist() == [CHOICE[name]] * 2
        assert table.drop(searched.index)[name].isna().all()


def test_the_order_in_which_nodes_come_does_not_matter():
    assert scores_of(dict(reversed(FOUND.items()))).equals(scores_of())


def test_the_final_table_has_the_ends_of_sequences_only():
    final = final_table(scores_of(), {"both": ("small", ["a", "b"]), "first": ("small", ["a"])})
    assert final.columns[0] == "sequence"
    told = set(zip(final["sequence"], final["method"], final["task"]))
    assert len(final) == len(told)
    assert told == {("both", method, task) for method in ("fine", "half") for task in "ab"} | {
        ("first", method, "a") for method in ("fine", "half")
    }


def summary_of(found=FOUND):
    return summary_table(final_table(scores_of(found), {"both": ("small", ["a", "b"])})).set_index("method")


def test_the_summary_has_mean_and_worst_over_tasks():
    half, fine = summary_of().loc["half"], summary_of().loc["fine"]
    assert (half["seeds"], half["mean_score"], half["worst_score"], half["mean_forgetting"]) == (1, 0.7, 0.5, 0)
    assert (half["bit_exact"], half["owned_share"], half["free_share"]) == (True, 0.5, 0.5)
    assert (fine["mean_score"], fine["worst_score"]) == (0.5, 0.25)
    assert fine["mean_forgetting"] == pytest.approx(0.35)
    assert not fine["bit_exact"]
    assert np.isnan([fine["owned_share"], fine["free_share"]]).all()


def test_the_summary_is_the_mean_over_seeds_of_what_each_seed_has():
    other = {
        (network, method, 1, prefix): node | {"rows": [one | {"score": one["score"] / 2} for one in node["rows"]]}
        for (network, method, _, prefix), node in FOUND.items()
    }
    half = summary_of(FOUND | other).loc["half"]
    assert half["seeds"] == 2
    assert half["mean_score"] == pytest.approx((0.7 + 0.35) / 2)
    assert half["worst_score"] == pytest.approx((0.5 + 0.25) / 2)


def test_one_seed_that_is_not_exact_makes_the_summary_not_exact():
    key = ("small", "half", 1, ("a", "b"))
    other = {
        (*key[:3], ("a",)): FOUND[("small", "half", 0, ("a",))],
        key: {"rows": [row("a", 1, 0.9, exact=False), row("b", 2, 0.5)], "free_share": 0.5, "device": "cpu"},
    }
    assert not summary_of(FOUND | other).loc["half", "bit_exact"]


def test_metrics_are_the_summary_without_what_is_empty():
    metrics = metrics_of(summary_of().reset_index())
    assert metrics["both"]["half"] == pytest.approx(
        {"mean_score": 0.7, "worst_score": 0.5, "mean_forgetting": 0, "free_share": 0.5}
    )
    assert "free_share" not in metrics["both"]["fine"]


def test_the_plot_has_the_mean_over_seeds_of_each_task_under_one_name():
    other = {
        (network, method, 1, prefix): node | {"rows": [one | {"score": one["score"] / 2} for one in node["rows"]]}
        for (network, method, _, prefix), node in FOUND.items()
    }
    plot = plot_table(final_table(scores_of(FOUND | other), {"both": ("small", ["a", "b"])}))
    assert plot.columns.tolist() == ["result", "score"]
    assert dict(plot.to_numpy().tolist()) == pytest.approx(
        {"both fine a": 0.1875, "both fine b": 0.5625, "both half a": 0.675, "both half b": 0.375}
    )


def test_scores_come_back_from_a_file_as_they_were(tmp_path):
    scores_of().to_csv(tmp_path / "scores.csv", index=False)
    again = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(again, scores_of().fillna(np.nan), check_dtype=False)


SUMMARY = {
    "name": "clean", "source": "table", "kind": "classification", "classes": ["p", "q"], "channels": 3,
    "image_size": [8, 16], "samples": {"test": 3, "train": 9, "val": 2}, "left_out": {}, "warnings": {},
}  # fmt: skip


def test_what_was_left_out_of_the_data_is_counted_in_the_tables():
    final = final_table(scores_of(), {"both": ("small", ["a", "b"])})
    torn = SUMMARY | {"name": "torn", "left_out": {"size": 2, "label": 3}, "warnings": {"near copy": 1}}
    table = data_table([SUMMARY, torn])
    assert amiss([SUMMARY]) == []
    assert amiss([SUMMARY, torn]) == [
        "torn: left out: 2 size, 3 label; warnings: 1 near copy (data/torn.json has the files)"
    ]
    assert table[["task", "height", "width", "train", "val", "test", "left_out", "warnings"]].to_numpy().tolist() == [
        ["clean", 8, 16, 9, 2, 3, 0, 0],
        ["torn", 8, 16, 9, 2, 3, 5, 1],
    ]
    assert readable(final, summary_table(final), ["a remark"]).endswith("\na remark\n")


def test_the_readable_tables_hold_the_scores_and_leave_empty_what_means_nothing():
    final = final_table(scores_of(), {"both": ("small", ["a", "b"])})
    text = readable(final, summary_table(final), [])
    lines = [line for line in text.splitlines() if "accuracy" in line]
    assert len(lines) == 4
    assert "0.2500" in lines[0]
    assert "no" in lines[0].split()
    assert "0.900" in lines[2]
    assert "yes" in lines[2].split()
    assert "nan" not in text.lower()
    assert "None" not in text
