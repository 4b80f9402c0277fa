"""Which state of a network all tasks share, weight by weight, and which is private to each task.

Shared: weights of convolutions, linear layers, attention projections, embeddings of position and
class token. Private: the head (and heads of earlier tasks that are trained with it), affine
parameters and running statistics of normalisations, biases, layer scales, persistent buffers. What
is neither is refused, so nothing can drift unnoticed.
"""

from dataclasses import dataclass

from torch import nn

from acll.errors import UserError

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
_PROJECTIONS = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
_EMBEDDINGS = {
    "pos_embedding",
    "pos_embed",
    "class_token",
    "cls_token",
    "reg_token",
    "relative_position_bias_table",
}
_SCALES = {"layer_scale", "logit_scale", "gamma", "gamma_1", "gamma_2", "gamma1", "gamma2"}


class UnpackableError(UserError):
    """The network has state that can be neither shared nor private; the message names it."""


@dataclass(frozen=True)
class Partition:
    """Names in the state dict of a task's network, in its order."""

    shared: tuple[str, ...]
    private: tuple[str, ...]


def partition(network: nn.Module) -> Partition:
    """Split the state dict of `network` (parts as attributes, the head called `head`).

    Raises UnpackableError.
    """
    shared: list[str] = []
    private: list[str] = []
    seen: dict[int, str] = {}
    state = network.state_dict(keep_vars=True)
    for name, value in state.items():
        if id(value) in seen:
            raise UnpackableError(f"{name} and {seen[id(value)]} are one tensor (tied weights)")
        seen[id(value)] = name
        path, _, leaf = name.rpartition(".")
        module = network.get_submodule(path)
        is_parameter = leaf in module._parameters
        if (
            path.split(".")[0] in ("head", "earlier")
            or not is_parameter
            or _is_private(module, leaf)
        ):
            private.append(name)
        elif _is_shared(module, leaf):
            shared.append(name)
        else:
            raise UnpackableError(
                f"{name} of {type(module).__name__} is neither a weight that tasks can share "
                "nor a bias"
            )
    return Partition(tuple(shared), tuple(private))


def _is_shared(module: nn.Module, leaf: str) -> bool:
    if isinstance(module, _WEIGHTED):
        return leaf == "weight"
    return leaf in _EMBEDDINGS or (
        isinstance(module, nn.MultiheadAttention) and leaf in _PROJECTIONS
    )


def _is_private(module: nn.Module, leaf: str) -> bool:
    return (
        "Norm" in type(module).__name__
        or leaf == "bias"
        or leaf.endswith("_bias")
        or leaf in _SCALES
    )
