"""Networks: every architecture is packed, and nothing of its state is left over."""

import json
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn

import acll
from acll.data import prepared
from acll.data.batches import normalised
from acll.networks import small
from acll.networks.build import (
    OWN_BACKBONES,
    TaskNetwork,
    _start,
    build,
    without_classifier,
)
from acll.networks.partition import UnpackableError, partition
from acll.networks.pretrained import Origin
from acll.networks.spec import (
    OWN_NETWORKS,
    BackboneNetwork,
    DecoderNetwork,
    Network,
    NetworkError,
    PerceptronNetwork,
)
from acll.packing import packed_file
from acll.packing.ownership import digest, task_state_dict
from acll.parameters.node import NodeParams
from acll.steps._setup import learner_of
from conftest import batches, building, learn, outputs, states_equal, tiny_task

BACKBONES = {
    "resnet_small": 16,
    "lenet": 16,
    "conv_small": 16,
    "resnet18": 32,
    "resnet50": 32,
    "alexnet": 64,
    "densenet121": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "convnext_tiny": 32,
    "swin_t": 32,
    "mnasnet0_5": 32,
    "regnet_y_400mf": 32,
}
DECODERS = [
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
]


# backbones: one of each kind (plain, residual, mobile); decoders: what differs most
QUICK = {"resnet_small", "lenet", "conv_small", "mobilenet_v3_small", "unet", "fpn", "pan"}


