"""The packed file: one network with all its tasks, of which a task can be read without the others.

Its tensors:

- `owner/<name>`: owner map of a shared tensor, as `bits.pack_map` codes it; left out where the
  whole tensor has one owner, or none;
- `weights/<t>`: the weights that the t-th task owns, tensor by tensor, in their order, as
  `floats.encode` codes them;
- `unread/<t>`: which weights of earlier tasks the t-th task does not read, a set of positions for
  each tensor of its network, as `bits.pack_set` codes it; left out where it reads all;
- `private/<task>`: a task's private state, whose layout is in the header: the values of its
  float32 tensors, as `floats.encode` codes them, then the bytes of the others.

Free weights have no values. So a file is as large as what its tasks need, and reading task t reads
the weights of tasks 1 … t alone. The header has the version of the format, the network, names and
shapes of the shared tensors with how many weights each task owns and does not read, the bytes of
each task's weights, the records of the tasks, and the versions of libraries. Where the network has
grown, it also has which corner of each tensor the tasks of smaller widths have.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from acll.errors import UserError, quoted
from acll.libraries import OF_NETWORKS, versions
from acll.packing import floats, tensor_file
from acll.packing.bits import Places, map_size, pack_map, pack_set, set_size, unpack_map, unpack_set
from acll.packing.corners import Corner
from acll.packing.header import Layer, NarrowerLayers, PackedHeader, PrivateLayouts, PrivateTensor
from acll.packing.ownership import (
    Packed,
    PackingError,
    State,
    TaskRecord,
    extract_task,
    kind_uses,
    raw_bytes,
    refuse_not_finite,
)

FORMAT = 9

_S = TypeVar("_S")
_T = TypeVar("_T")


@dataclass(frozen=True)
class PackedFile:
    """An open packed file. What is asked for is read and checked, and nothing else."""

    tensor_file: tensor_file.TensorFile
    header: PackedHeader

    def record(self, task: str) -> TaskRecord:
        """Return the record of a task. Raises PackingError for one that was not learned."""
        return self.without_weights().record(task)

    def refuse_itself(self, out: Path) -> None:
        """Raise UserError for a file to be written that is this one."""
        if out.resolve() == self.tensor_file.path.resolve():
            raise UserError(
                f"{out}: is the network that is read; give what is written another name"
            )

    def without_weights(self) -> Packed:
        """Return the network that its tasks share, without its state."""
        header = self.header
        return Packed(
            header.network,
            {},
            {},
            {},
            tuple(header.tasks),
            header.method,
            header.seed,
            header.narrower_networks(),
        )

    def state(self, task: str) -> State:
        """Return the state dict of a task, as `task_state_dict` does of the whole network.

        Raises PackingError.
        """
        known = self.without_weights()
        record, position = known.record(task), known.position(task)
        weights, corners = self._weights(position), self.header.corners(record.width)
        layers = [
            (layer, starts, corner)
            for (layer, starts), corner in zip(self._starts(), corners, strict=True)
            if kind_uses(record.kind, layer.name)
        ]
        unread = self._unread(position)
        placed = _each(lambda part: self._read(*part, weights, unread.get(part[0].name)), layers)
        shared = {layer.name: values for (layer, _, _), values in zip(layers, placed, strict=True)}
        return shared | self.private(task)

    def alone(self, task: str) -> Packed:
        """Return the network of one task by itself, with only the parts that it uses.

        Raises PackingError.
        """
        state, own = self.state(task), {part.name for part in self.header.private.of_task(task)}
        shared = {name: value for name, value in state.items() if name not in own}
        return extract_task(
            self.without_weights(), task, shared, {name: state[name] for name in own}
        )

    def whole(self) -> Packed:
        """Return the network with all its tasks. Raises PackingError."""
        known, owners = self.without_weights(), {}
        weights = self._weights(len(known.tasks))
        layers = list(self._starts())
        for layer, _ in layers:
            owners[layer.name] = torch.zeros(layer.shape, dtype=torch.uint8)
        placed = _each(lambda part: self._placed(*part, weights, owners[part[0].name]), layers)
        shared = {layer.name: values for (layer, _), values in zip(layers, placed, strict=True)}
        self._refuse_outside(owners)
        private = {record.name: self.private(record.name) for record in known.tasks}
        unread = {}
        for position, record in enumerate(known.tasks, 1):
            names = [layer.name for layer in self.header.layers]
            corners = dict(zip(names, self.header.corners(record.width), strict=True))
            left_out = self._unread(position)
            if left_out:
                unread[record.name] = {
                    name: self._mask(places, corners[name].of(owners[name]), position)
                    for name, places in left_out.items()
                }
        return replace(known, shared=shared, owner=owners, private=private, unread=unread)

    def private(self, task: str) -> State:
        """Return the private state of a task. Raises PackingError."""
        raw, layouts = self._tensor(f"private/{task}"), self.header.private
        if len(raw) != layouts.nbytes(task):
            raise self._unsound(f"the private state of {task} is not what its layout says")
        end = layouts.code_bytes[task]
        values, plain = self._decoded(task, raw[:end].numpy()), raw[end:]
        state, first, start = {}, 0, 0  # of the next values, and of the next plain bytes
        for part in layouts.of_task(task):
            if part.coded:
                flat = values[first : first + part.count].clone()
                first += part.count
            else:
                flat = plain[start : start + part.nbytes].clone().view(part.type)
                start += part.nbytes
            state[part.name] = flat.reshape(part.shape)
        return state

    def _decoded(self, task: str, code: NDArray[np.uint8]) -> Tensor:
        """Return the float32 values of a task's private state, flat. Raises PackingError."""
        coded = [part.count for part in self.header.private.of_task(task) if part.coded]
        try:
            opened = floats.CodedFloats.open(code, sum(coded))
        except ValueError as error:
            raise self._unsound(f"the private state of {task}: {error}") from None
        values = np.empty(opened.count, np.float32)
        opened.read(0, values)
        return torch.from_numpy(values)

    def _owned(self, layer: Layer, last: int) -> Iterator[tuple[int, Places | slice]]:
        """Yield (t, where the weights of the t-th task are) for the first `last` tasks.

        A task may come several times, always with later weights; a slice stands for all weights.
        """
        if not layer.mapped:
            if any(layer.owned[:last]):
                yield layer.owned.index(layer.count) + 1, slice(layer.count)
            return
        code = self._tensor(f"owner/{layer.name}").numpy()
        try:
            yield from unpack_map(code, layer.owned, layer.count, last)
        except ValueError as error:
            raise self._unsound(f"the owner map of {layer.name}: {error}") from None

    def _refuse_outside(self, owners: State) -> None:
        """Raise PackingError where a task owns weights that its network does not have.

        owners: the owner map of each shared tensor.
        """
        widths = [record.width for record in self.header.tasks]
        for narrower in self.header.narrower:
            count = sum(width <= narrower.width for width in widths)
            corners = self.header.corners(narrower.width)
            for layer, corner in zip(self.header.layers, corners, strict=True):
                inside = corner.of(owners[layer.name])
                owned = int(((inside >= 1) & (inside <= count)).sum())
                if owned != sum(layer.owned[:count]):
                    raise self._outside(layer)

    def _outside(self, layer: Layer) -> PackingError:
        return self._unsound(f"{layer.name}: a task owns weights that its network does not have")

    def _placed(
        self,
        layer: Layer,
        starts: Sequence[int],
        weights: Sequence[floats.CodedFloats],
        owner: Tensor | None = None,
    ) -> Tensor:
        """Return the weights of a layer: those of the first tasks where they belong, else zero.

        starts, weights: for each of these tasks, where its weights of this layer start, and all its
        weights. owner: gets the owner map, if given. Raises PackingError where these do not agree.
        """
        values = np.zeros(layer.count, np.float32)
        left: dict[
            int, NDArray[np.float32]
        ] = {}  # of each task, its weights that have no place yet
        for task, where in self._owned(layer, len(weights)):
            if task not in left:
                left[task] = np.empty(layer.owned[task - 1], np.float32)
                weights[task - 1].read(starts[task - 1], left[task])
            if isinstance(where, slice):
                values = left[task]
            else:
                values[where] = left[task][: len(where)]
                left[task] = left[task][len(where) :]
            if owner is not None:
                owner.numpy().reshape(-1)[where] = task
        return torch.from_numpy(values).reshape(layer.shape)

    def _read(
        self,
        layer: Layer,
        starts: Sequence[int],
        corner: Corner,
        weights: Sequence[floats.CodedFloats],
        unread: Places | None,
    ) -> Tensor:
        """Return the weights of a layer, as the last of the first tasks reads them.

        starts, weights: as of `_placed`. corner: what the task has of the layer. unread: where in
        the corner weights are that it does not read. Raises PackingError where a weight lies
        outside of the corner.
        """
        if unread is None and list(corner.shape) == layer.shape:
            return self._placed(layer, starts, weights)
        # numpy asks for memory only where something is written
        owner = torch.from_numpy(np.zeros(layer.shape, np.uint8))
        values, inside = corner.of(self._placed(layer, starts, weights, owner)), corner.of(owner)
        if int(inside.count_nonzero()) != sum(layer.owned[: len(weights)]):
            raise self._outside(layer)
        if unread is None:
            return values
        return values.masked_fill(self._mask(unread, inside, len(weights)), 0.0)

    def _unread(self, position: int) -> dict[str, Places]:
        """Return for each layer where the weights are that the task at a position does not read.

        They are positions in the corner of its width. Layers of which it reads all are left out.
        Raises PackingError.
        """
        name, found, start = f"unread/{position}", {}, 0
        sets = _unread_sets(self.header, position)
        if not any(count for _, count, _ in sets):
            return {}
        code = self._tensor(name).numpy()
        for layer, count, size in sets:
            end = start + set_size(count, size)
            try:
                places = unpack_set(code[start:end], count, size)
            except ValueError as error:
                raise self._unsound(f"{name} of {layer.name}: {error}") from None
            if count:
                found[layer.name] = places
            start = end
        if start != len(code):
            raise self._unsound(f"{name} does not have as many bytes as the header says")
        return found

    def _mask(self, unread: Places, owner: Tensor, position: int) -> Tensor:
        """Return the mask of what the task at a position does not read of a layer.

        Raises PackingError where that is not of earlier tasks.
        """
        owners = owner.numpy().reshape(-1)[unread]
        if bool(((owners == 0) | (owners >= position)).any()):
            raise self._unsound(f"unread/{position} names weights that no earlier task owns")
        mask = torch.zeros(owner.shape, dtype=torch.bool)
        mask.view(-1)[torch.from_numpy(unread)] = True
        return mask

    def _starts(self) -> Iterator[tuple[Layer, list[int]]]:
        """Yield each layer with where its weights start among those that each task owns."""
        starts = [0] * len(self.header.tasks)
        for layer in self.header.layers:
            yield layer, starts
            starts = [start + count for start, count in zip(starts, layer.owned, strict=True)]

    def _weights(self, last: int) -> list[floats.CodedFloats]:
        """Return the weights of each of the first `last` tasks.

        Raises PackingError where they are not those of the header.
        """
        counts = [sum(own) for own in zip(*(layer.owned for layer in self.header.layers))]
        return _each(lambda position: self._weights_of(position, counts[position]), range(last))

    def _weights_of(self, position: int, count: int) -> floats.CodedFloats:
        name = f"weights/{position + 1}"
        code = self._tensor(name).numpy()
        if len(code) != self.header.weight_bytes[position]:
            raise self._unsound(f"{name} does not have as many bytes as the header says")
        try:
            return floats.CodedFloats.open(code, count)
        except ValueError as error:
            raise self._unsound(f"{name}: {error}") from None

    def _tensor(self, name: str) -> Tensor:
        """Return a flat tensor of bytes. Raises PackingError where it is none, or damaged."""
        if name not in self.tensor_file.header["digests"]:
            raise self._unsound(f"it lacks {name}")
        value = self.tensor_file.tensor(name)
        if value.dim() != 1 or value.dtype != torch.uint8:
            raise self._unsound(f"{name} is not of the form that it should have")
        return value

    def _unsound(self, words: str) -> PackingError:
        return PackingError(f"{self.tensor_file.path}: not a sound packed network: {words}")


