"""Whether networks can be built and packed, found out before any data are prepared.

Building takes seconds, so networks that were sound are remembered.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.code import code_of
from acll.errors import UserError
from acll.files import write_json
from acll.networks.spec import Network
from acll.settings import Kind

SOUND_NETWORKS = Path(".cache/networks.json")  # below the repository


@dataclass(frozen=True)
class Wanted:
    """A network that is to be built. weights: its file, or None. identity: of the weights."""

    network: Network
    kinds: Sequence[Kind]
    weights: Path | None
    identity: str


def faults_and_notes(wanted: Mapping[str, Wanted], cache: Path) -> tuple[list[str], list[str]]:
    """Return a line for each network that cannot be built, packed, or given its weights, and one
    for each whose file of weights has more than its encoder takes.

    wanted: by name. cache: a file of those that are known to be sound, with their notes.
    """
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(cache.read_text(encoding="utf-8")))
    faults, notes, found = [], [], {}
    for name, key in _keys(wanted).items():
        try:
            note = known[key] if key in known else _note(wanted[name])
        except UserError as error:
            faults.append(f"networks.{name}: {error}")
            continue
        found[key] = note
        if note:
            notes.append(f"networks.{name}.weights = {wanted[name].network.weights!r}: {note}")
    if not found.keys() <= known.keys():
        with contextlib.suppress(OSError, UserError):  # a checkout that one may only read
            write_json(cache, known | found)
    return faults, notes


def _keys(wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Return a digest for each network, of all that its soundness depends on."""
    code = code_of("acll.networks.build", "acll.networks.partition")
    keys = {}
    for name, one in wanted.items():
        settings = one.network.model_dump(mode="json")
        text = json.dumps([settings, sorted(set(one.kinds)), one.identity, code], sort_keys=True)
        keys[name] = hashlib.sha256(text.encode()).hexdigest()
    return keys


def _note(wanted: Wanted) -> str:
    """Build a network; return what is to be told of its file of weights, or an empty text.

    Raises UserError where it cannot be used.
    """
    from acll.networks.build import build
    from acll.networks.partition import partition

    network = wanted.network
    if wanted.weights is not None:
        network = network.model_copy(update={"weights": str(wanted.weights)})
    note = ""
    for kind in sorted(set(wanted.kinds)):
        built = build(network, kind, 2, 0, pretrained=wanted.weights is not None)
        partition(built)
        note = built.note
    return note
