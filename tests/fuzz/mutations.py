"""Ways to damage a file. All chance comes from the generator that is handed over."""

import copy
import json
import zlib
from collections.abc import Callable
from typing import Any

from numpy.random import Generator

_INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
# what nobody should write into a table or a JSON file, and somebody does
ODD_TEXT = (
    "",
    " ",
    "\u00a0",
    "0",
    "-1",
    "1.0",
    "nan",
    "1e999",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "train\\cat\\0.png",
    "a,b",
    '"',
    "'",
    "\n",
    "\r\n",
    "\0",
    "\x1b[2J",
    "\u202e",
    "\ufeff",
    "e\u0301",
    "x" * 300,
    "=1+1",
    "background",
)
ODD_VALUES = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**53 + 1,
    2**64,
    10**30,
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    [0, 0],
    [0.0] * 7,
    {"size": [2**20, 2**20], "counts": "0"},
    *ODD_TEXT,
)

Bytes = Callable[[bytearray, Generator], bytearray]


def mutated(content: bytes, other: bytes, draw: Generator) -> bytes:
    """Return content damaged in one to three ways. other: a file from which parts may come."""
    changed = bytearray(content)
    for _ in range(int(draw.integers(1, 4))):
        which = int(draw.integers(len(_WAYS) + 1))
        if which == len(_WAYS):
            changed = _spliced(changed, other, draw)
        else:
            changed = _WAYS[which](changed, draw)
    if changed.startswith(b"\x89PNG") and draw.random() < 0.7:
        changed = _with_checksums(changed)
    return bytes(changed)


def mutated_json(content: Any, draw: Generator) -> Any:
    """Return JSON with one to three values replaced, removed, doubled or exchanged."""
    content = json.loads(json.dumps(content))  # in which no list stands at two places
    for _ in range(int(draw.integers(1, 4))):
        places = list(_places(content))
        if not places:
            break
        container, key = places[int(draw.integers(len(places)))]
        way = draw.random()
        if way < 0.6:
            container[key] = copy.deepcopy(ODD_VALUES[int(draw.integers(len(ODD_VALUES)))])
        elif way < 0.75:
            del container[key]
        elif way < 0.9 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            other, place = places[int(draw.integers(len(places)))]
            container[key] = copy.deepcopy(other[place])
    return content


def mutated_rows(rows: list[list[str]], draw: Generator) -> list[list[str]]:
    """Return the rows of a table with one to three cells or rows changed."""
    rows = [list(row) for row in rows]
    for _ in range(int(draw.integers(1, 4))):
        row = rows[int(draw.integers(len(rows)))]
        way = draw.random()
        if way < 0.5 and row:
            row[int(draw.integers(len(row)))] = ODD_TEXT[int(draw.integers(len(ODD_TEXT)))]
        elif way < 0.65:
            row.append(ODD_TEXT[int(draw.integers(len(ODD_TEXT)))])
        elif way < 0.75 and row:
            row.pop()
        elif way < 0.85:
            rows.append(list(row))
        elif len(rows) > 1:
            rows.remove(row)
    return rows


def json_text(content: Any) -> bytes:
    """Return JSON as bytes; lone surrogates and NaN stay as Python writes them."""
    return json.dumps(content).encode()


def _places(value: Any) -> Any:
    """Yield (container, key) of every value within."""
    keys: Any = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _at(content: bytearray, draw: Generator) -> int:
    """Return a position; heads of files are hit as often as all the rest."""
    end = min(len(content), 200) if draw.random() < 0.5 else len(content)
    return int(draw.integers(max(end, 1)))


def _flipped(content: bytearray, draw: Generator) -> bytearray:
    for _ in range(int(draw.integers(1, 9))):
        if content:
            content[_at(content, draw)] ^= 1 << int(draw.integers(8))
    return content


def _overwritten(content: bytearray, draw: Generator) -> bytearray:
    value = _INTERESTING[int(draw.integers(len(_INTERESTING)))]
    width = int(draw.choice([1, 2, 4]))
    order: Any = "big" if draw.random() < 0.5 else "little"
    at = _at(content, draw)
    content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)
    return content


def _cut(content: bytearray, draw: Generator) -> bytearray:
    return content[: int(draw.integers(len(content) + 1))]


def _without(content: bytearray, draw: Generator) -> bytearray:
    at = _at(content, draw)
    del content[at : at + int(draw.integers(1, 65))]
    return content


def _doubled(content: bytearray, draw: Generator) -> bytearray:
    at = _at(content, draw)
    length = int(draw.integers(1, 257))
    return content[: at + length] + content[at:]


def _longer(content: bytearray, draw: Generator) -> bytearray:
    at = _at(content, draw)
    return content[:at] + bytearray(draw.bytes(int(draw.integers(1, 65)))) + content[at:]


def _spliced(content: bytearray, other: bytes, draw: Generator) -> bytearray:
    return content[: _at(content, draw)] + other[_at(bytearray(other), draw) :]


_WAYS: tuple[Bytes, ...] = (
    _flipped,
    _overwritten,
    _overwritten,
    _cut,
    _without,
    _doubled,
    _longer,
)


def _with_checksums(content: bytearray) -> bytearray:
    """Return a PNG whose chunks have the checksums of their content, as far as it has chunks."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return content
