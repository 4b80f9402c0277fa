"""How sure a network is: the temperature of a task, from its fit to the file and its use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acll
from acll.data import prepared
from acll.data.batches import normalised, splits_of
from acll.data.prepared import IGNORE
from acll.evaluation.measures import calibration_error
from acll.evaluation.score import evaluate
from acll.networks.spec import BackboneNetwork
from acll.packing import packed_file
from acll.serving.export import OnnxSession, export_task
from acll.steps._calibration import calibrated
from acll.training.calibration import temperature
from conftest import building, learn
from datasets import PETS, changed, pets, prepare, smooth

CPU = torch.device("cpu")


def drawn(logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Labels that the softmax of logits [N, C] gives as often as it says."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_the_temperature_by_which_labels_were_drawn_is_found(true):
    logits = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(1)) * 3
    found = temperature([(logits * true, drawn(logits))], len(logits))
    assert found == pytest.approx(true, rel=0.03)


def test_masks_are_fitted_as_their_labelled_pixels_alone_are():
    logits = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2
    pixels = logits.movedim(1, -1).reshape(-1, 3)
    labels = drawn(pixels / 2)
    labels[::3] = IGNORE
    there = labels != IGNORE
    masks = temperature([(logits, labels.view(4, 8, 8).to(torch.uint8))], 4)
    alone = temperature([(pixels[there], labels[there])], int(there.sum()))
    assert masks == alone


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 99), st.integers(1, 5))
def test_it_does_not_depend_on_how_a_split_is_cut_into_batches(count, classes, seed, size):
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    labels = drawn(logits, seed)
    cut = list(zip(logits.split(size), labels.split(size), strict=True))
    assert temperature(cut, count) == temperature([(logits, labels)], count)


def test_labels_that_are_all_right_or_all_wrong_leave_it_near_one():
    sure = torch.eye(3).repeat(10, 1) * 5
    labels = torch.arange(3).repeat(10)
    assert 0.2 < temperature([(sure, labels)], 30) < 1
    assert 1 < temperature([(sure, (labels + 1) % 3)], 30) <= np.exp(3) + 1
    ignored = torch.full((1, 4, 4), IGNORE)
    assert temperature([(torch.ones(1, 3, 4, 4), ignored)], 1) == 1


def test_of_a_large_split_samples_at_equal_distances_count(monkeypatch):
    logits = torch.randn(4096, 4, generator=torch.Generator().manual_seed(3)) * 3
    labels = drawn(logits / 2)
    monkeypatch.setattr("acll.training.calibration._MOST_LOGITS", 4096)
    some = temperature([(logits, labels)], 4096)
    assert some == temperature([(logits[::4], labels[::4])], 1024)


@pytest.fixture
def made(tmp_path):
    return prepare(changed(PETS, image_size=16), pets(tmp_path))


def learned(made, tmp_path, known: float | None = None):
    """A network of one task in its file; its temperature fitted, or one that is given."""
    splits = splits_of(made.train)
    packed = learn(None, building(BackboneNetwork(backbone="resnet_small")), splits, 0.5)
    (record,) = packed.tasks
    packed = (
        calibrated(packed, {record.name: splits[1]}, CPU)
        if known is None
        else replace(packed, tasks=(replace(record, temperature=known),))
    )
    path = tmp_path / f"{known}.safetensors"
    packed_file.write_packed(path, packed)
    return path


def test_the_temperature_of_a_file_is_that_of_its_network_on_the_validation_split(made, tmp_path):
    packed = acll.load(learned(made, tmp_path))
    (task,) = packed.tasks
    _, validation, info = splits_of(made.train)
    with torch.no_grad():
        logits = packed.network(task.name)(normalised(validation.images, info, CPU))
    assert task.temperature == temperature([(logits, validation.labels)], len(validation))
    assert task.temperature != 1


def test_evaluation_prediction_and_export_are_as_sure(made, tmp_path):
    path = learned(made, tmp_path, 2.5)
    packed = acll.load(path)
    (task,) = packed.tasks
    _, _, info = splits_of(made.train)
    image = smooth(0, (16, 16))
    probabilities = packed.predict(task.name, image).probabilities
    with torch.no_grad():
        ready = torch.from_numpy(image).movedim(-1, 0)[None]
        logits = packed.network(task.name)(normalised(ready, info, CPU))
    assert np.array_equal(probabilities, (logits / 2.5).softmax(1)[0].numpy())
    out = tmp_path / "out.onnx"
    export_task(packed_file.open_packed(path), task.name, out, "float32", None)
    exported = OnnxSession(out)(ready.float() / 255).softmax(1)[0].numpy()
    assert np.allclose(exported, probabilities, atol=1e-5)


def test_evaluation_measures_the_calibrated_probabilities(made, tmp_path, monkeypatch):
    monkeypatch.setitem(prepared._allowed, "test", True)
    path = learned(made, tmp_path, 2.5)
    packed = packed_file.read_packed(path)
    (record,) = packed.tasks
    (row,) = evaluate(packed, {record.name: made.test}, CPU).rows
    tensors, info = prepared.read_prepared(made.test)
    with torch.no_grad():
        images = normalised(tensors["test_images"], info, CPU)
        logits = acll.load(path).network(record.name)(images) / 2.5
    largest = logits.double().softmax(1).max(1)
    right = (largest.indices == tensors["test_labels"]).numpy()
    expected = calibration_error(largest.values.numpy(), right)
    assert row.measures["calibration_error"] == pytest.approx(expected, abs=1e-6)
