"""A packed network in use: what is loaded gives what evaluation gave, from images as people have
them."""

import errno
import io
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import acll
from acll.cli.predictions import Masks
from acll.data.batches import EVALUATION_BATCH, normalised, splits_of
from acll.errors import UserError
from acll.networks.build import build as build_network
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file, tensor_file
from acll.packing.ownership import PackingError, task_state_dict
from acll.serving.export import export_task
from acll.serving.inputs import ImageError, pixels_of, prepared_image, prepared_tile
from acll.serving.predictions import Segmented
from acll.training.metrics import mean_iou
from conftest import building, learn, outputs, states_equal, tiny_packed, tiny_task
from datasets import (
    PETS,
    SPECIAL,
    STREETS,
    changed,
    pets,
    picture,
    prepare,
    raster,
    save,
    smooth,
    soon,
    streets,
)

CPU = torch.device("cpu")
SMALL = BackboneNetwork(backbone="resnet_small")
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small")


def packed_of(made, path: Path, spec=SMALL):
    """A network that has learned a prepared task a little, in its file."""
    packed_file.write_packed(path, learn(None, building(spec), splits_of(made.train), 0.5))
    return acll.load(path)


def deep(root: Path) -> Path:
    """Images of 16 bits and five channels, some of 8 bits."""
    generator = np.random.default_rng(0)
    for number in range(20):
        top = 60000 if number % 3 else 250
        values = generator.integers(0, top, (5, 12, 10)).astype(
            np.uint16 if number % 3 else np.uint8
        )
        raster(root / f"deep/train/{'xy'[number % 2]}/{number}.tif", values)
    return root


FOLDERS = {"pets": pets, "deep": deep, "streets": streets}
CASES = {
    "8 bits, colour": (PETS, {}),
    "16 bits of five channels": (changed(PETS, path="deep"), {"channels": 5}),
    "rotated": (changed(PETS, rotate=30.0), {}),
    "permuted": (changed(PETS, permute=3), {}),
    "masks": (changed(STREETS, image_size=[16, 24]), {}),
}


@pytest.fixture(params=CASES)
def learned(request, tmp_path):
    """(root, task, what preparing it gave, the loaded network)"""
    task, more = CASES[request.param]
    task = changed(task, image_size=[16, 24])
    root = FOLDERS[task.path](tmp_path)
    made = prepare(task, root)
    spec = UNET if task.kind == "segmentation" else SMALL.model_copy(update=more)
    return root, task, made, packed_of(made, tmp_path / "network.safetensors", spec)


class OnlyRead:
    """A binary file of which nothing but its reading is known."""

    def __init__(self, file):
        self.read = file.read


def files_of(root, task, ids):
    """The raw files of samples."""
    return [
        path
        for name in ids
        for path in (root / task.path).rglob(Path(name).name)
        if path.parent.name != "masks"
    ]


def test_images_are_prepared_as_those_were_that_the_task_learned_from(learned):
    root, task, made, _ = learned
    for name, expected in made.every().items():
        (path,) = files_of(root, task, [name])
        assert np.array_equal(prepared_image(pixels_of(path), made.header), expected)


def test_predictions_of_files_are_what_evaluation_computes(learned):
    root, task, made, packed = learned
    test = made.splits["test"]
    with torch.no_grad():
        logits = packed.network("x")(normalised(torch.from_numpy(test.images), made.header, CPU))
    predictions = packed.predict("x", files_of(root, task, test.ids))
    assert len(predictions) == len(test)
    if task.kind == "classification":
        expected = logits.softmax(dim=1).numpy()
        assert np.array_equal(np.stack([one.probabilities for one in predictions]), expected)
        assert [one.label for one in predictions] == [
            made.header.classes[row.argmax()] for row in expected
        ]
    else:
        # back to the size of the images
        assert all(one.mask.shape == (12, 10) for one in predictions)
        same_size = packed.predict("x", list(torch.from_numpy(test.images)))
        assert np.array_equal(
            np.stack([one.mask for one in same_size]), logits.argmax(dim=1).numpy()
        )


