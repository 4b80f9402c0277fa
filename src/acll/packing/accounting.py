"""How many bytes tasks need, in one packed network and in separate ones, as whole files.

All is known from the header of a packed file; no weight is looked at.
"""

from acll.packing.header import PackedHeader
from acll.packing.ownership import kind_uses
from acll.packing.packed_file import packed_size_of


def bytes_of_first(header: PackedHeader) -> list[int]:
    """Return the bytes of a file for the first task, for the first two, and so on."""
    return [packed_size_of(_first(header, count)) for count in range(1, len(header.tasks) + 1)]


def bytes_alone(header: PackedHeader, task: str) -> int:
    """Return the bytes of a file for one task alone, of which nothing is released."""
    (record,) = (record for record in header.tasks if record.name == task)
    layers = []
    for layer in header.layers:
        owned = layer.count if kind_uses(record.kind, layer.name) else 0
        layers.append(layer.model_copy(update={"owned": [owned]}))
    private = {task: header.private[task]}
    return packed_size_of(
        header.model_copy(update={"tasks": [record], "layers": layers, "private": private})
    )


def _first(header: PackedHeader, count: int) -> PackedHeader:
    """Return the header of the network as it was after its first tasks."""
    tasks = header.tasks[:count]
    layers = [layer.model_copy(update={"owned": layer.owned[:count]}) for layer in header.layers]
    private = {record.name: header.private[record.name] for record in tasks}
    return header.model_copy(update={"tasks": tasks, "layers": layers, "private": private})
