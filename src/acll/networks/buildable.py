"""Whether networks can be built and packed, found out before any data are prepared.

Building takes seconds, so networks that were sound are remembered.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acll import plugins
from acll.code import code_of
from acll.errors import UserError
from acll.files import write_json
from acll.networks.spec import Network, NetworkError
from acll.settings import Kind

SOUND_NETWORKS = Path(".cache/networks.json")  # below the repository


@dataclass(frozen=True)
class Wanted:
    """A network that is to be built. weights: its file, or None. identity: of the weights. sizes:
    of images that it is to take, where it has to be seen that it does."""

    network: Network
    kinds: Sequence[Kind]
    weights: Path | None
    identity: str
    sizes: Sequence[tuple[int, int]] = ()


def faults_and_notes(wanted: Mapping[str, Wanted], cache: Path) -> tuple[list[str], list[str]]:
    """Return a line for each network that cannot be built, packed, or given its weights, and one
    for each whose file of weights has more than its encoder takes.

    wanted: by name. cache: a file of those that are known to be sound, with their notes.
    """
    faults, found = judged_once(_keys(wanted), lambda name: _note(wanted[name]), cache)
    notes = [
        f"networks.{name}.weights = {wanted[name].network.weights!r}: {note}"
        for name, note in found.items()
        if note
    ]
    return [f"networks.{name}: {fault}" for name, fault in faults.items()], notes


def judged_once(
    keys: Mapping[str, str], judge: Callable[[str], str], cache: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is wrong with some things, and what is to be told of the others, by name.

    keys: of each, a digest of all that its soundness depends on. judge: tells what is to be told of
    a name, or raises UserError. cache: a file of what is known to be sound, by digest.
    """
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    faults, notes = {}, {}
    for name, key in keys.items():
        try:
            notes[name] = known[key] if key in known else judge(name)
        except UserError as error:
            faults[name] = str(error)
    found = {keys[name]: note for name, note in notes.items()}
    if not found.keys() <= known.keys():
        with contextlib.suppress(OSError, UserError):  # a checkout that one may only read
            write_json(cache, known | found)
    return faults, notes


def _keys(wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Return a digest for each network, of all that its soundness depends on."""
    keys = {}
    for name, one in wanted.items():
        settings = one.network.model_dump(mode="json")
        own = plugins.code_origins({"network": [getattr(one.network, "plugin", None)]})
        code = code_of("acll.networks.build", "acll.networks.partition", plugged=own)
        parts = [settings, sorted(set(one.kinds)), one.identity, code, *sorted(set(one.sizes))]
        keys[name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return keys


def _note(wanted: Wanted) -> str:
    """Build a network; return what is to be told of its file of weights, or an empty text.

    Raises UserError where it cannot be used.
    """
    from acll.networks.build import build, refuse_outputs
    from acll.networks.partition import partition

    network = wanted.network
    if wanted.weights is not None:
        network = network.model_copy(update={"weights": str(wanted.weights)})
    note, encoders = "", []
    for kind in sorted(set(wanted.kinds)):
        built = build(network, kind, 2, 0, pretrained=wanted.weights is not None)
        partition(built)
        state = built.encoder.state_dict()
        encoders.append({name: tuple(value.shape) for name, value in state.items()})
        if encoders[-1] != encoders[0]:
            raise NetworkError("its encoders for classification and for segmentation differ")
        for size in sorted(set(wanted.sizes)):
            refuse_outputs(built, kind, 2, size)
        note = built.note
    return note