def test_every_form_of_an_image_gives_the_same(tmp_path):
    packed = packed_of(prepare(PETS, pets(tmp_path)), tmp_path / "network.safetensors")
    path = save(tmp_path / "new.png", smooth(3))
    image = Image.open(path)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = packed.predict("x", path).probabilities
    for form in (
        str(path),
        image,
        array,
        tensor,
        tensor.float() / 255,
        array.astype(np.uint16) * 257,
    ):
        assert np.array_equal(packed.predict("x", form).probabilities, expected)
    batch = packed.predict("x", tensor[None].repeat(3, 1, 1, 1))
    assert len(batch) == 3
    assert all(np.allclose(one.probabilities, expected, atol=1e-6) for one in batch)
    alpha = Image.fromarray(np.dstack([array, np.full(array.shape[:2], 9, np.uint8)]))
    assert np.array_equal(packed.predict("x", np.asarray(alpha)).probabilities, expected)
    grey = array[:, :, 0]
    assert np.array_equal(
        packed.predict("x", grey).probabilities,
        packed.predict("x", np.dstack([grey] * 3)).probabilities,
    )


def test_an_image_of_pillow_stands_upright_and_arrays_may_have_any_byte_order(tmp_path):
    packed = packed_of(prepare(PETS, pets(tmp_path)), tmp_path / "network.safetensors")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(smooth(3, (20, 40))).save(path, exif=exif, quality=95)
    assert pixels_of(path).shape == pixels_of(Image.open(path)).shape == (3, 40, 20)
    assert np.array_equal(
        packed.predict("x", Image.open(path)).probabilities, packed.predict("x", path).probabilities
    )
    deep = smooth(3).astype(np.uint16) * 257
    expected = packed.predict("x", deep).probabilities
    assert np.array_equal(packed.predict("x", deep.astype(">u2")).probabilities, expected)
    half = torch.from_numpy(smooth(3).copy()).permute(2, 0, 1).to(torch.bfloat16) / 255
    assert packed.predict("x", half).label == packed.predict("x", smooth(3)).label


def test_an_open_file_is_one_image_and_several_are_several(tmp_path):
    packed = packed_of(prepare(PETS, pets(tmp_path)), tmp_path / "network.safetensors")
    path = save(tmp_path / "x.png", smooth(3))
    expected = packed.predict("x", path).probabilities
    with path.open("rb") as file, tempfile.NamedTemporaryFile() as other:
        other.write(path.read_bytes())
        for one in (file, other, io.BytesIO(path.read_bytes())):
            assert np.array_equal(packed.predict("x", one).probabilities, expected)
        found = packed.predict("x", [file, path])
        pipe = OnlyRead(io.BytesIO(path.read_bytes()))
        assert np.array_equal(packed.predict("x", pipe).probabilities, expected)
    assert all(np.allclose(one.probabilities, expected) for one in found)


def test_colours_become_grey_where_the_task_is(tmp_path):
    for number in range(16):
        save(
            tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.png",
            picture(9 * number, channels=1),
        )
    packed = packed_of(prepare(PETS, tmp_path), tmp_path / "network.safetensors")
    path = save(tmp_path / "new.png", smooth(3))
    grey = np.asarray(Image.open(path).convert("L"))
    header = prepare(PETS, tmp_path, into="again").header
    difference = prepared_image(pixels_of(path), header).astype(int) - prepared_image(
        grey[None], header
    )
    assert abs(difference).max() <= 1
    assert packed.predict("x", path).label == packed.predict("x", grey).label


