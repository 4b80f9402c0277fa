"""Scores, their standard errors, and losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from acll.evaluation.measures import calibration_error, of_probabilities
from acll.training.evaluate import boundaries, confusions
from acll.training.losses import class_weights, loss_of, repeatable_cross_entropy
from acll.training.metrics import EvalResult, mean_iou, score, standard_error
from conftest import batches

PROPERTY = settings(max_examples=50, deadline=None)


def classified(*correct) -> EvalResult:
    """Images of class 1 of two, of which some are taken for class 0."""
    return EvalResult("accuracy", 2, cells=2 + np.array(correct, np.int64))


def segmented(*matrices, metric="mean_iou") -> EvalResult:
    return EvalResult(metric, len(matrices[0]), counts=np.array(matrices))


@st.composite
def matrices(draw):
    classes = draw(st.integers(2, 5))
    cells = draw(st.lists(st.integers(0, 50), min_size=classes**2, max_size=classes**2))
    return np.array(cells).reshape(classes, classes)


# --------------------------------------------------------------------------------------------------
# scores


def test_accuracy_is_the_share_that_is_right():
    assert score(classified(1, 1, 0, 1)) == 0.75


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ([[3, 1], [1, 5]], (3 / 5 + 5 / 7) / 2),
        ([[4, 0], [0, 2]], 1),
        ([[0, 4], [2, 0]], 0),
        ([[4, 0], [4, 0]], (4 / 8 + 0) / 2),
        # a class that no truth has counts only as what it takes from the others
        ([[4, 0, 0], [0, 4, 0], [0, 0, 0]], 1),
        ([[3, 0, 1], [0, 4, 0], [0, 0, 0]], (3 / 4 + 1) / 2),
        ([[0, 0], [0, 0]], 0),
    ],
)
def test_mean_iou_of_matrices_worked_out_by_hand(confusion, expected):
    assert mean_iou(np.array(confusion)) == pytest.approx(expected)


@PROPERTY
@given(matrices())
def test_mean_iou_lies_between_0_and_1_whatever_the_order_of_classes(confusion):
    value = mean_iou(confusion)
    assert 0 <= value <= 1
    assert mean_iou(confusion[::-1, ::-1]) == pytest.approx(value)
    assert mean_iou(7 * confusion) == pytest.approx(value)


@PROPERTY
@given(matrices())
def test_mean_iou_is_1_only_where_every_pixel_is_right(confusion):
    if confusion.any():
        assert (mean_iou(confusion) == 1) == (confusion == np.diag(np.diag(confusion))).all()


def test_mean_iou_is_of_the_summed_matrices_not_the_mean_over_images():
    one, other = [[9, 1], [0, 0]], [[0, 0], [5, 5]]
    assert score(segmented(one, other)) == pytest.approx((9 / 15 + 5 / 11) / 2)


def test_a_confusion_has_truth_in_rows_and_leaves_ignored_pixels_out():
    truth = torch.tensor([[[0, 0, 1], [1, 255, 255]], [[2, 2, 2], [2, 2, 255]]])
    predicted = torch.tensor([[[0, 1, 1], [2, 0, 1]], [[2, 2, 0], [2, 2, 2]]])
    expected = [[[1, 1, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [1, 0, 4]]]
    assert confusions(predicted, truth, 3).tolist() == expected


@PROPERTY
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 1000))
def test_what_is_predicted_at_ignored_pixels_changes_nothing(images, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (images, 4, 5), generator=generator)
    predicted, other = torch.randint(0, classes, (2, images, 4, 5), generator=generator)
    ignored = torch.rand(truth.shape, generator=generator) < 0.5
    truth[ignored] = 255
    confusion = confusions(predicted, truth, classes)
    assert confusion.shape == (images, classes, classes)
    assert confusion.sum(axis=(1, 2)).tolist() == (~ignored).sum(dim=(1, 2)).tolist()
    assert np.array_equal(
        confusions(torch.where(ignored, other, predicted), truth, classes), confusion
    )


@PROPERTY
@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 1000))
def test_metrics_of_classification_are_those_of_scikit_learn(classes, images, seed):
    draw = np.random.default_rng(seed)
    truth, predicted = draw.integers(0, classes, (2, images))
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.recall_score(
            truth, predicted, labels=np.unique(truth), average="macro"
        ),
        "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
    }
    for name, value in expected.items():
        result = EvalResult(name, classes, cells=truth * classes + predicted)
        assert score(result) == pytest.approx(value)


@PROPERTY
@given(st.integers(2, 5), st.integers(0, 1000))
def test_metrics_of_masks_are_those_of_scikit_learn_over_pixels(classes, seed):
    draw = np.random.default_rng(seed)
    truth, predicted = draw.integers(0, classes, (2, 3, 6, 7))
    truth[draw.random(truth.shape) < 0.2] = 255
    counts = confusions(torch.as_tensor(predicted), torch.as_tensor(truth), classes).numpy()
    pixels = truth[truth != 255], predicted[truth != 255]
    present = {"labels": np.unique(pixels[0]), "average": "macro", "zero_division": 0}
    expected = {
        "mean_iou": metrics.jaccard_score(*pixels, **present),
        "mean_dice": metrics.f1_score(*pixels, **present),
        "pixel_accuracy": metrics.accuracy_score(*pixels),
    }
    for name, value in expected.items():
        assert score(segmented(*counts, metric=name)) == pytest.approx(value)


def line_at(column, height=40, width=40):
    """A mask whose left part, up to a column, is class 1."""
    mask = torch.zeros(1, height, width, dtype=torch.int64)
    mask[:, :, :column] = 1
    return mask


@pytest.mark.parametrize(("off", "expected"), [(0, 1.0), (1, 1.0), (3, 0.0), (9, 0.0)])
def test_a_boundary_counts_where_it_is_off_by_no_more_than_a_pixel_in_a_small_image(off, expected):
    """Each class has a column of boundary; that of an image of 40 pixels may be off by one."""
    counts = boundaries(line_at(20 + off), line_at(20), 2).numpy()
    assert counts[0, :, 1].tolist() == counts[0, :, 3].tolist() == [40, 40]
    assert score(segmented(*counts, metric="boundary_f1")) == expected


def test_a_boundary_may_be_off_by_more_in_a_larger_image():
    """The diagonal of 300 by 400 pixels is 500: 0.75% of it are four pixels."""
    truth = line_at(200, 300, 400)
    for off, expected in ((4, 1.0), (5, 0.0)):
        counts = boundaries(line_at(200 + off, 300, 400), truth, 2).numpy()
        assert score(segmented(*counts, metric="boundary_f1")) == expected


def test_a_thin_line_that_is_missed_costs_little_iou_and_all_of_its_boundary():
    truth = torch.zeros(1, 40, 40, dtype=torch.int64)
    truth[:, 20, :] = 1
    counts = boundaries(torch.zeros_like(truth), truth, 2).numpy()
    assert counts[0, 1].tolist() == [0, 0, 0, 40]
    assert score(segmented(*counts, metric="boundary_f1")) == 0


def test_ignored_pixels_and_the_edge_of_an_image_have_no_boundary():
    truth = line_at(20)
    truth[:, :, 18:22] = 255
    counts = boundaries(line_at(20), truth, 2).numpy()
    assert not counts.any()
    assert score(segmented(*counts, metric="boundary_f1")) == 0  # nothing is there to be found


@PROPERTY
@given(st.integers(2, 4), st.integers(0, 1000))
def test_boundary_f1_lies_between_0_and_1_and_is_1_for_the_truth(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    truth, predicted = torch.randint(0, classes, (2, 2, 12, 9), generator=generator)
    same = boundaries(truth, truth, classes).numpy()
    other = boundaries(predicted, truth, classes).numpy()
    assert score(segmented(*same, metric="boundary_f1")) == 1
    assert 0 <= score(segmented(*other, metric="boundary_f1")) <= 1
    assert (other[..., 0] <= other[..., 1]).all()
    assert (other[..., 2] <= other[..., 3]).all()


def test_areas_under_curves_are_those_of_each_class_that_some_images_have():
    truth = np.array([0, 0, 1, 1, 1])
    given = np.array([0.9, 0.4, 0.6, 0.3, 0.1], np.float32)
    probabilities = np.stack([given, 1 - given, 0 * given], axis=1)  # nothing is of class 2
    found = of_probabilities(truth, probabilities)
    # of six pairs of a 0 and another image, five have the 0 above the other
    assert found["roc_auc"] == pytest.approx(5 / 6)
    first = (1 / 1) * 0.5 + (2 / 3) * 0.5
    second = (1 / 1 + 2 / 2 + 3 / 4) / 3
    assert found["average_precision"] == pytest.approx((first + second) / 2)
    assert of_probabilities(np.zeros(3, np.int64), probabilities[:3]) == {}


def test_the_calibration_error_is_how_far_confidence_is_from_what_is_right():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.35, 0.35])
    right = np.array([1, 1, 1, 0, 0, 1], bool)
    expected = (4 / 6) * (0.95 - 0.75) + (2 / 6) * (0.5 - 0.35)
    assert calibration_error(confidence, right) == pytest.approx(expected)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


# --------------------------------------------------------------------------------------------------
# standard errors


def test_the_error_of_accuracy_is_binomial():
    assert standard_error(classified(1, 1, 0, 1), 0) == pytest.approx(np.sqrt(0.7 * 0.3 / 6))
    # three that are right do not tell that all are
    assert standard_error(classified(1, 1, 1), 0) == pytest.approx(np.sqrt(0.875 * 0.125 / 5))


def test_the_error_of_accuracy_is_the_spread_over_draws():
    generator = np.random.default_rng(0)
    draws = [classified(*(generator.random(100) < 0.8)) for _ in range(500)]
    spread = np.std([score(draw) for draw in draws])
    assert np.mean([standard_error(draw, 0) for draw in draws]) == pytest.approx(spread, rel=0.1)


def split(seed, images=40) -> EvalResult:
    """A split of images of 100 pixels that are hard or easy as a whole, so that pixels are not
    independent."""
    generator = np.random.default_rng(seed)
    right = generator.beta(3, 1, images)
    hits = generator.binomial(50, right[:, None], (images, 2))
    return segmented(*([[a, 50 - a], [50 - b, b]] for a, b in hits))


def test_the_error_of_mean_iou_is_the_spread_over_draws_of_images():
    spread = np.std([score(split(seed)) for seed in range(400)])
    errors = [standard_error(split(seed), seed) for seed in range(20)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
    assert min(errors) > 0.5 * spread
    assert max(errors) < 1.6 * spread


def test_the_error_of_mean_iou_depends_on_its_seed_alone():
    np.random.seed(0)
    first = standard_error(split(0), 3)
    np.random.seed(1)
    assert standard_error(split(0), 3) == first
    assert standard_error(split(0), 4) != first


def test_the_error_of_mean_iou_counts_images_not_pixels():
    assert standard_error(split(0), 0) == pytest.approx(
        standard_error(segmented(*(100 * split(0).counts)), 0)
    )
    fourfold = segmented(*np.tile(split(0).counts, (4, 1, 1)))
    assert standard_error(fourfold, 0) == pytest.approx(standard_error(split(0), 0) / 2, rel=0.2)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_the_error_of_other_metrics_is_the_spread_over_draws_of_images(metric):
    def drawn(seed):
        generator = np.random.default_rng(seed)
        truth = (generator.random(200) < 0.2).astype(np.int64)
        right = generator.random(200) < np.where(truth, 0.6, 0.9)
        return EvalResult(metric, 2, cells=truth * 2 + np.where(right, truth, 1 - truth))

    spread = np.std([score(drawn(seed)) for seed in range(400)])
    errors = [standard_error(drawn(seed), seed) for seed in range(20)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_where_all_images_are_right_a_score_is_not_certain_all_the_same(metric):
    truth = np.repeat([0, 1], 10)
    error = standard_error(EvalResult(metric, 2, cells=truth * 2 + truth), 0)
    one = 10.5 / 11 * 0.5 / 11 / 12  # of a recall of ten images
    whole = 20.5 / 21 * 0.5 / 21 / 22
    expected = whole**0.5 if metric == "accuracy" else (one / 2) ** 0.5
    assert error == pytest.approx(expected)


def test_images_that_are_all_alike_have_no_error():
    assert standard_error(segmented(*[[[3, 1], [1, 5]]] * 10), 0) == pytest.approx(0)


# --------------------------------------------------------------------------------------------------
# losses


def test_class_weights_are_inverse_roots_of_frequency_with_mean_1_over_the_classes_present():
    labels = torch.tensor([[0] * 16, [1] * 4 + [255] * 12, [3] + [255] * 15], dtype=torch.uint8)
    expected = torch.tensor([1 / 4, 1 / 2, 0, 1]) / ((1 / 4 + 1 / 2 + 1) / 3)
    assert torch.allclose(class_weights(labels, 4), expected)


def test_class_weights_of_equal_classes_are_1():
    assert torch.allclose(class_weights(torch.arange(300), 300), torch.ones(300))


LOSSES = ["cross_entropy", "dice", "cross_entropy_dice", "focal", "tversky", "lovasz"]


def test_focal_loss_is_that_of_two_pixels_worked_out_by_hand():
    """One pixel is right with probability 0.9, one with 0.2, one is ignored."""
    shares = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    logits = shares.log().T.reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 0, 255]]])
    expected = (0.1**2 * -np.log(0.9) + 0.8**2 * -np.log(0.2)) / 2
    loss = loss_of("segmentation", batches("segmentation", loss="focal"), None)
    assert float(loss(logits, labels)) == pytest.approx(expected)
    assert float(loss(logits, torch.full_like(labels, 255))) == 0
    weighed = loss_of(
        "segmentation", batches("segmentation", loss="focal"), torch.tensor([2.0, 1.0])
    )
    assert float(weighed(logits, labels)) == pytest.approx(expected)


def test_tversky_loss_weighs_misses_more_than_false_alarms():
    """Of class 1 all else equal: four pixels, two of them its own; sure answers."""
    labels = torch.tensor([[[0, 0, 1, 1]]])

    def loss(answers):
        logits = 50.0 * torch.nn.functional.one_hot(torch.tensor([[answers]]), 2)
        own = loss_of("segmentation", batches("segmentation", loss="tversky"), None)
        return float(own(logits.float().permute(0, 3, 1, 2), labels))

    # a miss: class 1 has one hit and one miss, class 0 two hits and one false alarm
    miss = ((1 - 1 / (1 + 0.7)) + (1 - 2 / (2 + 0.3))) / 2
    alarm = ((1 - 2 / (2 + 0.3)) + (1 - 1 / (1 + 0.7))) / 2
    assert loss([0, 0, 1, 0]) == pytest.approx(miss, abs=1e-5)
    assert loss([0, 1, 1, 1]) == pytest.approx(alarm, abs=1e-5)
    assert loss([0, 0, 1, 1]) == pytest.approx(0, abs=1e-5)


@PROPERTY
@given(st.integers(0, 2**31))
def test_lovasz_loss_of_sure_answers_is_1_less_their_mean_iou(seed):
    """Of a batch as a whole, its ignored pixels left out."""
    generator = torch.Generator().manual_seed(seed)
    labels, answers = torch.randint(0, 3, (2, 2, 4, 4), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    logits = 100.0 * torch.nn.functional.one_hot(answers, 3).permute(0, 3, 1, 2)
    own = loss_of("segmentation", batches("segmentation", loss="lovasz"), None)
    expected = 1 - mean_iou(confusions(answers, labels, 3).sum(0).numpy())
    assert float(own(logits, labels)) == pytest.approx(expected, abs=1e-5)


def gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("name", LOSSES)
def test_losses_ignore_255(name):
    loss = loss_of("segmentation", batches("segmentation", loss=name), None)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator)
    labels[:, :2] = 255
    value, slope = gradient(loss, logits, labels)
    other = logits.clone()
    other[:, :, :2] += torch.randn(2, 3, 2, 4, generator=generator)
    assert torch.allclose(loss(other, labels), value)
    assert (slope[:, :, :2] == 0).all()
    assert (slope[:, :, 2:] != 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_a_batch_of_ignored_pixels_alone_has_no_loss(name, weights):
    loss = loss_of("segmentation", batches("segmentation", loss=name), weights)
    value, slope = gradient(loss, torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255))
    assert value == 0
    assert (slope == 0).all()


@pytest.mark.parametrize("weights", [None, torch.tensor([0.1, 2.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("valid_rows", [4, 1, 0])
def test_the_loss_that_a_gpu_takes_for_masks_is_that_of_pytorch(weights, smoothing, valid_rows):
    settings = batches("segmentation", label_smoothing=smoothing)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 4), generator=generator)
    labels[:, valid_rows:] = 255
    found = gradient(
        lambda *given: repeatable_cross_entropy(*given, weights, smoothing), logits, labels
    )
    torch.testing.assert_close(
        found, gradient(loss_of("segmentation", settings, weights), logits, labels)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_better_prediction_has_less_loss(name):
    loss = loss_of("segmentation", batches("segmentation", loss=name), None)
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    right = 5 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert (
        loss(right, labels)
        < loss(0.5 * right, labels)
        < loss(0 * right, labels)
        < loss(-right, labels)
    )


def test_class_255_of_a_classification_task_is_a_class_like_others():
    loss = loss_of("classification", batches(), None)
    logits = torch.zeros(2, 300)
    assert loss(logits, torch.tensor([255, 255])) == pytest.approx(np.log(300))
    _, slope = gradient(loss, logits, torch.tensor([255, 3]))
    assert slope[0, 255] < 0 < slope[0, 3]


def test_classification_takes_cross_entropy_whatever_the_loss_for_segmentation():
    logits, labels = (
        torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 0]),
    )
    values = {
        loss_of("classification", batches(loss=name), None)(logits, labels).item()
        for name in LOSSES
    }
    assert values == {torch.nn.functional.cross_entropy(logits, labels).item()}


def test_weights_and_label_smoothing_reach_the_loss():
    logits, labels = (
        torch.randn(4, 2, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 1, 1]),
    )
    plain = loss_of("classification", batches(), None)(logits, labels)
    assert loss_of("classification", batches(), torch.tensor([5.0, 1.0]))(logits, labels) != plain
    assert loss_of("classification", batches(label_smoothing=0.2), None)(logits, labels) != plain
