"""The packed file: one `.safetensors` for a network with all its tasks. No pickle.

Tensors: `shared/<name>` (float), `owner/<name>` (owner map, bit-packed at ⌈log2(T+1)⌉ bits a weight) and
`private/<task>/<name>`. The header (JSON, under `acll` in the metadata) has the format's version, the network, the
records of the tasks, library versions, and a digest of each tensor and of the header itself, so that what is
opened can be checked by itself.
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

FORMAT = 1
LIBRARIES = ("torch", "torchvision", "segmentation-models-pytorch", "timm")


def write(path: Path, packed: Packed) -> None:
    """Write a packed network; the file appears whole or not at all, and equal networks give equal bytes."""
    bits = bits_for(len(packed.tasks))
    tensors = {f"shared/{name}": value for name, value in packed.shared.items()}
    for name, value in packed.owner.items():
        tensors[f"owner/{name}"] = torch.from_numpy(pack(value.numpy().reshape(-1), bits))
    for task, state in packed.private.items():
        tensors |= {f"private/{task}/{name}": value for name, value in state.items()}
    header = {
        "format": FORMAT,
        "network": packed.network,
        "method": packed.method,
        "seed": packed.seed,
        "tasks": [asdict(record) for record in packed.tasks],
        "shapes": {name: list(value.shape) for name, value in packed.shared.items()},
        "bits": bits,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    save(path, tensors, header)


def read(path: Path) -> Packed:
    """Read and check a packed network. Raises PackingError, which says what is wrong with the file."""
    tensors, header = load(path)
    try:
        if "format" not in header:
            raise PackingError(f"{path}: no packed network, but a file on the way to one; see network.safetensors")
        if header["format"] != FORMAT:
            raise PackingError(f"{path}: format {header['format']} is not known here (known: {FORMAT}); update acll")
        records = tuple(_record(record) for record in header["tasks"])
        shared = {name: _shaped(tensors[f"shared/{name}"], shape) for name, shape in header["shapes"].items()}
        owner = {
            name: _owner(tensors[f"owner/{name}"], header["bits"], shape, len(records))
            for name, shape in header["shapes"].items()
        }
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
    lists = ("classes", "image_size", "mean", "deviation")
    return TaskRecord(**(values | {key: tuple(values[key]) for key in lists}))


def _shaped(value: Tensor, shape: list[int]) -> Tensor:
    if list(value.shape) != shape:
        raise ValueError(f"a tensor has shape {list(value.shape)} where the header says {shape}")
    return value


def _owner(packed: Tensor, bits: int, shape: list[int], tasks: int) -> Tensor:
    values = unpack(packed.numpy(), bits, int(np.prod(shape, dtype=np.int64)))
    if values.size and int(values.max()) > tasks:
        raise ValueError(f"the owner map names task {int(values.max())}, but there are {tasks}")
    return torch.from_numpy(values).reshape(shape)


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