def test_a_large_image_is_segmented_by_the_tiles_that_evaluation_scores(tmp_path):
    for number in range(12):
        save(tmp_path / f"streets/train/images/{number}.png", smooth(number, (50, 37)))
        save(
            tmp_path / f"streets/train/masks/{number}.png",
            smooth(100 + number, (50, 37))[:, :, 0] > 127,
        )
    task = changed(STREETS, image_size=16, tile_overlap=6)
    made = prepare(task, tmp_path)
    packed = packed_of(made, tmp_path / "network.safetensors", UNET)
    _, validation, header = splits_of(made.train)
    from acll.training.evaluate import evaluated
    from acll.training.metrics import score

    expected = score(evaluated(packed.network("x"), validation, header, CPU))
    wholes = dict.fromkeys(name.split("#")[0] for name in made.splits["val"].ids)
    confusion = np.zeros((2, 2), np.int64)
    for name in wholes:
        number = Path(name).stem
        mask = packed.predict("x", tmp_path / f"streets/train/images/{number}.png").mask
        truth = np.asarray(Image.open(tmp_path / f"streets/train/masks/{number}.png"))
        np.add.at(confusion, (truth.ravel(), mask.ravel()), 1)
    assert mean_iou(confusion) == expected
    found = packed.predict("x", tmp_path / "streets/train/images/0.png")
    with pytest.raises(AttributeError, match="'label': the task is a segmentation; `mask` has"):
        _ = found.label
    with pytest.raises(AttributeError, match=r"no attribute 'lable'$"):
        _ = found.lable
    assert pickle.loads(pickle.dumps(found)).classes == found.classes


@pytest.mark.parametrize(
    "options",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        pytest.param({"blockysize": 8}, marks=pytest.mark.slow),
    ],
)
def test_a_raster_that_is_too_large_to_be_read_whole_is_segmented_by_tiles(
    tmp_path, monkeypatch, options
):
    for number in range(12):
        raster(tmp_path / f"streets/train/images/{number}.tif", np.full((3, 20, 20), number * 20))
        save(tmp_path / f"streets/train/masks/{number}.png", np.eye(20))
    task = changed(STREETS, image_size=16, tile_overlap=6)
    made = prepare(task, tmp_path)
    packed = packed_of(made, tmp_path / "network.safetensors", UNET)
    values = np.random.default_rng(0).integers(0, 256, (3, 90, 70), dtype=np.uint8)
    path = raster(tmp_path / "large.tif", values, compress="zstd", **options)
    expected = packed.predict("x", np.moveaxis(values, 0, 2)).mask
    assert np.array_equal(packed.predict("x", path).mask, expected)
    monkeypatch.setattr("acll.data.rasters.LARGEST", 90 * 70 * 3 - 1)
    monkeypatch.setattr("acll.serving.predictions._IN_MEMORY", 100)
    monkeypatch.setattr("acll.serving.inputs._STRIP", 70 * 16)
    with pytest.raises(UserError, match="too large to be read whole"):
        pixels_of(path)
    mask = packed.predict("x", path).mask
    assert isinstance(mask, np.memmap)
    assert np.array_equal(mask, expected)
    # softmax of the tiles' logits, in the places of the mask; mapped to a file, too
    found = packed.predict("x", path, probabilities=True)
    assert isinstance(found.probabilities, np.memmap)
    assert np.allclose(found.probabilities.sum(axis=0), 1, atol=1e-6)
    assert np.array_equal(found.probabilities.argmax(axis=0), expected)
    first = torch.from_numpy(prepared_tile(values[:, :16, :16], made.header))[None]
    with torch.no_grad():
        logits = packed.network("x")(normalised(first, made.header, CPU))
    corner = logits.softmax(dim=1)[0, :, :13, :13].numpy()
    assert np.allclose(found.probabilities[:, :13, :13], corner, atol=1e-6)
    bad = []
    found = Segmented("x", ("road", "sky"), mask)
    masks = Masks(tmp_path / "masks", {path: Path("large.tif")}, bad, print)
    assert list(masks.written([(path, found)])) == [(path, found)]
    assert (masks.count, bad) == (1, [])
    written = np.asarray(Image.open(tmp_path / "masks/large.mask.png"))
    assert np.array_equal(written, expected)


