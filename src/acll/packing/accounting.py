"""How many bytes tasks need, in one packed network and in separate ones, as whole files.

All is known from the header of a packed file; no weight is looked at.
"""

import math

from acll.packing.corners import seen_from
from acll.packing.floats import coded_size
from acll.packing.header import NarrowerLayers, PackedHeader
from acll.packing.ownership import kind_uses, network_at
from acll.packing.packed_file import packed_size_of


def bytes_of_first(header: PackedHeader) -> list[int]:
    """Return the bytes of a file for the first task, for the first two, and so on."""
    return [packed_size_of(_first(header, count)) for count in range(1, len(header.tasks) + 1)]


def bytes_alone(header: PackedHeader, task: str) -> int:
    """Return the bytes of a file for one task alone, of which nothing is released.

    Where the network does not have all of its weights, they are not known, so none is taken to be
    far smaller than the largest: `floats` stores those in a byte more.
    """
    position = [record.name for record in header.tasks].index(task)
    record = header.tasks[position]
    layers = []
    for layer, corner in zip(header.layers, header.corners(record.width), strict=True):
        owned = math.prod(corner.shape) if kind_uses(record.kind, layer.name) else 0
        own = {"shape": list(corner.shape), "owned": [owned], "unread": [0]}
        layers.append(layer.model_copy(update=own))
    weights = sum(layer.owned[0] for layer in layers)
    known = sum(layer.owned[position] for layer in header.layers) == weights
    parts = {
        "network": network_at(header.network, record.width),
        "tasks": [record],
        "layers": layers,
        "weight_bytes": [header.weight_bytes[position] if known else coded_size(weights)],
        "private": header.private.only([task]),
        "narrower": [],
    }
    return packed_size_of(header.model_copy(update=parts))


def weights_owned(header: PackedHeader, position: int) -> int:
    """Return how many shared weights a task owns. position: of the task, from 1 on."""
    return sum(layer.owned[position - 1] for layer in header.layers)


def weights_read(header: PackedHeader, position: int) -> int:
    """Return how many owned weights a task reads, its own included.

    position: of the task, from 1 on.
    """
    kind = header.tasks[position - 1].kind
    return sum(
        sum(layer.owned[:position]) - layer.unread[position - 1]
        for layer in header.layers
        if kind_uses(kind, layer.name)
    )


def unread_share(header: PackedHeader, position: int) -> float:
    """Return the share of the weights of earlier tasks that a task does not read.

    position: of the task, from 1 on. 0 where there are none.
    """
    kind = header.tasks[position - 1].kind
    layers = [layer for layer in header.layers if kind_uses(kind, layer.name)]
    earlier = sum(sum(layer.owned[: position - 1]) for layer in layers)
    return sum(layer.unread[position - 1] for layer in layers) / earlier if earlier else 0.0


def _first(header: PackedHeader, count: int) -> PackedHeader:
    """Return the header of the network as it was after its first tasks."""
    tasks = header.tasks[:count]
    width = tasks[-1].width
    layers = []
    for layer, corner in zip(header.layers, header.corners(width), strict=True):
        of_first = {"owned": layer.owned[:count], "unread": layer.unread[:count]}
        layers.append(layer.model_copy(update={"shape": list(corner.shape)} | of_first))
    parts = {
        "tasks": tasks,
        "layers": layers,
        "weight_bytes": header.weight_bytes[:count],
        "private": header.private.only([record.name for record in tasks]),
        "narrower": [_seen_at(header, one, width) for one in header.narrower if one.width < width],
    }
    return header.model_copy(update=parts)


def _seen_at(header: PackedHeader, narrower: NarrowerLayers, width: float) -> NarrowerLayers:
    """Return what a header said of a width when the network had another one."""
    names = [layer.name for layer in header.layers]
    pairs = zip(narrower.corners(names), header.corners(width), strict=True)
    corners = [seen_from(inner, outer) for inner, outer in pairs]
    runs = {name: list(own.runs) for name, own in zip(names, corners, strict=True) if own.runs}
    return narrower.model_copy(update={"runs": runs})
