"""A network made smaller and faster without a change of what it computes.

Normalisations are folded into the layers before them. Channels that make no difference are removed.

A channel makes no difference to a layer that reads it in three cases: all weights that read it are
zero; or it is always 0; or it always has one other value and the layer does not pad, so that the
value can go into the layer's bias. A channel that makes no difference to any layer need not be
computed. Such channels come about when whole filters are pruned.

Channels are followed through sums, products and concatenations. Operations that are not known here
end the search: all channels that they read stay.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from acll.errors import UserError

aten = torch.ops.aten
_CONV, _LINEAR, _NORM, _CAT = (
    aten.conv2d.default, aten.linear.default, aten.batch_norm.default, aten.cat.default,
)  # fmt: skip
_ADD = {aten.add.Tensor, aten.add_.Tensor}
_MUL = {aten.mul.Tensor, aten.mul_.Tensor}
_POINTWISE = {
    aten.relu.default, aten.relu_.default, aten.hardswish.default, aten.hardswish_.default,
    aten.silu.default, aten.silu_.default, aten.hardsigmoid.default, aten.hardsigmoid_.default,
    aten.sigmoid.default, aten.gelu.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.leaky_relu.default, aten.leaky_relu_.default,
}  # fmt: skip
_SAME = {  # each channel by itself; one that is the same everywhere stays as it is
    aten.dropout.default, aten.dropout_.default,
    aten.feature_dropout.default, aten.feature_dropout_.default,
    aten.max_pool2d.default, aten.adaptive_avg_pool2d.default, aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec, aten.clone.default, aten.contiguous.default,
}  # fmt: skip
_FLATTEN = aten.flatten.using_ints
_BY_VECTOR = ((1,), (1, -1))  # arguments that make one vector of each image
_IDLE = {aten.dropout_.default, aten.feature_dropout_.default}  # in evaluation mode
_MAY_BE_ITS_INPUT = {aten.dropout.default, aten.feature_dropout.default, aten.contiguous.default}
_ANY_NUMBER = {0: torch.export.Dim("batch", min=1, max=2**20)}  # of images
Channel = tuple[Node, int]


@dataclass(frozen=True)
class Compacted:
    """A network without needless channels, and how much smaller it is."""

    network: GraphModule  # float [N, C, H, W] → as the network that it was made from
    weights: tuple[int, int]  # of convolutions and linear layers, before and after
    channels: tuple[int, int]  # that these write, before and after


@torch.no_grad()
def compacted(network: nn.Module, images: Tensor) -> Compacted:
    """Return a network with normalisations folded and needless channels removed.

    network: in evaluation mode. images: an example of what it takes, two images or more. Raises
    UserError where the result does not compute the same.
    """
    module = program(network, images).module()
    assert isinstance(module, GraphModule)
    before = _counts(module)
    _fold(module)
    if not any(_changes_others(node) for node in module.graph.nodes if node.target not in _IDLE):
        # a layer that is made smaller may have been the only reader of another channel
        while _remove(module):
            pass
    module.graph.eliminate_dead_code()
    module = GraphModule(module, module.graph)  # without parameters that nothing uses
    expected = network(images)
    if not bool(torch.isfinite(expected).all()):
        raise UserError("what this network gives is not finite")
    difference = float((module(images) - expected).abs().max())
    if not difference <= 1e-3 * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"the compact form of this network computes something else (by {difference:.1e}): "
            "a fault of acll"
        )
    after = _counts(module)
    return Compacted(module, (before[0], after[0]), (before[1], after[1]))


def program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return a network as a program of PyTorch, for any number of images such as these."""
    return torch.export.export(network, (images,), dynamic_shapes=(_ANY_NUMBER,), strict=False)


def _counts(module: GraphModule) -> tuple[int, int]:
    """Return the numbers of weights of its layers, and of channels that these write."""
    layers = [
        node
        for node in module.graph.nodes
        if node.target in (_CONV, _LINEAR) and _known(module, node)
    ]
    weights = [_weight(module, node) for node in layers]
    return sum(weight.numel() for weight in weights), sum(len(weight) for weight in weights)


# --------------------------------------------------------------------------------------------------
# parameters of nodes


