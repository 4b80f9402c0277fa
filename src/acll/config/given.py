"""Packed networks that a configuration goes on from: what it says of them, and what they hold."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from acll.networks.spec import (
    BackboneNetwork,
    DecoderNetwork,
    Network,
    PerceptronNetwork,
    PluginNetwork,
    network_kind,
)
from acll.settings import Settings


class LearnedNetwork(Settings):
    """A packed network that has learned tasks already, in place of a new one.

    The tasks of a sequence come after those. Every seed and method goes on from the file.
    """

    packed: str = Field(
        description="its file, below `data_root`: a `network.safetensors`, by any name"
    )


@dataclass(frozen=True)
class Given:
    """What the file of a packed network says.

    network: what it is built from. tasks: those that it has learned, in order. identity: SHA-256 of
    the file.
    """

    network: Network
    tasks: tuple[str, ...]
    identity: str


def _kind(value: Any) -> str:
    packed = isinstance(value, LearnedNetwork) or (isinstance(value, dict) and "packed" in value)
    return "packed" if packed else network_kind(value)


AnyNetwork = Annotated[
    Annotated[BackboneNetwork, Tag("backbone")]
    | Annotated[DecoderNetwork, Tag("decoder")]
    | Annotated[PerceptronNetwork, Tag("perceptron")]
    | Annotated[PluginNetwork, Tag("plugin")]
    | Annotated[LearnedNetwork, Tag("packed")],
    Discriminator(_kind),
]
