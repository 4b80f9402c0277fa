"""Files of tensors with a JSON header: `.safetensors`, no pickle, digests that are checked.

The header lies under `acll` in the metadata. It has a digest of each tensor and of itself, so that
each part can be checked when it is read, without the others.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from acll.files import refuse_special, sha256, written
from acll.packing.ownership import PackingError, State, raw_bytes, refuse_not_finite

_DAMAGED = (
    SafetensorError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True)
class TensorFile:
    """An open file. Nothing but its header has been read; tensors are mapped into memory."""

    path: Path
    header: dict[str, Any]
    _file: Any
    _at_opening: os.stat_result

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, checked against its digest. Raises PackingError."""
        self._refuse_cut()
        try:
            value: Tensor = self._file.get_tensor(name)
        except _DAMAGED as error:
            raise PackingError(f"{self.path}: damaged: {error}") from None
        if _digest(value) != self.header["digests"][name]:
            raise PackingError(f"{self.path}: damaged: {name} does not agree with its digest")
        return value

    def _refuse_cut(self) -> None:
        """Raise PackingError where a shorter file has been written over this one.

        Reading memory that is mapped to what is not there ends the process. A file that was
        replaced or removed does no harm: its content stays until it is closed.
        """
        with contextlib.suppress(FileNotFoundError):
            now = self.path.stat()
            if now.st_ino == self._at_opening.st_ino and now.st_size < self._at_opening.st_size:
                raise PackingError(
                    f"{self.path}: has been written over since it was opened; open it again"
                )

    def names(self) -> list[str]:
        """Return the names of all tensors, sorted."""
        return sorted(self.header["digests"])


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors with a JSON header and digests, whole or not at all.

    Raises PackingError where a value is not finite.
    """
    refuse_not_finite(path, tensors)
    content, metadata = _content(tensors, header)
    with written(path) as beside:
        save_file(content, beside, metadata=metadata)


def tensor_file_size(layout: Mapping[str, int], header: Mapping[str, Any]) -> int:
    """Return the bytes of the file that `save_tensors` would write.

    layout: length of each tensor, by name; tensors are flat and of bytes.
    """
    digest, start = "0" * 64, 0
    whole = {**header, "digests": dict.fromkeys(layout, digest), "digest": digest}
    entries: dict[str, Any] = {"__metadata__": {"acll": json.dumps(whole, sort_keys=True)}}
    for name, count in sorted(layout.items()):  # the order in which the library writes them
        end = start + count
        entries[name] = {"dtype": "U8", "shape": [count], "data_offsets": [start, end]}
        start = end
    text = len(json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode())
    padding = -text % 8
    return 8 + text + padding + start  # the first 8 hold the length of the text


def load_tensors(path: Path) -> tuple[State, dict[str, Any]]:
    """Return the tensors and the header that `save_tensors` wrote, checked against their digests.

    Raises PackingError.
    """
    opened = open_tensors(path)
    return {name: opened.tensor(name) for name in opened.names()}, opened.header


def open_tensors(path: Path) -> TensorFile:
    """Open a file and check its header; tensors are read when they are asked for.

    Raises PackingError.
    """
    try:
        # the library would not say why a file cannot be read
        refuse_special(path)
        with path.open("rb") as readable:
            at_opening = os.fstat(readable.fileno())
    except FileNotFoundError:
        raise PackingError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        inside = sorted(file.name for file in path.glob("*.safetensors"))
        hint = f"; name a file in it, such as {inside[0]}" if inside else ""
        raise PackingError(f"{path}: is a folder, not a file of acll{hint}") from None
    except OSError as error:
        raise PackingError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        file: Any = safe_open(path, framework="pt")
        if "acll" not in (file.metadata() or {}):
            raise PackingError(f"{path}: no packed network, nor anything else that has been packed")
        header = json.loads(file.metadata()["acll"])
        if not isinstance(header, dict) or header.get("digest") != _header_digest(header):
            raise PackingError(f"{path}: damaged: the header does not agree with its digest")
        if not isinstance(header["digests"], dict) or set(header["digests"]) != set(file.keys()):
            raise PackingError(
                f"{path}: damaged: it does not hold the tensors that its header names"
            )
    except PackingError:
        raise
    except _DAMAGED as error:
        # words of the library would help nobody; those of the system tell what has failed
        cause = f": {error}" if isinstance(error, OSError) else ""
        raise PackingError(f"{path}: not a file of acll, or damaged{cause}") from None
    return TensorFile(path, header, file, at_opening)


def _content(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> tuple[State, dict[str, str]]:
    content = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    whole = {**header, "digests": {name: _digest(value) for name, value in content.items()}}
    whole["digest"] = _header_digest(whole)
    return content, {"acll": json.dumps(whole, sort_keys=True)}


def _digest(value: Tensor) -> str:
    total = hashlib.sha256(f"{value.dtype} {list(value.shape)}\n".encode())
    total.update(raw_bytes(value))
    return total.hexdigest()


def _header_digest(header: Mapping[str, Any]) -> str:
    content = json.dumps(
        {key: value for key, value in header.items() if key != "digest"}, sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def content_key(settings: str, *paths: Path | None) -> str:
    """Return one digest of settings and the content of files, on which a result depends.

    Files may be larger than memory. None stands for a file that there is not.
    """
    total = hashlib.sha256(settings.encode())
    for path in paths:
        total.update(b"\0" if path is None else bytes.fromhex(sha256(path)))
    return total.hexdigest()
