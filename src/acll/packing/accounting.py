"""How many bytes tasks need, in one packed network and in separate ones, as whole files.

All is known from the header of a packed file; no weight is looked at.
"""

from acll.packing.floats import coded_size
from acll.packing.header import PackedHeader
from acll.packing.ownership import kind_uses
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
    for layer in header.layers:
        owned = layer.count if kind_uses(record.kind, layer.name) else 0
        layers.append(layer.model_copy(update={"owned": [owned]}))
    weights = sum(layer.owned[0] for layer in layers)
    known = sum(layer.owned[position] for layer in header.layers) == weights
    parts = {
        "tasks": [record],
        "layers": layers,
        "weight_bytes": [header.weight_bytes[position] if known else coded_size(weights)],
        "private": {task: header.private[task]},
    }
    return packed_size_of(header.model_copy(update=parts))


def _first(header: PackedHeader, count: int) -> PackedHeader:
    """Return the header of the network as it was after its first tasks."""
    tasks = header.tasks[:count]
    layers = [layer.model_copy(update={"owned": layer.owned[:count]}) for layer in header.layers]
    private = {record.name: header.private[record.name] for record in tasks}
    parts = {
        "tasks": tasks,
        "layers": layers,
        "weight_bytes": header.weight_bytes[:count],
        "private": private,
    }
    return header.model_copy(update=parts)
