"""Files of weights as people have them fill an encoder whole, bit for bit, or are refused."""

import argparse
import re

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torchvision import models

from acll.networks.build import build
from acll.networks.pretrained import Origin, Target, read_weights
from acll.networks.spec import BackboneNetwork, DecoderNetwork, NetworkError
from conftest import states_equal

RESNET = BackboneNetwork(backbone="resnet18")
MOBILE = DecoderNetwork(decoder="unet", encoder="tu-mobilenetv3_small_050")
CONVNEXT = DecoderNetwork(decoder="unet", encoder="tu-test_convnext")


def save(path, content, **options):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, **options)
    return path


def started(network, path, kind="classification"):
    """The network of a task whose encoder starts from a file."""
    return build(network.model_copy(update={"weights": str(path)}), kind, 3, 0)


def encoder_of(network, path, kind="classification"):
    return started(network, path, kind).encoder.state_dict()


def refusal(network, path):
    with pytest.raises(NetworkError) as caught:
        started(network, path)
    return str(caught.value)


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def plus_one(state):
    """Other weights of the same network."""
    return {name: value + 1 for name, value in state.items()}


@pytest.fixture(scope="module")
def resnet():
    """The state dict of a classifier of ten classes, as both libraries name its tensors."""
    torch.manual_seed(1)
    return models.resnet18(num_classes=10).state_dict()


@pytest.fixture(scope="module")
def mobile():
    torch.manual_seed(2)
    return timm.create_model("mobilenetv3_small_050").state_dict()


def without(state, *beginnings):
    return {name: value for name, value in state.items() if not name.startswith(beginnings)}


# --------------------------------------------------------------------------------------------------
# what fits


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("own.safetensors", {}),
        ("own.pth", {}),
        ("own.pt", {"_use_new_zipfile_serialization": False}),  # as torchvision's older files
    ],
)
def test_a_classifier_of_torchvision_starts_a_backbone_without_its_head(
    resnet, tmp_path, name, options
):
    built = started(RESNET, save(tmp_path / name, resnet, **options))
    assert states_equal(built.encoder.state_dict(), without(resnet, "fc."))
    assert built.head.weight.shape == (3, 512)
    assert re.fullmatch(r"the encoder takes 120 tensors; .* besides: fc\.\w+, fc\.\w+", built.note)


@pytest.mark.parametrize("network", [RESNET, DecoderNetwork(decoder="unet", encoder="resnet18")])
def test_a_classifier_of_timm_starts_the_same_network_of_another_library(network, tmp_path):
    state = timm.create_model("resnet18").state_dict()
    assert states_equal(
        encoder_of(network, save(tmp_path / "own.pth", state)), without(state, "fc.")
    )


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_a_checkpoint_of_a_training_with_timm_starts_an_encoder(mobile, tmp_path, kind):
    content = {
        "epoch": 3,
        "arch": "mobilenetv3_small_050",
        "args": argparse.Namespace(lr=0.1),
        "state_dict": prefixed("module.", mobile),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(8)}}, "param_groups": [{"lr": 0.1}]},
    }
    built = started(MOBILE, save(tmp_path / "own.pth.tar", content), kind)
    expected = prefixed("model.", without(mobile, "conv_head.", "classifier."))
    assert states_equal(built.encoder.state_dict(), expected)
    assert "takes 240 tensors below `state_dict.module`" in built.note
    assert "state_dict.module.conv_head.weight" in built.note


def test_the_names_of_our_own_encoder_load_and_nothing_is_told(tmp_path):
    own = build(MOBILE, "segmentation", 2, 5).encoder.state_dict()
    built = started(MOBILE, save(tmp_path / "own.safetensors", own))
    assert states_equal(built.encoder.state_dict(), own)
    assert built.note == ""


