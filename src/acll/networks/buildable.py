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


def faults_of(wanted: Mapping[str, Wanted], cache: Path) -> list[str]:
    """Return a line for each network that cannot be built, packed, or given its weights.

    wanted: by name. cache: a file of those that are known to be sound.
    """
    known: list[str] = []
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = list(json.loads(cache.read_text(encoding="utf-8")))
    keys = _keys(wanted)
    unknown = {name: one for name, one in wanted.items() if keys[name] not in known}
    faults = {name: fault for name, one in unknown.items() if (fault := _fault(one)) is not None}
    sound = [keys[name] for name in unknown if name not in faults]
    if sound:
        with contextlib.suppress(OSError, UserError):  # a checkout that one may only read
            write_json(cache, sorted({*known, *sound}))
    return [f"networks.{name}: {fault}" for name, fault in faults.items()]


def _keys(wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Return a digest for each network, of all that its soundness depends on."""
    code = code_of("acll.networks.build", "acll.networks.partition")
    keys = {}
    for name, one in wanted.items():
        settings = one.network.model_dump(mode="json")
        text = json.dumps([settings, sorted(set(one.kinds)), one.identity, code], sort_keys=True)
        keys[name] = hashlib.sha256(text.encode()).hexdigest()
    return keys


def _fault(wanted: Wanted) -> str | None:
    """Return why a network cannot be used, or None."""
    from acll.networks.build import build
    from acll.networks.partition import partition

    network = wanted.network
    if wanted.weights is not None:
        network = network.model_copy(update={"weights": str(wanted.weights)})
    try:
        for kind in sorted(set(wanted.kinds)):
            partition(build(network, kind, 2, 0, pretrained=wanted.weights is not None))
    except UserError as error:
        return str(error)
    return None
