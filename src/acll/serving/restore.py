"""The network of one task, out of a packed one; evaluation and everybody who loads a file get it here."""

from dataclasses import fields

import torch
from pydantic import TypeAdapter

from acll.data.prepared import Header
from acll.networks.build import NetworkError, TaskNetwork, build
from acll.packing.ownership import Packed, State, TaskRecord, effective
from acll.settings import Network


def restore(packed: Packed, task: str) -> tuple[TaskNetwork, State]:
    """The network of a task, and the state that is in it. Raises PackingError for a task that was not learned."""
    state = effective(packed, task)
    return network_of(packed, packed.record(task), state), state


def network_of(packed: Packed, record: TaskRecord, state: State) -> TaskNetwork:
    """An ordinary network in evaluation mode, which has this state and nothing in common with any other.

    packed: says what the network is built from; its weights are not looked at. Raises NetworkError.
    """
    network = skeleton(packed, record)
    network.load_state_dict(state, assign=True)
    return network.eval()


def skeleton(packed: Packed, record: TaskRecord) -> TaskNetwork:
    """The network of a task without its state: where that can be built without memory, without. Raises NetworkError."""
    spec = specification(packed)
    try:
        with torch.device("meta"):
            return build(spec, record.kind, len(record.classes), 0, pretrained=False)
    except (NotImplementedError, NetworkError):  # some look at values while they are built, and here are none
        return build(spec, record.kind, len(record.classes), 0, pretrained=False)


def specification(packed: Packed) -> Network:
    """What a packed network is built from."""
    spec: Network = TypeAdapter(Network).validate_python(packed.network)
    return spec


def header_of(record: TaskRecord) -> Header:
    """How a network's record of a task says that images are prepared."""
    return Header(**{part.name: getattr(record, part.name) for part in fields(Header)})