def _each(function: Callable[[_S], _T], arguments: Sequence[_S]) -> list[_T]:
    """Return what a function gives for each argument, computed by as many threads as torch has.

    Threads help, because numpy and hashlib release Python's lock while they work.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, arguments))


def open_packed(path: Path) -> PackedFile:
    """Open a packed network; only its header is read.

    Raises PackingError, which says what is wrong with the file.
    """
    held = tensor_file.open_tensors(path)
    if "format" not in held.header:
        raise PackingError(
            f"{path}: no packed network, but a file on the way to one; see network.safetensors"
        )
    if held.header["format"] != FORMAT:
        found = held.header["format"]
        newer = isinstance(found, int) and found > FORMAT
        advice = "update acll" if newer else "make it anew with `make run`"
        raise PackingError(
            f"{path}: format {quoted(found, 20)} is not known here (known: {FORMAT}); {advice}"
        )
    try:
        header = PackedHeader.model_validate(held.header)
    except ValidationError as error:
        raise PackingError(f"{path}: not a sound packed network: {_first_fault(error)}") from None
    strange = held.header["digests"].keys() - _layout(header).keys()
    if strange:
        name = quoted(min(strange), 60)
        raise PackingError(f"{path}: not a sound packed network: it has {name}, which is no part")
    return PackedFile(held, header)


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{quoted('.'.join(map(str, first['loc'])))} {first['msg']}".strip()


def read_packed(path: Path) -> Packed:
    """Read and check a whole packed network. Raises PackingError."""
    return open_packed(path).whole()


def write_packed(path: Path, packed: Packed) -> None:
    """Write a packed network, whole or not at all; equal networks give equal bytes.

    Raises PackingError where a value is not finite.
    """
    for state in (packed.shared, *packed.private.values()):  # which the file holds as bytes
        refuse_not_finite(path, state)
    tensor_file.save_tensors(path, *_content(packed))


def packed_size_of(header: PackedHeader) -> int:
    """Return the bytes of the file that has this header, the header's own included."""
    return tensor_file.tensor_file_size(_layout(header), _written(header))


