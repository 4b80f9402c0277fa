"""How many bytes are needed to use tasks, in one network and in separate ones: files with everything in them.

All is known from the header of a packed file; no weight is looked at.
"""

from acll.packing.file import size
from acll.packing.header import Header
from acll.packing.ownership import uses


def bytes_of_first(header: Header) -> list[int]:
    """Of the file for the first task, the first two, and so on."""
    return [size(_first(header, count)) for count in range(1, len(header.tasks) + 1)]


def bytes_alone(header: Header, task: str) -> int:
    """Of the file of a network for one task alone, of which nothing is released."""
    (record,) = (record for record in header.tasks if record.name == task)
    layers = [
        layer.model_copy(update={"owned": [layer.count if uses(record.kind, layer.name) else 0]})
        for layer in header.layers
    ]
    private = {task: header.private[task]}
    return size(header.model_copy(update={"tasks": [record], "layers": layers, "private": private}))


def _first(header: Header, count: int) -> Header:
    tasks = header.tasks[:count]
    layers = [layer.model_copy(update={"owned": layer.owned[:count]}) for layer in header.layers]
    private = {record.name: header.private[record.name] for record in tasks}
    return header.model_copy(update={"tasks": tasks, "layers": layers, "private": private})
