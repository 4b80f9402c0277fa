"""Networks as named parts: an encoder, for segmentation a decoder, and the head of one task.

A task's network holds the parts that its kind uses and nothing else; its state dict has the names
`encoder.…`, `decoder.…`, `head.…`. What all tasks of a network share is told by `partition`.
"""

import copy
import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from itertools import dropwhile, takewhile
from math import prod
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from acll import plugins
from acll.networks import classic, small
from acll.networks.pretrained import Origin, Target, read_weights
from acll.networks.spec import (
    BackboneNetwork,
    DecoderNetwork,
    Network,
    NetworkError,
    PerceptronNetwork,
    PluginNetwork,
    learns_masks,
)
from acll.settings import Kind

IMAGENET_CLASSES = 1000
IMAGENET_CHANNELS = 3  # for which every encoder is made, before `_start` gives it its own number
_TEMPLATE_CLASSES = 7  # a number that no other layer of a segmentation head has


class TaskNetwork(nn.Module):
    """The network of one task: images [N, channels, H, W] → logits.

    Grey images [N, 1, H, W] are repeated to fill the channels. Logits are [N, classes]
    (classification) or [N, classes, H, W] (segmentation). built_from: what `build` was asked for.
    note: what is to be told of the file of weights that the encoder starts from, or empty.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module | None,
        head: nn.Module,
        channels: int = IMAGENET_CHANNELS,
        note: str = "",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.note = note
        self.built_from: Network | None = None

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(self.encode(images)))
        return logits

    def encode(self, images: Tensor) -> Any:
        """Return what the encoder makes of images; its form depends on the network."""
        if images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        return self.encoder(images)

    def features(self, encoded: Any) -> Any:
        """Return what the head takes, from what `encode` gives."""
        if self.decoder is not None:
            # a transformer's encoder also hands over its prefix tokens
            return self.decoder(*encoded) if isinstance(encoded, tuple) else self.decoder(encoded)
        return encoded[0] if isinstance(encoded, tuple) else encoded


class PooledHead(nn.Sequential):
    """The last feature map of an encoder [N, C, h, w], averaged → logits [N, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = super().forward(features[-1])  # type: ignore[no-untyped-call]
        return logits


# our own classification networks: for each its encoder, of a width, and its head, of a number of
# features, which are those of width 1, and of classes
_OWN: dict[str, tuple[Callable[..., nn.Module], Callable[[int, int], nn.Module], int]] = {
    small.SMALL_RESNET: (small.SmallResNet, PooledHead, small.WIDTHS[-1]),
    classic.LENET: (classic.lenet, nn.Linear, classic.LENET_FEATURES),
    classic.CONV_SMALL: (classic.conv_small, nn.Linear, classic.CONV_SMALL_FEATURES),
}
OWN_BACKBONES = tuple(_OWN)


def build(
    network: Network, kind: Kind, classes: int, seed: int, pretrained: bool = True
) -> TaskNetwork:
    """Return the network of a task, drawn from `seed`: the same seed gives the same bits.

    It lies on the CPU, or has no memory where the default device is `meta`. Global random state, of
    the CPU and of GPUs, is untouched. With `pretrained`, the encoder starts from `network.weights`.
    Raises NetworkError.
    """
    weights = network.weights if pretrained else "none"
    if kind == "segmentation" and not learns_masks(network):
        name = getattr(network, "backbone", getattr(network, "plugin", "a perceptron"))
        raise NetworkError(f"{name} has no decoder, so it cannot learn a segmentation task")
    # a GPU would draw other numbers
    without_memory = torch.get_default_device().type == "meta"
    device = torch.device("meta" if without_memory else "cpu")
    with device, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # libraries warn of names of encoders, which the configuration has checked already
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` seeds those of GPUs, too
        try:
            built = _built(network, kind, weights, classes)
        except OSError as error:  # files of weights are read elsewhere
            raise NetworkError(
                f"its ImageNet weights cannot be fetched: {error}; build it once with an internet "
                "connection, which keeps them on this machine, or name a file of weights"
            ) from None
    built.built_from = network
    return built


def _built(network: Network, kind: Kind, weights: str, classes: int) -> TaskNetwork:
    if isinstance(network, PerceptronNetwork):
        return _perceptron(network, classes)
    if isinstance(network, PluginNetwork):
        return _plugged(network, kind, classes)
    if isinstance(network, DecoderNetwork):
        return _segmentation_models(network, kind, weights, classes)
    if network.backbone in _OWN:
        return _own(network.backbone, weights, network, classes)
    return _torchvision(network.backbone, weights, network.channels, classes)


# --------------------------------------------------------------------------------------------------
# our own; to import a library would take longer than all the rest


def _perceptron(network: PerceptronNetwork, classes: int) -> TaskNetwork:
    encoder = classic.perceptron(network.channels * prod(network.image_size), network.hidden)
    return TaskNetwork(encoder, None, nn.Linear(network.hidden[-1], classes), network.channels)


def _own(
    name: str, weights: str, network: BackboneNetwork | DecoderNetwork, classes: int
) -> TaskNetwork:
    make_encoder, make_head, features = _OWN[name]
    encoder = make_encoder(width=network.width)
    note = _start(encoder, weights, network.channels, Origin(name))
    head = make_head(small.scaled(features, network.width), classes)
    return TaskNetwork(encoder, None, head, network.channels, note)


# --------------------------------------------------------------------------------------------------
# torchvision


def _torchvision(name: str, weights: str, channels: int, classes: int) -> TaskNetwork:
    from torchvision import models
    from torchvision.models import MNASNet, get_model, list_models

    # models of other modules come with parts that are fetched even where no weights are asked for
    if name not in list_models(module=models):
        raise NetworkError(f"there is no backbone {name!r}")

    options = {}
    if name in ("googlenet", "inception_v3"):
        # transform_input, on with ImageNet weights, would rescale three channels and drop others
        options = {"aux_logits": False, "transform_input": False}
    model = get_model(name, weights="DEFAULT" if weights == "imagenet" else None, **options)
    if isinstance(model, MNASNet):
        # its own wants the number of a version, which only a state dict fresh from a module has
        model._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, model)
        # its normalisations follow a batch by 0.0003, for a million steps; after a few hundred what
        # evaluation takes for mean and variance would still be 0 and 1, and activations grow from
        # layer to layer until they are NaN
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
    whole = tuple(model.state_dict())
    encoder, features = without_classifier(model)
    note = _start(encoder, weights, channels, Origin(name, whole=lambda: whole))
    return TaskNetwork(encoder, None, nn.Linear(features, classes), channels, note)


def without_classifier(model: nn.Module) -> tuple[nn.Module, int]:
    """Return a model without its last layer, and its number of features.

    The last layer is the one linear layer or convolution with an output a class of ImageNet; it
    becomes the identity, in place. Raises NetworkError where there are none or several.
    """
    outputs = _layers_with(model, IMAGENET_CLASSES)
    if len(outputs) != 1:
        raise NetworkError(
            f"{type(model).__name__} has {len(outputs)} layers with an output a class; one is "
            "expected"
        )
    layer = model.get_submodule(outputs[0])
    features = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    model.set_submodule(outputs[0], nn.Identity())
    assert isinstance(features, int)
    return model, features


def _layers_with(model: nn.Module, outputs: int) -> list[str]:
    """Return the names of the linear layers and convolutions with so many outputs."""
    return [
        name
        for name, module in model.named_modules()
        if outputs in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    ]


# --------------------------------------------------------------------------------------------------
# plug-ins


def _plugged(network: PluginNetwork, kind: Kind, classes: int) -> TaskNetwork:
    """Return the network of a task that a plug-in makes. Raises NetworkError."""
    factory = plugins.function_of("network", network.plugin)
    try:
        made = factory(kind, classes, network.channels, **network.options)
    except plugins.PluginError:
        raise
    except Exception as error:  # whatever the code of others raises
        words = plugins.failure_of("network", network.plugin, error)
        raise NetworkError(f"the plug-in {network.plugin!r} fails: {words}") from error
    if not isinstance(made, nn.Module):
        raise NetworkError(
            f"the plug-in {network.plugin!r} gives {plugins.described(made)} in place of a "
            "torch.nn.Module"
        )
    encoder, head = (getattr(made, part, None) for part in ("encoder", "head"))
    if isinstance(encoder, nn.Module) and isinstance(head, nn.Module):
        decoder = getattr(made, "decoder", None)
        _refuse_parts(network.plugin, kind, made, decoder)
        return TaskNetwork(encoder, decoder, head, network.channels)
    if kind == "segmentation" or getattr(made.forward, "__func__", None) is nn.Module.forward:
        raise NetworkError(_lacking_parts(network.plugin, kind, made))
    return _with_last_layer_found(network, made, classes)


def _lacking_parts(name: str, kind: Kind, made: nn.Module) -> str:
    """Return in words which parts a network is to have for its kind, and which it has."""
    wanted = "encoder, decoder and head"
    if kind == "classification":
        wanted = "encoder and head, or a `forward` of its own,"
    return f"the plug-in {name!r} must have the parts {wanted} for {kind}; it has {_parts(made)}"


def _parts(made: nn.Module) -> str:
    """Return the names of the parts of a network, and of what is called as one and is no module."""
    own = [name for name, _ in made.named_children()]
    named = [one for one in own if not one.isdecimal()]
    numbered = ["parts without names"] if len(named) < len(own) else []
    odd = [
        f"{one} (no torch.nn.Module)"
        for one in ("encoder", "decoder", "head")
        if one not in own and getattr(made, one, None) is not None
    ]
    return ", ".join([*named, *numbered, *odd]) or "none"


def _refuse_parts(name: str, kind: Kind, made: nn.Module, decoder: Any) -> None:
    """Raise NetworkError where a network has not the parts that its kind has, and no others."""
    if kind == "segmentation" and not isinstance(decoder, nn.Module):
        raise NetworkError(_lacking_parts(name, kind, made))
    if kind == "classification" and decoder is not None:
        raise NetworkError(f"the plug-in {name!r} must have no decoder for {kind}")
    others = [
        own for own in made.state_dict() if own.split(".")[0] not in ("encoder", "decoder", "head")
    ]
    if others:
        raise NetworkError(
            f"the plug-in {name!r} has state outside of encoder, decoder and head: {others[0]}"
        )


def _with_last_layer_found(network: PluginNetwork, made: nn.Module, classes: int) -> TaskNetwork:
    """Return a classifier whose last linear layer has become the head. Raises NetworkError."""
    found = [name for name in _layers_with(made, classes) if name]  # "" is the whole of it
    layer = made.get_submodule(found[-1]) if found else None
    if not isinstance(layer, nn.Linear):
        linear = [
            f": {name} has {one.out_features} outputs for {classes} classes"
            for name, one in made.named_modules()
            if isinstance(one, nn.Linear) and name
        ]
        raise NetworkError(
            f"the plug-in {network.plugin!r} has neither the parts encoder and head (it has "
            f"{_parts(made)}), nor a last linear layer with an output a class"
            f"{linear[-1] if linear else ''}"
        )
    made.set_submodule(found[-1], _BeforeHead())
    return TaskNetwork(made, None, layer, network.channels)


class _BeforeHead(nn.Identity):
    """Where the layer was that has become the head."""


@torch.no_grad()
def refuse_outputs(network: TaskNetwork, kind: Kind, classes: int, size: tuple[int, int]) -> None:
    """Raise NetworkError unless a network takes images of a size (height, width) and gives logits.

    So are the networks of plug-ins tried, of whose inner form nothing is known.
    """
    shape = (2, classes, *size) if kind == "segmentation" else (2, classes)
    name = getattr(network.built_from, "plugin", "")
    where = f"the plug-in {name!r}, for {kind} with images of {size[0]} x {size[1]}"
    images = torch.randn(2, network.channels, *size, generator=torch.Generator().manual_seed(0))
    given: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, _BeforeHead):
            module.register_forward_hook(lambda *called: given.append(called[-1]))
    try:
        encoded = network.eval().encode(images)
        logits = network.head(network.features(encoded))
    except Exception as error:  # whatever the code of others raises
        raise NetworkError(
            f"{where}, fails: {plugins.failure_of('network', name, error)}"
        ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != shape:
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise NetworkError(f"{where}, gives {found} in place of logits {list(shape)}")
    if given and not torch.equal(given[-1], encoded):
        raise NetworkError(
            f"{where}, goes on after its last linear layer: it must end with it, and give logits"
        )


# --------------------------------------------------------------------------------------------------
# segmentation-models-pytorch


def _segmentation_models(
    network: DecoderNetwork, kind: Kind, weights: str, classes: int
) -> TaskNetwork:
    """Return a network of the library, or for classification its encoder with a pooled head.

    Both have the same encoder, name by name. Raises NetworkError.
    """
    channels = network.channels
    if kind == "classification" and network.encoder == small.SMALL_RESNET:
        return _own(small.SMALL_RESNET, weights, network, classes)
    try:
        model = _architecture(network.decoder, network.encoder, weights, network.width)
    except (KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise NetworkError(f"{network.encoder} with {network.decoder}: {error}") from error
    origin = _origin(network.encoder, model.encoder)
    # the encoders that `dpt` takes have a fixed size of images
    _drop_idle(model.encoder, 224 if network.decoder == "dpt" else 64)
    note = _start(model.encoder, weights, channels, origin)
    if kind == "classification":
        head: nn.Module = PooledHead(model.encoder.out_channels[-1], classes)
        return TaskNetwork(model.encoder, None, head, channels, note)
    head = _segmentation_head(model.segmentation_head, classes)
    return TaskNetwork(model.encoder, model.decoder, head, channels, note)


def _architecture(decoder: str, encoder: str, weights: str, width: float) -> Any:
    """Return a whole model of the library; decoders are fitted to the small encoder's depth and
    width."""
    import segmentation_models_pytorch as smp

    options: dict[str, Any] = {}
    if encoder == small.SMALL_RESNET:
        smp.encoders.encoders[small.SMALL_RESNET] = {
            "encoder": small.SmallResNet,
            "params": {"width": width},
            "pretrained_settings": {},
        }
        options["encoder_depth"] = small.DEPTH
        channels = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[decoder]).parameters.get(
            "decoder_channels"
        )
        if channels is not None and isinstance(channels.default, tuple):
            last = channels.default[-small.DEPTH :]
            options["decoder_channels"] = tuple(small.scaled(one, width) for one in last)
    loaded = "imagenet" if weights == "imagenet" else None
    return smp.create_model(decoder, encoder, loaded, classes=_TEMPLATE_CLASSES, **options)


def _origin(name: str, encoder: nn.Module) -> Origin:
    """Return what an encoder is a part of. name: as the configuration has it."""
    names = tuple(encoder.state_dict())
    if not name.startswith("tu-"):
        return Origin(name, whole=lambda: names)
    model = functools.cache(lambda: _timm_model(name.removeprefix("tu-")))

    def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
        # what timm does with files of a network's authors, and with its own older ones
        rename = getattr(sys.modules[type(model()).__module__], "checkpoint_filter_fn", None)
        return state if rename is None else dict(rename(state, model()))

    wrapper = ""  # one or two modules, each with the next as its `model`
    while all(one.startswith(f"{wrapper}model.") for one in names):
        wrapper += "model."
    return Origin(name, wrapper, lambda: model().state_dict(), renamed)


def _timm_model(name: str) -> nn.Module:
    """Return a whole network of timm, without memory where timm can make it so."""
    import timm

    try:
        with torch.device("meta"):
            return timm.create_model(name)  # type: ignore[no-any-return]
    except RuntimeError:  # it computes with numbers of a tensor
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(name)  # type: ignore[no-any-return]


@torch.no_grad()
def _drop_idle(encoder: nn.Module, size: int) -> None:
    """Replace modules that take no part in the forward pass by the identity, in place.

    Such as the last stages under a decoder that uses only three. Their weights would do nothing and
    yet be owned and counted. size: of a square image that the encoder takes, in pixels.
    """
    used: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: used.add(module))
        for module in encoder.modules()
    ]
    was_training = encoder.training
    encoder.eval()(torch.zeros(1, IMAGENET_CHANNELS, size, size))
    for hook in hooks:
        hook.remove()
    encoder.train(was_training)
    _replace_idle(encoder, used)


def _replace_idle(module: nn.Module, used: set[nn.Module]) -> None:
    """Replace, among the modules that did not run, the largest ones of which no part did."""
    for name, child in module.named_children():
        if child in used:
            continue
        if any(inner in used for inner in child.modules()):
            _replace_idle(child, used)
        else:
            setattr(module, name, nn.Identity())


def _segmentation_head(template: nn.Module, classes: int) -> nn.Module:
    """Return a new head like the library's own, its last convolution with an output a class."""
    head = copy.deepcopy(template)
    name, layer = [
        (name, module)
        for name, module in head.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == _TEMPLATE_CLASSES
    ][-1]
    fresh = nn.Conv2d(
        layer.in_channels,
        classes,
        layer.kernel_size,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
    )
    nn.init.xavier_uniform_(fresh.weight)
    nn.init.zeros_(fresh.bias)  # type: ignore[arg-type]
    head.set_submodule(name, fresh)
    return head


# --------------------------------------------------------------------------------------------------
# where weights come from, and how they are fitted to the number of channels


def _start(encoder: nn.Module, weights: str, channels: int, origin: Origin) -> str:
    """Give an encoder made for 3 channels its weights and its number of channels, in place.

    Pretrained weights of 3 channels are repeated for other numbers; a file of weights for this very
    number is loaded as it is. Without pretrained weights, the first layer is drawn anew, as PyTorch
    draws a layer of so many inputs. Return what is to be told of a file. Raises NetworkError.
    """
    # `out_channels[0]` of an encoder still says 3: no decoder reads it
    layers = _image_layers(encoder) if channels != IMAGENET_CHANNELS else {}
    state: dict[str, Tensor] = {}
    note = ""
    if weights == "imagenet":
        state = encoder.state_dict()
    elif weights != "none":
        also = {f"{name}.weight": _shape(layer, channels) for name, layer in layers.items()}
        state, note = read_weights(weights, Target(encoder.state_dict(), also, origin))
    for name, layer in layers.items():
        known = state.get(f"{name}.weight")
        if known is not None and known.shape == layer.weight.shape:
            state[f"{name}.weight"] = _repeated(known, channels)
        layer.in_channels = channels
        layer.weight = nn.Parameter(layer.weight.new_empty(_shape(layer, channels)))
        if weights == "none":
            layer.reset_parameters()
    if weights != "none":
        # Only counters of batches may be missing. Encoders have a method of their own of this name,
        # which takes other arguments and other names.
        nn.Module.load_state_dict(encoder, state, strict=False)
    return note


def _shape(layer: nn.Conv2d, channels: int) -> torch.Size:
    """Return the shape of the weights of a layer that takes images of so many channels."""
    return torch.Size((layer.out_channels, channels, *layer.kernel_size))


def _image_layers(encoder: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions that take the images, by name. Raises NetworkError without one.

    They are the first with 3 inputs, and those right behind it: its parallel branches. Where the
    first one gives 3 channels itself, what follows reads these.
    """
    layers = [
        (name, layer) for name, layer in encoder.named_modules() if isinstance(layer, nn.Conv2d)
    ]
    onwards = dropwhile(lambda named: not _takes_images(named[1]), layers)
    found = dict(takewhile(lambda named: _takes_images(named[1]), onwards))
    first = next(iter(found.items()), None)
    if first is not None and first[1].out_channels == IMAGENET_CHANNELS:
        found = dict([first])
    if not found:
        raise NetworkError(
            f"{type(encoder).__name__} has no convolution that takes images of "
            f"{IMAGENET_CHANNELS} channels, so it cannot be fitted to others"
        )
    return found


def _takes_images(layer: nn.Conv2d) -> bool:
    return layer.in_channels == IMAGENET_CHANNELS and layer.groups == 1


def _repeated(weight: Tensor, channels: int) -> Tensor:
    """Return weights [O, 3, h, w] of a first convolution as [O, channels, h, w].

    Input channel i gets the weights of channel i mod 3, all scaled by 3 / channels, so that
    activations keep their scale; a single channel gets the sum. This is what timm and
    segmentation-models-pytorch do.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % IMAGENET_CHANNELS] * (IMAGENET_CHANNELS / channels)