@dataclass(frozen=True)
class Parts:
    """The bytes of a packed file, by what they are for.

    weights: of the owned weights; owners: of the owner maps, and of what tasks do not read;
    private: of each task's private state; header: of the header, with names and digests of all
    tensors. Their sum is the file.
    """

    weights: int
    owners: int
    private: dict[str, int]
    header: int


def parts_of(header: PackedHeader) -> Parts:
    """Return the bytes of the file that has this header, by what they are for."""
    layout = _layout(header)
    private = {task: layout[f"private/{task}"] for task in header.private.of_tasks}
    weights = sum(header.weight_bytes)
    tensors = sum(layout.values())
    return Parts(
        weights,
        tensors - weights - sum(private.values()),
        private,
        packed_size_of(header) - tensors,
    )


def _unread_sets(header: PackedHeader, position: int) -> list[tuple[Layer, int, int]]:
    """Return (layer, how many weights the task at a position does not read, of how many)."""
    corners = header.corners(header.tasks[position - 1].width)
    return [
        (layer, layer.unread[position - 1], math.prod(corner.shape))
        for layer, corner in zip(header.layers, corners, strict=True)
    ]


def _layout(header: PackedHeader) -> dict[str, int]:
    """Return the length of each tensor of the file that has this header; all are of bytes."""
    layout = {f"weights/{t}": size for t, size in enumerate(header.weight_bytes, 1)}
    for layer in header.layers:
        if layer.mapped:
            layout[f"owner/{layer.name}"] = map_size(layer.owned, layer.count)
    for t in range(1, len(header.tasks) + 1):
        sizes = [set_size(count, size) for _, count, size in _unread_sets(header, t)]
        if any(sizes):
            layout[f"unread/{t}"] = sum(sizes)
    for task in header.private.of_tasks:
        layout[f"private/{task}"] = header.private.nbytes(task)
    return layout


