"""The tree of prefixes."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from acll.config.checks import parse
from acll.config.tree import nodes, orders, runs
from acll.node import Node
from acll.plan import plan

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
        (run.method, "".join(run.tasks)): [
            ["".join(prefix) for prefix in stage] for stage in run.stages
        ]
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
    assert Node.of(node.name) == node


@PROPERTY
@given(sequences)
def test_first_tasks_have_two_dense_networks_that_methods_share_and_later_ones_their_own(drawn):
    settings_drawn = configuration(*drawn, methods=METHODS, seeds=(0, 1))
    found = nodes(settings_drawn)
    first = {node for node in found if node.position == 1}
    later = {node for node in found if node.position > 1}
    expected = {
        f"small/{'dense' if node.method == 'fine' else 'learned'}/seed{node.seed}/{node.task}"
        for node in first
    }
    assert len(expected) == 2 * len(first) / len(METHODS)
    expected |= {node.name for node in later}
    trained = [job for job in plan(settings_drawn) if job.rule == "train"]
    assert sorted(job.name for job in trained) == sorted(expected)
    for job in trained:
        assert job.all_outputs == (f"nodes/{job.name}/dense.safetensors",)


def test_what_is_searched_depends_on_the_method():
    found = plan(configuration("a", methods=METHODS))
    assert [job.name for job in found if job.rule == "search"] == ["small/adaptive/seed0/a"]
