"""The figures: what they show, and what they say when the mouse is over them."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acll.evaluation import figures, run_figures
from acll.evaluation.comparison import by_node, matrix_table, summary_table
from acll.evaluation.examples import WORST, Examples
from acll.evaluation.masks import MethodMasks, masks
from acll.evaluation.mistakes import MethodMistakes, caption_of, mistakes
from acll.evaluation.style import grid, hover, log_ticks, save_figure
from acll.evaluation.tables import curves_table, scores_table
from test_tables import FOUND, MIXED, each_of, final_of, mixed, runs_of, scores_of

PROPERTY = settings(max_examples=50, deadline=None)


def drawn(figure, tmp_path):
    """The SVG of a figure."""
    save_figure(figure, tmp_path / "one.svg")
    return ET.parse(tmp_path / "one.svg").getroot()


def titles(root):
    return [one.text for one in root.iter() if one.tag.endswith("}title")]


def words(root):
    return ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("}text")]


def test_equal_figures_give_equal_bytes_that_name_no_time(tmp_path):
    for name in ("one.svg", "two.svg"):
        figure = run_figures.sizes(summary_table(each_of()))
        save_figure(figure, tmp_path / name)
    one, two = ((tmp_path / name).read_text() for name in ("one.svg", "two.svg"))
    assert one == two
    assert "metadata" not in one


def test_a_page_may_have_several_svgs_since_equal_ids_are_equal_things(tmp_path):
    found = {}
    made = (
        run_figures.sizes(summary_table(each_of())),
        run_figures.curves(curves_table(FOUND), final_of()),
        figures.scores(matrix_table(by_node(scores_of()), runs_of()), final_of()),
    )
    for figure in made:
        for element in drawn(figure, tmp_path).iter():
            if "id" in element.attrib:
                content = ET.tostring(element)
                assert found.setdefault(element.attrib["id"], content) == content
    assert found  # markers


def test_points_of_a_line_say_their_values_and_a_bar_its_own(tmp_path):
    figure, axes = grid(1, 1, 2)
    (line,) = axes[0, 0].plot([1, 2, 3], [3, 1, 2], marker="o")
    hover(line, ["first & <best>", "second", "third"])
    (bar,) = axes[0, 0].barh(["x"], [1])
    hover(bar, ["a bar"])
    root = drawn(figure, tmp_path)
    assert sorted(titles(root)) == ["a bar", "first & <best>", "second", "third"]
    parents = [one for one in root.iter() if any(sub.tag.endswith("}title") for sub in one)]
    assert sorted(one.tag.split("}")[1] for one in parents) == ["g", "use", "use", "use"]


def test_more_texts_than_points_are_an_error(tmp_path):
    figure, axes = grid(1, 1, 2)
    (line,) = axes[0, 0].plot([1, 2], [3, 1], marker="o")
    hover(line, ["one", "two", "three"])
    with pytest.raises(ValueError, match="zip"):
        save_figure(figure, tmp_path / "one.svg")
    assert not list(tmp_path.iterdir())


def test_scores_say_the_metric_of_each_task_where_there_are_two(tmp_path):
    final, _, _ = mixed()
    matrix = matrix_table(by_node(scores_table(MIXED)), runs_of(methods=("half",)))
    root = drawn(figures.scores(matrix, final), tmp_path)
    assert {"a (accuracy)", "b (mean IoU)", "accuracy or mean IoU"} <= set(words(root))
    assert "b after b: mean IoU 0.470" in titles(root)
    plain = drawn(
        figures.scores(matrix_table(by_node(scores_of()), runs_of()), final_of()), tmp_path
    )
    assert {"a", "b", "accuracy"} <= set(words(plain))
    assert "a after b: accuracy 0.250" in titles(plain)  # fine-tuning


def test_a_matrix_says_each_score(tmp_path):
    matrix = matrix_table(by_node(scores_of()), runs_of(methods=("half", "fine")))
    said = titles(drawn(run_figures.matrices(matrix), tmp_path))
    assert said == [
        "a after a: 0.9000", "a after b: 0.9000", "b after b: 0.5000",
        "a after a: 0.9500", "a after b: 0.2500", "b after b: 0.7500",
    ]  # fmt: skip


def test_layers_stand_in_the_order_that_they_are_given_in(tmp_path):
    names = ["stem.weight", "blocks.10.weight", "blocks.2.weight", "a_last.weight"]
    layers = [(name, [5, 3, 2]) for name in names]
    root = drawn(run_figures.layers({"both: half": (["a", "b"], layers)}), tmp_path)
    shown = [word for word in words(root) if f"{word}.weight" in names]
    assert [f"{word}.weight" for word in shown] == names
    assert titles(root)[:2] == ["stem: a owns 30.0%", "blocks.10: a owns 30.0%"]


CHOICE = {
    "cap": 0.3,
    "ratio": 0.8,
    "ratio_low": 0.75,
    "ratio_high": 0.85,
    "threshold": 0.9,
    "reference_score": 0.92,
    "tolerance": 0.02,
}


def trials(*rows):
    columns = ["number", "role", "kept_share", "epochs", "score", "threshold", "diverged"]
    return pd.DataFrame([(n, *row) for n, row in enumerate(rows)], columns=columns)


def test_a_trial_that_diverged_does_not_press_the_others_together(tmp_path):
    table = trials(
        ("reference", 1.0, 0.0, 0.92, None, False),
        ("trial", 0.1, 6.0, 0.85, 0.9, False),
        ("trial", 0.2, 6.0, 0.91, 0.9, False),
        ("trial", 0.05, 6.0, 0.0, 0.9, True),
    )
    figure = figures.searches([("small/half/seed0/a", table, CHOICE)])
    (panel,) = [axes for axes in figure.axes if axes.get_visible()]
    bottom, top = panel.get_ylim()
    assert 0.7 < bottom < 0.85
    assert top < 1
    by_label = {line.get_label(): line for line in panel.lines}
    (low,) = by_label["diverged: no score"].get_ydata()
    assert bottom < low < 0.85
    assert by_label["trials that failed"].get_ydata().tolist() == [0.85]
    assert by_label["trials that held"].get_ydata().tolist() == [0.91]
    said = titles(drawn(figure, tmp_path))
    assert "trial 3: kept 0.05, 6 epochs, diverged" in said
    assert "trial 0: the dense network, validation score 0.9200" in said
    assert "trial 1: kept 0.1, 6 epochs, validation score 0.8500" in said


@PROPERTY
@given(st.floats(1e-6, 1.0), st.floats(1.2, 1e6))
def test_a_logarithmic_axis_has_several_round_ticks(low, factor):
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor for tick in ticks)
    assert all(float(f"{tick:.3g}") == pytest.approx(tick, rel=1e-6) for tick in ticks)


def pictures(count=3, classes=3, size=(8, 8)):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (count, 3, *size)).astype(np.uint8)
    truth, answers = draw.integers(0, classes, (2, count, *size)).astype(np.uint8)
    return Examples(tuple("xyz"[:classes]), images, truth, answers)


def filled(figure):
    """The panels with a picture in them."""
    return [axes for axes in figure.axes if axes.images]


def test_masks_of_a_last_task_have_no_empty_columns():
    one = pictures()
    last = masks("s: t", "mean Dice", [MethodMasks(name, None, one, (0.5,)) for name in ("m", "n")])
    assert len(last.axes) == len(filled(last)) == (2 + 2) * 3
    assert "when learned" not in str([axes.get_title() for axes in last.axes])
    both = [MethodMasks("m", one, one, (0.5, 0.4)), MethodMasks("n", None, one, (0.5,))]
    earlier = masks("s: t", "mean Dice", both)
    assert len(earlier.axes) == (1 + 2) * 6
    assert len(filled(earlier)) == len(earlier.axes) - 3  # those that say that there is no other
    assert sum(bool(axes.texts) for axes in earlier.axes) == 3


def test_mistakes_have_a_row_for_each_method_with_truth_and_answer_of_masks(tmp_path):
    none = np.zeros((0, 8, 8), np.uint8)
    whole = pictures(count=WORST)
    plain = Examples(whole.classes, whole.images, none, none)
    classified = mistakes(
        "s: t", [MethodMistakes("m", plain, ("x\n→ y 99%",) * WORST), MethodMistakes("n", None, ())]
    )
    assert len(filled(classified)) == WORST
    assert "no mistake" in [text.get_text() for text in classified.texts]
    segmented = mistakes("s: t", [MethodMistakes("m", whole, ("mean IoU 0.10",) * WORST)])
    assert len(filled(segmented)) == 3 * WORST
    save_figure(segmented, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as image:
        assert image.width < 2000


def test_a_caption_tells_truth_and_answer_with_its_probability_or_the_iou():
    assert caption_of("cat", "dog", 0.987) == "cat\n→ dog 99%"
    assert caption_of(None, None, 0.75) == "mean IoU 0.25"
    lines = caption_of("a" * 40, "b" * 40, 1.0).splitlines()
    assert max(map(len, lines)) <= 14
