"""What evaluation keeps of a network's answers: counts of classes, confusions, worst samples."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acll.data.batches import Split
from acll.data.prepared import TaskInfo
from acll.evaluation.answers import ClassCounts, answers_of, class_counts, confused, worst
from acll.evaluation.examples import (
    MISTAKES,
    SPREAD,
    Examples,
    read_examples,
    write_examples,
)
from acll.settings import METRICS
from acll.training.evaluate import NotFiniteError, evaluated
from acll.training.metrics import score

PROPERTY = settings(max_examples=25, deadline=None)
CPU = torch.device("cpu")


class Told(nn.Module):
    """Gives the logits that are told, in order, whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.next = torch.as_tensor(logits, dtype=torch.float32), 0

    def forward(self, images):
        start, self.next = self.next, self.next + len(images)
        return self.logits[start : self.next]


def info(kind, classes, size=(2, 2)):
    names = tuple(f"c{number}" for number in range(classes))
    return TaskInfo("t", kind, names, size, (0.5,), (0.5,))


def split(labels, size=(2, 2), **tiles):
    labels = torch.as_tensor(labels)
    return Split(torch.zeros(len(labels), 1, *size, dtype=torch.uint8), labels, **tiles)


def logits_for(answers, classes, sure=4.0):
    return sure * torch.nn.functional.one_hot(torch.as_tensor(answers), classes).float()


def test_answers_of_classification_are_counted_and_the_surest_wrong_ones_are_worst():
    logits = logits_for([0, 1, 1, 0], 2)
    logits[3] *= 2  # sample 3 is wrong too, and surer
    truth = [0, 1, 0, 1]
    found = answers_of(Told(logits), split(truth), info("classification", 2), CPU)
    assert found.confusion.tolist() == [[1, 1], [1, 1]]
    assert found.measures["accuracy"] == 0.5
    assert found.labels.tolist() == [0, 1, 1, 0]
    sure = [np.exp(value) / (np.exp(value) + 1) for value in (4, 8)]
    assert found.badness.tolist() == pytest.approx([0, 0, *sure])
    assert worst(found.badness) == [3, 2]


def test_answers_of_segmentation_leave_ignored_pixels_out_and_rank_images_by_their_iou():
    truth = np.array(
        [[[0, 0], [1, 1]], [[0, 1], [1, 1]], [[255, 255], [255, 255]]], np.uint8
    )  # the third is ignored as a whole
    answer = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 1]], [[1, 1], [1, 1]]])
    logits = logits_for(answer, 2).permute(0, 3, 1, 2)
    found = answers_of(Told(logits), split(truth), info("segmentation", 2), CPU)
    assert found.confusion.tolist() == [[3, 0], [2, 3]]
    assert found.measures["mean_iou"] == pytest.approx((3 / 5 + 3 / 5) / 2)
    assert found.badness.tolist() == pytest.approx([0, 1 - (1 / 3 + 1 / 3) / 2, 0])
    assert worst(found.badness) == [1]


@PROPERTY
@given(st.integers(2, 5), st.integers(1, 80), st.integers(0, 1000), st.booleans())
def test_the_score_is_that_of_a_validation_to_the_bit(classes, samples, seed, tiles):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    logits = draw.normal(size=(samples, classes))
    task = info("classification", classes)
    found = answers_of(Told(logits), split(labels), task, CPU).measures
    for metric in METRICS["classification"]:
        expected = score(evaluated(Told(logits), split(labels), task, CPU, metric))
        assert found[metric] == expected

    masks = draw.integers(0, classes, (samples, 2, 2)).astype(np.uint8)
    logits = draw.normal(size=(samples, classes, 2, 2))
    cut = {}
    if tiles:
        boxes = torch.tensor([[0, 0, 2, 1]] * samples, dtype=torch.int32)
        cut = {"tile_valid_box": boxes, "tile_image_index": torch.arange(samples) // 2}
    task = info("segmentation", classes)
    found = answers_of(Told(logits), split(masks, **cut), task, CPU).measures
    assert ("boundary_f1" in found) != tiles
    for metric in METRICS["segmentation"][: None if not tiles else -1]:
        expected = score(evaluated(Told(logits), split(masks, **cut), task, CPU, metric))
        assert found[metric] == expected


def test_a_network_of_values_that_are_not_finite_has_no_answers():
    logits = logits_for([0, 1], 2)
    logits[1, 0] = float("nan")
    with pytest.raises(NotFiniteError):
        answers_of(Told(logits), split([0, 1]), info("classification", 2), CPU)


CONFUSION = np.array([[5, 2, 0], [1, 0, 2], [0, 0, 7]])


def test_the_counts_of_classes_are_sums_of_the_confusion():
    assert class_counts(CONFUSION, ("a", "b", "c")) == (
        ClassCounts("a", 7, 6, 5),
        ClassCounts("b", 3, 2, 0),
        ClassCounts("c", 7, 9, 7),
    )


def test_the_pairs_most_often_confused_come_first_and_are_bounded():
    assert confused(CONFUSION) == ((0, 1, 2), (1, 2, 2), (1, 0, 1))
    assert confused(CONFUSION, most=1) == ((0, 1, 2),)
    assert confused(np.diag([3, 4])) == ()
    json.dumps(confused(CONFUSION))  # plain numbers


@PROPERTY
@given(st.integers(2, 8), st.integers(0, 1000))
def test_pairs_and_counts_together_are_the_confusion(classes, seed):
    confusion = np.random.default_rng(seed).integers(0, 4, (classes, classes))
    again = np.zeros_like(confusion)
    for number, counts in enumerate(class_counts(confusion, tuple(map(str, range(classes))))):
        again[number, number] = counts.correct
    for truth, predicted, count in confused(confusion):
        again[truth, predicted] = count
    assert np.array_equal(again, confusion)


@PROPERTY
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30), st.integers(1, 9))
def test_the_worst_are_no_more_than_asked_for_and_none_is_right(values, most):
    badness = np.array(values)
    found = worst(badness, most)
    assert len(found) == min(most, sum(value > 0 for value in values))
    assert found == sorted(found, key=lambda index: (-values[index], index))
    left = [values[index] for index in range(len(values)) if index not in found]
    assert all(values[index] >= max(left, default=0) for index in found)


def test_examples_and_mistakes_come_back_from_their_file(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (2, 3, 4, 5)).astype(np.uint8)
    masks = draw.integers(0, 2, (2, 2, 4, 5)).astype(np.uint8)
    spread = Examples(("a", "b"), images, masks[0], masks[1])
    none = np.zeros((0, 4, 5), np.uint8)
    wrong = Examples(("x", "y"), images[:1], none, none)
    path = tmp_path / "examples.safetensors"
    write_examples(path, {"s": spread}, {"s": spread, "c": wrong})
    for task, what, expected in (("s", SPREAD, spread), ("c", MISTAKES, wrong)):
        found = read_examples(path, task, what)
        assert found.classes == expected.classes
        for part in ("images", "masks", "predictions"):
            assert np.array_equal(getattr(found, part), getattr(expected, part))
