"""Files of weights as people have them, read for an encoder.

A file holds a state dict, alone or among other things, as training scripts write it. Keys on the
way to a tensor and the names of state dicts are alike here: `{"state_dict": {"module.conv1.weight":
…}}` has the name `state_dict.module.conv1.weight`. What stands before the names of the encoder is
the *prefix*, here `state_dict.module.`. Whatever it is, it is right if what follows it names every
tensor of the encoder, each with its shape.
"""

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from acll.data.faults import some
from acll.networks.spec import NetworkError

_State = dict[str, Tensor]
# counters of batches, which old files do not have; nothing depends on them
_COUNTER = "num_batches_tracked"
# training scripts keep a running mean of the weights beside them, and evaluate the mean
_AVERAGED = re.compile(r"(^|[._])(ema|teacher)[._]")


@dataclass(frozen=True)
class Origin:
    """The network of a library that an encoder is a part of.

    name: as the configuration has it. wrapper: what our names of the encoder have before those of
    the library. whole: gives the names of all of its tensors, those of its classifier, too, as far
    as they are known. renamed: gives a state dict of older names in those that the library has
    now; None where it has no such function.
    """

    name: str
    wrapper: str = ""
    whole: Callable[[], Collection[str]] = tuple
    renamed: Callable[[_State], _State] | None = None


@dataclass(frozen=True)
class Target:
    """An encoder that a file is to fill.

    state: its tensors by name. also: of those that may have another shape, too, this shape.
    """

    state: Mapping[str, Tensor]
    also: Mapping[str, torch.Size]
    origin: Origin

    def needed(self) -> list[str]:
        """Return the names of the tensors that a file must have."""
        return [name for name in self.state if not name.endswith(_COUNTER)]

    def shapes(self, name: str) -> tuple[torch.Size, ...]:
        """Return what a tensor may have."""
        known = self.state[name].shape
        return (known, self.also[name]) if name in self.also else (known,)

    def takes(self, name: str, value: Tensor) -> bool:
        """Return whether a tensor of a file may become one of the encoder."""
        # counters are often saved as floating-point numbers, which is no harm; what is quantised
        # cannot be trained
        whole = self.state[name].is_floating_point() and not value.is_floating_point()
        return value.shape in self.shapes(name) and not whole


def read_weights(path: str, target: Target) -> tuple[_State, str]:
    """Return the tensors of a file by the names of an encoder, and what it has besides, in words.

    The words are empty if the file has nothing else. Only counters of batches may be missing.
    Raises NetworkError where the file cannot be read, or does not fill the encoder. Nothing in it
    is run.
    """
    held = dict(_tensors(_content(path)))
    if not held:
        raise NetworkError(f"{path}: there is no tensor in it")
    try:
        reading = _chosen(held, target)
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from None
    state = {name: reading.held[own] for name, own in reading.names.items()}
    for what, is_odd in _ODD_WEIGHTS.items():
        odd = [reading.names[name] for name, value in state.items() if is_odd(name, value)]
        if odd:
            raise NetworkError(f"{path}: {some(odd)}: {what}")
    return state, reading.told()


# --------------------------------------------------------------------------------------------------
# what is in a file


def _content(path: str) -> Any:
    """Return what a file holds: tensors and plain data. Raises NetworkError."""
    if path.endswith(".safetensors"):
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise NetworkError(f"{path}: not a readable .safetensors file: {error}") from None
    try:
        # The settings of a training script are often beside its weights, in a Namespace, which is
        # plain data. timm allows it, too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # weights_only: tensors and plain data, no code
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may fail anywhere in the reader
        raise NetworkError(f"{path}: {_why_unread(error)}") from None