@pytest.mark.parametrize("decoder", ["unet", "pspnet"])
def test_names_fit_that_timm_writes_otherwise_in_encoders_also_in_the_first_layers_alone(
    tmp_path, decoder
):
    whole = timm.create_model("test_convnext").state_dict()
    assert "stages.0.blocks.0.conv_dw.weight" in whole
    network = DecoderNetwork(decoder=decoder, encoder="tu-test_convnext")
    loaded = encoder_of(network, save(tmp_path / "own.pth", whole))
    assert "model.stages_0.blocks.0.conv_dw.weight" in loaded
    for name, value in loaded.items():
        own = name.removeprefix("model.").replace("stem_", "stem.").replace("stages_", "stages.")
        assert torch.equal(value, whole[own]), name


def test_a_network_that_reads_the_first_layers_takes_its_own_file_and_that_of_the_library(
    resnet, tmp_path
):
    network = DecoderNetwork(decoder="pspnet", encoder="resnet18")
    loaded = encoder_of(network, save(tmp_path / "whole.pth", resnet))
    assert states_equal(loaded, without(resnet, "fc.", "layer3.", "layer4."))
    assert states_equal(encoder_of(network, save(tmp_path / "own.pth", loaded)), loaded)


def test_names_that_authors_gave_are_renamed_as_timm_does(tmp_path):
    whole = timm.create_model("test_convnext").state_dict()
    theirs = {
        re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", name)
        .replace("stem.", "downsample_layers.0.")
        .replace("conv_dw", "dwconv")
        .replace("mlp.fc", "pwconv")
        .replace("head.norm", "norm")
        .replace("head.fc", "head"): value
        for name, value in whole.items()
    }
    theirs = {
        re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name): value
        for name, value in theirs.items()
    }
    assert "downsample_layers.1.0.weight" in theirs
    files = {
        "theirs.pth": {"model": theirs, "model_ema": plus_one(theirs)},
        "timms.pth": plus_one(whole),
    }
    one, two = (
        encoder_of(CONVNEXT, save(tmp_path / name, content)) for name, content in files.items()
    )
    assert states_equal(one, two)


def read(folder, model, content):
    """The tensors of a file for a whole model of torchvision."""
    target = Target(model.state_dict(), {}, Origin("mine"))
    return read_weights(str(save(folder / "own.pth", content)), target)[0]