def no_memory(*arguments):
    raise MemoryError


def no_room(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory_of_torch(*arguments):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")


@pytest.mark.parametrize(
    ("broken", "how", "words"),
    [
        ("acll.serving.predictions.prepared_image", no_memory, "not enough memory for an image"),
        (
            "acll.serving.predictions.prepared_image",
            no_memory_of_torch,
            "not enough memory for an image",
        ),
        (
            "acll.serving.predictions.os.posix_fallocate",
            no_room,
            "needs 2,400 bytes of",
        ),
    ],
)
def test_an_image_that_is_too_large_for_this_machine_costs_no_other(
    tmp_path, monkeypatch, broken, how, words
):
    task = changed(STREETS, image_size=16)
    packed = packed_of(prepare(task, streets(tmp_path)), tmp_path / "n.safetensors", UNET)
    monkeypatch.setattr("acll.serving.predictions._IN_MEMORY", 40 * 59)

    def images():
        yield smooth(0, (30, 40))
        with monkeypatch.context() as patched:
            patched.setattr(broken, how)
            yield smooth(1, (40, 60))
        yield smooth(2, (30, 40))

    first, second, third = packed.predict_each("x", images())
    assert (first.mask.shape, third.mask.shape) == ((30, 40), (30, 40))
    assert isinstance(second, ImageError)
    assert words in str(second)


def test_masks_of_other_sizes_are_interpolated_logits(tmp_path):
    packed = packed_of(
        prepare(changed(STREETS, image_size=16), streets(tmp_path)),
        tmp_path / "n.safetensors",
        UNET,
    )
    image = smooth(1, (40, 60))
    header = splits_of(tmp_path / "prepared/x.train.safetensors")[2]
    made = torch.from_numpy(prepared_image(pixels_of(image), header))
    with torch.no_grad():
        logits = packed.network("x")(normalised(made[None], header, CPU))
    whole = torch.nn.functional.interpolate(logits, (40, 60), mode="bilinear")
    assert np.array_equal(packed.predict("x", image).mask, whole.argmax(dim=1)[0].numpy())
    found = packed.predict("x", image, probabilities=True)
    assert np.array_equal(found.mask, whole.argmax(dim=1)[0].numpy())
    assert found.probabilities.dtype == np.float32
    assert found.probabilities.shape == (2, 40, 60)
    assert np.allclose(found.probabilities, whole.softmax(dim=1)[0].numpy(), atol=1e-6)
    assert packed.predict("x", image).probabilities is None


# --------------------------------------------------------------------------------------------------
# networks


@pytest.fixture
def mixed(tmp_path):
    """A file with three tasks of two kinds and several numbers of classes, and its network."""
    build = building(UNET)
    packed = None
    for name, kind, classes in (
        ("masks", "segmentation", 3),
        ("digits", "classification", 10),
        ("more", "segmentation", 5),
    ):
        packed = learn(packed, build, tiny_task(name, kind, classes=classes, samples=4), 0.6)
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    return tmp_path / "network.safetensors", packed


def test_the_tasks_are_told_without_reading_any_weight(mixed, monkeypatch):
    path, packed = mixed
    monkeypatch.setattr(
        tensor_file.TensorFile, "tensor", lambda self, name: pytest.fail(f"{name} was read")
    )
    tasks = acll.load(path).tasks
    assert [(task.name, task.kind, len(task.classes)) for task in tasks] == [
        ("masks", "segmentation", 3), ("digits", "classification", 10), ("more", "segmentation", 5),
    ]  # fmt: skip
    total = sum(owner.numel() for owner in packed.owner.values())
    for position, (task, record) in enumerate(zip(tasks, packed.tasks), 1):
        assert (task.ratio, task.score, task.mean) == (0.6, 0.5, record.mean)
        assert task.owned_share == record.owned / total
        used = sum(
            int(((owner > 0) & (owner <= position)).sum())
            for name, owner in packed.owner.items()
            if task.kind == "segmentation" or not name.startswith("decoder.")
        )
        assert task.used_share == used / total


def test_networks_are_independent_and_give_the_outputs_of_evaluation(mixed):
    path, packed = mixed
    loaded = acll.load(path)
    networks = {task.name: loaded.network(task.name) for task in loaded.tasks}
    with torch.no_grad():
        for value in networks["more"].parameters():
            value.fill_(7)
    for name in ("masks", "digits"):
        assert not networks[name].training
        assert states_equal(networks[name].state_dict(), task_state_dict(packed, name))
    task = tiny_task("masks", "segmentation", classes=3, samples=4)
    with torch.no_grad():
        images = normalised(task[1].images, task[2], CPU)
        assert torch.equal(networks["masks"](images), outputs(packed, building(UNET), task))


@pytest.mark.parametrize(
    "way", [("masks", "digits", "more", "masks"), ("digits", "masks", "digits")]
)
def test_a_live_network_is_switched_in_place_to_any_task(mixed, way):
    path, packed = mixed
    loaded = acll.load(path)
    network = loaded.network(way[0])
    places = {name: value.data_ptr() for name, value in network.encoder.state_dict().items()}
    for name in way[1:]:
        loaded.switch(network, name)
        assert states_equal(network.state_dict(), task_state_dict(packed, name))
        assert {
            key: value.data_ptr() for key, value in network.encoder.state_dict().items()
        } == places
        assert not any(module.training for module in network.modules())
        with torch.no_grad():
            fresh, images = loaded.network(name), torch.randn(2, 3, 16, 16)
            assert torch.equal(network(images), fresh(images))


def test_what_is_no_part_of_the_state_has_its_values(mixed, monkeypatch):
    path, _ = mixed

    def build(*arguments, **options):
        network = build_network(*arguments, **options)
        network.register_buffer("index", torch.arange(3), persistent=False)
        return network

    monkeypatch.setattr("acll.packing.load.build", build)
    assert acll.load(path).network("digits").index.tolist() == [0, 1, 2]


def test_a_switch_to_no_task_changes_nothing(mixed):
    path, packed = mixed
    network = acll.load(path).network("masks")
    with pytest.raises(
        PackingError, match=r"has not learned 'nothing' \(its tasks: masks, digits, more\)"
    ):
        acll.load(path).switch(network, "nothing")
    assert states_equal(network.state_dict(), task_state_dict(packed, "masks"))


def test_a_switch_of_another_network_is_refused_and_changes_nothing(mixed, tmp_path):
    path, _ = mixed
    packed_file.write_packed(tmp_path / "other.safetensors", tiny_packed("a", "b"))
    other = acll.load(tmp_path / "other.safetensors").network("a")
    # names and shapes are the same; what is computed need not be
    alike = acll.load(path).network("masks")
    alike.built_from = alike.built_from.model_copy(update={"encoder": "resnet_other"})
    for network in (other, alike):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(
            PackingError,
            match=r"safetensors: its networks are built otherwise than the one that is to be",
        ):
            acll.load(path).switch(network, "digits")
        assert states_equal(network.state_dict(), before)
    with pytest.raises(PackingError, match="str is no network that `network` gave"):
        acll.load(path).switch("digits", network)


# --------------------------------------------------------------------------------------------------
# what goes wrong, and what it costs


@pytest.fixture
def classifier(tmp_path):
    packed_file.write_packed(tmp_path / "network.safetensors", tiny_packed("a", "b"))
    return acll.load(tmp_path / "network.safetensors")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), r"an image of the shape \[5\]: arrays are \[height, width\]"),
        (np.zeros((0, 5), np.uint8), "an image of the shape"),
        (np.zeros((5, 5, 2), np.uint8), "an image with 2 channels: those of a have 3"),
        (np.full((5, 5), 200.0), "an image of floats from 200 to 200: white must be 1"),
        (np.full((5, 5), np.nan), "values that are not finite"),
        (np.zeros((5, 5), np.int64), "an image of int64: must be uint8, uint16, or floats"),
        (np.array([["x"]]), "an image of <U1"),
        ("absent.png", "absent.png: cannot be read: No such file or directory"),
        (".", r"\.: cannot be read: Is a directory"),
        (Image.new("RGB", (0, 0)), "an image of the shape"),
        (3, "int is no image: must be a path"),
        (None, "NoneType is no image: must be a path"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_the_reason(classifier, image, message):
    with pytest.raises(ImageError, match=message):
        classifier.predict("a", image)


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path, make, kind):
    packed = tiny_packed("a", spec=UNET, kind=kind, size=16)
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    make(tmp_path / "x.png")
    words = rf"x\.png: cannot be read: no regular file, but {SPECIAL[make]}"
    with soon(20), pytest.raises(ImageError, match=words):
        acll.load(tmp_path / "network.safetensors").predict("a", tmp_path / "x.png")
    with soon(20), pytest.raises(PackingError, match=words):
        acll.load(tmp_path / "x.png")


