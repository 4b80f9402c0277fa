"""The packed file: one network with all its tasks, of which a task can be read without the others.

Its tensors:

- `owner/<name>`: owner map of a shared tensor, bit-packed at ⌈log2(T+1)⌉ bits a weight; left out
  where the whole tensor has one owner, or none;
- `weights/<t>`: the weights that the t-th task owns, tensor by tensor, in their order;
- `private/<task>`: the bytes of a task's private state, whose layout is in the header.

So a file is as large as what its tasks need, and reading task t reads the weights of tasks 1 … t
alone. The header has the version of the format, the network, names and shapes of the shared tensors
with how many weights each task owns, the records of the tasks, and the versions of libraries.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from acll.errors import quoted
from acll.libraries import OF_NETWORKS, versions
from acll.packing import tensor_file
from acll.packing.bits import bits_for, pack, packed_size, unpacked
from acll.packing.header import Layer, PackedHeader, PrivateTensor
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

FORMAT = 4

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

    def without_weights(self) -> Packed:
        """Return the network that its tasks share, without its state."""
        header = self.header
        return Packed(header.network, {}, {}, {}, tuple(header.tasks), header.method, header.seed)

    def state(self, task: str) -> State:
        """Return the state dict of a task, as `task_state_dict` does of the whole network.

        Raises PackingError.
        """
        known = self.without_weights()
        kind, position = known.record(task).kind, known.position(task)
        layers = [
            (layer, parts)
            for layer, parts in self._weights(position)
            if kind_uses(kind, layer.name)
        ]
        placed = _each(lambda part: self._placed(part[0], self._owner(part[0]), part[1]), layers)
        shared = {layer.name: values for (layer, _), values in zip(layers, placed, strict=True)}
        return shared | self.private(task)

    def alone(self, task: str) -> Packed:
        """Return the network of one task by itself, with only the parts that it uses.

        Raises PackingError.
        """
        state, own = self.state(task), {part.name for part in self.header.private[task]}
        shared = {name: value for name, value in state.items() if name not in own}
        return extract_task(
            self.without_weights(), task, shared, {name: state[name] for name in own}
        )

    def whole(self) -> Packed:
        """Return the network with all its tasks. Raises PackingError."""
        known, shared, owners = self.without_weights(), {}, {}
        for layer, parts in self._weights(len(known.tasks)):
            owner = list(self._owner(layer))
            shared[layer.name] = self._placed(layer, owner, parts)
            owners[layer.name] = torch.from_numpy(np.concatenate(owner)).reshape(layer.shape)
        private = {record.name: self.private(record.name) for record in known.tasks}
        return replace(known, shared=shared, owner=owners, private=private)

    def private(self, task: str) -> State:
        """Return the private state of a task. Raises PackingError."""
        raw, state, start = self._tensor(f"private/{task}", torch.uint8), {}, 0
        for part in self.header.private[task]:
            end = start + part.nbytes
            if end > len(raw):
                raise self._unsound(f"the private state of {task} is not what its layout says")
            state[part.name] = raw[start:end].clone().view(part.type).reshape(part.shape)
            start = end
        return state

    def _owner(self, layer: Layer) -> Iterator[NDArray[np.uint8]]:
        """Yield the owner map of a layer, flat, in pieces that fit into the processor's cache."""
        if not layer.mapped:
            whole = layer.owned.index(layer.count) + 1 if any(layer.owned) else 0
            yield np.full(layer.count, whole, np.uint8)
            return
        bits = self._tensor(f"owner/{layer.name}", torch.uint8).numpy()
        try:
            for piece in unpacked(bits, bits_for(len(layer.owned)), layer.count):
                if int(piece.max()) > len(layer.owned):
                    raise ValueError("it names tasks that are not there")
                yield piece
        except ValueError as error:
            raise self._unsound(f"the owner map of {layer.name}: {error}") from None

    def _placed(
        self, layer: Layer, owner: Iterable[NDArray[np.uint8]], parts: Sequence[NDArray[np.float32]]
    ) -> Tensor:
        """Return the weights of a layer: those of the given tasks where they belong, else zero.

        owner: its owner map, piece by piece. parts: the weights that each of the first tasks owns.
        Raises PackingError where the two do not agree.
        """
        values = np.zeros(layer.count, np.float32)
        if not layer.mapped:
            for whole in filter(len, parts):
                values[:] = whole
            return torch.from_numpy(values).reshape(layer.shape)
        # `done` weights of the layer have been dealt with; of each part so many have been `taken`
        done, taken = 0, [0] * len(parts)
        for piece in owner:
            for task, part in enumerate(parts):
                positions = np.flatnonzero(piece == task + 1)
                own = part[taken[task] : taken[task] + len(positions)]
                if len(own) < len(positions):
                    raise self._unsound(
                        f"the owner map of {layer.name} does not agree with the header"
                    )
                values[done : done + len(piece)][positions] = own
                taken[task] += len(positions)
            done += len(piece)
        if taken != [len(part) for part in parts]:
            raise self._unsound(f"the owner map of {layer.name} does not agree with the header")
        return torch.from_numpy(values).reshape(layer.shape)

    def _weights(self, last: int) -> Iterator[tuple[Layer, list[NDArray[np.float32]]]]:
        """Yield each layer with the weights that each of the first `last` tasks owns of it.

        Raises PackingError where their numbers are not those of the header.
        """
        weights = _each(
            lambda name: self._tensor(name, torch.float32).numpy(),
            [f"weights/{t}" for t in range(1, last + 1)],
        )
        for position, own in enumerate(weights):
            if len(own) != sum(layer.owned[position] for layer in self.header.layers):
                raise self._unsound(
                    f"weights/{position + 1} does not have as many as the header says"
                )
        starts = [0] * last
        for layer in self.header.layers:
            ends = [start + count for start, count in zip(starts, layer.owned, strict=False)]
            parts = [own[start:end] for own, start, end in zip(weights, starts, ends, strict=True)]
            yield layer, parts
            starts = ends

    def _tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a flat tensor of a type. Raises PackingError where it is none, or damaged."""
        if name not in self.tensor_file.header["digests"]:
            raise self._unsound(f"it lacks {name}")
        value = self.tensor_file.tensor(name)
        if value.dim() != 1 or value.dtype != dtype:
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
        return PackedFile(held, PackedHeader.model_validate(held.header))
    except ValidationError as error:
        raise PackingError(f"{path}: not a sound packed network: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{quoted('.'.join(map(str, first['loc'])))} {first['msg']}".strip()


def read_packed(path: Path) -> Packed:
    """Read and check a whole packed network. Raises PackingError."""
    return open_packed(path).whole()


def write_packed(path: Path, packed: Packed) -> None:
    """Write a packed network, whole or not at all; equal networks give equal bytes.

    Raises PackingError where a value is not finite.
    """
    for state in packed.private.values():  # which the file holds as bytes
        refuse_not_finite(path, state)
    tensor_file.save_tensors(path, *_content(packed))


def packed_size_of(header: PackedHeader) -> int:
    """Return the bytes of the file that has this header, the header's own included."""
    tasks = len(header.tasks)
    layout = {}
    for position in range(tasks):
        owned = sum(layer.owned[position] for layer in header.layers)
        layout[f"weights/{position + 1}"] = ("F32", owned)
    for layer in header.layers:
        if layer.mapped:
            layout[f"owner/{layer.name}"] = ("U8", packed_size(layer.count, bits_for(tasks)))
    for task, parts in header.private.items():
        layout[f"private/{task}"] = ("U8", sum(part.nbytes for part in parts))
    return tensor_file.tensor_file_size(layout, _written(header))


