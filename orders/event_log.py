"""The event log, `events.jsonl`: what happened, append-only. The truth of the store.

A commit is one line (see `line.py`), appended and synced under a lock. A write cut short by a
crash leaves a last line without its end; the next writer drops it. Anything else that is not
as written is an error that names the line.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from . import line as codec
from .disk import Disk, FileLock, reason, require_regular
from .errors import ForeignFile, LogDamaged, NotStored, StoreUnavailable
from .ledger import Delivery, Ledger, Owed
from .line import FORMAT, Line
from .message import Message, now

BLOCK = 1 << 16  # bytes read at a time from the end; sixteen times that from the middle


class Position(NamedTuple):
    """A place between two lines: `seq` lines and `offset` bytes stand before it."""

    offset: int = 0
    seq: int = 0


START = Position()


class Entry(NamedTuple):
    """A line of the log and where it stands."""

    line: Line[Message]
    start: Position
    end: Position
    raw: bytes


class EventLog:
    """Appends commits and reads them back, for any number of processes and threads.

    Args:
        path: the file; created by the first append, with its directory.
        lock: held alone to append, shared to learn how far committed lines go.
        disk: does the file calls.

    Attributes:
        ledger: the deliveries that are pending, up to date inside `writing()`.
        appended: whether this object has appended anything.
    """

    def __init__(self, path: Path, lock: FileLock, disk: Disk) -> None:
        self.path = path
        self.ledger = Ledger()
        self.appended = False
        self._lock = lock
        self._disk = disk
        self._descriptor: int | None = None
        self._end: Position | None = None  # how far this process knows the log

    # Reading

    def end(self) -> int:
        """Return the log's size in bytes, no append being under way; 0 where there is none.

        Raises:
            ForeignFile: something else stands in its place.
        """
        if not require_regular(self.path):
            return 0
        with self._lock.held(shared=True):
            return self.path.stat().st_size

    def read(
        self,
        after: Position = START,
        *,
        containing: bytes = b"",
    ) -> Iterator[Entry]:
        """Yield the lines after a position, every one checked, in order.

        Args:
            after: where to begin; the beginning of the log unless given.
            containing: yield only lines that contain these bytes; others are checked alone.

        Raises:
            LogDamaged: a line is not what was written.
        """
        end = self.end()
        if end <= after.offset:
            return
        try:
            descriptor = self._disk.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error
        try:
            yield from self._entries(descriptor, after, end, containing)
        finally:
            os.close(descriptor)

    def pending(self) -> list[Owed]:
        """Return the pending deliveries; none where a crash has left a torn line to be mended."""
        if not require_regular(self.path):
            return []
        with self._lock.held(shared=True), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._learn_up_to(file.fileno(), size)
            known = self._end.offset if self._end else 0
        return self.ledger.pending() if known >= size else []

    def ends_at(self, position: Position, checksum: str) -> bool:
        """Return whether a line with this checksum ends at `position`; the beginning always."""
        if position.seq == 0:
            return True
        if self.end() < position.offset:
            return False
        expected = b'"%s"}' % checksum.encode()
        with self.path.open("rb") as file:
            file.seek(position.offset - len(expected) - 1)
            return file.read(len(expected)) == expected

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the log for appending, knowing all that other processes have appended.

        Raises:
            StoreBusy: somebody else holds it for too long.
            LogDamaged: a line that it had to read is not what was written.
        """
        self._disk.make_directory(self.path.parent)
        with self._lock.held():
            self._catch_up(self._open())
            yield

    def append(
        self,
        messages: Iterable[Message] = (),
        deliveries: Iterable[Delivery] = (),
        *,
        owner: str | None = None,
        sync: bool = True,
    ) -> Entry:
        """Append one commit, inside `writing()`; with `sync` it is on the disk on return.

        Raises:
            NotStored: the disk refuses; the log is as it was.
        """
        start = self._end
        if start is None or self._descriptor is None:
            raise RuntimeError("append() belongs inside writing()")
        deliveries = tuple(deliveries)
        settled = self.ledger.settled_before(start.offset)
        line = Line(FORMAT, start.seq + 1, now(), tuple(messages), deliveries, owner, settled)
        raw = codec.encode(line)
        try:
            self._disk.write_all(self._descriptor, raw + b"\n")
            if sync:
                self._disk.sync(self._descriptor)
        except OSError as error:
            self._give_up(start.offset)
            raise NotStored(self.path, reason(error)) from error
        entry = Entry(line, start, Position(start.offset + len(raw) + 1, line.seq), raw)
        self._learn(entry)
        self.appended = True
        return entry

    def sync(self) -> Position:
        """Make all that was appended durable; return the position up to which it is.

        Raises:
            NotStored: the disk refuses.
        """
        with self.writing():
            if self._descriptor is None or self._end is None:
                raise RuntimeError("writing() opens the log")
            try:
                self._disk.sync(self._descriptor)
            except OSError as error:
                self._give_up(None)
                raise NotStored(self.path, reason(error)) from error
            return self._end

    def close(self) -> None:
        """Give the files back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._end = None

    def _give_up(self, size: int | None) -> None:
        """Cut off what a failed append left, and never trust this descriptor again."""
        descriptor, self._descriptor, self._end = self._descriptor, None, None
        if descriptor is None:
            return
        with suppress(OSError):
            if size is not None:
                self._disk.truncate(descriptor, size)
        os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is not None:
            mine, there = os.fstat(self._descriptor), None
            with suppress(FileNotFoundError):
                there = self.path.stat()
            if there is None or not os.path.samestat(mine, there):
                raise ForeignFile(self.path, "was removed or replaced while in use")
            return self._descriptor
        existed = require_regular(self.path)
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            self._descriptor = self._disk.open(self.path, flags)
            if not existed:
                self._disk.sync_directory(Path(os.path.realpath(self.path)).parent)
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error
        return self._descriptor

    def _catch_up(self, descriptor: int) -> None:
        """Learn the lines that others appended; drop a torn one that a crash left."""
        size = os.fstat(descriptor).st_size
        end = self._learn_up_to(descriptor, size)
        if end.offset < size:
            self._disk.truncate(descriptor, end.offset)
        elif end.offset > size:  # the last line lacks its line feed
            self._disk.write_all(descriptor, b"\n")

    def _learn_up_to(self, descriptor: int, size: int) -> Position:
        if self._end is None:
            self.ledger = Ledger()
            self._end = self._settled(descriptor, size)
        for entry in self._entries(descriptor, self._end, size):
            self._learn(entry)
        return self._end

    def _learn(self, entry: Entry) -> None:
        line = entry.line
        self.ledger.apply(
            line.deliveries, owner=line.owner, offset=entry.start.offset, seq=line.seq
        )
        self._end = entry.end

    # Lines

    def _settled(self, descriptor: int, size: int) -> Position:
        """Return the position from which a newcomer must read, found from the log's end."""
        last = self._line_before(descriptor, size)
        if last is None:
            return START
        offset, raw = last
        line = self._parse(raw, None)
        if line.settled >= offset:
            return Position(offset, line.seq - 1)
        first = self._disk.read(descriptor, BLOCK, line.settled)
        while b"\n" not in first:
            first = self._disk.read(descriptor, len(first) * 2, line.settled)
        return Position(line.settled, self._parse(first.split(b"\n", 1)[0], None).seq - 1)

    def _line_before(self, descriptor: int, size: int) -> tuple[int, bytes] | None:
        """Return offset and bytes of the last line that ends in a line feed, or None."""
        length = BLOCK
        while True:
            start = max(0, size - length)
            lines = self._disk.read(descriptor, size - start, start).split(b"\n")
            if len(lines) > 2 or (start == 0 and len(lines) == 2):  # noqa: PLR2004 - before, last, fragment
                return size - len(lines[-1]) - 1 - len(lines[-2]), lines[-2]
            if start == 0:
                return None
            length *= 2

    def _entries(
        self, descriptor: int, after: Position, end: int, containing: bytes = b""
    ) -> Iterator[Entry]:
        """Yield the lines between a position and byte `end`; stop before a torn one."""
        start, rest, offset = after, b"", after.offset
        while offset < end:
            block = self._disk.read(descriptor, min(BLOCK * 16, end - offset), offset)
            if not block:
                break
            offset += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for raw in lines:
                position = Position(start.offset + len(raw) + 1, start.seq + 1)
                if not containing or containing in raw:
                    yield Entry(self._parse(raw, position.seq), start, position, raw)
                else:
                    self._check(raw, position.seq)
                start = position
        if rest and not codec.is_torn(rest, start.seq + 1):
            position = Position(start.offset + len(rest) + 1, start.seq + 1)
            yield Entry(self._parse(rest, position.seq), start, position, rest)

    def _check(self, raw: bytes, seq: int) -> None:
        try:
            codec.check(raw)
        except ValueError as error:
            raise LogDamaged(self.path, seq, str(error)) from error

    def _parse(self, raw: bytes, seq: int | None) -> Line[Message]:
        try:
            line = codec.decode(raw)
        except ValueError as error:
            raise LogDamaged(self.path, seq or self._number(raw), str(error)) from error
        if seq not in {None, line.seq}:
            raise LogDamaged(self.path, line.seq, f"number {line.seq} stands at line {seq}")
        return line

    def _number(self, raw: bytes) -> int:
        """Return the number of the line with these bytes; only an error needs it."""
        return self.path.read_bytes().partition(raw)[0].count(b"\n") + 1
