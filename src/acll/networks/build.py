"""Networks as named parts: an encoder, for segmentation a decoder, and the head of one task.

A task's network holds the parts that its kind uses and nothing else; its state dict has the names `encoder.…`,
`decoder.…`, `head.…`. What all tasks of a network share is told by `partition`.
"""

import copy
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from acll.errors import UserError
from acll.networks import small
from acll.settings import BackboneNetwork, Kind, Network

IMAGENET_CLASSES = 1000
_TEMPLATE_CLASSES = 7  # a number that no other layer of a segmentation head has


class NetworkError(UserError):
    """The network cannot be built as asked; the message says why."""


class TaskNetwork(nn.Module):
    """The network of one task.

    Images [N, 3, H, W] → logits [N, classes] (classification) or [N, classes, H, W] (segmentation).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        if self.decoder is not None:
            # a transformer's encoder also hands over its prefix tokens
            features = self.decoder(*features) if isinstance(features, tuple) else self.decoder(features)
        elif isinstance(features, tuple):
            features = features[0]
        logits: Tensor = self.head(features)
        return logits


class PooledHead(nn.Sequential):
    """The last feature map of an encoder [N, C, h, w], averaged → logits [N, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = super().forward(features[-1])  # type: ignore[no-untyped-call]
        return logits


def build(network: Network, kind: Kind, classes: int, seed: int, pretrained: bool = True) -> TaskNetwork:
    """The network of a task, drawn from `seed`: the same seed gives the same bits. Global random state is untouched.

    With `pretrained`, the encoder starts from `network.weights`. Raises NetworkError.
    """
    weights = network.weights if pretrained else "none"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names of encoders that the configuration has checked already
        torch.manual_seed(seed)
        if isinstance(network, BackboneNetwork) and network.backbone != small.NAME:
            if kind == "segmentation":
                raise NetworkError(f"{network.backbone} has no decoder, so it cannot learn a segmentation task")
            return _torchvision(network.backbone, weights, classes)
        return _segmentation_models(network, kind, weights, classes)


def body_kind(network: Network) -> Kind:
    """The kind of task whose network has every part."""
    return "classification" if isinstance(network, BackboneNetwork) else "segmentation"


# --------------------------------------------------------------------------------------------------------------------
# torchvision


def _torchvision(name: str, weights: str, classes: int) -> TaskNetwork:
    from torchvision.models import get_model

    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = get_model(name, weights="DEFAULT" if weights == "imagenet" else None, **options)
    encoder, features, last = without_classifier(model)
    _load_file(encoder, weights, ignore=last)
    return TaskNetwork(encoder, None, nn.Linear(features, classes))


def without_classifier(model: nn.Module) -> tuple[nn.Module, int, str]:
    """A classification model less its last layer: (the model, its number of features, the name of that layer).

    The last layer is the one linear layer or convolution with an output a class; it becomes the identity, in place.
    """
    outputs = [
        name
        for name, module in model.named_modules()
        if IMAGENET_CLASSES in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]
    if len(outputs) != 1:
        raise NetworkError(f"{type(model).__name__} has {len(outputs)} layers with an output a class; one is expected")
    layer = model.get_submodule(outputs[0])
    features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    model.set_submodule(outputs[0], nn.Identity())
    assert isinstance(features, int)
    return model, features, outputs[0]


# --------------------------------------------------------------------------------------------------------------------
# segmentation-models-pytorch


def _segmentation_models(network: Network, kind: Kind, weights: str, classes: int) -> TaskNetwork:
    """A network of the library, or its encoder with a pooled head. Both kinds have the same encoder, name by name."""
    if isinstance(network, BackboneNetwork) or (kind == "classification" and network.encoder == small.NAME):
        encoder: Any = small.SmallResNet()  # without the library, which takes longer to import than to use
        _load_file(encoder, weights, ignore=None)
        return TaskNetwork(encoder, None, PooledHead(encoder.out_channels[-1], classes))
    try:
        model = _architecture(network.decoder, network.encoder, weights)
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise NetworkError(f"{network.encoder} with {network.decoder}: {error}") from error
    _load_file(model.encoder, weights, ignore=None)
    _drop_idle(model.encoder, 224 if network.decoder == "dpt" else 64)
    if kind == "classification":
        return TaskNetwork(model.encoder, None, PooledHead(model.encoder.out_channels[-1], classes))
    return TaskNetwork(model.encoder, model.decoder, _segmentation_head(model.segmentation_head, classes))


def _architecture(decoder: str, encoder: str, weights: str) -> Any:
    """A whole model of the library; decoders are fitted to the small encoder's depth."""
    import segmentation_models_pytorch as smp

    options: dict[str, Any] = {}
    if encoder == small.NAME:
        smp.encoders.encoders[small.NAME] = {"encoder": small.SmallResNet, "params": {}, "pretrained_settings": {}}
        options["encoder_depth"] = small.DEPTH
        channels = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[decoder]).parameters.get("decoder_channels")
        if channels is not None and isinstance(channels.default, tuple):
            options["decoder_channels"] = channels.default[-small.DEPTH :]
    loaded = "imagenet" if weights == "imagenet" else None
    return smp.create_model(decoder, encoder, loaded, classes=_TEMPLATE_CLASSES, **options)


@torch.no_grad()
def _drop_idle(encoder: nn.Module, size: int) -> None:
    """Replace what takes no part in the forward pass, such as the last stages under a decoder that uses only three.

    Weights that do nothing would else be owned and counted. size: of a square image that the encoder takes, in pixels.
    """
    used: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: used.add(module)) for module in encoder.modules()
    ]
    was_training = encoder.training
    encoder.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    encoder.train(was_training)
    _replace_idle(encoder, used)


def _replace_idle(module: nn.Module, used: set[nn.Module]) -> None:
    for name, child in module.named_children():
        if child in used:
            continue
        if any(inner in used for inner in child.modules()):
            _replace_idle(child, used)
        else:
            setattr(module, name, nn.Identity())


def _segmentation_head(template: nn.Module, classes: int) -> nn.Module:
    """A new head like the library's own, its last convolution with an output a class."""
    head = copy.deepcopy(template)
    name, layer = [
        (name, module)
        for name, module in head.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == _TEMPLATE_CLASSES
    ][-1]
    fresh = nn.Conv2d(layer.in_channels, classes, layer.kernel_size, padding=layer.padding)  # type: ignore[arg-type]
    nn.init.xavier_uniform_(fresh.weight)
    nn.init.zeros_(fresh.bias)  # type: ignore[arg-type]
    head.set_submodule(name, fresh)
    return head


# --------------------------------------------------------------------------------------------------------------------
# weights from a file


def _load_file(encoder: nn.Module, weights: str, ignore: str | None) -> None:
    """Load a state dict in the library's own names; the layer named `ignore` may be in it and is left out."""
    if weights in ("none", "imagenet"):
        return
    path = Path(weights)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise NetworkError(f"{path}: not a readable .safetensors file: {error}") from None
    if ignore is not None:
        state = {name: value for name, value in state.items() if not name.startswith(ignore + ".")}
    expected = encoder.state_dict()
    for name, value in state.items():
        if name in expected and value.shape != expected[name].shape:
            raise NetworkError(f"{path}: {name} has shape {list(value.shape)}, not {list(expected[name].shape)}")
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        raise NetworkError(
            f"{path}: not the weights of this encoder: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])} …), {len(unexpected)} are unknown ({', '.join(unexpected[:3])} …)"
        )
    encoder.load_state_dict(state, strict=False)
