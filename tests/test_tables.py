"""The tables, and the figures of runs in them."""

import math
from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.data.faults import CALLED, DataFault, FaultKind
from acll.evaluation.class_tables import (
    classes_table,
    confusion_table,
    guess_of,
    guessed_tasks,
    mistakes_table,
)
from acll.evaluation.comparison import (
    by_node,
    matrix_of,
    matrix_table,
    paired_table,
    rows_at,
    runs_table,
    summary_table,
)
from acll.evaluation.console import (
    data_warnings,
    for_papers,
    readable,
    remarks_of,
    warnings_of,
)
from acll.evaluation.statistics import (
    backward_transfer,
    capacity,
    forgetting,
    forward_transfer,
    interval,
    intransigence,
)
from acll.evaluation.tables import (
    COLUMNS,
    curves_table,
    data_table,
    final_table,
    metrics_of,
    plot_table,
    read_table,
    scores_table,
)
from acll.node import Node, Run
from acll.training.metrics import mean_iou

PROPERTY = settings(max_examples=25, deadline=None)
NAN = math.nan


# --------------------------------------------------------------------------------------------------
# figures of a run, by hand

MATRIX = np.array([[0.9, NAN, NAN], [0.8, 0.7, NAN], [0.85, 0.5, 0.6]])


def test_forgetting_is_from_the_best_score_before_the_end():
    assert forgetting(MATRIX) == pytest.approx(((0.9 - 0.85) + (0.7 - 0.5)) / 2)
    rising = np.array([[0.5, NAN], [0.6, 0.9]])
    assert forgetting(rising) == pytest.approx(-0.1)


def test_backward_transfer_is_the_change_since_a_task_was_learned():
    assert backward_transfer(MATRIX) == pytest.approx(((0.85 - 0.9) + (0.5 - 0.7)) / 2)


def test_intransigence_is_what_a_network_of_its_own_has_more():
    assert intransigence(MATRIX, np.array([0.9, 0.8, 0.9])) == pytest.approx((0 + 0.1 + 0.3) / 3)


def test_forward_transfer_compares_areas_below_learning_curves():
    alone = [[0.2, 0.4], [0.2, 0.6], [0.5, 0.7]]  # areas 0.3, 0.4, 0.6
    assert forward_transfer(alone, alone) == 0
    faster = [[0.0, 0.0], [0.6, 0.8], [0.7, 0.9]]  # the first task does not count; areas 0.7, 0.8
    assert forward_transfer(faster, alone) == pytest.approx(
        ((0.7 - 0.4) / 0.6 + (0.8 - 0.6) / 0.4) / 2
    )


def test_what_cannot_be_known_is_not_a_number():
    assert np.isnan(forward_transfer([[0.5], []], [[0.5], [0.5]]))
    assert np.isnan(forward_transfer([[0.5], [0.9]], [[0.5], [1.0]]))
    assert (forgetting(np.array([[0.7]])), backward_transfer(np.array([[0.7]]))) == (0, 0)
    assert np.isnan(interval([0.5])[1:]).all()


def test_the_interval_is_that_of_students_t():
    mean, low, high = interval([1.0, 2.0, 3.0])
    half = 4.302653 / np.sqrt(3)  # t of two degrees of freedom at 97.5%, a deviation of 1
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))


def test_capacity_counts_weights_and_compressed_masks():
    assert capacity(0.5, 0) == 0.5
    # ten masks of a bit a weight are 10/32 of the network, of which 22% are left
    assert capacity(0.5, 10) == pytest.approx(0.5 + 0.22 * 10 / 32)


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_what_never_changes_is_neither_forgotten_nor_transferred(scores):
    tasks = len(scores)
    matrix = np.where(np.tri(tasks, dtype=bool), np.array(scores), NAN)
    assert (
        forgetting(matrix)
        == backward_transfer(matrix)
        == intransigence(matrix, np.array(scores))
        == 0
    )


# --------------------------------------------------------------------------------------------------
# tables


