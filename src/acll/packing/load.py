"""The network of one task, out of a packed one: for evaluation, and for all who load a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch.overrides import TorchFunctionMode

from acll import plugins
from acll.data.prepared import TaskInfo
from acll.errors import harmless, quoted
from acll.networks.build import TaskNetwork, build
from acll.networks.spec import PLUGIN_FILE, Network, PluginNetwork, at_width
from acll.packing.ownership import Packed, PackingError, State, TaskRecord, task_state_dict
from acll.packing.packed_file import PackedFile


def restore_network(packed: Packed, task: str) -> tuple[TaskNetwork, State]:
    """Return the network of a task, and the state that is in it.

    Raises PackingError for a task that was not learned.
    """
    state = task_state_dict(packed, task)
    return network_of(packed, packed.record(task), state), state


def loaded(opened: PackedFile, task: str) -> TaskNetwork:
    """Return the network of a task; of the file, nothing else is read.

    Raises PackingError, which names the file.
    """
    with naming(opened):
        return network_of(opened.without_weights(), opened.record(task), opened.state(task))


@contextmanager
def naming(opened: PackedFile) -> Iterator[None]:
    """Let each PackingError of the block name the file."""
    path = harmless(opened.tensor_file.path)
    try:
        yield
    except PackingError as error:
        raise PackingError(str(error) if path in str(error) else f"{path}: {error}") from None


def network_of(packed: Packed, record: TaskRecord, state: State) -> TaskNetwork:
    """Return a network in evaluation mode that has this state, and no memory in common with others.

    packed: says what the network is built from; its weights are not looked at. Raises PackingError
    where it cannot be built, or the state is not that of such a network.
    """
    network = skeleton(packed, record, state)
    # assign: the tensors of `state` become those of the network, which so far has none in memory
    network.load_state_dict(state, assign=True)
    return network.eval()


def skeleton(packed: Packed, record: TaskRecord, state: State) -> TaskNetwork:
    """Return the network of a task that fits a state, without having it.

    Its tensors have no memory where it can be built so. Raises PackingError as `network_of`.
    """
    spec = _at_its_width(packed, record)
    _refuse_without_plugin(spec, packed)
    _refuse_images(spec, record)
    try:
        network = _without_memory(spec, record) or build(
            spec, record.kind, len(record.classes), 0, pretrained=False
        )
    except ImportError:
        raise
    except Exception as error:  # whatever libraries raise at what they have not been made for
        raise PackingError(
            f"the network is not sound: it cannot be built: {quoted(error, 300)}"
        ) from None
    expected = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
    found = {name: (value.shape, value.dtype) for name, value in state.items()}
    odd = expected.items() ^ found.items()  # in one of both only
    if odd:
        raise PackingError(
            f"the network is not sound: {min(odd)[0]} does not fit what it says it is built from"
        )
    return network


def _refuse_without_plugin(spec: Network, packed: Packed) -> None:
    """Raise PackingError where the network is a plug-in that this process has not been given.

    What the file says of it is told and never looked for: nobody is to run code of its choice.
    """
    if not isinstance(spec, PluginNetwork) or plugins.find("network", spec.plugin) is not None:
        return
    file = packed.network.get(PLUGIN_FILE)
    where = f", which was in {quoted(file)}" if file else ""
    given = plugins.places_in_use()
    if given:
        rest = f"{' and '.join(map(quoted, given))} has no network of this name"
    else:
        rest = (
            "name your copy of that file (`--plugins FILE`, or `acll.load(path, plugins=[FILE])`)"
        )
    raise PackingError(
        f"its network is built by the plug-in {quoted(spec.plugin)!r}{where}: {rest}"
    )


def _without_memory(spec: Network, record: TaskRecord) -> TaskNetwork | None:
    """Return the network of a task whose tensors have no memory; None where that is impossible."""
    try:
        with torch.device("meta"), _Undrawn():
            network = build(spec, record.kind, len(record.classes), 0, pretrained=False)
    except Exception:  # some look at values while they are built, and here are none
        return None
    in_state = network.state_dict().keys()
    # what is no part of the state would never be given a value
    return None if any(name not in in_state for name, _ in network.named_buffers()) else network


class _Undrawn(TorchFunctionMode):
    """A mode in which nothing is drawn at random.

    Tensors without memory take no values, but to draw them imports a compiler, which takes a
    second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else next(iter(given.values()))
        return func(*args, **given)


def _refuse_images(spec: Network, record: TaskRecord) -> None:
    """Raise PackingError where the images of a task are not such as the network takes."""
    size = getattr(spec, "image_size", record.image_size)
    if len(record.mean) not in (1, spec.channels) or size != record.image_size:
        raise PackingError(f"the network is not sound: it cannot take the images of {record.name}")


def specification(packed: Packed) -> Network:
    """Return what a packed network is built from. Raises PackingError."""
    settings = {key: value for key, value in packed.network.items() if key != PLUGIN_FILE}
    try:
        spec: Network = TypeAdapter(Network).validate_python(settings)
    except ValidationError:
        raise PackingError(
            f"the network is not sound: it cannot be built from {quoted(packed.network)}"
        ) from None
    # some names of encoders are addresses, from which libraries would fetch what the file has not
    if set(str(getattr(spec, "encoder", ""))) & set(":/"):
        raise PackingError(
            f"the network is not sound: it cannot be built from {quoted(packed.network)}"
        )
    return spec


def _at_its_width(packed: Packed, record: TaskRecord) -> Network:
    """Return what the network of a task is built from. Raises PackingError."""
    spec = specification(packed)
    try:
        return at_width(spec, record.width)
    except ValueError:
        raise PackingError(
            f"the network is not sound: it cannot be built with the width of {record.name}, "
            f"{record.width:g}"
        ) from None


def task_info_of(record: TaskRecord) -> TaskInfo:
    """Return how the images of a task are prepared, from its record in a network."""
    return TaskInfo(**{part.name: getattr(record, part.name) for part in fields(TaskInfo)})
