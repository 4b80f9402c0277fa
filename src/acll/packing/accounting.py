"""How many bytes are needed to use tasks, in one network and in separate ones: files with everything in them."""

from dataclasses import replace

import torch

from acll.packing import file
from acll.packing.ownership import Packed, alone, first, uses


def bytes_of_first(packed: Packed) -> list[int]:
    """Of the file for the first task, the first two, and so on."""
    return [file.size(first(packed, count)) for count in range(1, len(packed.tasks) + 1)]


def bytes_alone(packed: Packed, task: str) -> int:
    """Of the file of a network for one task alone, of which nothing is released."""
    own, kind = alone(packed, task), packed.record(task).kind
    owner = {name: torch.ones_like(value) if uses(kind, name) else value for name, value in own.owner.items()}
    return file.size(replace(own, owner=owner))