def row(task, position, score, exact=True, choice=None, owned=0.25):
    return {
        "task": task,
        "position": position,
        "kind": "classification",
        "metric": "accuracy",
        "score": score,
        "measures": {"accuracy": score, "macro_f1": score / 2},
        "samples": 10,
        "bit_exact": exact,
        "owned_share": owned,
        "choice": choice or {},
        "curve": [score / 2, score],
        "alone_bytes": 100,
        "classes": [counted("p", 8, 10, 8), counted("q", 2, 0, 0)],
        "confused": [[1, 0, 2]],
        "mistakes": [
            {
                "position": 3,
                "image": f"{task}/3.png",
                "truth": "q",
                "predicted": "p",
                "badness": 0.75,
            }
        ],
    }


def counted(name, present, predicted, correct):
    return {"name": name, "present": present, "predicted": predicted, "correct": correct}


def node(*rows, free=0.5, size=150):
    return {"rows": list(rows), "free_share": free, "bytes": size, "device": "cpu"}


CHOICE = {"ratio_searched": 0.9, "ratio": 0.75, "cap": 0.25, "capped": True, "cost": 0.8}
FOUND = {
    Node("small", "half", 0, ("a",)): node(row("a", 1, 0.9, choice=CHOICE), free=0.75),
    Node("small", "half", 0, ("a", "b")): node(row("a", 1, 0.9, choice=CHOICE), row("b", 2, 0.5)),
    Node("small", "fine", 0, ("a",)): node(row("a", 1, 0.95, owned=None), free=None),
    Node("small", "fine", 0, ("a", "b")): node(
        row("a", 1, 0.25, False, owned=None), row("b", 2, 0.75, owned=None), free=None
    ),
    Node("small", "alone", 0, ("a",)): node(row("a", 1, 0.95, owned=None), free=None, size=100),
    Node("small", "alone", 0, ("b",)): node(row("b", 1, 0.7, owned=None), free=None, size=100),
    Node("small", "joint", 0, ("a+b",)): node(
        row("a", 1, 0.8, owned=None) | {"curve": []},
        row("b", 2, 0.9, owned=None) | {"curve": []},
        free=None,
    ),
}
STAGES = {
    "half": ((("a",),), (("a", "b"),)),
    "fine": ((("a",),), (("a", "b"),)),
    "alone": ((("a",),), (("a",), ("b",))),
    "joint": ((), (("a+b",),)),
}
TYPES = {"half": "packing", "fine": "finetuning", "alone": "individual", "joint": "joint"}


def runs_of(seeds=(0,), methods=tuple(STAGES)):
    return [
        Run("both", "small", method, TYPES[method], seed, ("a", "b"), STAGES[method])
        for method in methods
        for seed in seeds
    ]


def with_seed(seed, scale=1.0, found=FOUND):
    """The same nodes with another seed, their scores scaled."""
    return {
        replace(node, seed=seed): one
        | {"rows": [line | {"score": line["score"] * scale} for line in one["rows"]]}
        for node, one in found.items()
    }


def scores_of(found=FOUND):
    return scores_table(found)


def final_of(found=FOUND, seeds=(0,)):
    return final_table(by_node(scores_of(found)), runs_of(seeds))


def each_of(found=FOUND, seeds=(0,)):
    return runs_table(by_node(scores_of(found)), runs_of(seeds), curves_table(found))


