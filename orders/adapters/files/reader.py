"""Reads lines from a log file: forwards from any position, or from its end.

What a crash leaves at the end is not read, and not an error: a line cut short, or, after a
power cut, bytes that the file system never wrote and shows as zeros. Both can only concern
lines that were never acknowledged. Whatever else is not as written is an error.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ...errors import LogDamaged, UnreadableMessage
from ...messaging.message import Message
from . import line as codec
from .disk import Disk, available
from .line import BEGINNING, Frame, Line, Position

LINE = 1 << 12  # bytes; most lines are shorter
BLOCK = 1 << 16  # bytes read at first; then ever more, up to
BIG_BLOCK = 1 << 20
SECTOR = 512  # bytes that a disk writes whole or not at all

Wanted = Callable[[bytes], object]  # whether a line, as it stands in the file, is to be decoded
Watch = Callable[[int], AbstractContextManager[Callable[[int], object]]]
"""Is entered with a number of bytes to read, and yields what is told how many are read by now."""

LONG = 1 << 24  # bytes that take long enough to read for somebody to watch it

L = TypeVar("L", bound=Line[Message] | Frame)


class Found(NamedTuple, Generic[L]):
    """A line of the log, or what is wanted of it, and where it stands."""

    line: L
    start: Position
    end: Position
    raw: bytes


Entry = Found[Line[Message]]


class LogReader:
    """Reads the lines of one log file, given an open descriptor.

    Args:
        path: the file, for errors.
        disk: does the file calls.
        vouched: returns the byte before which everything is known to have been on the disk.
        watch: is entered for whatever takes long to read.
    """

    def __init__(
        self, path: Path, disk: Disk, vouched: Callable[[], int], watch: Watch | None = None
    ) -> None:
        self.path = path
        self._disk = disk
        self._vouched = vouched
        self._watch = watch or _unwatched

    def entries(
        self,
        descriptor: int,
        after: Position,
        end: int,
        parse: Callable[[bytes], L],
        wanted: Wanted | None = None,
    ) -> Iterator[Found[L]]:
        """Yield the lines between a position and byte `end`; stop at what a crash has left.

        Lines that are not wanted are checked all the same. A whole last line that only lacks
        its line feed is yielded, its end one byte past `end`.

        Raises:
            LogDamaged: a line is not what was written.
            UnreadableMessage: it is, but it needs another version of a program.
        """
        offset, seq = after
        size = end - after.offset
        with self._watch(size) if size >= LONG else _unwatched(size) as tell:
            for lines, are_ended in self._blocks(descriptor, after.offset, end):
                for raw in lines:
                    start, seq = offset, seq + 1
                    offset += len(raw) + 1
                    try:
                        if not codec.is_sound(raw, seq):
                            codec.refuse(raw, seq)
                        if wanted is not None and not wanted(raw):
                            continue
                        line = parse(raw)
                    except codec.UnreadableLineError as error:
                        raise UnreadableMessage(self.path, seq, str(error)) from error
                    except ValueError as error:
                        is_torn = not are_ended and codec.is_torn(raw, seq)
                        is_unstored = is_torn or self._is_unwritten(descriptor, start)
                        if is_unstored and self._vouched() <= start:
                            return
                        raise LogDamaged(self.path, seq, str(error)) from error
                    yield Found(line, Position(start, seq - 1), Position(offset, seq), raw)
                tell(offset - after.offset)

    def at(self, descriptor: int, position: Position, end: int) -> Entry | None:
        """Return the line that begins at a position, if one does."""
        blocks = self._blocks(descriptor, position.offset, end, LINE)
        (raw, *_), is_ended = next(blocks, ([b""], False))
        try:
            after = Position(position.offset + len(raw) + 1, position.seq + 1)
            line = _numbered(codec.decode(raw), after.seq)
            return Found(line, position, after, raw) if is_ended else None
        except ValueError:
            return None

    def is_there(self, descriptor: int, end: Position, tail: bytes, size: int) -> bool:
        """Return whether a line that ended with `tail` still ends at a position, in `size` bytes.

        It may lack its line feed.
        """
        is_long_enough = size >= end.offset - 1
        begin = end.offset - 1 - len(tail)
        return is_long_enough and (not tail or self._read(descriptor, len(tail), begin) == tail)

    def last(self, descriptor: int, after: Position, size: int) -> Found[codec.Summary] | None:
        """Return the last line before byte `size`, the ones between it and `after` unread.

        None if that takes a closer look: at damage, or at what a crash has left.
        """
        block = self._read(descriptor, size - after.offset, after.offset)
        start = block.rfind(b"\n", 0, -1) + 1
        raw, end = block[start:-1], Position(size, after.seq + block.count(b"\n"))
        try:
            line = _numbered(codec.decode_summary(raw), end.seq) if block.endswith(b"\n") else None
        except ValueError:
            return None
        begin = Position(after.offset + start, end.seq - 1)
        return Found(line, begin, end, raw) if line else None

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
            (first, *_), _ = next(self._blocks(descriptor, frame.settled, size))
            return Position(frame.settled, codec.decode_frame(first).seq - 1)
        except ValueError:  # what a crash left, or damage: reading it all will tell
            return BEGINNING

    def latest(self, descriptor: int, size: int, since: datetime) -> bytes:
        """Return the end of the log, with all lines of that time or later."""
        length = 4 * LINE
        while True:
            start = max(0, size - length)
            block = self._read(descriptor, size - start, start)
            if start == 0 or _is_older(block, since):
                return block
            length *= 4

    def _blocks(
        self, descriptor: int, offset: int, end: int, size: int = BLOCK
    ) -> Iterator[tuple[list[bytes], bool]]:
        """Yield the lines between two bytes, some at a time, and whether line feeds end them."""
        rest: list[bytes] = []  # of a line that is longer than a block, too
        while offset < end:
            block = self._read(descriptor, min(size, end - offset), offset)
            if not block:
                break
            offset += len(block)
            size = min(2 * size, BIG_BLOCK)
            lines = block.split(b"\n")
            rest.append(lines[0])
            if len(lines) > 1:
                lines[0], rest = b"".join(rest), [lines.pop()]
                yield lines, True
        if any(rest):
            yield [b"".join(rest)], False

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


def _unwatched(_size: int) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda _read: None)


def _numbered(line: L, seq: int) -> L:
    if line.seq != seq:
        raise ValueError(f"number {line.seq} stands at line {seq}")
    return line


def _is_older(block: bytes, time: datetime) -> bool:
    """Return whether the first whole line of a block is older."""
    start = block.find(b"\n") + 1
    try:
        return codec.decode_frame(block[start : block.find(b"\n", start)]).time < time
    except ValueError:
        return False


def _proven(raw: bytes) -> int:
    try:
        return codec.decode_frame(raw).proven
    except ValueError:
        return 0
