"""Networks that cannot be used are found out before any data are prepared."""

from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from acll.networks.build import build
from acll.networks.buildable import Wanted, faults_and_notes
from acll.networks.spec import BackboneNetwork, DecoderNetwork, NetworkError

SMALL = BackboneNetwork(backbone="resnet_small")


def wanted(network, kinds=("classification",), weights=None, identity="none"):
    return {"mine": Wanted(network, kinds, weights, identity)}


def with_file(path, state):
    save_file(state, path)
    return wanted(SMALL, weights=path, identity="a digest")


def faults_of(wanted, cache):
    return faults_and_notes(wanted, cache)[0]


def small_state():
    return build(SMALL, "classification", 2, 0).encoder.state_dict()


@pytest.mark.parametrize(
    ("network", "kinds", "words"),
    [
        (
            ("unet", "tu-poolformer_s12"),
            ["classification"],
            "neither a weight that tasks can share",
        ),
        (("unet", "tu-poolformer_s12"), ["segmentation"], "neither a weight that tasks can share"),
        (("unet", "tu-beit_base_patch16_224"), ["segmentation"], "Unsupported"),
        (("linknet", "mit_b0"), ["segmentation"], "not supported"),
    ],
)
def test_networks_that_cannot_be_packed_or_built_are_found(tmp_path, network, kinds, words):
    decoder, encoder = network
    of = wanted(DecoderNetwork(decoder=decoder, encoder=encoder), kinds)
    (line,) = faults_of(of, tmp_path / "networks.json")
    assert line.startswith("networks.mine: ")
    assert words in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {"layer.weight": torch.zeros(3)}, "not the weights of this encoder"),
        (lambda state: dict(list(state.items())[:-8]), "tensors are missing"),
        (lambda state: {name: value[:1] for name, value in state.items() if value.ndim}, "shape"),
        (lambda state: {name: value * torch.nan for name, value in state.items()}, "not finite"),
        (lambda state: {name: value.int() for name, value in state.items()}, "quantised"),
        (lambda state: {name: value - 2 for name, value in state.items()}, "variances below 0"),
    ],
)
def test_weights_that_cannot_fit_are_found(tmp_path, change, words):
    (line,) = faults_of(
        with_file(tmp_path / "own.safetensors", change(small_state())), tmp_path / "networks.json"
    )
    assert words in line
    assert "own.safetensors" in line


def test_weights_that_cannot_be_fetched_are_told_with_what_to_do(monkeypatch):
    def far(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", far)
    network = BackboneNetwork(backbone="resnet18", weights="imagenet")
    with pytest.raises(NetworkError, match=r"cannot be fetched: .*no route to host"):
        build(network, "classification", 2, 0)


def test_a_file_that_is_none_of_weights_is_found(tmp_path):
    (tmp_path / "own.safetensors").write_text("these are no weights")
    of = wanted(SMALL, weights=tmp_path / "own.safetensors")
    (line,) = faults_of(of, tmp_path / "networks.json")
    assert "not a readable .safetensors file" in line


def test_a_sound_network_is_built_once_and_one_with_other_weights_again(tmp_path):
    of, cache = with_file(tmp_path / "own.safetensors", small_state()), tmp_path / "networks.json"
    assert faults_of(of, cache) == []
    (tmp_path / "own.safetensors").write_text("spoilt, of the same identity")
    assert faults_of(of, cache) == []
    assert len(faults_of({"mine": replace(of["mine"], identity="another")}, cache)) == 1
    cache.write_text("[[[")
    assert len(faults_of(of, cache)) == 1


def test_what_of_a_file_is_not_read_is_told_each_time(tmp_path):
    path, cache = tmp_path / "own.safetensors", tmp_path / "networks.json"
    of = with_file(path, small_state() | {"fc.weight": torch.zeros(10, 128)})
    named = {"mine": replace(of["mine"], network=SMALL.model_copy(update={"weights": "own"}))}
    faults, notes = faults_and_notes(named, cache)
    assert faults == []
    (line,) = notes
    assert line.startswith("networks.mine.weights = 'own': the encoder takes ")
    assert line.endswith(" besides: fc.weight")
    path.write_text("spoilt, of the same identity: it is not built again")
    assert faults_and_notes(named, cache) == ([], notes)