def _content(packed: Packed) -> tuple[State, dict[str, Any]]:
    """Return the tensors and the header of the file."""
    tensors = {f"private/{task}": _bytes_of(state) for task, state in packed.private.items()}
    weights = [floats.encode(own) for own in _owned_weights(packed)]
    header = _header(packed, [len(code) for code in weights])
    for layer in header.layers:
        if layer.mapped:
            owner = packed.owner[layer.name].numpy().reshape(-1)
            tensors[f"owner/{layer.name}"] = torch.from_numpy(pack_map(owner, layer.owned))
    for position, code in enumerate(weights, 1):
        tensors[f"weights/{position}"] = torch.from_numpy(code)
    for position, record in enumerate(packed.tasks, 1):
        unread = packed.unread.get(record.name, {})
        sets = [_packed_set(unread[layer.name]) for layer in header.layers if layer.name in unread]
        if sets:
            tensors[f"unread/{position}"] = torch.from_numpy(np.concatenate(sets))
    return tensors, _written(header)


def _packed_set(mask: Tensor) -> NDArray[np.uint8]:
    return pack_set(np.flatnonzero(mask.numpy()), mask.numel())


def _owned_weights(packed: Packed) -> Iterator[NDArray[np.float32]]:
    """Yield the weights that each task owns, flat, tensor by tensor."""
    for position in range(1, len(packed.tasks) + 1):
        owned = [packed.shared[name][owner == position] for name, owner in packed.owner.items()]
        yield torch.cat(owned).numpy() if owned else np.zeros(0, np.float32)


