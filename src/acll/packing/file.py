"""The packed file: one `.safetensors` for a network with all its tasks. No pickle.

Tensors: `owner/<name>` (owner map, bit-packed at ⌈log2(T+1)⌉ bits a weight; left out where a whole tensor has one
owner, whom the header names), `shared/<name>` (float, those weights of it that are owned, in their order) and
`private/<task>/<name>`. So a file is as large as what its tasks need, see `size`. The header (JSON, under `acll` in the
metadata) has the format's version, the network, the records of the tasks, library versions, and a digest of each tensor
and of the header itself, so that what is opened can be checked by itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from acll.files import written
from acll.packing.bits import bits_for, pack, unpack
from acll.packing.ownership import Packed, PackingError, State, TaskRecord, raw_bytes

FORMAT = 2
LIBRARIES = ("torch", "torchvision", "segmentation-models-pytorch", "timm")


def write(path: Path, packed: Packed) -> None:
    """Write a packed network; the file appears whole or not at all, and equal networks give equal bytes."""
    tensors, uniform = _tensors(packed)
    header = {
        "format": FORMAT,
        "network": packed.network,
        "method": packed.method,
        "seed": packed.seed,
        "tasks": [asdict(record) for record in packed.tasks],
        "shapes": {name: list(value.shape) for name, value in packed.shared.items()},
        "bits": bits_for(len(packed.tasks)),
        "uniform": uniform,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    save(path, tensors, header)


def size(packed: Packed) -> int:
    """Bytes of all that is needed to use every task: owned weights, owner bits and private state; the file less its
    header."""
    return sum(value.nbytes for value in _tensors(packed)[0].values())


def _tensors(packed: Packed) -> tuple[State, dict[str, int]]:
    """What is stored of a packed network, and the owners of those tensors that have one owner throughout."""
    bits, uniform = bits_for(len(packed.tasks)), {}
    tensors = {
        f"private/{task}/{name}": value for task, state in packed.private.items() for name, value in state.items()
    }
    for name, owner in packed.owner.items():
        first = int(owner.flatten()[0]) if owner.numel() else 0
        if bool((owner == first).all()):
            uniform[name] = first
        else:
            tensors[f"owner/{name}"] = torch.from_numpy(pack(owner.numpy().reshape(-1), bits))
        tensors[f"shared/{name}"] = packed.shared[name][owner > 0]
    return tensors, uniform


def read(path: Path) -> Packed:
    """Read and check a packed network. Raises PackingError, which says what is wrong with the file."""
    tensors, header = load(path)
    try:
        if "format" not in header:
            raise PackingError(f"{path}: no packed network, but a file on the way to one; see network.safetensors")
        if header["format"] != FORMAT:
            advice = "update acll" if header["format"] > FORMAT else "make it anew with `make run`"
            raise PackingError(f"{path}: format {header['format']} is not known here (known: {FORMAT}); {advice}")
        records = tuple(_record(record) for record in header["tasks"])
        owner = {name: _owner(tensors, name, header, len(records)) for name in header["shapes"]}
        shared = {name: _spread(tensors[f"shared/{name}"], owner[name]) for name in header["shapes"]}
        private: dict[str, State] = {record.name: {} for record in records}
        for name, value in tensors.items():
            if name.startswith("private/"):
                _, task, key = name.split("/", 2)
                private[task][key] = value
        return Packed(header["network"], shared, owner, private, records, header["method"], header["seed"])
    except PackingError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PackingError(f"{path}: not a sound packed network: {type(error).__name__}: {error}") from None


def _record(values: dict[str, Any]) -> TaskRecord:
    lists = ("classes", "image_size", "mean", "deviation", "curve")
    return TaskRecord(**(values | {key: tuple(values[key]) for key in lists}))


def _owner(tensors: Mapping[str, Tensor], name: str, header: Mapping[str, Any], tasks: int) -> Tensor:
    shape = header["shapes"][name]
    if name in header["uniform"]:
        owner = torch.full(shape, header["uniform"][name], dtype=torch.uint8)
    else:
        count = int(np.prod(shape, dtype=np.int64))
        owner = torch.from_numpy(unpack(tensors[f"owner/{name}"].numpy(), header["bits"], count)).reshape(shape)
    if owner.numel() and int(owner.max()) > tasks:
        raise ValueError(f"the owner map of {name} names task {int(owner.max())}, but there are {tasks}")
    return owner


def _spread(owned: Tensor, owner: Tensor) -> Tensor:
    """The weights of a tensor: those that are owned in their places, zero elsewhere."""
    places = owner > 0
    if list(owned.shape) != [int(places.sum())]:
        raise ValueError(f"{list(owned.shape)} weights, where {int(places.sum())} are owned")
    shared = torch.zeros(owner.shape, dtype=owned.dtype)
    shared[places] = owned
    return shared


def save(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors with a JSON header and digests; beside, then renamed, so that nothing half-written is left."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    header = header | {"digests": {name: _digest(value) for name, value in tensors.items()}}
    header["digest"] = _header_digest(header)
    with written(path) as beside:
        save_file(dict(tensors), beside, metadata={"acll": json.dumps(header, sort_keys=True)})


def load(path: Path) -> tuple[State, dict[str, Any]]:
    """The tensors and the header that `save` wrote, each checked against its digest. Raises PackingError."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["acll"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise PackingError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise PackingError(f"{path}: not a file of acll, or damaged: {error}") from None
    if not isinstance(header, dict) or header.get("digest") != _header_digest(header):
        raise PackingError(f"{path}: damaged: the header does not agree with its digest")
    if set(header["digests"]) != set(tensors):
        raise PackingError(f"{path}: damaged: it does not hold the tensors that its header names")
    for name, value in tensors.items():
        if _digest(value) != header["digests"][name]:
            raise PackingError(f"{path}: damaged: {name} does not agree with its digest")
    return tensors, header


def _digest(value: Tensor) -> str:
    total = hashlib.sha256(f"{value.dtype} {list(value.shape)}\n".encode())
    total.update(raw_bytes(value))
    return total.hexdigest()


def _header_digest(header: dict[str, Any]) -> str:
    content = json.dumps({key: value for key, value in header.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def content_key(settings: str, *paths: Path | None) -> str:
    """What a result depends on, in one digest: its settings and the content of its input files."""
    total = hashlib.sha256(settings.encode())
    for path in paths:
        total.update(b"\0" if path is None else hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