def _tensor(module: GraphModule, node: Any) -> Tensor | None:
    """Return the parameter or buffer that a node stands for; None where it is another node."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(module)
    return value if isinstance(value, Tensor) else None


def _weight(module: GraphModule, node: Node) -> Tensor:
    value = _tensor(module, node.args[1])
    assert value is not None
    return value


def _argument(node: Node, index: int, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else default


def _set(module: GraphModule, node: Node, index: int, value: Tensor | None) -> None:
    """Give a node another parameter, of its own: others may share the one that it has."""
    arguments = [*node.args, *[None] * (index + 1 - len(node.args))]
    if value is None:
        arguments[index] = None
    else:
        name = f"_compact_{node.name}_{index}"  # no module has such a name
        module.register_buffer(name, value.contiguous())
        with module.graph.inserting_before(node):
            arguments[index] = module.graph.get_attr(name)
    node.args = tuple(arguments)


# --------------------------------------------------------------------------------------------------
# folding


def _fold(module: GraphModule) -> None:
    """Put normalisations into the weights of convolutions that only they read.

    Jacob et al. 2018, section 3.2.
    """
    for node in list(module.graph.nodes):
        source = node.args[0] if node.target == _NORM else None
        if not isinstance(source, Node) or source.target != _CONV or len(source.users) > 1:
            continue
        if not (_known(module, node) and _known(module, source)):
            continue
        given = (source.args[1], _argument(source, 2, None), *node.args[1:5])
        # in double precision, so that a weight is rounded once and not at every step
        weight, bias, gamma, beta, mean, variance = (
            None if value is None else value.double()
            for value in (_tensor(module, argument) for argument in given)
        )
        assert weight is not None and mean is not None and variance is not None  # noqa: PT018
        folded = fuse_conv_bn_weights(
            weight, bias, mean, variance, float(node.args[7]), gamma, beta
        )
        _set(module, source, 1, folded[0].data.float())
        _set(module, source, 2, folded[1].data.float())
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)


# --------------------------------------------------------------------------------------------------
# which channels make no difference


def _width(node: Node) -> int:
    """Return the channels of a node's output; 0 where it is no map or vector of channels."""
    value = node.meta.get("val") if node.op in ("placeholder", "call_function") else None
    return int(value.shape[1]) if isinstance(value, Tensor) and value.dim() in (2, 4) else 0


def _changes_others(node: Node) -> bool:
    """Return whether an operation in place may change what another one reads.

    Channels are followed as if nothing were in place, so such a network is left as it is.
    """
    if not _in_place(node):
        return False
    source = node.args[0]
    if not isinstance(source, Node) or source.op != "call_function" or len(source.users) > 1:
        return True
    if _in_place(source):
        return _changes_others(source)
    schema = source.target._schema  # type: ignore[union-attr]
    return source.target in _MAY_BE_ITS_INPUT or any(
        value.alias_info is not None for value in schema.returns
    )


