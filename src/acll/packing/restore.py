"""The network of one task, out of the packed one."""

from pydantic import TypeAdapter

from acll.networks.build import TaskNetwork, build
from acll.packing.ownership import Packed, State, effective
from acll.settings import Network


def specification(packed: Packed) -> Network:
    """What the network was built from."""
    spec: Network = TypeAdapter(Network).validate_python(packed.network)
    return spec


def restore(packed: Packed, task: str) -> tuple[TaskNetwork, State]:
    """An ordinary network that does what the task's does, independent of all others, and the state that is in it.

    Raises PackingError for a task that was not learned.
    """
    record, state = packed.record(task), effective(packed, task)
    network = build(specification(packed), record.kind, len(record.classes), 0, pretrained=False)
    network.load_state_dict(state)
    return network.eval(), state
