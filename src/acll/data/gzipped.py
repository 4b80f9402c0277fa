"""Parts of a gzip file at any position, with nothing expanded on disk and little in memory.

A gzip file can only be decoded from its beginning, or from a kept state of the decoder. So reading
keeps this state every few megabytes, and a later reader goes on from the nearest one. These points
need some twenty megabytes at most, however large the file is: where there are many, every other one
is dropped. Nothing is read by way of the position of an open file, so forked processes do not
disturb each other.
"""

import os
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PIECE = 2**15  # bytes that are read at once
_AT_ONCE = 2**20  # bytes that are expanded at once
_SPACING = 2**22  # bytes between two points, at first
_POINTS = 512  # each has some 40 KB
_CURSORS = 4  # positions at which a process goes on reading, such as images and masks
_GZIP = 31  # for zlib: a gzip header, and its checksum at the end


@dataclass
class _Cursor:
    """A position in the file, and the state of the decoder there."""

    position: int  # in what is expanded
    taken: int  # bytes of the file that the decoder has
    decoder: Any

    def copy(self) -> "_Cursor":
        return _Cursor(self.position, self.taken, self.decoder.copy())


class Gzipped:
    """A gzip file of one member or several. What is damaged raises zlib.error or EOFError."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._points = [_Cursor(0, 0, zlib.decompressobj(_GZIP))]
        self._spacing = _SPACING
        self._cursors: list[_Cursor] = []  # the last that was used is the last

    def read_at(self, size: int, position: int) -> bytes:
        """Return bytes of what is expanded from a position on; fewer where it ends before."""
        cursor = self._nearest(position)
        while cursor.position < position:
            if not self._expanded(cursor, position - cursor.position):
                return b""
        found = bytearray()
        while len(found) < size and (piece := self._expanded(cursor, size - len(found))):
            found += piece
        return bytes(found)

    def check_rest(self) -> None:
        """Read what has not been read, so that damage is found up to the checksum at the end."""
        cursor = self._nearest(max(point.position for point in [*self._points, *self._cursors]))
        while self._expanded(cursor, _AT_ONCE):
            pass

    def _nearest(self, position: int) -> _Cursor:
        """Return a cursor that is at the position, or before it by as little as possible."""
        point = self._points[bisect_right(self._points, position, key=lambda one: one.position) - 1]
        here = range(point.position, position + 1)
        before = [cursor for cursor in self._cursors if cursor.position in here]
        if before:
            best = max(before, key=lambda cursor: cursor.position)
            self._cursors.remove(best)
        else:
            best = point.copy()
        self._cursors = [*self._cursors, best][-_CURSORS:]
        return best

    def _expanded(self, cursor: _Cursor, most: int) -> bytes:
        """Return the next bytes, at most so many, and move the cursor; none at the end."""
        while True:
            if cursor.decoder.eof and not self._next_member(cursor):
                return b""
            packed = os.pread(self._file.fileno(), _PIECE, cursor.taken)
            found: bytes = cursor.decoder.decompress(packed, min(most, _AT_ONCE))
            # what the decoder did not need is read again: it belongs to the next piece or member
            ended = cursor.decoder.eof
            left = cursor.decoder.unused_data if ended else cursor.decoder.unconsumed_tail
            cursor.taken += len(packed) - len(left)
            cursor.position += len(found)
            if found:
                self._remember(cursor)
                return found
            if not packed and not ended:
                raise EOFError("it ends before what it says is its end")

    def _next_member(self, cursor: _Cursor) -> bool:
        """Go to where the next member begins; return whether there is one.

        Zeros may lie between members and fill up the file.
        """
        while packed := os.pread(self._file.fileno(), _PIECE, cursor.taken):
            filled = len(packed) - len(packed.lstrip(b"\0"))
            cursor.taken += filled
            if filled < len(packed):
                cursor.decoder = zlib.decompressobj(_GZIP)
                return True
        return False

    def _remember(self, cursor: _Cursor) -> None:
        """Keep a copy of the cursor where the last point is far behind."""
        if cursor.position < self._points[-1].position + self._spacing:
            return
        self._points.append(cursor.copy())
        if len(self._points) > _POINTS:
            self._points = self._points[::2]
            self._spacing *= 2