def test_scores_have_a_row_for_each_node_and_task_with_all_columns():
    table = scores_of()
    assert tuple(table.columns) == COLUMNS
    packed = table[table["method"].isin(["fine", "half"])]
    assert list(zip(packed["method"], packed["prefix"], packed["task"], packed["position"])) == [
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
    others = table.drop(("fine", "a+b", "a"))
    together = [method == "joint" for method in others.index.get_level_values("method")]
    assert (others[[not one for one in together]]["forgetting"] == 0).all()
    assert others[together][["score_when_learned", "forgetting"]].isna().all(axis=None)


def test_the_ratios_of_a_search_have_columns_of_their_own_and_are_empty_without_one():
    table = scores_of()
    searched = table[(table["method"] == "half") & (table["task"] == "a")]
    for name in ("ratio_searched", "ratio", "cap", "capped"):
        assert searched[name].tolist() == [CHOICE[name]] * 2
        assert table.drop(searched.index)[name].isna().all()


def test_the_order_in_which_nodes_come_does_not_matter():
    assert scores_of(dict(reversed(FOUND.items()))).equals(scores_of())


def test_the_final_table_has_the_ends_of_runs_in_the_order_of_learning():
    final = final_of()
    assert final.columns[:2].tolist() == ["sequence", "order"]
    told = list(zip(final["method"], final["task"], final["position"], final["prefix"]))
    assert told == [
        ("half", "a", 1, "a+b"),
        ("half", "b", 2, "a+b"),
        ("fine", "a", 1, "a+b"),
        ("fine", "b", 2, "a+b"),
        ("alone", "a", 1, "a"),
        ("alone", "b", 2, "b"),
        ("joint", "a", 1, "a+b"),
        ("joint", "b", 2, "a+b"),
    ]


def test_networks_of_all_at_once_come_in_the_order_of_the_run():
    (run,) = runs_of(methods=("joint",))
    turned = Run(**(vars(run) | {"tasks": ("b", "a")}))
    rows = rows_at(by_node(scores_of()), turned, 2)
    assert rows[["task", "position", "score"]].to_numpy().tolist() == [["b", 1, 0.9], ["a", 2, 0.8]]
    assert set(rows["order"]) == {"b+a"}


def test_the_matrix_has_a_row_for_each_stage():
    nodes = by_node(scores_of())
    matrices = {run.method: matrix_of(nodes, run).tolist() for run in runs_of()}
    assert matrices["fine"] == pytest.approx(np.array([[0.95, NAN], [0.25, 0.75]]), nan_ok=True)
    assert matrices["alone"] == pytest.approx(np.array([[0.95, NAN], [0.95, 0.7]]), nan_ok=True)
    assert matrices["joint"] == pytest.approx(np.array([[NAN, NAN], [0.8, 0.9]]), nan_ok=True)
    table = matrix_table(nodes, runs_of(methods=("joint", "half")))
    assert table[["method", "stage", "task", "score"]].to_numpy().tolist() == [
        ["joint", 2, "a", 0.8],
        ["joint", 2, "b", 0.9],
        ["half", 1, "a", 0.9],
        ["half", 2, "a", 0.9],
        ["half", 2, "b", 0.5],
    ]


def test_a_run_has_its_figures():
    runs = each_of().set_index("method")
    half, fine, alone, joint = (runs.loc[name] for name in ("half", "fine", "alone", "joint"))
    assert (half["mean_score"], half["worst_score"], half["owned_share"], half["free_share"]) == (
        0.7,
        0.5,
        0.5,
        0.5,
    )
    assert (half["mean_forgetting"], half["backward_transfer"], half["bit_exact"]) == (0, 0, True)
    assert half["intransigence"] == pytest.approx(((0.95 - 0.9) + (0.7 - 0.5)) / 2)
    # curves of b: 0.25, 0.5; alone 0.35, 0.7
    assert half["forward_transfer"] == pytest.approx((0.375 - 0.525) / 0.475)
    assert (fine["mean_score"], fine["mean_forgetting"], fine["bit_exact"]) == (
        0.5,
        pytest.approx(0.7),
        False,
    )
    assert np.isnan([fine["owned_share"], fine["free_share"]]).all()
    assert (alone["intransigence"], alone["forward_transfer"], alone["mean_forgetting"]) == (
        0,
        0,
        0,
    )
    assert np.isnan(
        [joint["mean_forgetting"], joint["intransigence"], joint["forward_transfer"]]
    ).all()


def test_the_size_of_a_run_is_that_of_all_its_networks_against_a_network_for_each_task():
    runs = each_of().set_index("method")
    assert runs["bytes"].to_dict() == {"half": 150, "fine": 150, "alone": 200, "joint": 150}
    assert runs["size"].to_dict() == {"half": 0.75, "fine": 0.75, "alone": 1, "joint": 0.75}


def test_the_capacity_of_a_run_has_masks_where_its_tasks_read_different_weights():
    runs = each_of().set_index("method")
    # a half is owned, and both tasks have a mask
    assert runs.loc["half", "capacity"] == pytest.approx(0.5 + 0.22 * 2 / 32)
    # whole networks: of all tasks, or one for each
    whole = runs.loc[["fine", "joint", "alone"], "capacity"]
    assert whole.to_dict() == {"fine": 1, "joint": 1, "alone": 2}


def test_a_task_that_owns_everything_leaves_no_masks_to_the_others():
    taken = FOUND | {
        Node("small", "half", 0, ("a", "b")): node(
            row("a", 1, 0.9, owned=1.0), row("b", 2, 0.5, owned=0.0), free=0.0
        )
    }
    assert each_of(taken).set_index("method").loc["half", "capacity"] == 1


def test_a_task_that_leaves_out_weights_needs_masks_though_it_owns_nothing():
    reading = FOUND | {
        Node("small", "half", 0, ("a", "b")): node(
            row("a", 1, 0.9, owned=1.0),
            row("b", 2, 0.5, owned=0.0) | {"unread_share": 0.25},
            free=0.0,
        )
    }
    half = each_of(reading).set_index("method").loc["half"]
    assert half["capacity"] == pytest.approx(1 + 0.22 * 2 / 32)


def test_the_last_score_is_that_of_the_last_task_at_the_end():
    runs = each_of().set_index("method")
    assert runs["last_score"].to_dict() == {"half": 0.5, "fine": 0.75, "alone": 0.7, "joint": 0.9}


def test_the_summary_is_the_mean_over_runs_with_its_interval():
    each = each_of(FOUND | with_seed(1, 0.5), seeds=(0, 1))
    half = summary_table(each).set_index("method").loc["half"]
    assert half["runs"] == 2
    assert half["mean_score"] == pytest.approx((0.7 + 0.35) / 2)
    assert (half["mean_score_low"], half["mean_score_high"]) == pytest.approx(
        interval([0.7, 0.35])[1:]
    )
    assert half["worst_score"] == pytest.approx((0.5 + 0.25) / 2)


def test_runs_of_a_method_that_knows_no_order_count_once_a_seed():
    other = [Run(**(vars(run) | {"tasks": ("b", "a")})) for run in runs_of(methods=("joint",))]
    each = runs_table(
        by_node(scores_of()), [*runs_of(methods=("joint",)), *other], curves_table(FOUND)
    )
    assert len(each) == 2
    assert summary_table(each)["runs"].tolist() == [1]


def test_one_run_that_is_not_exact_makes_the_summary_not_exact():
    inexact = with_seed(1)
    inexact[Node("small", "half", 1, ("a", "b"))] = node(
        row("a", 1, 0.9, exact=False), row("b", 2, 0.5)
    )
    summary = summary_table(each_of(FOUND | inexact, seeds=(0, 1))).set_index("method")
    assert not summary.loc["half", "bit_exact"]


def test_methods_are_compared_run_by_run():
    paired = paired_table(each_of(FOUND | with_seed(1, 0.5), seeds=(0, 1)))
    assert len(paired) == 6 * 2  # pairs of four methods, mean and worst
    of = paired.set_index(["method", "other", "figure"]).loc[("half", "fine", "mean_score")]
    assert (of["runs"], of["better"]) == (2, 2)
    assert (of["difference"], of["low"], of["high"]) == pytest.approx(
        interval([0.7 - 0.5, 0.35 - 0.25])
    )


def test_methods_without_order_are_compared_once_a_seed():
    each = pd.DataFrame(
        [
            (
                "both",
                order,
                method,
                TYPES[method],
                seed,
                0.1 * seed + (method == "joint") * 0.2 * seed,
                0.0,
            )
            for method in ("alone", "joint", "half")
            for order in ("a+b", "b+a")
            for seed in (1, 2, 3)
        ],
        columns=["sequence", "order", "method", "type", "seed", "mean_score", "worst_score"],
    )
    paired = paired_table(each).set_index(["method", "other", "figure"])
    same, mixed = (paired.loc[("alone", other, "mean_score")] for other in ("joint", "half"))
    assert (same["runs"], mixed["runs"]) == (3, 6)
    assert (same["difference"], same["low"], same["high"]) == pytest.approx(
        interval([-0.2, -0.4, -0.6])
    )


def test_names_that_look_like_numbers_stay_names(tmp_path):
    table = scores_of().assign(task="1", prefix="1e5", method="nan")
    table.to_csv(tmp_path / "scores.csv", index=False)
    again = read_table(tmp_path / "scores.csv")
    assert set(again["task"]) | set(again["prefix"]) | set(again["method"]) == {"1", "1e5", "nan"}
    assert again["owned_share"].isna().sum() == scores_of()["owned_share"].isna().sum()


def test_metrics_are_the_summary_without_what_is_empty():
    metrics = metrics_of(summary_table(each_of()))
    assert metrics["both"]["half"] == pytest.approx(
        {
            "mean_score": 0.7,
            "worst_score": 0.5,
            "mean_forgetting": 0,
            "free_share": 0.5,
            "size": 0.75,
        }
    )
    assert "free_share" not in metrics["both"]["fine"]


def test_the_plot_has_the_mean_over_runs_of_each_task_under_one_name():
    plot = plot_table(final_of(FOUND | with_seed(1, 0.5), seeds=(0, 1)))
    assert plot.columns.tolist() == ["result", "score"]
    shown = dict(plot.to_numpy().tolist())
    assert shown["both half a"] == pytest.approx((0.9 + 0.45) / 2)
    assert len(shown) == 8


def test_the_curves_have_a_row_for_each_epoch_of_each_training():
    curves = curves_table(FOUND)
    own = curves[(curves["method"] == "half") & (curves["prefix"] == "a+b")]
    assert own[["epoch", "score"]].to_numpy().tolist() == [[1, 0.25], [2, 0.5]]
    assert "joint" not in set(curves["method"])


def test_scores_come_back_from_a_file_as_they_were(tmp_path):
    scores_of().to_csv(tmp_path / "scores.csv", index=False)
    again = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(again, scores_of().fillna(np.nan), check_dtype=False)


SUMMARY = {
    "name": "clean",
    "source": "table",
    "kind": "classification",
    "classes": ["p", "q"],
    "channels": 3,
    "image_size": [8, 16],
    "samples": {"test": 3, "train": 9, "val": 2},
    "left_out": {},
    "warnings": {},
    "faults": {"left_out": [], "warnings": []},
}


def test_what_was_left_out_of_the_data_is_counted_in_the_tables(tmp_path):
    torn = SUMMARY | {
        "name": "torn",
        "left_out": {"label": 3, "size": 2},
        "warnings": {"near copy": 1},
        "faults": {
            "left_out": [
                *(asdict(DataFault("label", f"{name}.png", "holds 9")) for name in "abc"),
                *(asdict(DataFault("size", f"{name}.png", "is small")) for name in "de"),
            ],
            "warnings": [asdict(DataFault("near copy", "f.png", "is almost g.png"))],
        },
    }
    table = data_table([SUMMARY, torn])
    assert data_warnings(data_table([SUMMARY])) == []
    assert data_warnings(table) == [
        "Warning: torn: left out: odd labels: 3 (first: a.png: holds 9); masks of another size "
        "than their images: 2 (first: d.png: is small); near copies in two splits: 1 (f.png: is "
        "almost g.png). Where the results are whole, data/torn.json has them all."
    ]
    for summaries in ([SUMMARY], [SUMMARY, torn]):
        table.iloc[: len(summaries)].to_csv(tmp_path / "data.csv", index=False)
        read = read_table(tmp_path / "data.csv")
        assert data_warnings(read) == data_warnings(data_table(summaries))
    assert set(CALLED) == set(get_args(FaultKind))
    assert table[
        ["task", "height", "width", "train", "val", "test", "left_out", "warnings"]
    ].to_numpy().tolist() == [
        ["clean", 8, 16, 9, 2, 3, 0, 0],
        ["torn", 8, 16, 9, 2, 3, 5, 1],
    ]


# --------------------------------------------------------------------------------------------------
# classes


def classes_of(found=FOUND, seeds=(0,)):
    return classes_table(found, runs_of(seeds))


def segmented(task, position, score, classes, mistakes=(), **changes):
    """A row of a segmentation task. classes: (name, pixels, predicted, correct) of each."""
    return row(task, position, score, **changes) | {
        "kind": "segmentation",
        "metric": "mean_iou",
        "measures": {"mean_iou": score},
        "classes": [counted(*one) for one in classes],
        "confused": [],
        "mistakes": list(mistakes),
    }


CRACKS = (("ground", 900, 990, 895), ("crack", 100, 10, 5))
NOT_THERE = ("snow", 0, 0, 0)
MIXED = {  # b is of segmentation, and useless under the first method
    Node("small", "half", 0, ("a",)): FOUND[Node("small", "half", 0, ("a",))],
    Node("small", "half", 0, ("a", "b")): node(
        row("a", 1, 0.9), segmented("b", 2, 0.47, [*CRACKS, NOT_THERE])
    ),
}


def test_a_class_has_its_counts_and_scores():
    table = classes_of(FOUND)
    assert len(table) == 4 * 2 * 2  # methods, tasks, classes
    p, q = table.iloc[:2].to_dict("records")
    names = ("sequence", "order", "method", "seed", "task", "kind", "class")
    assert [p[name] for name in names] == ["both", "a+b", "half", 0, "a", "classification", "p"]
    assert (p["present"], p["predicted"], p["correct"]) == (8, 10, 8)
    assert (p["recall"], p["precision"], p["iou"], p["score"]) == (1, 0.8, 0.8, 1)
    assert (q["recall"], q["iou"], q["score"]) == (0, 0, 0)
    assert math.isnan(q["precision"])  # never predicted


def test_the_score_of_a_class_is_the_iou_where_pixels_are_classified():
    table = classes_table(MIXED, runs_of(methods=("half",)))
    ground, crack, snow = table[table["task"] == "b"].to_dict("records")
    assert ground["score"] == ground["iou"] == pytest.approx(895 / 995)
    assert crack["score"] == crack["iou"] == pytest.approx(5 / 105)
    assert (crack["recall"], crack["precision"]) == (0.05, 0.5)
    assert math.isnan(snow["score"])


@PROPERTY
@given(st.integers(2, 6), st.integers(0, 1000))
def test_scores_of_classes_agree_with_the_score_of_the_task(classes, seed):
    confusion = np.random.default_rng(seed).integers(0, 5, (classes, classes))
    counts = [
        (f"c{one}", *map(int, (confusion[one].sum(), confusion[:, one].sum(), confusion[one, one])))
        for one in range(classes)
    ]
    found = {Node("small", "half", 0, ("a",)): node(segmented("a", 1, 0.5, counts))}
    run = Run("both", "small", "half", "packing", 0, ("a",), ((("a",),),))
    table = classes_table(found, [run])
    if len(table["score"].dropna()):
        assert table["score"].mean() == pytest.approx(mean_iou(confusion))
    weighted = (table["recall"] * table["present"]).sum() / max(confusion.sum(), 1)
    assert weighted == pytest.approx(np.trace(confusion) / max(confusion.sum(), 1))


def test_confusions_and_mistakes_are_those_of_the_first_run():
    found = FOUND | with_seed(1)
    table = confusion_table(found, runs_of((0, 1)))
    assert set(table["seed"]) == {0}
    first = table[table["method"] == "fine"].to_numpy().tolist()
    assert first == [["both", "a+b", "fine", 0, task, "q", "p", 2] for task in ("a", "b")]
    worst = mistakes_table(found, runs_of((0, 1)))
    assert set(worst["seed"]) == {0}
    one = worst[(worst["method"] == "half") & (worst["task"] == "b")].iloc[0]
    assert one[["rank", "image", "truth", "predicted", "probability"]].tolist() == [
        1, "b/3.png", "q", "p", 0.75,
    ]  # fmt: skip
    assert math.isnan(one["mean_iou"])


def test_names_of_classes_stay_names(tmp_path):
    table = confusion_table(FOUND, runs_of()).assign(truth="1", predicted="nan")
    table.to_csv(tmp_path / "confusion.csv", index=False)
    again = read_table(tmp_path / "confusion.csv")
    assert (again["truth"].iloc[0], again["predicted"].iloc[0]) == ("1", "nan")
    classes_of().to_csv(tmp_path / "classes.csv", index=False)
    assert read_table(tmp_path / "classes.csv")["predicted"].iloc[0] == 10


def mixed():
    """The tables final, summary and classes of a run of both kinds."""
    lookup, runs = by_node(scores_table(MIXED)), runs_of(methods=("half",))
    each = runs_table(lookup, runs, curves_table(MIXED))
    return final_table(lookup, runs), summary_table(each), classes_table(MIXED, runs)


def test_a_class_that_is_never_found_is_a_warning_with_what_to_try():
    final, _, classes = mixed()
    task_a, task_b = (line for line in warnings_of(final, classes) if "never found" in line)
    assert task_b.startswith(
        "Warning: both, b: (nearly) never found: crack (IoU 0.048 with half).\n"
    )
    assert "balanced `class_weights`" in task_b
    assert "`cross_entropy_dice`" in task_b
    assert task_a.startswith(
        "Warning: both, a: (nearly) never found: q (recall 0.000 with half).\n"
    )
    assert "cross_entropy_dice" not in task_a  # there is no such loss for classification
    assert "snow" not in task_b  # there is none in the test split
    found = classes.assign(score=classes["score"].fillna(1).clip(lower=0.05))
    found = found.assign(present=1000 * found["present"])
    assert warnings_of(final, found) == []


def guesses(kind="classification", scores=(1.0, 0.0), present=(60, 40), **columns):
    """The tables final and classes of one task with the classes p and q, learned by `half`."""
    names = {"sequence": "both", "method": "half", "task": "a"}
    final = pd.DataFrame([names | {"forgetting": 0.0, "ratio_searched": 0.9} | columns])
    rows = [
        names | {"kind": kind, "class": name, "present": count, "score": score}
        for name, count, score in zip("pq", present, scores, strict=True)
    ]
    return final, pd.DataFrame(rows).assign(order="a", seed=0, predicted=50, correct=0)


def test_a_task_that_is_no_better_than_guessing_is_a_warning():
    line, missed = warnings_of(*guesses())
    assert "never found: q" in missed
    assert line.startswith(
        "Warning: both, a: no better than always answering p, as far as the test images tell: mean "
        "over classes 0.500 with half, of guessing 0.500. A ratio that was searched for it may "
        "mean nothing.\n"
    )
    line, _ = warnings_of(*guesses(ratio_searched=None))
    assert "ratio" not in line
    line, _ = warnings_of(*guesses("segmentation", (0.6, 0.0)))
    assert "mean over classes 0.300 with half, of guessing 0.300" in line


@pytest.mark.parametrize(
    "tables",
    [
        guesses(scores=(0.9, 0.9), present=(990, 10)),  # less than guessing in accuracy
        guesses(scores=(0.6, 0.6), present=(100, 100)),
        guesses(scores=(1.0, 1.0), present=(999, 1)),
        guesses("segmentation", (0.6, 0.1)),
        guesses(present=(0, 0), scores=(np.nan, np.nan)),  # the test split ignores all
    ],
)
def test_a_task_that_is_better_than_guessing_is_no_warning(tables):
    assert warnings_of(*tables) == []


def test_few_test_images_tell_little():
    few, many = (guesses(scores=(0.6, 0.6), present=(n, n)) for n in (10, 100))
    assert "no better than always answering p" in warnings_of(*few)[0]
    assert warnings_of(*many) == []
    # the mean of four recalls of a quarter, of twelve images each: as of 48 images
    classes = pd.concat([guesses(present=(12, 12))[1], guesses(present=(12, 12))[1]])
    classes["class"] = list("pqrs")
    guess = guess_of(classes, "accuracy")
    assert guess.error == pytest.approx((0.25 * 0.75 / 48) ** 0.5)
    assert (guess.mean, guess.score) == (0.25, 0.25)


def test_several_runs_tell_more_than_one():
    final, classes = guesses(scores=(0.6, 0.6), present=(20, 20))
    assert len(guessed_tasks(final, classes)) == 1
    runs = pd.concat([classes.assign(seed=seed) for seed in range(4)])
    assert len(guessed_tasks(final, runs)) == 0


def test_what_was_forgotten_is_not_called_guessing():
    (line,) = warnings_of(*guesses(forgetting=0.4))
    assert line.startswith("both: half forgets; at the end it (nearly) never finds classes")


def test_a_forgotten_task_is_one_warning_for_each_method():
    lines = [line for line in warnings_of(final_of(), classes_of()) if "forgets" in line]
    assert lines == [
        "both: fine forgets; at the end it (nearly) never finds classes of a (1 of 2 classes)."
    ]
    others = [line for line in warnings_of(final_of(), classes_of()) if "forgets" not in line]
    missed = [line for line in others if "never found" in line]
    assert ["with fine" in line for line in missed] == [False, True]  # a and b


def test_many_missed_classes_are_counted():
    final, _, classes = mixed()
    many = pd.concat(
        [classes.iloc[:1].assign(score=0.0, **{"class": f"c{one}"}) for one in range(9)]
    )
    (line,) = (line for line in warnings_of(final, many) if "never found" in line)
    assert "never found: classes whose recall is below 0.05, 9 of 9 with half." in line


def test_a_mean_over_accuracies_and_ious_says_that_it_is_mixed():
    final, summary, classes = mixed()
    assert summary["metric"].tolist() == ["mixed"]
    text = readable(final, summary, classes, [])
    assert "mixed: the mean of scores by several metrics." in text
    assert "mixed" not in text_of()
    assert summary_table(each_of())["metric"].unique().tolist() == ["accuracy"]


# --------------------------------------------------------------------------------------------------
# the console


def text_of(found=FOUND, seeds=(0,), remarks=()):
    final, summary = final_of(found, seeds), summary_table(each_of(found, seeds))
    return readable(final, summary, classes_of(found, seeds), remarks)


def test_the_readable_tables_hold_the_scores_and_leave_empty_what_means_nothing():
    text = text_of(remarks=["a remark"])
    lines = [line.split() for line in text.splitlines() if " accuracy 0" in line]
    assert lines[0] == ["both", "half", "a", "accuracy", "0.900", "0.000", "25.0%", "q", "0.00"]
    assert lines[2] == ["fine", "a", "accuracy", "0.250", "0.700", "q", "0.00"]
    methods = [line.split() for line in text.splitlines() if " accuracy " in line][8:]
    assert methods[0] == [
        "both", "half", "accuracy", "0.700", "0.500", "0.000", "yes", "50.0%", "75.0%",
    ]  # fmt: skip
    assert len(lines) == 8
    assert "nan" not in text.lower()
    assert "None" not in text
    assert "interval" not in text
    assert text.endswith("\n\na remark\n")


def test_several_runs_are_shown_as_means_with_intervals():
    text = text_of(FOUND | with_seed(1, 0.5), seeds=(0, 1))
    lines = [line.split() for line in text.splitlines() if "accuracy" in line]
    assert lines[0][4] == "0.675"
    assert " ± " in text
    assert "interval" in text


@PROPERTY
@given(
    st.text("abcdefghijklmnop_", min_size=1, max_size=60),
    st.text("abcdefghijklmnop_", min_size=1, max_size=60),
    st.integers(1, 2),
)
def test_the_tables_on_the_console_have_at_most_100_columns(sequence, task, seeds):
    found = FOUND | with_seed(1, 0.5)
    final = final_of(found, range(seeds)).replace({"sequence": {"both": sequence}})
    final = final.replace({"task": {"a": task}})
    summary = summary_table(each_of(found, range(seeds))).assign(sequence=sequence)
    classes = classes_of(found, range(seeds)).assign(sequence=sequence)
    text = readable(final, summary, classes, ["a long remark " * 20])
    assert max(map(len, text.splitlines())) <= 100


def test_the_summary_comes_as_markdown_and_latex():
    summary = summary_table(each_of(FOUND | with_seed(1, 0.5), seeds=(0, 1)))
    lines = for_papers(summary, "github").splitlines()
    assert len(lines) == 2 + 4
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:5] == ["both", "half", "2", "accuracy", "0.5250 ± 2.2236"]
    assert cells[-2:] == ["150", "0.75"]
    latex = for_papers(summary, "latex_booktabs")
    assert "\\toprule" in latex
    assert "mean score" in latex


def test_searches_that_cost_more_than_their_budget_are_told():
    assert not any("budget" in line for line in remarks_of(final_of(), classes_of(), {"half": 0.8}))
    (line,) = [
        line for line in remarks_of(final_of(), classes_of(), {"half": 0.75}) if "budget" in line
    ]
    assert line.startswith(
        "half: 1 of 1 searches cost more than their budget of 0.75, at most 0.80 trainings"
    )


def test_a_cap_that_decided_is_told_with_what_to_change():
    (line,) = [one for one in remarks_of(final_of(), classes_of(), {}) if "cap left" in one]
    assert line.startswith("The cap left these tasks less than they asked for: a (half).")
    assert "tail_share" in line


def test_a_run_that_is_short_of_room_says_what_each_task_took():
    end = Node("small", "half", 0, ("a", "b"))
    short = {end: node(*FOUND[end]["rows"][:1], row("b", 2, 0.5, choice={"ratio": 0.5}), free=0.01)}
    (line,) = [
        line
        for line in remarks_of(final_of(FOUND | short), classes_of(), {})
        if "left free" in line
    ]
    assert line.startswith(
        "both, half: 1.0% of the weights are left free for more tasks (a 25.0%, b 25.0%)."
    )