def header_of(packed: Packed) -> PackedHeader:
    """Return the header of a packed network's file.

    Raises PackingError where no file may have it.
    """
    return _header(packed, [floats.encoded_size(own) for own in _owned_weights(packed)])


def _header(packed: Packed, weight_bytes: list[int]) -> PackedHeader:
    try:
        return PackedHeader(
            network=packed.network,
            method=packed.method,
            seed=packed.seed,
            tasks=list(packed.tasks),
            layers=[_layer(packed, name) for name in packed.owner],
            weight_bytes=weight_bytes,
            private=PrivateLayouts.of(
                {record.name: _parts(packed.private[record.name]) for record in packed.tasks},
                {
                    record.name: floats.encoded_size(_coded(packed.private[record.name]))
                    for record in packed.tasks
                },
            ),
            narrower=[
                NarrowerLayers(
                    width=one.width,
                    shapes=[list(one.corners[name].shape) for name in packed.owner],
                    runs={name: list(own.runs) for name, own in one.corners.items() if own.runs},
                )
                for one in packed.narrower
            ],
        )
    except ValidationError as error:
        raise PackingError(
            f"the network cannot be written to a file: {_first_fault(error)}"
        ) from None


def _written(header: PackedHeader) -> dict[str, Any]:
    return header.model_dump(mode="json") | {"format": FORMAT, "versions": versions(OF_NETWORKS)}


def _layer(packed: Packed, name: str) -> Layer:
    owner, tasks = packed.owner[name], packed.tasks
    owned = torch.bincount(owner.flatten(), minlength=len(tasks) + 1)[1:].tolist()
    masks = [packed.unread.get(record.name, {}).get(name) for record in tasks]
    unread = [0 if mask is None else int(mask.sum()) for mask in masks]
    return Layer(name=name, shape=list(owner.shape), owned=owned, unread=unread)


def _parts(state: State) -> list[PrivateTensor]:
    """Return the layout of private state, whose bytes follow each other in this order."""
    return [
        PrivateTensor(
            name=name, dtype=str(value.dtype).removeprefix("torch."), shape=list(value.shape)
        )
        for name, value in sorted(state.items())
    ]


def _coded(state: State) -> NDArray[np.float32]:
    """Return the values of private state that are coded, in the order of its layout."""
    values = [
        value.cpu().flatten() for _, value in sorted(state.items()) if value.dtype == torch.float32
    ]
    return torch.cat(values).numpy() if values else np.zeros(0, np.float32)


def _bytes_of(state: State) -> Tensor:
    plain = [
        np.frombuffer(raw_bytes(value.cpu().contiguous()), np.uint8)
        for _, value in sorted(state.items())
        if value.dtype != torch.float32
    ]
    return torch.from_numpy(np.concatenate([floats.encode(_coded(state)), *plain]))
