"""Networks: every architecture is packed, and nothing of its state is left over."""

import json
from importlib.resources import files

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acll.networks.build import NetworkError, TaskNetwork, build, without_classifier
from acll.networks.partition import UnpackableError, partition
from acll.packing.ownership import digest, effective
from acll.settings import BackboneNetwork, DecoderNetwork
from conftest import learn, outputs, states_equal, tiny_task

BACKBONES = {
    "resnet_small": 16,
    "resnet18": 32,
    "resnet50": 32,
    "vgg16_bn": 32,
    "densenet121": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "convnext_tiny": 32,
    "swin_t": 32,
}
DECODERS = ["unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
            "segformer", "dpt"]  # fmt: skip


def factory(network):
    def make(kind, classes, seed):
        return build(network, kind, classes, seed, pretrained=False)

    if isinstance(network, DecoderNetwork):
        make.has_decoder = True
    return make


def learn_two(make, first, second):
    """Two tasks one after the other; the first must be what it was, in weights and in outputs."""
    packed = learn(None, make, first, 0.6, momentum=0.9, weight_decay=0.2)
    state, result = effective(packed, first[2].name), outputs(packed, make, first)
    packed = learn(packed, make, second, 0.6, momentum=0.9, weight_decay=0.2)
    assert states_equal(effective(packed, first[2].name), state)
    assert torch.equal(outputs(packed, make, first), result)
    assert all(record.digest == digest(effective(packed, record.name)) for record in packed.tasks)
    assert packed.tasks[1].owned > 0
    assert not states_equal(effective(packed, second[2].name), state)
    return packed


@pytest.mark.parametrize("name", BACKBONES)
def test_two_tasks_are_packed_into_a_backbone(name):
    size = BACKBONES[name]
    make = factory(BackboneNetwork(backbone=name))
    learn_two(make, tiny_task("a", size=size), tiny_task("b", size=size, classes=5))


def test_two_tasks_are_packed_into_a_vision_transformer_of_tiny_images():
    from torchvision.models import VisionTransformer

    def make(kind, classes, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
        encoder, features, _ = without_classifier(model)
        return TaskNetwork(encoder, None, nn.Linear(features, classes))

    packed = learn_two(make, tiny_task("a", size=32), tiny_task("b", size=32))
    assert "encoder.encoder.pos_embedding" in packed.owner
    assert any(name.endswith("in_proj_weight") for name in packed.owner)


@pytest.mark.parametrize("decoder", DECODERS)
def test_two_tasks_are_packed_into_a_decoder(decoder):
    encoder, size = (
        ("tu-vit_tiny_patch16_224", 224) if decoder == "dpt" else ("resnet18", 128 if decoder == "pan" else 64)
    )
    make = factory(DecoderNetwork(decoder=decoder, encoder=encoder))
    samples = 3 if size > 64 else 6
    first = tiny_task("a", "segmentation", size=size, samples=samples)
    learn_two(make, first, tiny_task("b", "segmentation", size=size, classes=4, samples=samples))


def test_tasks_of_both_kinds_share_one_network():
    make = factory(DecoderNetwork(decoder="unet", encoder="resnet18"))
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
    assert not any(name.startswith("decoder.") for name in effective(packed, "c"))
    decoder = [owner for name, owner in packed.owner.items() if name.startswith("decoder.")]
    assert {int(value) for owner in decoder for value in owner.unique()} == {0, 2, 4}


@pytest.mark.parametrize("decoder", ["unet", "pspnet"])
def test_the_small_encoder_serves_a_decoder_and_classification(decoder):
    make = factory(DecoderNetwork(decoder=decoder, encoder="resnet_small"))
    learn_two(make, tiny_task("a", "segmentation", size=16), tiny_task("b", size=16))


@pytest.mark.parametrize("decoder", [name for name in DECODERS if name != "dpt"])
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
    "network", [BackboneNetwork(backbone="resnet18"), DecoderNetwork(decoder="unet", encoder="resnet_small")]
)
def test_partition_leaves_nothing_over_and_heads_biases_and_normalisations_are_private(network):
    made = build(network, "segmentation" if isinstance(network, DecoderNetwork) else "classification", 3, 0)
    parts = partition(made)
    assert sorted(parts.shared + parts.private) == sorted(made.state_dict())
    assert not any(name.startswith("head.") or "bias" in name or "running" in name for name in parts.shared)
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
    with pytest.raises(UnpackableError, match=r"encoder\.1\.weight and encoder\.0\.weight are one tensor"):
        partition(TaskNetwork(tied, None, nn.Linear(3, 2)))
    with pytest.raises(NetworkError, match="no decoder"):
        build(BackboneNetwork(backbone="resnet18"), "segmentation", 2, 0)
    with pytest.raises(NetworkError, match="0 layers with an output a class"):
        without_classifier(nn.Linear(3, 4))


def test_the_same_seed_draws_the_same_bits_and_leaves_global_random_state_alone():
    network = BackboneNetwork(backbone="resnet_small")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (build(network, "classification", 3, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert states_equal(one, two)
    assert not states_equal(one, other)


def test_weights_come_from_a_file_in_the_librarys_own_names(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(3)
    model = resnet18()
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    network = BackboneNetwork(backbone="resnet18", weights=str(path))
    loaded = build(network, "classification", 3, 0).state_dict()
    assert torch.equal(loaded["encoder.layer1.0.conv1.weight"], model.state_dict()["layer1.0.conv1.weight"])
    assert loaded["head.weight"].shape == (3, 512)
    fresh = build(network, "classification", 3, 0, pretrained=False).state_dict()
    assert not torch.equal(fresh["encoder.layer1.0.conv1.weight"], loaded["encoder.layer1.0.conv1.weight"])

    encoder = build(DecoderNetwork(decoder="unet", encoder="resnet18"), "classification", 2, 7).encoder
    save_file(encoder.state_dict(), path)
    unet = DecoderNetwork(decoder="unet", encoder="resnet18", weights=str(path))
    for kind in ("classification", "segmentation"):
        made = build(unet, kind, 2, 0)
        assert states_equal(made.encoder.state_dict(), encoder.state_dict())


def test_a_file_with_other_weights_is_refused_with_what_does_not_fit(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(NetworkError, match=r"conv1\.weight has shape \[1\], not \[64, 3, 7, 7\]"):
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

    from acll.networks import small

    known = json.loads(files("acll.networks").joinpath("registry.json").read_text())
    assert set(known["backbones"]) == {small.NAME, *torchvision.models.list_models(module=torchvision.models)}
    assert set(known["encoders"]) == {small.NAME, *smp.encoders.get_encoder_names()}
    assert set(known["decoders"]) == set(smp.MODEL_ARCHITECTURES_MAPPING)
    assert set(known["smallest"]) | set(known["exact"]) == set(known["backbones"]) | set(known["decoders"])