def test_older_names_in_files_of_torchvision_fit(tmp_path):
    dense = models.DenseNet(growth_rate=4, block_config=(1, 2), num_init_features=8)
    state = dense.state_dict()
    old = {re.sub(r"(denselayer.*(norm|conv))(\d)", r"\1.\3", key): state[key] for key in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert states_equal(read(tmp_path, dense, old), state)

    transformer = models.VisionTransformer(32, 8, 2, 2, 16, 32)
    state = transformer.state_dict()
    layers = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old = {
        re.sub(r"mlp\.[03]\.", lambda layer: layers[layer.group()], name): value
        for name, value in state.items()
    }
    assert states_equal(read(tmp_path, transformer, old), state)
    transformer.load_state_dict(old)  # torchvision takes these names, too
    assert states_equal(transformer.state_dict(), state)


def test_tensors_that_only_separators_tell_apart_keep_their_own(tmp_path):
    state = {name: torch.rand(2) for name in ("a.b1", "ab.1", "a_b.1")}
    target = Target(state, {}, Origin("mine"))
    path = save(tmp_path / "own.pth", prefixed("module.", state))
    assert states_equal(read_weights(str(path), target)[0], state)


PREFIXES = st.lists(
    st.sampled_from(["module.", "model.", "backbone.", "encoder.", "_orig_mod."])
    | st.from_regex(r"[a-z0-9_]{1,9}\.", fullmatch=True),
    max_size=4,
).map("".join)
KEYS = st.lists(st.sampled_from(["state_dict", "model", "model_state", "network"]), max_size=2)


@given(PREFIXES, KEYS, st.sampled_from(["resnet_small", "lenet"]), st.booleans(), st.randoms())
def test_whatever_stands_before_its_names_an_encoder_is_what_it_was_bit_for_bit(
    tmp_path_factory, prefix, keys, name, plain, random
):
    network = BackboneNetwork(backbone=name)
    state = build(network, "classification", 2, random.randrange(99)).encoder.state_dict()
    named = [*prefixed(prefix, state).items(), (f"{prefix}fc.weight", torch.rand(9, 3))]
    random.shuffle(named)
    content = dict(named)
    folder = tmp_path_factory.getbasetemp()
    if plain:
        path = save(folder / "prefixed.safetensors", content)
    else:
        for key in keys:
            content = {"epoch": 1, key: content}
        path = save(folder / "prefixed.pth", content)
    assert states_equal(encoder_of(network, path), state)


# --------------------------------------------------------------------------------------------------
# several state dicts in a file


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [
        ("state_dict.", "state_dict_ema."),
        ("model.", "model_ema.module."),
        ("student.module.backbone.", "teacher.backbone."),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_of_weights_and_their_running_mean_the_mean_is_taken(
    resnet, tmp_path, plain, averaged, first
):
    mean = plus_one(resnet)
    parts = [prefixed(plain, resnet), prefixed(averaged, mean)]
    one, two = parts if first else reversed(parts)
    built = started(RESNET, save(tmp_path / "own.pth", one | two))
    assert states_equal(built.encoder.state_dict(), without(mean, "fc."))
    assert f"`{averaged[:-1]}`" in built.note


def test_state_dicts_that_fit_and_differ_are_refused_and_equal_ones_are_not(resnet, tmp_path):
    query, key = prefixed("encoder_q.", resnet), prefixed("encoder_k.", resnet)
    path = save(tmp_path / "own.pth", {"state_dict": query | key})
    assert states_equal(encoder_of(RESNET, path), without(resnet, "fc."))
    save(path, {"state_dict": query | plus_one(key)})
    told = refusal(RESNET, path)
    assert "several state dicts fit this encoder, and differ" in told
    assert "state_dict.encoder_q.conv1.weight, state_dict.encoder_k.conv1.weight" in told


# --------------------------------------------------------------------------------------------------
# what does not fit


def test_a_file_of_another_library_is_refused_with_where_it_fits(mobile, tmp_path):
    told = refusal(RESNET, save(tmp_path / "own.pth", {"state_dict": mobile}))
    assert "own.pth: not the weights of this encoder, resnet18: " in told
    assert "96 of 100 tensors are missing (conv1.weight, layer1.0.conv1.weight, " in told
    assert "not used of the file: state_dict.conv_stem.weight, " in told
    assert "`encoder: tu-…` takes files of timm" in told


def test_a_deeper_network_with_the_same_first_layers_is_another_network(tmp_path):
    state = {name: value.half() for name, value in models.resnet34().state_dict().items()}
    path = save(tmp_path / "own.pth", state)
    told = refusal(RESNET, path)
    assert "the file has 80 more in its parts (layer1.2.conv1.weight, " in told
    assert "name the network that the file is of" in told
    assert encoder_of(BackboneNetwork(backbone="resnet34"), path)  # it does fit its own


def test_a_file_that_fits_in_part_is_refused_with_what_is_missing_or_has_another_shape(
    resnet, mobile, tmp_path
):
    path = tmp_path / "own.pth"
    told = refusal(RESNET, save(path, without(resnet, "layer4.", "bn1.running")))
    assert "27 of 100 tensors are missing (bn1.running_mean, bn1.running_var, layer4.0." in told
    odd = {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1), "bn1.bias": torch.zeros(3)}
    told = refusal(RESNET, save(path, resnet | odd))
    assert (
        "bn1.bias [3], not [64], layer1.0.conv1.weight [64, 64, 1, 1], not [64, 64, 3, 3]" in told
    )
    told = refusal(MOBILE, save(path, without(mobile, "blocks.0.0.conv_dw")))
    assert "1 of 206 tensors are missing (blocks.0.0.conv_dw.weight)" in told
    more = {"blocks.0.0.conv_dw.bias": torch.zeros(8)}
    told = refusal(MOBILE, save(path, mobile | more))
    assert "the file has 1 more in its parts (blocks.0.0.conv_dw.bias)" in told


def test_weights_for_other_channels_are_refused_with_what_to_set(mobile, tmp_path):
    five = mobile | {"conv_stem.weight": torch.rand(16, 5, 3, 3)}
    path = save(tmp_path / "own.pth", five)
    told = refusal(MOBILE, path)
    assert "conv_stem.weight [16, 5, 3, 3], not [16, 3, 3, 3]" in told
    assert told.endswith("set channels: 5")
    wide = MOBILE.model_copy(update={"channels": 5})
    assert torch.equal(encoder_of(wide, path)["model.conv_stem.weight"], five["conv_stem.weight"])
    three = encoder_of(wide, save(path, prefixed("module.", mobile)))["model.conv_stem.weight"]
    assert torch.equal(three, mobile["conv_stem.weight"][:, [0, 1, 2, 0, 1]] * 0.6)


def test_oddities_are_found_in_what_is_used_alone(resnet, tmp_path):
    path, nothing = tmp_path / "own.pth", torch.tensor([torch.nan])
    assert encoder_of(RESNET, save(path, resnet | {"fc.bias": nothing, "loss": nothing}))
    told = refusal(RESNET, save(path, resnet | {"bn1.bias": torch.full((64,), torch.nan)}))
    assert told.endswith("own.pth: bn1.bias: values that are not finite")
    told = refusal(RESNET, save(path, resnet | {"bn1.bias": torch.zeros(64, dtype=torch.int8)}))
    assert "bn1.bias int8" in told
    assert "quantised weights cannot be trained" in told


def test_an_index_that_a_network_keeps_is_no_quantised_weight(tmp_path):
    state = {"table": torch.rand(4), "relative_position_index": torch.arange(4)}
    path = save(tmp_path / "own.pth", state)
    assert states_equal(read_weights(str(path), Target(state, {}, Origin("mine")))[0], state)


# --------------------------------------------------------------------------------------------------
# what cannot be read


class Evil:
    """What leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(resnet, tmp_path, zipped):
    trace = tmp_path / "trace"
    content = {"state_dict": resnet, "best": Evil(str(trace))}
    path = save(tmp_path / "own.pth", content, _use_new_zipfile_serialization=zipped)
    told = refusal(RESNET, path)
    assert re.search(r"own\.pth: not read, as it holds \w*\.open, for which code would", told)
    assert "torch.save(network.state_dict(), …)" in told
    assert not trace.exists()


def test_whole_networks_and_numbers_of_numpy_are_refused_by_name(tmp_path):
    path = tmp_path / "own.pth"
    told = refusal(RESNET, save(path, torch.nn.Linear(2, 2)))
    assert "it holds torch.nn.modules.linear.Linear, for which code" in told
    told = refusal(RESNET, save(path, {"best": np.float64(0.5)}))
    assert re.search(r"it holds numpy\.\S+scalar, for which code", told)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 0.001, 0.5, 0.99999])
def test_a_file_that_is_cut_off_is_refused(mobile, tmp_path, zipped, kept):
    path = save(tmp_path / "own.pth", mobile, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    told = refusal(MOBILE, path)
    assert "own.pth: not a readable file of PyTorch" in told
    assert "fetch it again" in told


def test_other_files_are_refused(mobile, tmp_path):
    (tmp_path / "page.pth").write_text("<!doctype html>")
    assert "page.pth: not a readable file of PyTorch; " in refusal(RESNET, tmp_path / "page.pth")
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(scripted, tmp_path / "script.pt")
    assert "TorchScript" in refusal(RESNET, tmp_path / "script.pt")
    path = save(tmp_path / "own.safetensors", mobile)
    path.write_bytes(path.read_bytes()[:-1])
    assert "own.safetensors: not a readable .safetensors file" in refusal(MOBILE, path)
    for content in ({"epoch": 3}, [1, 2], {"state_dict": {}}):
        empty = save(tmp_path / "empty.pth", content)
        assert refusal(RESNET, empty).endswith("empty.pth: there is no tensor in it")


def test_a_file_whose_mappings_hold_each_other_is_read(resnet, tmp_path):
    content = {"state_dict": resnet}
    content["self"] = content
    path = save(tmp_path / "own.pth", content)
    assert states_equal(encoder_of(RESNET, path), without(resnet, "fc."))
