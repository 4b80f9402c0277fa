"""Weights, and values of private state, in 28 bits each instead of 32, without loss.

Of a float32 with 1 bit of sign, 8 of exponent and 23 of fraction, the weights of a network use few
exponents: the largest one and those just below it. So an exponent is stored in 4 bits, as its
distance to the largest; those that are too far below it are listed apart.

The code of n values: n times the 16 lowest bits (little-endian), n times the sign and the 7 bits
before, the distances of two values a byte (the first in the higher bits), the listed exponents, the
largest exponent. Where that is not smaller, the code is the values themselves, little-endian.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FAR = 15  # this distance means that the exponent is listed
_PIECE = 1 << 14  # values at a time; even


def coded_size(count: int, far: int = 0) -> int:
    """Return the bytes of `count` weights, of which `far` have exponents that are listed."""
    return min(4 * count, _fixed(count) + far + 1)


def _fixed(count: int) -> int:
    return 3 * count + (count + 1) // 2


def encoded_size(values: NDArray[np.float32]) -> int:
    """Return the bytes of the code of these values."""
    exponents = _exponents(values)
    if not len(exponents):
        return 0
    return coded_size(len(values), int((_distances(exponents) >= _FAR).sum()))


def encode(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the code of flat values."""
    count = len(values)
    if encoded_size(values) == 4 * count:
        return values.astype("<f4").view(np.uint8)
    bits, exponents = values.view(np.uint32), _exponents(values)
    distances = np.minimum(_distances(exponents), _FAR)
    pairs = np.zeros((count + 1) // 2 * 2, np.uint8)
    pairs[:count] = distances
    sign_and_fraction = (bits >> 24 & 0x80 | bits >> 16 & 0x7F).astype(np.uint8)
    return np.concatenate(
        [
            bits.astype("<u2").view(np.uint8),
            sign_and_fraction,
            pairs[::2] << 4 | pairs[1::2],
            exponents[distances == _FAR],
            exponents.max(keepdims=True),
        ]
    )


def _exponents(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    exponents: NDArray[np.uint8] = (values.view(np.uint32) >> 23).astype(np.uint8)
    return exponents


def _distances(exponents: NDArray[np.uint8]) -> NDArray[np.uint8]:
    distances: NDArray[np.uint8] = exponents.max() - exponents
    return distances


def _pairs_with_far(pairs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return which bytes hold the distance of an exponent that is listed."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(pairs), _PIECE):  # pieces, since new memory takes longer than this
        piece = pairs[start : start + _PIECE]
        found.append(np.flatnonzero((piece >= _FAR << 4) | (piece & _FAR == _FAR)) + start)
    return np.concatenate(found)


@dataclass(frozen=True)
class CodedFloats:
    """The code of values, of which any may be read without those before."""

    count: int
    code: NDArray[np.uint8]
    far: NDArray[np.int64]  # positions of the values whose exponents are listed
    exponents: NDArray[np.uint64]  # for each byte, the two exponents that it stands for, in place

    @classmethod
    def open(cls, code: NDArray[np.uint8], count: int) -> "CodedFloats":
        """Return the code of `count` values. Raises ValueError where it is none."""
        plain = len(code) == 4 * count
        if not plain and not _fixed(count) < len(code) < 4 * count:
            raise ValueError(f"{len(code)} bytes cannot hold {count} values")
        if plain:
            return cls(count, code, np.zeros(0, np.int64), np.zeros(0, np.uint64))
        pairs = code[3 * count : _fixed(count)]
        some = _pairs_with_far(pairs)
        both = np.stack([2 * some, 2 * some + 1], axis=1)
        listed = np.stack([pairs[some] >> 4, pairs[some] & _FAR], axis=1) == _FAR
        far = both[listed]
        if len(far) != len(code) - _fixed(count) - 1 or (len(far) and int(far[-1]) >= count):
            raise ValueError("its exponents are not those that it lists")
        distances = np.stack([np.arange(256) >> 4, np.arange(256) & 15], axis=1)
        exponents = np.maximum(int(code[-1]) - distances, 0)
        exponents[distances == _FAR] = 0  # they are put in afterwards
        table = (exponents << 23).astype(np.uint32).view(np.uint64).reshape(-1)
        return cls(count, code, far, table)

    def read(self, start: int, out: NDArray[np.float32]) -> None:
        """Write the values from `start` on into `out`, as many as it has room for."""
        if len(self.code) == 4 * self.count:
            out[:] = self.code[4 * start : 4 * (start + len(out))].view("<f4")
            return
        for begin in range(0, len(out), _PIECE):
            self._read(start + begin, out[begin : begin + _PIECE])

    def _read(self, start: int, out: NDArray[np.float32]) -> None:
        end, count, odd = start + len(out), self.count, start % 2
        pairs = self.code[3 * count + start // 2 : 3 * count + (end + 1) // 2]
        # `take` is faster than an index, and lets other threads work
        bits = self.exponents.take(pairs).view(np.uint32)[odd : odd + len(out)]
        bits |= self.code[2 * start : 2 * end].view("<u2")
        fraction = self.code[2 * count + start : 2 * count + end].astype(np.uint32)
        sign = fraction & 0x80
        sign <<= 24
        fraction &= 0x7F
        fraction <<= 16
        bits |= fraction
        bits |= sign
        first, last = np.searchsorted(self.far, (start, end))
        if first < last:
            listed = self.code[_fixed(count) + first : _fixed(count) + last].astype(np.uint32)
            bits[self.far[first:last] - start] |= listed << 23
        out[:] = bits.view(np.float32)
