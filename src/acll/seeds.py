"""Seeds derived from seeds, so that every random draw depends on what it is for and on nothing that
ran before."""

import hashlib
import json


def derived(*parts: int | str) -> int:
    """A seed in [0, 2**63) from numbers and words; the same on every machine and in every version
    of Python."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1