def paced(names):
    """Those of QUICK are tried by `make test`, the others by `make test-slow`."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names]


def learn_two(make, first, second):
    """Two tasks one after the other; the first must be what it was, in weights and in outputs."""
    packed = learn(None, make, first, 0.6, momentum=0.9, weight_decay=0.2)
    state, result = task_state_dict(packed, first[2].name), outputs(packed, make, first)
    packed = learn(packed, make, second, 0.6, momentum=0.9, weight_decay=0.2)
    states = [task_state_dict(packed, record.name) for record in packed.tasks]
    assert states_equal(states[0], state)
    assert not states_equal(states[1], state)
    assert [record.digest for record in packed.tasks] == [digest(one) for one in states]
    assert packed.tasks[1].owned > 0
    results = [outputs(packed, make, task) for task in (first, second)]
    assert torch.equal(results[0], result)
    if hasattr(make, "spec"):  # a network that a file can name
        assert all(map(torch.equal, loaded_outputs(packed, first, second), results))
    return packed


def loaded_outputs(packed, *tasks):
    """What the networks of tasks give that were loaded from a file."""
    with TemporaryDirectory() as folder:
        packed_file.write_packed(Path(folder) / "network.safetensors", packed)
        loaded = acll.load(Path(folder) / "network.safetensors")
        for task in tasks:
            with torch.no_grad():
                yield loaded.network(task[2].name)(
                    normalised(task[1].images, task[2], torch.device("cpu"))
                )


class NarrowLinear(nn.Linear):
    """A layer of alexnet with 64 channels where it has 4096: 50 million weights fewer."""

    def __init__(self, inputs, outputs):
        super().__init__(*(64 if count == 4096 else count for count in (inputs, outputs)))


@pytest.mark.parametrize("name", paced(BACKBONES))
def test_two_tasks_are_packed_into_a_backbone(name, monkeypatch):
    size = BACKBONES[name]
    layers = SimpleNamespace(**vars(nn) | {"Linear": NarrowLinear})
    # by the name of the module: `torchvision.models` has a function of this name
    monkeypatch.setattr(import_module("torchvision.models.alexnet"), "nn", layers)
    make = building(BackboneNetwork(backbone=name))
    learn_two(make, tiny_task("a", size=size), tiny_task("b", size=size, classes=5))


def test_two_tasks_are_packed_into_a_perceptron():
    make = building(PerceptronNetwork(hidden=[20, 10], image_size=(16, 16), channels=3))
    packed = learn_two(make, tiny_task("a", size=16), tiny_task("b", size=16, classes=5))
    assert sorted(packed.owner) == ["encoder.1.weight", "encoder.3.weight"]


def test_two_tasks_are_packed_into_a_vision_transformer_of_tiny_images():
    from torchvision.models import VisionTransformer

    def make(kind, classes, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
        encoder, features = without_classifier(model)
        return TaskNetwork(encoder, None, nn.Linear(features, classes))

    packed = learn_two(make, tiny_task("a", size=32), tiny_task("b", size=32))
    assert "encoder.encoder.pos_embedding" in packed.owner
    assert any(name.endswith("in_proj_weight") for name in packed.owner)


# The others are tried with an encoder of a library, which mostly has 11 million weights.
WITH_SMALL_ENCODER = ("unetplusplus", "manet", "linknet", "upernet", "segformer")


@pytest.mark.slow  # `test_the_small_encoder_serves_a_decoder_and_classification` is not
@pytest.mark.parametrize("decoder", DECODERS)
def test_two_tasks_are_packed_into_a_decoder(decoder):
    encoder = "resnet_small" if decoder in WITH_SMALL_ENCODER else "resnet18"
    if decoder == "dpt":  # takes vision transformers alone
        encoder = "tu-test_vit"
    make = building(DecoderNetwork(decoder=decoder, encoder=encoder))
    size = 128 if decoder == "pan" else 64
    samples = 2 if decoder in ("pan", "dpt") else 6
    first = tiny_task("a", "segmentation", size=size, samples=samples)
    learn_two(make, first, tiny_task("b", "segmentation", size=size, classes=4, samples=samples))


@pytest.mark.slow
def test_tasks_of_both_kinds_share_one_network():
    make = building(DecoderNetwork(decoder="unet", encoder="resnet18"))
    tasks = [
        tiny_task("a", size=32),
        tiny_task("b", "segmentation", size=32),
        tiny_task("c", size=32, classes=4),
        tiny_task("d", "segmentation", size=32, classes=5),
    ]
    packed, results = None, []
    for task in tasks:
        packed = learn(packed, make, task, 0.7)
        results.append(outputs(packed, make, task))
    for task, result in zip(tasks, results):
        assert torch.equal(outputs(packed, make, task), result)
    assert not any(name.startswith("decoder.") for name in task_state_dict(packed, "c"))
    decoder = [owner for name, owner in packed.owner.items() if name.startswith("decoder.")]
    assert {int(value) for owner in decoder for value in owner.unique()} == {0, 2, 4}


@pytest.mark.parametrize("decoder", ["unet", "pspnet"])
def test_the_small_encoder_serves_a_decoder_and_classification(decoder):
    make = building(DecoderNetwork(decoder=decoder, encoder="resnet_small"))
    learn_two(make, tiny_task("a", "segmentation", size=16), tiny_task("b", size=16))


@pytest.mark.parametrize("decoder", paced([name for name in DECODERS if name != "dpt"]))
def test_both_kinds_of_task_have_the_same_encoder_and_every_weight_of_it_is_used(decoder):
    network = DecoderNetwork(decoder=decoder, encoder="resnet18")
    whole, part = (build(network, kind, 3, 0) for kind in ("segmentation", "classification"))
    shared = [name for name in partition(whole).shared if name.startswith("encoder.")]
    assert shared == list(partition(part).shared)
    size = 128 if decoder == "pan" else 64
    whole(torch.rand(2, 3, size, size)).square().mean().backward()
    idle = [name for name, value in whole.named_parameters() if value.grad is None]
    assert not [name for name in idle if name in partition(whole).shared]


def test_a_single_image_keeps_the_shape_of_its_logits():
    images = torch.zeros(1, 3, 32, 32)
    classifier = build(BackboneNetwork(backbone="resnet18"), "classification", 7, 0).eval()
    decoder = build(DecoderNetwork(decoder="fpn", encoder="resnet18"), "segmentation", 4, 0).eval()
    assert classifier(images).shape == (1, 7)
    assert decoder(images).shape == (1, 4, 32, 32)


@pytest.mark.parametrize(
    "network",
    [
        BackboneNetwork(backbone="resnet18"),
        BackboneNetwork(backbone="lenet", channels=5),
        BackboneNetwork(backbone="conv_small"),
        DecoderNetwork(decoder="unet", encoder="resnet_small"),
        PerceptronNetwork(hidden=[10, 10], image_size=(8, 8)),
    ],
)
def test_partition_leaves_nothing_over_and_heads_biases_and_normalisations_are_private(network):
    made = build(
        network, "segmentation" if isinstance(network, DecoderNetwork) else "classification", 3, 0
    )
    parts = partition(made)
    assert sorted(parts.shared + parts.private) == sorted(made.state_dict())
    assert not any(
        name.startswith("head.") or "bias" in name or "running" in name for name in parts.shared
    )
    modules = dict(made.named_modules())
    for name in parts.private:
        module = modules[name.rpartition(".")[0]]
        is_bias = name.endswith("bias")
        assert name.startswith("head.") or is_bias or "Norm" in type(module).__name__, name


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.mystery = nn.Parameter(torch.zeros(3, 3))


def test_what_cannot_be_packed_is_refused_by_name_with_the_reason():
    with pytest.raises(UnpackableError, match=r"encoder\.mystery of Odd is neither"):
        partition(TaskNetwork(Odd(), None, nn.Linear(3, 2)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(
        UnpackableError, match=r"encoder\.1\.weight and encoder\.0\.weight are one tensor"
    ):
        partition(TaskNetwork(tied, None, nn.Linear(3, 2)))
    perceptron = PerceptronNetwork(hidden=[3], image_size=(8, 8))
    for network in (
        BackboneNetwork(backbone="resnet18"),
        BackboneNetwork(backbone="resnet_small"),
        perceptron,
    ):
        with pytest.raises(
            NetworkError, match="has no decoder, so it cannot learn a segmentation task"
        ):
            build(network, "segmentation", 2, 0)
    with pytest.raises(NetworkError, match="0 layers with an output a class"):
        without_classifier(nn.Linear(3, 4))


@pytest.mark.parametrize(
    "network",
    [
        *(BackboneNetwork(backbone=name) for name in OWN_BACKBONES),
        BackboneNetwork(backbone="resnet_small", channels=13),
        BackboneNetwork(backbone="resnet18", channels=2),
        DecoderNetwork(decoder="unet", encoder="resnet18", channels=5),
        PerceptronNetwork(hidden=[10, 10], image_size=(8, 8)),
    ],
)
def test_the_same_seed_draws_the_same_bits_and_leaves_global_random_state_alone(network):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (build(network, "classification", 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert states_equal(one, two)
    assert not states_equal(one, other)


@pytest.mark.parametrize(
    "network",
    [
        BackboneNetwork(backbone="resnet_small"),
        BackboneNetwork(backbone="resnet18", channels=2),
        DecoderNetwork(decoder="unet", encoder="resnet_small"),
        PerceptronNetwork(hidden=[10], image_size=(8, 8)),
    ],
)
def test_what_is_drawn_is_that_of_the_cpus_generator_alone(network, monkeypatch):
    expected = build(network, "classification", 3, 1).state_dict()

    def refused(seed):
        raise AssertionError("the generators of GPUs are the caller's")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refused)
    found = build(network, "classification", 3, 1).state_dict()
    assert {value.device.type for value in found.values()} == {"cpu"}
    assert states_equal(found, expected)
    with torch.device("meta"):  # as loading does, which fills in what is stored
        empty = build(network, "classification", 3, 1).state_dict()
    assert {value.device.type for value in empty.values()} == {"meta"}


def test_weights_come_from_a_file_in_the_librarys_own_names(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(3)
    model = resnet18()
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    network = BackboneNetwork(backbone="resnet18", weights=str(path))
    loaded = build(network, "classification", 3, 0).state_dict()
    assert torch.equal(
        loaded["encoder.layer1.0.conv1.weight"], model.state_dict()["layer1.0.conv1.weight"]
    )
    assert loaded["head.weight"].shape == (3, 512)
    fresh = build(network, "classification", 3, 0, pretrained=False).state_dict()
    assert not torch.equal(
        fresh["encoder.layer1.0.conv1.weight"], loaded["encoder.layer1.0.conv1.weight"]
    )

    encoder = build(
        DecoderNetwork(decoder="unet", encoder="resnet18"), "classification", 2, 7
    ).encoder
    save_file(encoder.state_dict(), path)
    unet = DecoderNetwork(decoder="unet", encoder="resnet18", weights=str(path))
    for kind in ("classification", "segmentation"):
        made = build(unet, kind, 2, 0)
        assert states_equal(made.encoder.state_dict(), encoder.state_dict())


def test_a_file_with_other_weights_is_refused_with_what_does_not_fit(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(NetworkError, match=r"conv1\.weight \[1\], not \[64, 3, 7, 7\]"):
        build(BackboneNetwork(backbone="resnet18", weights=str(path)), "classification", 2, 0)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(NetworkError, match="not the weights of this encoder"):
        build(BackboneNetwork(backbone="resnet18", weights=str(path)), "classification", 2, 0)
    path.write_bytes(b"rubbish")
    with pytest.raises(NetworkError, match="not a readable"):
        build(BackboneNetwork(backbone="resnet18", weights=str(path)), "classification", 2, 0)


def test_the_registry_names_what_the_installed_libraries_offer():
    import segmentation_models_pytorch as smp
    import torchvision

    known = json.loads(files("acll.networks").joinpath("registry.json").read_text())
    assert set(known["backbones"]) == {
        *OWN_BACKBONES,
        *torchvision.models.list_models(module=torchvision.models),
    }
    assert set(known["encoders"]) == {small.SMALL_RESNET, *smp.encoders.get_encoder_names()}
    assert set(known["decoders"]) == set(smp.MODEL_ARCHITECTURES_MAPPING)
    assert set(known["smallest"]) | set(known["exact"]) == set(known["backbones"]) | set(
        known["decoders"]
    )


# --------------------------------------------------------------------------------------------------
# small networks of the literature


@pytest.mark.parametrize(("name", "weights"), [("lenet", 60_000), ("conv_small", 2_160_000)])
def test_a_network_of_the_literature_has_its_papers_size_and_takes_images_of_16_pixels_and_more(
    name, weights
):
    network = build(BackboneNetwork(backbone=name), "classification", 10, 0).eval()
    for height, width in ((16, 16), (28, 28), (32, 48), (64, 64)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 10)
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(weights, rel=0.05)


def test_at_32_pixels_lenet_is_that_of_the_paper_with_an_ordinary_pooling():
    encoder = build(BackboneNetwork(backbone="lenet"), "classification", 2, 0).encoder
    inner = torch.rand(2, 16, 10, 10)
    (pooling,) = [module for module in encoder if isinstance(module, nn.AdaptiveMaxPool2d)]
    assert torch.equal(pooling(inner), nn.functional.max_pool2d(inner, 2))


def test_a_perceptron_is_linear_layers_with_relu_between_them():
    network = build(PerceptronNetwork(hidden=[7, 5], image_size=(4, 6)), "classification", 3, 0)
    state, images = network.state_dict(), torch.rand(2, 1, 4, 6)
    inner = images.flatten(1)
    for layer in ("encoder.1", "encoder.3"):
        inner = nn.functional.linear(inner, state[f"{layer}.weight"], state[f"{layer}.bias"]).relu()
    assert torch.equal(
        network(images), nn.functional.linear(inner, state["head.weight"], state["head.bias"])
    )


# --------------------------------------------------------------------------------------------------
# channels


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """A file of weights of three channels, and its state dict."""
    from torchvision.models import resnet18

    torch.manual_seed(3)
    state = resnet18().state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(state, path)
    return path, state


def first_layer(path, channels):
    network = BackboneNetwork(backbone="resnet18", weights=str(path), channels=channels)
    return build(network, "classification", 2, 0).encoder.conv1


def test_pretrained_weights_of_three_channels_are_repeated_and_scaled_for_others(resnet_file):
    path, state = resnet_file
    red, green, blue = state["conv1.weight"].unbind(1)
    assert torch.equal(first_layer(path, 1).weight[:, 0], torch.stack([red, green, blue], 1).sum(1))
    assert torch.equal(first_layer(path, 2).weight, torch.stack([red, green], 1) * 1.5)
    assert torch.equal(first_layer(path, 3).weight, state["conv1.weight"])
    assert torch.equal(
        first_layer(path, 5).weight, torch.stack([red, green, blue, red, green], 1) * 0.6
    )


@pytest.mark.parametrize("channels", [1, 6])
def test_grey_images_mean_the_same_to_pretrained_weights_whatever_the_channels(
    resnet_file, channels
):
    grey = torch.rand(2, 1, 8, 8)
    three, other = (
        first_layer(resnet_file[0], count)(grey.expand(-1, count, -1, -1))
        for count in (3, channels)
    )
    assert torch.allclose(other, three, atol=1e-5)


def test_the_bias_of_a_pretrained_first_layer_stays():
    encoder = build(BackboneNetwork(backbone="lenet"), "classification", 2, 0).encoder
    weight, bias = encoder[0].weight.clone(), encoder[0].bias.clone()
    _start(encoder, "imagenet", 6, Origin("lenet"))  # as if these weights came from there
    assert torch.equal(encoder[0].weight, weight.repeat(1, 2, 1, 1) / 2)
    assert torch.equal(encoder[0].bias, bias)


def test_a_file_of_weights_for_these_channels_loads_as_it_is(resnet_file, tmp_path):
    path = tmp_path / "five.safetensors"
    weight = torch.rand(64, 5, 7, 7)
    save_file(resnet_file[1] | {"conv1.weight": weight}, path)
    assert torch.equal(first_layer(path, 5).weight, weight)
    with pytest.raises(
        NetworkError, match=r"conv1\.weight \[64, 5, 7, 7\], not \[64, 4, 7, 7\].*set channels: 5"
    ):
        first_layer(path, 4)


def test_fresh_weights_for_other_channels_have_the_bounds_of_a_layer_with_so_many_inputs():
    weight = build(
        BackboneNetwork(backbone="resnet18", channels=12), "classification", 2, 0
    ).encoder.conv1.weight
    bound = (12 * 7 * 7) ** -0.5
    assert 0.95 * bound < weight.abs().max() <= bound


def test_three_channels_are_the_librarys_own_network_bit_for_bit():
    from torchvision.models import resnet18

    torch.manual_seed(4)
    theirs = resnet18().state_dict()
    ours = build(
        BackboneNetwork(backbone="resnet18", channels=3), "classification", 2, 4
    ).encoder.state_dict()
    assert states_equal(
        ours, {name: value for name, value in theirs.items() if not name.startswith("fc.")}
    )


@pytest.mark.parametrize(
    ("network", "size"),
    [
        *(
            (DecoderNetwork(decoder=name, encoder="resnet18", channels=5), 64)
            for name in ("unet", "fpn", "segformer")
        ),
        (DecoderNetwork(decoder="unet", encoder="resnet_small", channels=5), 16),
        (
            DecoderNetwork(decoder="unet", encoder="mobileone_s0", channels=5),
            64,
        ),  # two branches take the images
        (DecoderNetwork(decoder="unet", encoder="tu-mobilenetv3_small_050", channels=5), 64),
        (BackboneNetwork(backbone="swin_t", channels=5), 32),
        (BackboneNetwork(backbone="googlenet", channels=5), 32),
    ],
)
def test_a_network_of_five_channels_learns_from_all_of_them(network, size):
    kind = "segmentation" if isinstance(network, DecoderNetwork) else "classification"
    made = build(network, kind, 3, 0)
    images = torch.rand(2, 5, size, size, requires_grad=True)
    logits = made(images)
    logits.square().mean().backward()
    assert logits.shape == ((2, 3, size, size) if kind == "segmentation" else (2, 3))
    assert (images.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    shared = set(partition(made).shared)
    assert not [
        name for name, value in made.named_parameters() if name in shared and value.grad is None
    ]


def test_grey_images_are_repeated_to_fill_the_channels_of_the_network():
    grey = torch.rand(2, 1, 16, 16)
    for channels in (1, 3, 5):
        network = build(
            BackboneNetwork(backbone="resnet_small", channels=channels), "classification", 3, 0
        ).eval()
        assert torch.equal(network(grey), network(grey.repeat(1, channels, 1, 1)))


def test_an_encoder_without_a_convolution_of_the_images_cannot_be_fitted_to_others():
    with pytest.raises(
        NetworkError, match="Linear has no convolution that takes images of 3 channels"
    ):
        _start(nn.Linear(3, 3), "none", 5, Origin("linear"))


@pytest.mark.parametrize(
    ("own", "channels", "fits"), [(13, 3, False), (3, 1, False), (13, 13, True), (1, 4, True)]
)
def test_images_of_other_channels_are_refused_before_training_with_what_to_set(
    tmp_path, own, channels, fits
):
    content = prepared.Content(
        "abcd", np.zeros((4, own, 8, 8), np.uint8), "uint8", own, labels=np.array([0, 1, 0, 1])
    )
    path = tmp_path / "streets.train.safetensors"
    statistics = (0.5,) * own, (0.5,) * own
    header = prepared.TaskInfo("streets", "classification", ("a", "b"), (8, 8), *statistics)
    prepared.write_prepared(path, header, {"train": content, "val": content})
    network = BackboneNetwork(backbone="resnet_small", channels=channels)
    node = NodeParams(network=network, method="m", seed=0, prefix=["streets"], threads=1)
    if fits:
        assert learner_of(node, path, batches()).network.channels == channels
        return
    with pytest.raises(NetworkError) as caught:
        learner_of(node, path, batches())
    assert str(caught.value) == (
        f"the images of streets have {own} channels, the network takes {channels}: set "
        f"channels: {own} for this network"
    )


# --------------------------------------------------------------------------------------------------
# width


@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_our_own_networks_may_be_narrower_and_wider(name, width):
    def weights(width):
        built = build(BackboneNetwork(backbone=name, width=width), "classification", 5, 0)
        assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
        return sum(built.state_dict()[name].numel() for name in partition(built).shared)

    assert weights(width) / weights(1.0) == pytest.approx(width**2, rel=0.2)


@pytest.mark.parametrize("decoder", ["unet", "manet"])
def test_a_decoder_is_as_wide_as_its_encoder(decoder):
    network = DecoderNetwork(decoder=decoder, encoder="resnet_small", width=0.5)
    built = build(network, "segmentation", 3, 0)
    assert built(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    of_classes = build(network, "classification", 3, 0)
    assert of_classes.encoder.state_dict().keys() == built.encoder.state_dict().keys()
    wide = build(network.model_copy(update={"width": 1.0}), "segmentation", 3, 0)
    counts = [sum(value.numel() for value in one.parameters()) for one in (built, wide)]
    assert counts[0] < 0.7 * counts[1]


def test_networks_of_libraries_have_one_width():
    for keys in ({"backbone": "resnet18"}, {"decoder": "unet", "encoder": "resnet18"}):
        with pytest.raises(ValueError, match="resnet18 has one width only"):
            TypeAdapter(Network).validate_python(keys | {"width": 0.5})
    assert set(OWN_NETWORKS) == set(OWN_BACKBONES)
