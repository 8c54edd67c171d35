"""Reads lines from a log file: forwards from any position, or the last one from the end.

What a crash leaves at the end is not read, and not an error: a line cut short, or, after a
power cut, bytes that the file system never wrote and shows as zeros. Both can only concern
lines that nobody was told are stored. Whatever else is not as written is an error.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from . import line as codec
from .disk import Disk, reason
from .errors import LogDamaged, StoreUnavailable
from .ledger import START, Position
from .line import Line
from .message import Message

BLOCK = 1 << 16  # bytes read at a time from the end
BIG_BLOCK = 1 << 20  # bytes read at a time forwards
SECTOR = 512  # bytes that a disk writes whole or not at all


class Entry(NamedTuple):
    """A line of the log and where it stands."""

    line: Line[Message]
    start: Position
    end: Position
    raw: bytes


class LogReader:
    """Reads the lines of one log file, given an open descriptor.

    Args:
        path: the file, for errors.
        disk: does the file calls.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk

    def entries(
        self, descriptor: int, after: Position, end: int, containing: Collection[bytes] = ()
    ) -> Iterator[Entry]:
        """Yield the lines between a position and byte `end`, checked; stop at a crash's leavings.

        A whole last line that only lacks its line feed is yielded, its end one byte past `end`.
        The last whole line is yielded whatever it contains: it says how far the reader got.

        Raises:
            LogDamaged: a line is not what was written.
        """
        start, skipped = after, None
        for raw, is_ended in self._lines(descriptor, after.offset, end):
            if not is_ended and codec.is_torn(raw, start.seq + 1):
                break
            position = Position(start.offset + len(raw) + 1, start.seq + 1)
            try:
                if not containing or any(part in raw for part in containing):
                    entry, skipped = self._entry(raw, start, position), None
                else:
                    codec.check(raw)
                    entry, skipped = None, (raw, start, position)
            except ValueError as error:
                if self._is_unwritten(descriptor, start.offset, end):
                    break
                raise LogDamaged(self.path, position.seq, str(error)) from error
            if entry is not None:
                yield entry
            start = position
        if skipped is not None:
            try:
                yield self._entry(*skipped)
            except ValueError as error:
                raise LogDamaged(self.path, start.seq, str(error)) from error

    def settled(self, descriptor: int, size: int) -> Position:
        """Return the position from which a newcomer must read, found from the log's end."""
        last = self._last_line(descriptor, size)
        if last is None:
            return START
        offset, raw = last
        try:
            line = codec.decode(raw)
            if line.settled >= offset:
                return Position(offset, line.seq - 1)
            first, _ = next(self._lines(descriptor, line.settled, size))
            return Position(line.settled, codec.decode(first).seq - 1)
        except ValueError:  # a crash's leavings, or damage: reading it all will tell
            return START

    def _entry(self, raw: bytes, start: Position, end: Position) -> Entry:
        line = codec.decode(raw)
        if line.seq != end.seq:
            raise ValueError(f"number {line.seq} stands at line {end.seq}")
        return Entry(line, start, end, raw)

    def _lines(self, descriptor: int, offset: int, end: int) -> Iterator[tuple[bytes, bool]]:
        """Yield the lines between two bytes, and whether a line feed ends them."""
        rest: list[bytes] = []
        while offset < end:
            block = self._read(descriptor, min(BIG_BLOCK, end - offset), offset)
            if not block:
                break
            offset += len(block)
            *lines, last = block.split(b"\n")
            for line in lines:
                yield b"".join([*rest, line]), True
                rest.clear()
            rest.append(last)
        if any(rest):
            yield b"".join(rest), False

    def _last_line(self, descriptor: int, size: int) -> tuple[int, bytes] | None:
        """Return offset and bytes of the last line that a line feed ends, or None."""
        length = BLOCK
        while True:
            start = max(0, size - length)
            *before, fragment = self._read(descriptor, size - start, start).split(b"\n")
            if len(before) > 1 or (before and start == 0):
                return size - len(fragment) - 1 - len(before[-1]), before[-1]
            if start == 0:
                return None
            length *= 2

    def _is_unwritten(self, descriptor: int, offset: int, end: int) -> bool:
        """Return whether the rest of the file, from a bad line on, never was on the disk.

        A block that the file system never wrote shows as zeros. They are a power cut's work
        unless a later line says, by its `settled`, that they were on the disk before.
        """
        rest = self._read(descriptor, end - offset, offset)
        first, *others = rest.split(b"\n")
        if offset == 0 and first.strip(b"\0") and not codec.is_ours(first):
            return False  # a foreign file; zeros are common in those
        if any(line is not None and line.settled > offset for line in map(_decoded, others)):
            return False
        return any(
            (zeros.start() == 0 or (offset + zeros.start()) % SECTOR == 0)
            and (zeros.end() == len(rest) or (offset + zeros.end()) % SECTOR == 0)
            for zeros in re.finditer(b"\0+", rest)
        )

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        try:
            return self._disk.read(descriptor, size, offset)
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error


def _decoded(raw: bytes) -> Line[Message] | None:
    try:
        return codec.decode(raw)
    except ValueError:
        return None