def _content(packed: Packed) -> tuple[State, dict[str, Any]]:
    """Return the tensors and the header of the file."""
    tasks, header = len(packed.tasks), header_of(packed)
    tensors = {f"private/{task}": _bytes_of(state) for task, state in packed.private.items()}
    for layer in header.layers:
        if layer.mapped:
            owner = packed.owner[layer.name].numpy().reshape(-1)
            tensors[f"owner/{layer.name}"] = torch.from_numpy(pack(owner, bits_for(tasks)))
    for position in range(1, tasks + 1):
        owned = [packed.shared[name][owner == position] for name, owner in packed.owner.items()]
        tensors[f"weights/{position}"] = torch.cat(owned) if owned else torch.zeros(0)
    return tensors, _written(header)


def header_of(packed: Packed) -> PackedHeader:
    """Return the header of a packed network's file.

    Raises PackingError where no file may have it.
    """
    try:
        return PackedHeader(
            network=packed.network,
            method=packed.method,
            seed=packed.seed,
            tasks=list(packed.tasks),
            layers=[_layer(name, owner, len(packed.tasks)) for name, owner in packed.owner.items()],
            private={task: _parts(state) for task, state in packed.private.items()},
        )
    except ValidationError as error:
        raise PackingError(
            f"the network cannot be written to a file: {_first_fault(error)}"
        ) from None


def _written(header: PackedHeader) -> dict[str, Any]:
    return header.model_dump(mode="json") | {"format": FORMAT, "versions": versions(OF_NETWORKS)}


def _layer(name: str, owner: Tensor, tasks: int) -> Layer:
    counts = torch.bincount(owner.flatten(), minlength=tasks + 1)[1:].tolist()
    return Layer(name=name, shape=list(owner.shape), owned=counts)


def _parts(state: State) -> list[PrivateTensor]:
    """Return the layout of private state, whose bytes follow each other in this order."""
    return [
        PrivateTensor(
            name=name, dtype=str(value.dtype).removeprefix("torch."), shape=list(value.shape)
        )
        for name, value in sorted(state.items())
    ]


def _bytes_of(state: State) -> Tensor:
    values = [
        np.frombuffer(raw_bytes(value.cpu().contiguous()), np.uint8)
        for _, value in sorted(state.items())
    ]
    return torch.from_numpy(np.concatenate(values) if values else np.zeros(0, np.uint8))
