"""The tree of prefixes, and what steps depend on in code."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from acll.closure import closure, code_of
from hypothesis import given, settings
from hypothesis import strategies as st

from acll import closure as closures
from acll.config.checks import parse
from acll.tree import Node, nodes, orders, runs, searches

PROPERTY = settings(max_examples=25, deadline=None)
NAMES = ("a", "b", "c", "d")


def configuration(*sequences, methods=None, seeds=(0,), which="given"):
    """Sequences of tasks a to d on the network `small`."""
    return parse(
        {
            "name": "x",
            "tasks": {name: {"source": "digits", "image_size": 16} for name in NAMES},
            "networks": {"small": {"backbone": "resnet_small"}},
            "sequences": {
                f"s{index}": {"network": "small", "tasks": list(s)}
                for index, s in enumerate(sequences)
            },
            "methods": methods or {"half": {"ratio": 0.5}},
            "seeds": list(seeds),
            "orders": which,
        }
    )


METHODS = {
    "adaptive": {"ratio": {"search": "tpe"}},
    "half": {"ratio": 0.5},
    "fine": {"type": "finetuning"},
}
sequences = st.lists(
    st.permutations(NAMES).flatmap(lambda all_: st.integers(1, 4).map(lambda n: all_[:n])),
    min_size=1,
)


def prefixes(found):
    return ["".join(node.prefix) for node in found]


# --------------------------------------------------------------------------------------------------
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
    assert {(node.method, node.seed) for node in found} == {
        (name, seed) for name in METHODS for seed in (3, 5)
    }


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
    assert (
        len(nodes(configuration(*orders)))
        == sum(math.perm(3, length) for length in (1, 2, 3))
        == 15
    )


@PROPERTY
@given(st.permutations(NAMES), st.integers(1, 40))
def test_random_orders_differ_and_are_the_same_whatever_order_was_given(tasks, count):
    drawn = orders(tasks, f"{count} random")
    assert len(set(drawn)) == len(drawn) == min(count, math.factorial(4))
    assert {tuple(sorted(order)) for order in drawn} == {NAMES}
    if count < math.factorial(4):
        assert drawn == orders(NAMES, f"{count} random")


def test_orders_are_those_asked_for():
    assert orders("ba", "given") == [("b", "a")]
    assert sorted(orders("abc", "all")) == sorted(
        tuple(one) for one in ("abc", "acb", "bac", "bca", "cab", "cba")
    )


def test_all_orders_share_the_nodes_with_which_they_begin():
    found = configuration("abc", methods={"half": {"ratio": 0.5}}, which="all")
    assert len(nodes(found)) == 15
    assert sum(len(run.tasks) for run in runs(found)) == 18  # what a flat loop would learn


def test_networks_of_single_tasks_and_of_all_at_once_are_no_prefixes():
    methods = {
        "alone": {"type": "individual"},
        "joint": {"type": "joint"},
        "fine": {"type": "finetuning"},
    }
    found = configuration("cab", methods=methods, which="all")
    by_method = {name: [node for node in nodes(found) if node.method == name] for name in methods}
    assert prefixes(by_method["alone"]) == ["a", "b", "c"]
    assert [(node.prefix, node.parent, node.tasks) for node in by_method["joint"]] == [
        (("a+b+c",), None, ("a", "b", "c"))
    ]
    assert by_method["joint"][0].folder == "nodes/small/joint/seed0/a+b+c"
    assert len(by_method["fine"]) == 15
    stages = {
        (run.method, "".join(run.tasks)): [prefixes(stage) for stage in run.stages]
        for run in runs(found)
    }
    assert stages["alone", "bca"] == [["b"], ["b", "c"], ["b", "c", "a"]]
    assert stages["joint", "bca"] == [[], [], ["a+b+c"]]
    assert stages["fine", "bca"] == [["b"], ["bc"], ["bca"]]


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


# --------------------------------------------------------------------------------------------------
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
        ("prune", {"hyperopt"}),
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
        ("prune", {"packing/prune.py", "networks/build.py"}, {"training/loop.py", "search/run.py"}),
        (
            "evaluate",
            {"evaluation/score.py", "packing/packed_file.py"},
            {"search/run.py", "packing/prune.py"},
        ),
        (
            "prepare",
            {"data/sources/generated.py", "data/sources/folders.py", "data/splits.py"},
            {"training/loop.py", "tree.py"},
        ),
        (
            "tables",
            {"evaluation/tables.py"},
            {"evaluation/score.py", "training/loop.py", "tree.py"},
        ),
    ],
)
def test_steps_depend_on_the_modules_that_they_use_and_no_others(step, depends, other):
    files, _ = parts(step)
    assert depends <= files
    assert not other & files


@pytest.mark.parametrize("step", ["tables", "prepare"])
def test_every_module_that_a_step_loads_is_among_those_it_depends_on(step):
    """Packages' `__init__` files are empty, but for the topmost, which no step takes anything from."""
    code = (
        f"import acll.steps.{step}, sys; print(*(m.__file__ for n, m in sys.modules.items() "
        "if n.startswith('acll')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(loaded) > 4
    files, _ = closure(f"acll.steps.{step}")
    others = {path for path in map(Path, loaded) if path not in files}
    assert all(path.stat().st_size == 0 for path in others - {PACKAGE / "__init__.py"})


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
        (
            "training/learner.py",
            {"adopt", "consolidate", "distil", "importance", "join", "retrain", "search", "train"},
        ),
        ("baselines/lwf.py", {"distil"}),
        ("baselines/ewc.py", {"consolidate", "importance"}),
        ("baselines/joint.py", {"join"}),
        ("search/strategies.py", {"search"}),
        ("data/sources/generated.py", {"prepare"}),
        ("evaluation/score.py", {"evaluate"}),
        ("evaluation/figures.py", {"figures"}),
        ("packing/prune.py", {"prune", "search"}),
        ("settings.py", set(STEPS)),
        ("config.py", set()),
        ("tree.py", set()),
        ("cli/networks.py", set()),
        ("serving/model.py", set()),
        ("packing/load.py", {"evaluate", "examples"}),
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