def _why_unread(error: Exception) -> str:
    """Return in words why PyTorch did not read a file, and what to do."""
    mend = "save the weights alone: torch.save(network.state_dict(), …)"
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code is not None:
        return f"not read, as it holds {code[1]}, for which code would have to be run; {mend}"
    told = isinstance(error, OSError | RuntimeError)
    words = f" ({str(error).partition('. ')[0]})" if told else ""
    return f"not a readable file of PyTorch{words}; fetch it again, or {mend}"


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Give each tensor of nested mappings, with the keys on the way to it, joined by dots."""
    waiting, seen = [("", content)], set()
    while waiting:
        name, one = waiting.pop()
        if isinstance(one, Tensor):
            yield name, one.detach()
        elif isinstance(one, Mapping) and id(one) not in seen:
            seen.add(id(one))  # a file may hold a mapping twice, or in itself
            before = f"{name}." if name else ""
            waiting += [(f"{before}{key}", value) for key, value in reversed(list(one.items()))]


# what would make weights worthless, by name and value
_ODD_WEIGHTS: dict[str, Callable[[str, Tensor], bool]] = {
    "values that are not finite": lambda name, value: not bool(torch.isfinite(value).all()),
    "variances below 0": lambda name, value: (
        name.endswith("running_var") and bool((value < 0).any())
    ),
}


# --------------------------------------------------------------------------------------------------
# which names of the file are those of the encoder


@dataclass(frozen=True)
class _Reading:
    """A way in which names of a file may be those of an encoder.

    held: all tensors of the file. prefix: of the names. names: the encoder's → the file's.
    """

    target: Target
    held: Mapping[str, Tensor]
    prefix: str
    names: Mapping[str, str]

    @cached_property
    def missing(self) -> list[str]:
        """The encoder's names of tensors that the file does not have."""
        return [name for name in self.target.needed() if name not in self.names]

    @cached_property
    def misfits(self) -> list[str]:
        """The encoder's names of tensors that have another shape, or another type, in the file."""
        return [
            name for name, own in self.names.items() if not self.target.takes(name, self.held[own])
        ]

    @cached_property
    def others(self) -> list[str]:
        """The names of tensors of the file that are not read, but for counters of batches."""
        used = set(self.names.values())
        return [name for name in self.held if name not in used and not name.endswith(_COUNTER)]

    @cached_property
    def more(self) -> list[str]:
        """The names of weights of the file that lie in parts of the encoder, which has no such.

        They show that the file is of another network, whose first layers are the same: resnet34
        has all names of resnet18. A part is what a name begins with, such as `layer1`. Not among
        them is what the whole network has, of which the encoder may be the first layers.
        """
        start = len(self.prefix)
        parts = {own[start:].partition(".")[0] for own in self.names.values()}
        inner = [
            name
            for name in self.others
            if name.startswith(self.prefix)
            and name[start:].partition(".")[0] in parts
            and self.held[name].is_floating_point()  # masks and indices are no weights
        ]
        known = {_plain(name) for name in self.target.origin.whole()} if inner else set()
        return [name for name in inner if _plain(name[start:]) not in known]

    def is_equal(self, other: "_Reading") -> bool:
        """Return whether both give the encoder the same bits."""
        return self.names.keys() == other.names.keys() and all(
            torch.equal(self.held[own], other.held[other.names[name]])
            for name, own in self.names.items()
        )

    def told(self) -> str:
        """Return in words what of the file is read and what is not; empty if all is read."""
        if not self.others:
            return ""
        below = f" below `{self.prefix.removesuffix('.')}`" if self.prefix else ""
        return (
            f"the encoder takes {len(self.names)} tensors{below}; not read is what the file has "
            f"besides: {some(self.others)}"
        )


def _chosen(held: _State, target: Target) -> _Reading:
    """Return the reading that fills the encoder. Raises NetworkError where there is none, or where
    there are several that differ."""
    closest: _Reading | None = None
    for state in _in_names_of_now(held, target):
        readings = _readings(state, target)
        closest = closest or readings[0]
        full = [one for one in readings if not (one.missing or one.misfits or one.more)]
        if full:
            averaged = [one for one in full if _AVERAGED.search(one.prefix)]
            return _only_one(averaged or full)
    assert closest is not None
    raise NetworkError(
        f"not the weights of this encoder, {target.origin.name}: {_why_not(closest)}"
    )


def _only_one(full: Sequence[_Reading]) -> _Reading:
    """Return the first of some readings. Raises NetworkError where others differ from it."""
    first, *others = full
    differing = [one for one in others if not one.is_equal(first)]
    if differing:
        names = [next(iter(one.names.values())) for one in (first, *differing)]
        raise NetworkError(
            f"several state dicts fit this encoder, and differ ({some(names)}): save the one that "
            "is meant in a file of its own"
        )
    return first


