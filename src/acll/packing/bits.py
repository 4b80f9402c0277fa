"""Small integers packed tightly into bytes: owner maps and masks of kept weights."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# values at a time (a multiple of 8), few enough to stay in the cache for what is done next
_CHUNK = 1 << 16


def bits_for(largest: int) -> int:
    """Return the bits that hold the integers 0 … `largest`: ⌈log2(largest + 1)⌉, at least one."""
    return max(1, int(largest).bit_length())


def pack(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return flat integers below 2**bits (bits ≤ 8) as bytes, most significant bit first.

    The last byte is filled with zeros. Raises ValueError for a larger integer.
    """
    if values.size and int(values.max()) >= 1 << bits:
        raise ValueError(f"the value {int(values.max())} does not fit into {bits} bits")
    chunks = [
        np.packbits(np.unpackbits(values[start : start + _CHUNK, None], axis=1)[:, 8 - bits :])
        for start in range(0, values.size, _CHUNK)
    ]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.uint8)


def unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the `count` integers that `pack` has packed, piece by piece.

    Raises ValueError where the bytes are not as many as that needs.
    """
    if packed.size != packed_size(count, bits):
        raise ValueError(f"{packed.size} bytes cannot hold {count} values of {bits} bits")
    step = _CHUNK * bits // 8
    for position, start in enumerate(range(0, packed.size, step)):
        here, piece = min(_CHUNK, count - position * _CHUNK), packed[start : start + step]
        if 8 % bits == 0:  # whole values in each byte, which are looked up together
            yield _table(bits)[piece].view(np.uint8)[:here]
        else:
            flags = np.unpackbits(piece, count=here * bits).reshape(here, bits)
            yield flags @ (1 << np.arange(bits - 1, -1, -1)).astype(np.uint8)


@cache
def _table(bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """Return for each byte its values, a byte each, viewed as one number.

    So one look-up gives all values of a byte.
    """
    shifts = np.arange(8 - bits, -1, -bits)
    values = (np.arange(256)[:, None] >> shifts & ((1 << bits) - 1)).astype(np.uint8)
    table: NDArray[np.unsignedinteger[Any]] = values.view(f"u{8 // bits}").reshape(-1)
    return table


def packed_size(count: int, bits: int) -> int:
    """Return the number of bytes that `count` integers of `bits` bits take."""
    return (count * bits + 7) // 8
