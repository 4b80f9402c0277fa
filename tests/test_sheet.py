"""The contact sheet of a task."""

import numpy as np
import pytest
from PIL import Image

from acll.data import prepared
from acll.evaluation.pictures import overlaid
from acll.evaluation.sheet import sheet
from acll.evaluation.style import save_figure
from datasets import PETS, STREETS, changed, generated, pets, picture, prepare, raster, streets
from datasets import save as save_image


def texts(figure) -> str:
    return " ".join(
        text.get_text()
        for part in figure.subfigs
        for text in [part._suptitle, *(ax.title for ax in part.axes)]
        if text
    )


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.subfigs[1].axes[0].get_yticklabels()]


SELDOM = [pytest.param(name, marks=pytest.mark.slow) for name in ("bands", "many classes")]


@pytest.fixture(params=["pets", "streets", *SELDOM])
def made(request, tmp_path):
    if request.param == "pets":
        return prepare(PETS, pets(tmp_path))
    if request.param == "streets":
        return prepare(STREETS, streets(tmp_path))
    if request.param == "many classes":
        return prepare(generated(classes=20, samples=200), tmp_path)
    for number in range(16):
        name = f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.tif"
        raster(tmp_path / name, np.random.default_rng(number).random((5, 12, 10), dtype=np.float32))
    return prepare(PETS, tmp_path)


def test_a_sheet_is_a_figure_that_equal_tasks_give_equal(made, tmp_path):
    for name in ("one", "two"):
        save_figure(sheet(made.train, made.summary), tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert Image.open(tmp_path / "one.png").width > 1500


def test_a_sheet_says_what_there_is_and_shows_training_samples_alone(made, monkeypatch):
    asked = []
    real = prepared.some_samples
    monkeypatch.setattr(
        prepared, "some_samples", lambda *given: asked.append(given) or real(*given)
    )
    figure = sheet(made.train, made.summary)
    ((path, split, positions),) = asked
    assert (path, split) == (made.train, "train")
    assert len(set(positions)) == len(positions) <= made.summary["samples"]["train"]
    counts = made.summary["samples"]
    assert f"{counts['train']} train, {counts['val']} val, {counts['test']} test" in texts(figure)
    assert labels(figure) == list(made.header.classes)


def test_what_was_left_out_stands_in_the_title(tmp_path):
    save_image(pets(tmp_path) / "pets/train/8.png", picture())
    made = prepare(changed(PETS, on_error="skip"), tmp_path)
    assert "left out: files in odd places: 1" in texts(sheet(made.train, made.summary))


def test_classes_may_be_called_anything(tmp_path):
    for name in ("cost $5_$", r"\\frac"):
        for number in range(10):
            save_image(tmp_path / f"pets/train/{name}/{number}.png", picture(number))
    made = prepare(PETS, tmp_path)
    save_figure(sheet(made.train, made.summary), tmp_path / "one.png")
    assert "cost $5_$" in labels(sheet(made.train, made.summary))


def test_an_overlay_paints_classes_but_the_first_and_makes_ignored_pixels_pale():
    image = np.broadcast_to(np.array([1.0, 0.0, 0.5]), (2, 2, 3))
    mask = np.array([[0, 1], [255, 255]], np.uint8)
    painted = overlaid(image, mask, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert painted[0, 0].tolist() == [1.0, 0.0, 0.5]  # the image itself
    assert painted[0, 1, 2] > painted[0, 1, 0]
    assert np.allclose(painted[1], 0.6 + 0.4 * 0.5)