def _readings(held: _State, target: Target) -> list[_Reading]:
    """Return a reading for each prefix in a file, that with the most tensors that fit first.

    There is at least one.
    """
    exact = {name.removeprefix(target.origin.wrapper): name for name in target.state}
    plain = {_plain(own): name for own, name in exact.items()}
    if len(plain) < len(exact):  # the separators tell tensors apart
        plain = {}
    found: dict[str, dict[str, str]] = {}
    for own in held:
        for prefix, rest in _cuts(own):
            name = exact.get(rest) or plain.get(_plain(rest))
            if name is not None:
                names = found.setdefault(prefix, {})
                names[name] = own if rest in exact else names.get(name, own)
    readings = [_Reading(target, held, prefix, names) for prefix, names in found.items()]
    readings = readings or [_Reading(target, held, "", {})]
    return sorted(readings, key=lambda one: len(one.misfits) - len(one.names))


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Give each way to cut a name behind a dot: `a.b` → `("", "a.b")`, `("a.", "b")`."""
    yield "", name
    for dot in re.finditer(r"\.", name):
        yield name[: dot.end()], name[dot.end() :]


def _plain(name: str) -> str:
    """Return a name of a tensor without what libraries write in two ways.

    Separators, but for those between two digits: timm has `stages_0` for `stages.0` in networks
    that return all their features, and the files of torchvision's DenseNets have `norm.1` for
    `norm1`. The two linear layers in the vision transformers of torchvision's files have names
    of their own.
    """
    name = re.sub(r"\bmlp\.linear_([12])\b", lambda layer: f"mlp.{3 * int(layer[1]) - 3}", name)
    name = re.sub(r"[._]+", ".", name)
    return re.sub(r"(?<!\d)\.|\.(?!\d)", "", name)


def _in_names_of_now(held: _State, target: Target) -> Iterator[_State]:
    """Give the tensors of a file by their names, then by those that the library has for them now.

    It renames a whole state dict, so each part of the file that is large enough is tried.
    """
    yield held
    renaming = target.origin.renamed
    if renaming is None:
        return
    sizes = Counter(prefix for name in held for prefix, _ in _cuts(name))
    prefixes = [prefix for prefix, size in sizes.items() if 2 * size > len(target.state)]
    for prefix in sorted(prefixes, key=lambda one: not _AVERAGED.search(one)):
        inside = {name.removeprefix(prefix): name for name in held if name.startswith(prefix)}
        try:
            renamed = renaming({name: held[own] for name, own in inside.items()})
        except Exception:  # noqa: S112 - made for files of this network, it may fail on any other
            continue
        # What is computed anew, such as embeddings of positions for another size of images, is no
        # weight of the file.
        stored = {held[own].untyped_storage().data_ptr() for own in inside.values()}
        yield {name: held[name] for name in held if not name.startswith(prefix)} | {
            f"{prefix}{name}": value
            for name, value in renamed.items()
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in stored
        }


# --------------------------------------------------------------------------------------------------
# what is wrong, and what to do


def _why_not(reading: _Reading) -> str:
    """Return in words what of a file does not fit an encoder, and what to do."""
    words = []
    if reading.missing:
        wrapper = reading.target.origin.wrapper
        missing = [name.removeprefix(wrapper) for name in reading.missing]
        needed = len(reading.target.needed())
        words.append(f"{len(missing)} of {needed} tensors are missing ({some(missing)})")
    if reading.misfits:
        misfits = [_misfit(reading, name) for name in reading.misfits]
        words.append(f"of another shape or type: {some(misfits)}")
    if reading.more:
        words.append(f"the file has {len(reading.more)} more in its parts ({some(reading.more)})")
    elif reading.others:
        words.append(f"not used of the file: {some(reading.others)}")
    return f"{'; '.join(words)}; {_what_to_do(reading)}"


def _misfit(reading: _Reading, name: str) -> str:
    """Return in words why a tensor does not fit. name: the encoder's."""
    own = reading.names[name]
    value, shapes = reading.held[own], reading.target.shapes(name)
    if value.shape in shapes:
        return f"{own} {str(value.dtype).removeprefix('torch.')}"
    return f"{own} {list(value.shape)}, not {list(shapes[-1])}"


def _what_to_do(reading: _Reading) -> str:
    """Return in words what may help about a file that does not fit."""
    if len(reading.missing) > len(reading.names):
        return (
            "its names are those of another network, or of another library: `encoder: tu-…` takes "
            "files of timm, `backbone:` those of torchvision"
        )
    if not (reading.missing or reading.more):
        shapes = {name: reading.held[reading.names[name]].shape for name in reading.misfits}
        if all(shape in reading.target.shapes(name) for name, shape in shapes.items()):
            return "quantised weights cannot be trained: give those that they were made from"
        channels = {
            _other_channels(shape, reading.target.state[name].shape)
            for name, shape in shapes.items()
        }
        if len(channels) == 1 and None not in channels:
            return f"it is for images of other channels: set channels: {channels.pop()}"
    return "name the network that the file is of, or give a whole file of this one"


def _other_channels(shape: torch.Size, wanted: torch.Size) -> int | None:
    """Return the number of inputs of a convolution that is as wanted but for it; None of others."""
    alike = len(shape) == 4 and (shape[0], *shape[2:]) == (wanted[0], *wanted[2:])
    return shape[1] if alike else None