ONES = torch.ones(3, 5, 5)
ODD_TENSORS = {
    "sparse": lambda: ONES.to_sparse(),
    "csr": lambda: ONES[0].to_sparse_csr(),
    "of another layout": lambda: ONES.to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([ONES[0]]),
    "jagged": lambda: torch.nested.nested_tensor([ONES[0]], layout=torch.jagged),
    "quantized": lambda: torch.quantize_per_tensor(ONES, 1.0, 0, torch.quint8),
    "meta": lambda: ONES.to("meta"),
    "complex": lambda: ONES.to(torch.complex64),
    "conjugated": lambda: ONES.to(torch.complex64).conj(),
    "of bits8": lambda: ONES.to(torch.uint8).view(torch.bits8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD_TENSORS)
def test_tensors_that_hold_no_pixels_are_refused_with_what_is_accepted(classifier, name):
    message = r"a tensor that is .*: must be a dense one of uint8, uint16, or floats in which white"
    for one in (ODD_TENSORS[name](), [ODD_TENSORS[name]()]):
        with pytest.raises(ImageError, match=message):
            classifier.predict("a", one)


@pytest.mark.parametrize("name", ["sparse", "meta", "complex", "quantized"])
def test_a_batch_of_tensors_that_hold_no_pixels_is_refused(classifier, name, monkeypatch):
    monkeypatch.setitem(globals(), "ONES", torch.ones(2, 3, 5, 5))
    with pytest.raises(ImageError, match=r"a tensor that is .*: must be a dense one"):
        classifier.predict("a", ODD_TENSORS[name]())


def test_tensors_that_are_stored_in_another_way_are_images_all_the_same(classifier):
    values = torch.from_numpy(smooth(3).copy()).permute(2, 0, 1) / 255
    expected = classifier.predict("a", values).probabilities
    negative = torch.imag(torch.complex(values, -values).conj())
    assert negative.is_neg()
    for one in (
        values.clone().requires_grad_(),
        torch.nn.Parameter(values.clone()),
        negative,
        values.double(),
        values.contiguous(),
    ):
        assert np.array_equal(classifier.predict("a", one).probabilities, expected)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_a_network_that_gives_no_numbers_predicts_nothing(tmp_path, kind, monkeypatch):
    packed = tiny_packed("a", spec=UNET, kind=kind, size=16)
    monkeypatch.setattr(packed_file, "refuse_not_finite", lambda *_: None)  # as others may write it
    packed.private["a"]["head.2.bias" if kind == "classification" else "head.0.bias"][0] = torch.nan
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    with pytest.raises(ImageError, match="what the network gives for this image is not finite"):
        acll.load(tmp_path / "network.safetensors").predict("a", np.zeros((16, 16), np.uint8))
    with pytest.raises(UserError, match="what this network gives is not finite"):
        export_task(
            packed_file.open_packed(tmp_path / "network.safetensors"),
            "a",
            tmp_path / "a.onnx",
            "float32",
            None,
        )


def test_one_path_is_one_image(classifier, tmp_path):
    Image.new("RGB", (5, 7)).save(tmp_path / "one.png")
    (found,) = classifier.predict_each("a", str(tmp_path / "one.png"))
    assert found.label == classifier.predict("a", tmp_path / "one.png").label


def test_a_file_that_is_written_over_while_it_is_open_is_refused_and_one_that_is_replaced_is_not(
    tmp_path,
):
    path, other = tmp_path / "network.safetensors", tmp_path / "other.safetensors"
    packed_file.write_packed(path, tiny_packed("a", "b"))
    before = acll.load(path)
    expected = before.network("a").state_dict()
    packed_file.write_packed(other, tiny_packed("c"))
    other.replace(path)
    assert states_equal(before.network("a").state_dict(), expected)
    now = acll.load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        PackingError, match="has been written over since it was opened; open it again"
    ):
        now.network("c")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_makes_no_difference_to_what_is_loaded(threads, tmp_path):
    packed = tiny_packed("a", "b", "c")
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        opened = packed_file.open_packed(tmp_path / "network.safetensors")
        for task in ("a", "b", "c"):
            assert states_equal(opened.state(task), task_state_dict(packed, task))
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"GIF89a"])
def test_files_that_are_no_images_are_named(classifier, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.png: not a readable image"):
        classifier.predict("a", tmp_path / "bad.png")


def test_any_number_of_images_may_come_and_goes_through_in_batches(classifier):
    taken = []

    def images():
        for number in range(10 * EVALUATION_BATCH):
            taken.append(number)
            yield np.full((4, 4, 3), number % 256, np.uint8)

    each = classifier.predict_each("a", images())
    next(each)
    assert len(taken) == EVALUATION_BATCH
    assert len(list(each)) == 10 * EVALUATION_BATCH - 1
    assert classifier.predict("a", []) == []


def test_what_is_wrong_with_an_image_comes_in_its_place(classifier, tmp_path):
    save(tmp_path / "cut.png", smooth(1))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    found = list(
        classifier.predict_each(
            "a", [smooth(1), Image.open(tmp_path / "cut.png"), np.zeros(3), smooth(2)]
        )
    )
    assert [isinstance(one, ImageError) for one in found] == [False, True, True, False]


def test_a_device_that_is_not_here_is_named(classifier):
    for name in ("banana", "cuda:99", "meta", "privateuseone"):
        with pytest.raises(UserError, match=f"device '{name}': there is no such device here"):
            classifier.predict("a", smooth(1), device=name)


def test_the_most_probable_classes_come_first(classifier):
    prediction = classifier.predict("a", np.zeros((4, 4), np.uint8))
    top = prediction.top(2)
    assert top[0] == (prediction.label, prediction.probabilities.max())
    assert top[0][1] >= top[1][1]
    assert len(prediction.top(99)) == 3


def test_loading_and_predicting_imports_no_workflow_and_no_tables(classifier, tmp_path):
    code = (
        "import sys, acll, numpy; acll.load(sys.argv[1]).predict('a', numpy.zeros((4, 4), "
        "'uint8'));"
        "print(*sorted({'snakemake', 'dvc', 'hyperopt', 'pandas', 'matplotlib', 'sklearn', "
        "'torch._dynamo'}"
        " & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "network.safetensors")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


def test_the_package_offers_load_and_names_what_it_does_not():
    assert acll.load is acll.load
    with pytest.raises(AttributeError, match="'acll' has no attribute 'lod'"):
        acll.lod  # noqa: B018
