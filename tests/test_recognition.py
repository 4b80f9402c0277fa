"""Which task an image belongs to, where nobody says so."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import acll
from acll.cli.main import main
from acll.data.prepared import TaskInfo
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file
from acll.serving import model, recognition
from acll.serving.inputs import ImageError
from acll.serving.predictions import Classified, Segmented, TaskInUse
from acll.serving.recognition import Evidence, Recogniser, evidence
from conftest import tiny_packed

CPU = torch.device("cpu")


class Known(nn.Module):
    """A network with one batch normalisation, which gives these logits of every image."""

    def __init__(self, logits, mean, variance):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=0.0)
        self.norm.running_mean.fill_(mean)
        self.norm.running_var.fill_(variance)
        self.logits = torch.tensor([logits])
        self.eval()

    def forward(self, images):
        self.norm(images)
        return self.logits.expand(len(images), -1)


def in_use(logits=(0.0, 0.0), mean=0.0, variance=1.0, name="a", size=(2, 2), temperature=1.0):
    """A task whose images are black and white, half and half: of mean 0 and variance 1."""
    info = TaskInfo(name, "classification", ("x", "y"), size, (0.5,), (0.5,))
    return TaskInUse(Known(logits, mean, variance), info, temperature)


HALF = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).view(1, 1, 2, 2)


def test_evidence_has_known_values():
    found = evidence(in_use((2.0, 0.0), 1.0, 4.0, temperature=2.0), HALF)
    assert found.confidence.item() == pytest.approx(torch.tensor([1.0, 0.0]).softmax(0)[0].item())
    # of normal distributions of mean 0 and variance 1 from mean 1 and variance 4
    assert found.layers.item() == pytest.approx((np.log(4) + 2 / 4 - 1) / 2, abs=1e-5)
    assert found.pixels.item() == pytest.approx(0, abs=1e-5)


def test_evidence_leaves_no_hook_and_no_change_behind():
    task = in_use()
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    evidence(task, HALF)
    assert not any(module._forward_pre_hooks for module in task.network.modules())
    after = task.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_network_without_batch_normalisation_goes_by_pixels_and_confidence():
    one = Evidence(torch.tensor([0.8]), torch.tensor([0.25]), None)
    assert one.weight().item() == pytest.approx(0.8 / 0.25)
    both = Evidence(torch.tensor([0.8]), torch.tensor([0.25]), torch.tensor([4.0]))
    assert both.weight().item() == pytest.approx(0.8)


class Parted(Known):
    """The same, of which the normalisation sees the two columns of each image, by its name."""

    def forward(self, images):
        columns = images.permute(0, 3, 1, 2).reshape(-1, 1, images.shape[2], 1)
        self.norm(input=columns)
        return self.logits.expand(len(images), -1)


def test_a_normalisation_may_see_parts_of_images():
    task = in_use()
    task.network.network = Parted((0.0, 0.0), 1.0, 4.0)
    rows = torch.tensor([255, 255, 0, 0], dtype=torch.uint8).view(1, 1, 2, 2)
    found = evidence(task, torch.cat([HALF, rows]))
    # the columns of both have mean 0 and variance 1
    expected = (np.log(4) + 2 / 4 - 1) / 2
    assert found.layers.tolist() == pytest.approx([expected, expected], abs=1e-5)


def test_a_normalisation_without_statistics_says_nothing():
    task = in_use()
    task.network.network.norm = nn.BatchNorm2d(1, track_running_stats=False)
    assert evidence(task, HALF).layers is None


def test_large_images_go_through_a_network_a_few_at_a_time(monkeypatch):
    sizes = []
    task = in_use()
    task.network.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    monkeypatch.setattr(recognition, "evaluation_batch", lambda info: 2)
    found = recogniser(a=task).each([HALF[0, 0].numpy()] * 5)
    assert sizes == [2, 2, 1]
    assert [one.task for one in found] == ["a"] * 5


def recogniser(**tasks):
    return Recogniser(list(tasks), lambda name: tasks[name])


def test_the_task_whose_images_are_alike_is_named_with_a_share_of_all():
    picture = HALF[0, 0].numpy()
    near, far = in_use(mean=0.1), in_use(mean=2.0)
    (found,) = recogniser(far=far, near=near).each([picture])
    assert (found.task, found.confidence) == ("near", max(found.shares.values()))
    assert sum(found.shares.values()) == pytest.approx(1)
    weights = [evidence(task, HALF).weight().item() for task in (far, near)]
    assert found.shares["far"] == pytest.approx(weights[0] / sum(weights))


def test_the_surer_of_two_tasks_is_named_where_their_images_are_alike():
    (found,) = recogniser(a=in_use((0.5, 0.0)), b=in_use((2.0, 0.0))).each([HALF[0, 0].numpy()])
    assert found.task == "b"


def test_what_cannot_be_used_costs_no_other_image():
    found = recogniser(a=in_use()).each(["nowhere.png", HALF[0, 0].numpy()])
    assert isinstance(found[0], ImageError)
    assert found[1].task == "a"


def test_values_that_are_not_finite_are_an_error():
    (found,) = recogniser(a=in_use((float("nan"), 0.0))).each([HALF[0, 0].numpy()])
    assert isinstance(found, ImageError)
    assert "not finite" in str(found)


@pytest.fixture
def mixed(tmp_path):
    """The file of a network with a task of classes and one of masks."""
    spec = DecoderNetwork(decoder="unet", encoder="resnet_small")
    packed = tiny_packed("digits", "roads: segmentation", spec=spec)
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, packed)
    return path


def some_images(folder):
    """Files of images, so that both tasks have some; the names of those of each."""
    generator = np.random.default_rng(0)
    for number in range(12):
        low = 20 * number
        values = generator.integers(low, low + 30, (20, 24, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def test_predict_auto_gives_each_image_what_its_own_task_gives(mixed, tmp_path):
    (tmp_path / "images").mkdir()
    files = some_images(tmp_path / "images")
    packed = acll.load(mixed)
    found = packed.predict("auto", [*files, "nowhere.png"][:-1])
    assert all(0.5 <= one.task_confidence <= 1 for one in found)
    for file, one in zip(files, found, strict=True):
        named = packed.predict(one.task, file)
        assert named.task_confidence is None
        part = "mask" if isinstance(one, Segmented) else "probabilities"
        assert np.array_equal(getattr(named, part), getattr(one, part))
    # one at a time, of open files, and with one that is none
    with files[0].open("rb") as file:
        one = packed.predict("auto", file)
    assert one.task == found[0].task
    assert one.task_confidence == pytest.approx(found[0].task_confidence)
    stream = (io.BytesIO(file.read_bytes()) for file in files[:2])
    bad, *others = packed.predict_each("auto", ["nowhere.png", *stream])
    assert isinstance(bad, ImageError)
    assert [one.task for one in others] == [one.task for one in found[:2]]


@pytest.mark.parametrize(("most", "loads"), [(2**28, 2), (1, None)])
def test_small_networks_are_loaded_once_and_large_ones_in_turn(
    mixed, tmp_path, monkeypatch, most, loads
):
    files = 40 * some_images(tmp_path)[:1]
    expected = acll.load(mixed).predict("auto", files[:1])[0].task_confidence
    names, packed = [], acll.load(mixed)
    load = packed.network
    monkeypatch.setattr(packed, "network", lambda name: (names.append(name), load(name))[1])
    monkeypatch.setattr(model, "_HELD", most)
    found = packed.predict("auto", files)
    assert len(names) == loads if loads else len(names) >= 6
    assert len(packed._held) == (loads or 1)
    assert [one.task_confidence for one in found] == [pytest.approx(expected, rel=1e-4)] * 40


def test_the_command_prints_the_task_and_writes_the_masks(mixed, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    files = some_images(tmp_path / "images")
    expected = acll.load(mixed).predict("auto", files)
    masks = [file.stem for file, one in zip(files, expected) if isinstance(one, Segmented)]
    command = ["predict", str(mixed), "--task", "auto", *map(str, files)]
    main([*command, "--out", str(tmp_path / "masks"), "--format", "csv"])
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    tasks = {row["image"]: row["task"] for row in rows}
    assert tasks == {str(file): one.task for file, one in zip(files, expected)}
    written = (tmp_path / "masks").glob("*.mask.png")
    assert sorted(path.name.split(".")[0] for path in written) == sorted(masks)
    assert f"{len(masks)} image" in said.err
    main([*command, "--format", "json", "--top", "1"])
    found = json.loads(capsys.readouterr().out)
    assert [one["task"] for one in found] == [one.task for one in expected]
    assert [len(one.get("classes", [])) for one in found] == [
        int(isinstance(one, Classified)) for one in expected
    ]
    main(command)
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:3] == ["image", "task", "confidence"]


def test_masks_are_refused_where_no_task_gives_any(tmp_path, capsys):
    path = tmp_path / "n.safetensors"
    spec = BackboneNetwork(backbone="resnet_small")
    packed_file.write_packed(path, tiny_packed("a", "b", spec=spec))
    with pytest.raises(SystemExit) as end:
        main(["predict", str(path), "--task", "auto", "x.png", "--out", str(tmp_path / "m")])
    assert end.value.code not in (0, None)
    assert "all tasks are classification tasks" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