def _in_place(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _constants(module: GraphModule) -> dict[Node, Tensor]:
    """Return for each node the value that each channel always has everywhere, [channels].

    It is NaN where there is no such value.
    """
    known: dict[Node, Tensor] = {}
    for node in module.graph.nodes:
        if width := _width(node):
            value = _constant(module, node, known)
            if value is None or len(value) != width:
                value = torch.full((width,), torch.nan)
            known[node] = value
    return known


def _constant(module: GraphModule, node: Node, known: dict[Node, Tensor]) -> Tensor | None:
    """Return the values of a node's channels, from those of what it reads; None if not known."""
    inputs = [known[source] for source in node.all_input_nodes if source in known]
    if node.op != "call_function" or not inputs:
        return None
    if _is_layer(module, node):
        return _of_layer(module, node, inputs[0])
    if node.target == _NORM and _known(module, node):
        return _of_norm(module, node, inputs[0])
    if node.target in _POINTWISE:
        function: Callable[..., Tensor] = node.target
        return function(inputs[0].clone(), *node.args[1:], **node.kwargs)
    if node.target in _SAME:
        return inputs[0]
    if node.target == _FLATTEN and node.args[1:] in _BY_VECTOR:
        return inputs[0].repeat_interleave(_width(node) // len(inputs[0]))
    if node.target == _CAT and _argument(node, 1, 0) == 1:
        return torch.cat([known[source] for source in node.all_input_nodes])
    if node.target in _ADD and not node.kwargs and _alike(node):
        left, right = (known[source] for source in node.args[:2])  # type: ignore[index]
        return left + right
    if node.target in _MUL and _alike(node):
        left, right = (known[source] for source in node.args)  # type: ignore[index]
        # 0 times a value that is not known is 0, and not NaN
        return torch.where((left == 0) | (right == 0), 0.0, left * right)
    return None


def _of_norm(module: GraphModule, node: Node, given: Tensor) -> Tensor:
    """Return the values that a normalisation's channels always have, from those of its input."""
    gamma, beta, mean, variance = (_tensor(module, argument) for argument in node.args[1:5])
    epsilon: Any = node.args[7]
    assert mean is not None and variance is not None  # noqa: PT018
    value = (given - mean) / torch.sqrt(variance + float(epsilon))
    return value * (1 if gamma is None else gamma) + (0 if beta is None else beta)


def _alike(node: Node) -> bool:
    """Return whether an operation takes two nodes of as many channels as it gives."""
    return all(
        isinstance(source, Node) and _width(source) == _width(node) for source in node.args[:2]
    )


def _known(module: GraphModule, node: Node) -> bool:
    """Return whether all parameters of a layer or normalisation are tensors of the module.

    A normalisation also has to use its running statistics.
    """
    given = node.args[1:5] if node.target == _NORM else node.args[1:3]
    there = all(argument is None or _tensor(module, argument) is not None for argument in given)
    known = there and not node.kwargs
    if node.target == _NORM:
        training, statistics = node.args[5], node.args[3:5]
        return known and not training and None not in statistics
    return known


def _is_layer(module: GraphModule, node: Node) -> bool:
    """Return whether a node is a convolution, or a linear layer of vectors.

    A linear layer of maps has its channels in another dimension.
    """
    vectors = node.target == _LINEAR and len(node.meta["val"].shape) == 2
    return (node.target == _CONV or vectors) and _known(module, node)


def _groups(node: Node) -> int:
    return int(_argument(node, 6, 1)) if node.target == _CONV else 1


def _pads(node: Node) -> bool:
    """Return whether zeros beyond the border go into what a layer computes."""
    padding = _argument(node, 4, 0) if node.target == _CONV else 0
    return bool(any(padding) if isinstance(padding, list | tuple) else padding)


def _of_layer(module: GraphModule, node: Node, given: Tensor) -> Tensor | None:
    """Return the values that a layer's channels always have, from those of its input."""
    weight, bias = _weight(module, node), _tensor(module, _argument(node, 2, None))
    start = torch.zeros(len(weight)) if bias is None else bias
    # with padding, a value other than 0 is not the same at the border
    usable = torch.where(given == 0, 0.0, torch.nan) if _pads(node) else given
    if _groups(node) != 1:
        if not _is_depthwise(module, node):
            return None
        reads = weight.flatten(1)
        return torch.where((reads == 0).all(dim=1), start, start + reads.sum(dim=1) * usable)
    reads = weight.flatten(2) if weight.dim() > 2 else weight[:, :, None]
    each = torch.where((reads == 0).all(dim=2), 0.0, reads.sum(dim=2) * usable)
    return start + each.sum(dim=1)


def _is_depthwise(module: GraphModule, node: Node) -> bool:
    weight = _weight(module, node)
    return weight.shape[1] == 1 and _groups(node) == len(weight)


# --------------------------------------------------------------------------------------------------
# removing


class _Ties:
    """Sets of channels that are kept or removed together: each is computed from another alone.

    A union-find structure.
    """

    def __init__(self) -> None:
        self._above: dict[Channel, Channel] = {}

    def of(self, channel: Channel) -> Channel:
        """Return the channel that stands for all that are tied to one."""
        while (above := self._above.get(channel, channel)) != channel:
            self._above[channel] = channel = self._above.get(above, above)
        return channel

    def tie(self, one: Channel, other: Channel) -> None:
        """Tie two channels, with all that are tied to either."""
        self._above[self.of(one)] = self.of(other)


def _remove(module: GraphModule) -> bool:
    """Remove the channels that no layer needs; return whether there were any."""
    known, ties = _constants(module), _Ties()
    read = [channel for node in module.graph.nodes for channel in _reads(module, node, known, ties)]
    needed = {ties.of(channel) for channel in read}
    keep = {}
    for node in known:  # one channel has to be left of each
        if not any(ties.of((node, channel)) in needed for channel in range(_width(node))):
            needed.add(ties.of((node, 0)))
    for node in known:
        own = [ties.of((node, channel)) in needed for channel in range(_width(node))]
        keep[node] = torch.tensor(own)
    if all(bool(flags.all()) for flags in keep.values()):
        return False
    for node in list(module.graph.nodes):
        if node in keep and (
            _is_layer(module, node) or (node.target == _NORM and _known(module, node))
        ):
            _cut(module, node, keep, known)
    for node, flags in keep.items():
        value = node.meta["val"]
        node.meta["val"] = value.new_empty((value.shape[0], int(flags.sum()), *value.shape[2:]))
    return True


def _reads(
    module: GraphModule, node: Node, known: dict[Node, Tensor], ties: _Ties
) -> Iterator[Channel]:
    """Yield the channels that a node needs.

    Channels that it hands on one by one are tied to its own instead.
    """
    sources = [source for source in node.all_input_nodes if source in known]
    if _is_layer(module, node) and _groups(node) == 1 and sources[:1] == [node.args[0]]:
        given, weight = known[sources[0]], _weight(module, node)
        unread = (weight.transpose(0, 1).flatten(1) == 0).all(dim=1)
        foldable = given == 0 if _pads(node) else ~given.isnan()
        for channel in torch.nonzero(~unread & ~foldable).flatten().tolist():
            yield sources[0], channel
    elif _by_channel(module, node, known):
        start = 0  # of a source's channels in those of the node
        for source in sources:
            # each channel of a map becomes several of a flattened vector
            times = _width(node) // _width(source) if node.target == _FLATTEN else 1
            for channel in range(_width(source) * times):
                ties.tie((source, channel // times), (node, start + channel))
            start += _width(source) if node.target == _CAT else 0
    else:
        for one in (*sources, node):
            if one in known:
                yield from ((one, channel) for channel in range(_width(one)))


def _by_channel(module: GraphModule, node: Node, known: dict[Node, Tensor]) -> bool:
    """Return whether each channel of a node is computed from one channel of each of its inputs."""
    source = node.args[0] if node.args else None
    if node not in known:
        return False
    if node.target == _CONV:
        return _known(module, node) and _is_depthwise(module, node)
    if node.target == _NORM:
        return _known(module, node) and source in known
    if node.target == _CAT:
        distinct = len(node.args[0]) == len(node.all_input_nodes)  # type: ignore[arg-type]
        return (
            distinct
            and _argument(node, 1, 0) == 1
            and all(source in known for source in node.all_input_nodes)
        )
    if node.target in _ADD | _MUL:
        return len(node.args) == 2 and _alike(node) and not node.kwargs
    if node.target == _FLATTEN:
        return node.args[1:] in _BY_VECTOR and source in known
    return node.target in _POINTWISE | _SAME and source in known


def _cut(
    module: GraphModule, node: Node, keep: dict[Node, Tensor], known: dict[Node, Tensor]
) -> None:
    """Take the channels that are not kept out of a layer's weights.

    Constants that it reads go into its bias.
    """
    source = node.args[0]
    assert isinstance(source, Node)
    if node.target == _NORM:
        for index in range(1, 5):
            value = _tensor(module, node.args[index])
            _set(module, node, index, None if value is None else value[keep[node]])
        return
    weight, bias = _weight(module, node), _tensor(module, _argument(node, 2, None))
    if _groups(node) != 1 and not _is_depthwise(module, node):
        return  # all its channels are needed
    if _groups(node) == 1:
        reads, gone = keep[source], ~keep[source]
        # what is not constant is read with weights of zero, so any value will do for it
        values = torch.nan_to_num(known[source][gone])
        read = weight[:, gone]
        folded = (read.flatten(2).sum(dim=2) if read.dim() > 2 else read) @ values
        if bool((folded != 0).any()):
            bias = folded if bias is None else bias + folded
        weight = weight[:, reads]
    _set(module, node, 1, weight[keep[node]])
    _set(module, node, 2, None if bias is None else bias[keep[node]])
    if _groups(node) != 1:
        node.args = (*node.args[:6], int(keep[node].sum()))  # depthwise: as many groups as channels
