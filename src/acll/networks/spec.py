"""What a network is built from: the types of `networks` in a configuration."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from acll import plugins
from acll.errors import UserError
from acll.settings import MOST_BANDS, Kind, Settings, Size

Width = Annotated[int, Field(gt=0, le=2**20)]
CHANNELS_HELP = "channels (bands) of its images; grey images are repeated to fill them"
ChannelCount = Annotated[int, Field(ge=1, le=MOST_BANDS)]
OWN_NETWORKS = ("resnet_small", "lenet", "conv_small")  # those whose layers are ours
# of files of weights: those of safetensors, and those of PyTorch, as people call them
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".bin")
_WEIGHTS_HELP = (
    "`none`, `imagenet`, or a file below `data_root`, with names of torchvision or timm: "
    "`.safetensors`, or of PyTorch, `.pth`, `.pt`, …"
)
# in a packed file, beside the settings of a network that is a plug-in: the name of its file
PLUGIN_FILE = "plugin_file"
SMALLEST_WIDTH, LARGEST_WIDTH = 0.25, 4.0
WidthFactor = Annotated[float, Field(ge=SMALLEST_WIDTH, le=LARGEST_WIDTH)]
# decoders whose width follows that of `resnet_small`
WIDE_DECODERS = ("unet", "unetplusplus", "manet")


class NetworkError(UserError):
    """The network cannot be built as asked; the message says why."""


def _refuse_width(name: str, width: float, own: tuple[str, ...]) -> None:
    """Raise ValueError for a network of a library that is to have another width than its own."""
    if width != 1 and name not in own:
        raise ValueError(f"{name} has one width only; others are for {', '.join(own)}")


class BackboneNetwork(Settings):
    """A classification network."""

    backbone: str = Field(
        description="a classification model of torchvision, or for small images "
        "`resnet_small`, `lenet`, `conv_small`"
    )
    weights: str = Field("none", description=_WEIGHTS_HELP)
    channels: ChannelCount = Field(3, description=CHANNELS_HELP)
    width: WidthFactor = Field(
        1.0, description="of `resnet_small`, `lenet`, `conv_small`: factor of all channels"
    )

    @model_validator(mode="after")
    def _can_be_as_wide(self) -> Self:
        _refuse_width(self.backbone, self.width, OWN_NETWORKS)
        return self


class DecoderNetwork(Settings):
    """An encoder with a segmentation decoder.

    Classification tasks use its encoder and a pooled head.
    """

    decoder: str = Field(description="a decoder of segmentation-models-pytorch, in small letters")
    encoder: str = Field(
        description="one of its encoders (`tu-…`: any of timm), or `resnet_small` for small images"
    )
    weights: str = Field("none", description=f"of the encoder: {_WEIGHTS_HELP}")
    channels: ChannelCount = Field(3, description=CHANNELS_HELP)
    width: WidthFactor = Field(
        1.0,
        description="of `resnet_small`: factor of all channels; with `unet`, `unetplusplus` and "
        "`manet` also of the decoder's",
    )

    @model_validator(mode="after")
    def _can_be_as_wide(self) -> Self:
        _refuse_width(self.encoder, self.width, OWN_NETWORKS[:1])
        return self


class PerceptronNetwork(Settings):
    """A multilayer perceptron with ReLU, for classification of images of one size."""

    hidden: list[Width] = Field(
        min_length=1, max_length=100, description="widths of the hidden layers, from the input on"
    )
    image_size: Size = Field(
        description="height and width in pixels of its images, equal to that of its tasks"
    )
    weights: Literal["none"] = Field("none", description="always `none`")
    channels: ChannelCount = Field(1, description=CHANNELS_HELP)


class PluginNetwork(Settings):
    """A network of your own: docs/plugins.md."""

    plugin: str = Field(description="name of a plug-in")
    options: dict[str, Any] = Field({}, description="what it is given besides, by name")
    weights: Literal["none"] = Field("none", description="always `none`")
    channels: ChannelCount = Field(3, description=CHANNELS_HELP)


def network_kind(value: Any) -> str:
    """Return the tag of a network in the union of them. value: its settings, or as it was given."""
    if isinstance(value, PluginNetwork) or (isinstance(value, dict) and "plugin" in value):
        return "plugin"
    if isinstance(value, PerceptronNetwork) or (isinstance(value, dict) and "hidden" in value):
        return "perceptron"
    keyed = isinstance(value, dict) and ("decoder" in value or "encoder" in value)
    return "decoder" if keyed or isinstance(value, DecoderNetwork) else "backbone"


Network = Annotated[
    Annotated[BackboneNetwork, Tag("backbone")]
    | Annotated[DecoderNetwork, Tag("decoder")]
    | Annotated[PerceptronNetwork, Tag("perceptron")]
    | Annotated[PluginNetwork, Tag("plugin")],
    Discriminator(network_kind),
]


OF_ONE_WIDTH = (PerceptronNetwork, PluginNetwork)  # networks whose width is no setting


def width_of(network: Network) -> float:
    """Return the factor of a network's channels; 1 where its width is no setting."""
    return 1.0 if isinstance(network, OF_ONE_WIDTH) else network.width


def at_width(network: Network, width: float) -> Network:
    """Return what a network of another width is built from.

    Raises ValidationError, or ValueError for one without a width, where it cannot have this one.
    """
    if width == width_of(network):
        return network
    if isinstance(network, OF_ONE_WIDTH):
        raise ValueError("a perceptron or a plug-in has no width")
    return type(network).model_validate(network.model_dump() | {"width": width})


def alike_but_for_width(network: Network | None, other: Network | None) -> bool:
    """Return whether two networks are built from the same, whatever their widths."""
    if network is None or other is None or isinstance(network, OF_ONE_WIDTH):
        return network == other
    without = {"width"}
    return type(network) is type(other) and network.model_dump(exclude=without) == other.model_dump(
        exclude=without
    )


def why_not_wider(network: Network) -> str | None:
    """Return why a network cannot be made wider after tasks were learned; None where it can be."""
    if isinstance(network, OF_ONE_WIDTH):
        what = "a perceptron" if isinstance(network, PerceptronNetwork) else "a plug-in"
        return f"{what} has no width; {', '.join(OWN_NETWORKS)} have one"
    name = network.backbone if isinstance(network, BackboneNetwork) else network.encoder
    if name not in OWN_NETWORKS:
        return f"{name} has one width only; {', '.join(OWN_NETWORKS)} have others"
    if isinstance(network, DecoderNetwork) and network.decoder not in WIDE_DECODERS:
        return f"{network.decoder} has one width only; {', '.join(WIDE_DECODERS)} have others"
    if network.weights != "none":
        return f"its weights are a file, for the width {network.width:g} alone"
    if network.width == LARGEST_WIDTH:
        return f"it has the largest width, {LARGEST_WIDTH:g}"
    return None


def body_kind(network: Network) -> Kind:
    """Return the kind of task whose network has every part.

    Raises PluginError for a plug-in that this process does not know.
    """
    return "segmentation" if learns_masks(network) else "classification"


def learns_masks(network: Network) -> bool:
    """Return whether a network can learn segmentation. Raises as `body_kind`."""
    if isinstance(network, PluginNetwork):
        return "segmentation" in plugins.required("network", network.plugin).tasks
    return isinstance(network, DecoderNetwork)
