"""Reads lines from a log file: forwards from any position, or from its end.

What a crash leaves at the end is not read, and not an error: a line cut short, or, after a
power cut, bytes that the file system never wrote and shows as zeros. Both can only concern
lines that were never acknowledged. Whatever else is not as written is an error.
"""

import os
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ...errors import LogDamaged, UnreadableMessage
from ...messaging.message import Message
from . import line as codec
from .disk import Disk, available
from .line import BEGINNING, Line, Position

LINE = 1 << 12  # bytes; most lines are shorter
BLOCK = 1 << 16  # bytes read at first; then ever more, up to
BIG_BLOCK = 1 << 20
SECTOR = 512  # bytes that a disk writes whole or not at all

Wanted = Callable[[bytes], bool]  # whether a line, as it stands in the file, is to be decoded
Decode = Callable[[bytes], Line[Message]]


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
        vouched: returns the byte before which everything is known to have been on the disk.
    """

    def __init__(self, path: Path, disk: Disk, vouched: Callable[[], int]) -> None:
        self.path = path
        self._disk = disk
        self._vouched = vouched

    def entries(
        self,
        descriptor: int,
        after: Position,
        end: int,
        wanted: Wanted | None = None,
        decode: Decode = codec.decode,
    ) -> Iterator[Entry]:
        """Yield the lines between a position and byte `end`; stop at what a crash has left.

        Lines that are not wanted are checked all the same. A whole last line that only lacks
        its line feed is yielded, its end one byte past `end`.

        Raises:
            LogDamaged: a line is not what was written.
            UnreadableMessage: it is, but it needs another version of a program.
        """
        start = after
        for raw, is_ended in self._lines(descriptor, after.offset, end):
            position = Position(start.offset + len(raw) + 1, start.seq + 1)
            entry = None
            try:
                if wanted is None or wanted(raw):
                    entry = _entry(raw, start, position, decode)
                else:
                    codec.check(raw)
            except codec.UnreadableLineError as error:
                raise UnreadableMessage(self.path, position.seq, str(error)) from error
            except ValueError as error:
                is_torn = not is_ended and codec.is_torn(raw, position.seq)
                is_unstored = is_torn or self._is_unwritten(descriptor, start.offset)
                if is_unstored and self._vouched() <= start.offset:
                    return
                raise LogDamaged(self.path, position.seq, str(error)) from error
            if entry is not None:
                yield entry
            start = position

    def at(self, descriptor: int, position: Position, end: int) -> Entry | None:
        """Return the line that begins at a position, if one does."""
        raw, is_ended = next(self._lines(descriptor, position.offset, end, LINE), (b"", False))
        try:
            after = Position(position.offset + len(raw) + 1, position.seq + 1)
            return _entry(raw, position, after, codec.decode) if is_ended else None
        except ValueError:
            return None

    def settled(self, descriptor: int, size: int) -> Position:
        """Return the position from which a newcomer must read, found from the log's end."""
        last = self._last_line(descriptor, size)
        if last is None:
            return BEGINNING
        offset, raw = last
        try:
            frame = codec.decode_frame(raw)
            if frame.settled >= offset:
                return Position(offset, frame.seq - 1)
            first, _ = next(self._lines(descriptor, frame.settled, size))
            return Position(frame.settled, codec.decode_frame(first).seq - 1)
        except ValueError:  # what a crash left, or damage: reading it all will tell
            return BEGINNING

    def latest(self, descriptor: int, size: int, since: datetime) -> bytes:
        """Return the end of the log, with all lines of that time or later."""
        length = BLOCK
        while True:
            start = max(0, size - length)
            block = self._read(descriptor, size - start, start)
            if start == 0 or _is_older(block, since):
                return block
            length *= 4

    def _lines(
        self, descriptor: int, offset: int, end: int, size: int = BLOCK
    ) -> Iterator[tuple[bytes, bool]]:
        """Yield the lines between two bytes, and whether a line feed ends them."""
        rest: list[bytes] = []
        while offset < end:
            block = self._read(descriptor, min(size, end - offset), offset)
            if not block:
                break
            offset += len(block)
            size = min(2 * size, BIG_BLOCK)
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

    def _is_unwritten(self, descriptor: int, offset: int) -> bool:
        """Return whether the rest of the file, from a bad line on, never was on the disk.

        A block that the file system never wrote shows as zeros. They are a power cut's work
        unless a later line proves that they were on the disk before.
        """
        with available(self.path):
            size = os.fstat(descriptor).st_size
        rest = self._read(descriptor, size - offset, offset)
        first, *others = rest.split(b"\n")
        if offset == 0 and rest.strip(b"\0") and not codec.is_ours(first):
            return False  # a foreign file; zeros are common in those
        if any(_proven(line) > offset for line in others):
            return False
        return any(
            (zeros.start() == 0 or (offset + zeros.start()) % SECTOR == 0)
            and (zeros.end() == len(rest) or (offset + zeros.end()) % SECTOR == 0)
            for zeros in re.finditer(b"\0+", rest)
        )

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        with available(self.path):
            return self._disk.read(descriptor, size, offset)


def _entry(raw: bytes, start: Position, end: Position, decode: Decode) -> Entry:
    line = decode(raw)
    if line.seq != end.seq:
        raise ValueError(f"number {line.seq} stands at line {end.seq}")
    return Entry(line, start, end, raw)


def _is_older(block: bytes, time: datetime) -> bool:
    _, _, lines = block.partition(b"\n")
    try:
        return codec.decode_frame(lines.partition(b"\n")[0]).time < time
    except ValueError:
        return False


def _proven(raw: bytes) -> int:
    try:
        return codec.decode_frame(raw).proven
    except ValueError:
        return 0
