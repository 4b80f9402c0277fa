"""Sets of positions and small integers in few bytes: who owns which weight.

The length of each code follows from counts alone, never from which positions or integers they are.
So the size of a file is known from its header, and what a code decodes to is known before any
memory is asked for. All bytes are defined here: no library's version changes them.
"""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

# integers at a time, few enough to stay in the cache for what is done next
_PIECE = 1 << 16
_LARGEST_BLOCK = 8  # bytes of a block of digits
_FEW = 6  # digits: so few are faster looked for one by one than sorted


@lru_cache(1 << 16)
def _low_bits(count: int, size: int) -> int:
    """Return how many low bits of `count` of `size` positions are stored apart; 0: a flag each.

    It is the number for which `set_size` is smallest.
    """
    near = max(1, size // count).bit_length() if count else 1
    candidates = range(max(1, near - 2), near + 1)
    best = min(candidates, key=lambda low: _elias_fano_size(count, size, low))
    return best if _elias_fano_size(count, size, best) < _bytes(size) else 0


def set_size(count: int, size: int) -> int:
    """Return the bytes of a set of `count` of `size` positions."""
    low = _low_bits(count, size)
    if not count:
        return 0
    return _elias_fano_size(count, size, low) if low else _bytes(size)


def pack_set(positions: Places, size: int) -> Bytes:
    """Return the code of increasing positions below `size`, by Elias & Fano, or a flag each.

    The high part of each position is told in unary by the flags of one vector: the i-th set flag
    lies at high part + i. The low bits follow, first the lowest bit of all positions.
    """
    count = len(positions)
    low = _low_bits(count, size)
    if not count:
        return np.zeros(0, np.uint8)
    if not low:
        flags = np.zeros(size, bool)
        flags[positions] = True
        return np.packbits(flags)
    high = np.zeros(_high_length(count, size, low), bool)
    high[(positions >> low) + np.arange(count)] = True
    planes = [np.packbits(positions >> bit & 1 == 1) for bit in range(low)]
    return np.concatenate([np.packbits(high), *planes])


def unpack_set(code: Bytes, count: int, size: int) -> Places:
    """Return the positions that `pack_set` has packed.

    Raises ValueError where the bytes are no such code.
    """
    if len(code) != set_size(count, size):
        raise ValueError(f"{len(code)} bytes cannot hold {count} of {size} positions")
    if not count:
        return np.zeros(0, np.int64)
    low = _low_bits(count, size)
    length = _high_length(count, size, low) if low else size
    end = _bytes(length)
    positions = np.flatnonzero(np.unpackbits(code[:end], count=length).view(bool))
    if len(positions) != count:
        raise ValueError("it does not agree with the header")
    if low:
        positions -= np.arange(count)
        positions <<= low
        for bit, start in enumerate(range(end, len(code), _bytes(count))):
            plane = np.unpackbits(code[start : start + _bytes(count)], count=count)
            positions |= plane.astype(np.int64) << bit
        # the high parts increase by how they are told, the low bits are anybody's
        if int(positions[-1]) >= size or bool((positions[1:] <= positions[:-1]).any()):
            raise ValueError("it does not agree with the header")
    return positions


def _elias_fano_size(count: int, size: int, low: int) -> int:
    return _bytes(_high_length(count, size, low)) + low * _bytes(count)


def _high_length(count: int, size: int, low: int) -> int:
    return count + (max(0, size - 1) >> low)


def _bytes(flags: int) -> int:
    return (flags + 7) // 8


def digits_size(count: int, base: int) -> int:
    """Return the bytes of `count` integers below `base`."""
    width, digits = _block(base)
    return -(-count // digits) * width


def pack_digits(values: Bytes, base: int) -> Bytes:
    """Return flat integers below `base` (2 … 256) as blocks: each a number with these digits.

    The first digit is the lowest, and the last block is filled with zeros. Numbers are
    little-endian. Raises ValueError for a larger integer.
    """
    if values.size and int(values.max()) >= base:
        raise ValueError(f"the value {int(values.max())} is not below {base}")
    width, digits = _block(base)
    filled = np.zeros(-(-len(values) // digits) * digits, np.uint8)
    filled[: len(values)] = values
    blocks = np.zeros(len(filled) // digits, "<u8")
    for digit in filled.reshape(-1, digits).T[::-1]:
        blocks *= np.uint64(base)
        blocks += digit
    return blocks.view(np.uint8).reshape(-1, 8)[:, :width].reshape(-1)


def unpack_digits(code: Bytes, base: int, count: int) -> Iterator[Bytes]:
    """Yield the `count` integers that `pack_digits` has packed, piece by piece.

    Raises ValueError where the bytes are no such code.
    """
    if len(code) != digits_size(count, base):
        raise ValueError(f"{len(code)} bytes cannot hold {count} integers below {base}")
    width, digits = _block(base)
    together, table = _table(base)
    step, divisor = _PIECE // digits, np.uint64(base**together)
    for start in range(0, len(code), step * width):
        narrow = code[start : start + step * width].reshape(-1, width)
        wide = np.zeros((len(narrow), 8), np.uint8)
        wide[:, :width] = narrow
        numbers = wide.view("<u8").reshape(-1)
        parts = np.empty((len(numbers), -(-digits // together)), table.dtype)
        for index in range(parts.shape[1]):
            rest = numbers // divisor
            parts[:, index] = table.take((numbers - rest * divisor).view(np.int64))
            numbers = rest
        found = parts.view(np.uint8)
        if numbers.any() or (digits < found.shape[1] and found[:, digits:].any()):
            raise ValueError(f"it has integers that are not below {base}")
        before = start // width * digits
        yield found[:, :digits].reshape(-1)[: count - before]


@cache
def _block(base: int) -> tuple[int, int]:
    """Return the bytes and the digits of a block: those that take the fewest bits a digit."""
    blocks = []
    for width in range(1, _LARGEST_BLOCK + 1):
        digits = 0
        while base ** (digits + 1) <= 1 << 8 * width:
            digits += 1
        blocks.append((width, digits))
    # of equal ones the widest, whose digits are a multiple of those that one look-up gives
    return min(blocks, key=lambda block: (block[0] / block[1], -block[0]))


@cache
def _table(base: int) -> tuple[int, NDArray[np.unsignedinteger]]:
    """Return how many digits one look-up gives, and for each number these, viewed as one value."""
    together = max(digits for digits in (1, 2, 4, 8) if base**digits <= 1 << 16)
    powers = base ** np.arange(together)
    values = (np.arange(base**together)[:, None] // powers % base).astype(np.uint8)
    return together, values.view(f"u{together}").reshape(-1)


def map_size(owned: Sequence[int], size: int) -> int:
    """Return the bytes of the owner map of `size` weights. owned: how many each task owns."""
    return min(_sets_size(owned, size), digits_size(size, _base(owned, size)))


def pack_map(owner: Bytes, owned: Sequence[int]) -> Bytes:
    """Return the code of a flat owner map: 0 free, t owned by the t-th task.

    It is one set of positions for each task, or a digit for each weight, whichever is smaller: sets
    where tasks own little or unequal shares, digits where they own much.
    """
    size = len(owner)
    if not _by_digits(owned, size):
        tasks = range(1, len(owned) + 1)
        return np.concatenate([pack_set(np.flatnonzero(owner == t), size) for t in tasks])
    base = _base(owned, size)
    return pack_digits(owner if base > len(owned) else owner - np.uint8(1), base)


def unpack_map(
    code: Bytes, owned: Sequence[int], size: int, last: int
) -> Iterator[tuple[int, Places]]:
    """Yield (t, positions of weights that the t-th task owns) for the first `last` tasks.

    A task may come several times, always with later positions. Raises ValueError where the code is
    not that of a map in which each task owns as many weights as `owned` says.
    """
    if len(code) != map_size(owned, size):
        raise ValueError(f"{len(code)} bytes cannot hold it")
    if _by_digits(owned, size):
        yield from _by_owner(unpack_digits(code, _base(owned, size), size), owned, size, last)
        return
    start, taken = 0, np.zeros(size, bool)
    for task, count in enumerate(owned[:last], 1):
        end = start + set_size(count, size)
        positions = unpack_set(code[start:end], count, size)
        taken[positions] = True
        yield task, positions
        start = end
    if np.count_nonzero(taken) != sum(owned[:last]):
        raise ValueError("it gives weights to two tasks")


def _by_owner(
    pieces: Iterator[Bytes], owned: Sequence[int], size: int, last: int
) -> Iterator[tuple[int, Places]]:
    """Yield what `unpack_map` does, for each piece of a map in digits."""
    base = _base(owned, size)
    free = base > len(owned)  # the digit 0 then stands for nobody
    left, before = list(owned[:last]), 0
    for piece in pieces:
        for index, positions in enumerate(_positions(piece, range(free, last + free), base)):
            left[index] -= len(positions)
            if left[index] < 0:
                raise ValueError("it does not agree with the header")
            positions += before
            yield index + 1, positions
        before += len(piece)
    if any(left):
        raise ValueError("it does not agree with the header")


def _positions(piece: Bytes, digits: range, base: int) -> list[Places]:
    """Return where each of these digits is. All are below `base`."""
    if base <= _FEW:
        return [np.flatnonzero(piece == digit) for digit in digits]
    order = np.argsort(piece, kind="stable")
    ends = np.searchsorted(piece.take(order), np.arange(1, base))
    return np.split(order, ends)[digits.start : digits.stop]


def _by_digits(owned: Sequence[int], size: int) -> bool:
    return digits_size(size, _base(owned, size)) < _sets_size(owned, size)


def _sets_size(owned: Sequence[int], size: int) -> int:
    return sum(set_size(count, size) for count in owned)


def _base(owned: Sequence[int], size: int) -> int:
    """Return how many owners a weight may have; 0, nobody, counts only where weights are free."""
    return max(2, len(owned) + (sum(owned) < size))
