"""Write registry.json: every architecture that the libraries offer, and why some cannot be packed.

`python -m acll.networks.make_registry` takes some minutes. The configuration reads the file, so
that a name is checked before any job without importing the libraries; a test compares its names
with the installed libraries.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from acll.networks.build import OWN_BACKBONES, build
from acll.networks.partition import UnpackableError, partition
from acll.networks.spec import (
    BackboneNetwork,
    DecoderNetwork,
    Network,
    NetworkError,
    body_kind,
)
from acll.settings import Kind

SIZES = (8, 16, 32, 48, 64, 80, 96, 128, 224)
FIXED = ("vit_", "maxvit")  # the length of their sequence is part of their weights


def main() -> None:
    """Build every architecture once and write registry.json."""
    import segmentation_models_pytorch as smp
    import torchvision

    warnings.simplefilter("ignore")
    backbones: dict[str, str | None] = {}
    smallest: dict[str, int] = {}
    exact: dict[str, int] = {}
    for name in [*OWN_BACKBONES, *torchvision.models.list_models(module=torchvision.models)]:
        network = BackboneNetwork(backbone=name)
        backbones[name] = refusal(network)
        if name.startswith(FIXED):
            exact[name] = 224
        elif backbones[name] is None:
            smallest[name] = smallest_size(network)
        print(name, backbones[name], smallest.get(name), file=sys.stderr, flush=True)
    encoders = {
        name: refusal(DecoderNetwork(decoder="unet", encoder=name), "classification")
        for name in [
            "resnet_small",
            *(name for name in smp.encoders.get_encoder_names() if name != "resnet_small"),
        ]
    }
    decoders = {
        name: refusal(
            DecoderNetwork(
                decoder=name, encoder="tu-vit_tiny_patch16_224" if name == "dpt" else "resnet18"
            )
        )
        for name in smp.MODEL_ARCHITECTURES_MAPPING
    }
    for name in decoders:
        if name == "dpt":
            exact[name] = 224
        else:
            smallest[name] = smallest_size(DecoderNetwork(decoder=name, encoder="resnet18"))
    small = {
        name: refusal(DecoderNetwork(decoder=name, encoder="resnet_small")) for name in decoders
    }
    content = {"backbones": backbones, "smallest": smallest, "exact": exact}
    content["without_imagenet"] = without_imagenet(smp.encoders.encoders)
    content |= {"encoders": encoders, "decoders": decoders, "decoders_of_resnet_small": small}
    Path(__file__).with_name("registry.json").write_text(
        json.dumps(content, indent=1) + "\n", encoding="utf-8"
    )


def without_imagenet(encoders: dict[str, Any]) -> dict[str, str]:
    """Return why some architectures cannot start from ImageNet weights, by name."""
    auxiliary = "its ImageNet form has auxiliary heads and another scale of inputs"
    reasons = {"googlenet": auxiliary, "inception_v3": auxiliary}
    reasons["vit_h_14"] = "its ImageNet form is made for images of 518 pixels"
    for name, entry in encoders.items():
        if "imagenet" not in entry["pretrained_settings"]:
            reasons[name] = "the library has no ImageNet weights for it"
    return reasons | dict.fromkeys(OWN_BACKBONES, "there are no ImageNet weights for it")


def refusal(network: Network, kind: Kind | None = None) -> str | None:
    """Return why the network cannot be packed, or None."""
    kind = kind or body_kind(network)
    try:
        made = build(network, kind, 2, 0)
        partition(made)
        if kind == "segmentation":
            size = 224 if getattr(network, "decoder", "") == "dpt" else 128
            with torch.no_grad():
                shape = made.eval()(torch.zeros(1, 3, size, size)).shape[2:]
            if tuple(shape) != (size, size):
                return f"images of {size} pixels come out with {shape[0]}"
    except (NetworkError, UnpackableError, RuntimeError) as error:
        return str(error).strip() or type(error).__name__
    return None


def smallest_size(network: Network) -> int:
    """Return the smallest of SIZES, in pixels, with which the network trains on square images."""
    model = build(network, body_kind(network), 2, 0).train()
    with torch.no_grad():
        for size in SIZES:
            try:
                model(torch.zeros(2, 3, size, size))
                return size
            except (RuntimeError, ValueError, AssertionError, IndexError):
                continue
    raise NetworkError(f"{network}: none of the sizes {SIZES} fits")


if __name__ == "__main__":
    main()
