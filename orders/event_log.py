"""The event log, `events.jsonl`: what happened, append-only. The truth of the store.

A commit is one line (see `line.py`), appended and synced under a lock. A write cut short by a
crash leaves a last line without its end; the next writer drops it. Anything else that is not
as written is an error that names the line.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

from . import line as codec
from .disk import Disk, FileLock, reason, regular_status
from .errors import ForeignFile, NotStored, StoreUnavailable, WrongPayload
from .ledger import START, Delivery, Ledger, Owed, Position
from .line import FORMAT, Line
from .log_reader import Entry, LogReader
from .message import Event, Message, now

UNSYNCED = 1 << 15  # bytes that may wait for a sync; a newcomer has to read them


class EventLog:
    """Appends commits and reads them back, for any number of processes and threads.

    Args:
        path: the file; created by the first append, with its directory.
        lock: held alone to append, shared to learn how far committed lines go.
        disk: does the file calls.

    Attributes:
        ledger: the deliveries that are pending, up to date inside `writing()`.
        appended: how many lines this object has appended.
        thread_lock: held by the thread of this process that reads or appends.
    """

    def __init__(self, path: Path, lock: FileLock, disk: Disk) -> None:
        self.path = path
        self.ledger = Ledger()
        self.appended = 0
        self.thread_lock = lock.threads
        self._lock = lock
        self._disk = disk
        self._reader = LogReader(path, disk)
        self._descriptor: int | None = None
        self._file: tuple[int, int] | None = None  # device and inode, once seen
        self._end: Position | None = None  # how far this process knows the log
        self._synced = 0  # bytes of it that are known to be on the disk

    # Reading

    def end(self) -> int:
        """Return the log's size in bytes, no append being under way; 0 where there is none.

        Raises:
            ForeignFile: something else stands in its place, or now does.
        """
        if not regular_status(self.path):
            self._identify(None)
            return 0
        with self._lock.held(shared=True):
            status = self.path.stat()
        self._identify(status)
        return status.st_size

    def read(
        self,
        after: Position = START,
        *,
        containing: Collection[bytes] = (),
        until: int | None = None,
    ) -> Iterator[Entry]:
        """Yield the lines after a position, every one checked, in order.

        Args:
            after: where to begin; the beginning of the log unless given.
            containing: yield only lines that contain one of these, and the last line, which says
                how far that was; others are checked alone.
            until: the byte where to end; the end of the log unless given.

        Raises:
            LogDamaged: a line is not what was written.
        """
        end = self.end()
        if end < after.offset - 1:  # the last line may lack its line feed
            raise ForeignFile(self.path, "was cut while in use")
        if end <= after.offset:
            return
        try:
            descriptor = self._disk.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error
        try:
            until = end if until is None else min(until, end)
            yield from self._reader.entries(descriptor, after, until, containing)
        finally:
            os.close(descriptor)

    def pending(self) -> list[Owed]:
        """Return the pending deliveries, oldest first; change nothing."""
        return self.ledger.pending() if self.position() != START else []

    def position(self) -> Position:
        """Return where the last whole line ends."""
        if not regular_status(self.path):
            return START
        with self._lock.held(shared=True), self.path.open("rb") as file:
            return self._learn_up_to(file.fileno(), os.fstat(file.fileno()).st_size)

    def size(self) -> int:
        """Return the file's size in bytes at this moment, an append perhaps being under way."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error

    def find_event(self, event_id: str, near: Position | None = None) -> Event | None:
        """Return a stored event by its id, if its class is known; try the line after `near`."""
        nearby = () if near is None else islice(self.read(near), 1)
        for entry in chain(nearby, self.read(containing=[codec.as_written(event_id)])):
            for message in entry.line.messages:
                if message.id == event_id and isinstance(message, Event):
                    return message
        return None

    def ends_at(self, position: Position, checksum: str) -> bool:
        """Return whether a line with this checksum ends at `position`; the beginning always."""
        if position.seq == 0:
            return True
        if not 0 < position.offset <= self.end() + 1:  # the last line may lack its line feed
            return False
        expected = b'"%s"}' % checksum.encode()
        with self.path.open("rb") as file:
            file.seek(max(0, position.offset - len(expected) - 1))
            return file.read(len(expected)) == expected

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the log for appending, knowing all that other processes have appended.

        Raises:
            StoreBusy: somebody else holds it for too long.
            LogDamaged: a line that it had to read is not what was written.
        """
        if self._descriptor is None:
            self._disk.make_directory(self.path.parent)
        with self._lock.held():
            self._catch_up(*self._open())
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
            WrongPayload: a message could not be read back, so it is not written.
        """
        start = self._end
        if start is None or self._descriptor is None or not self._lock.is_held:
            raise RuntimeError("append() belongs inside writing()")
        try:
            if start.offset - self._synced > UNSYNCED:
                self._disk.sync(self._descriptor)
                self._synced = start.offset
            settled = self.ledger.settled_before(self._synced)
            line = Line(
                FORMAT, start.seq + 1, now(), tuple(messages), tuple(deliveries), owner, settled
            )
            raw = _encoded(line)
            self._disk.write_all(self._descriptor, raw + b"\n")
            if sync:
                self._disk.sync(self._descriptor)
        except OSError as error:
            is_cut = self._give_up(start.offset)
            raise NotStored(self.path, reason(error), is_cut=is_cut) from error
        entry = Entry(line, start, Position(start.offset + len(raw) + 1, line.seq), raw)
        self._learn(entry)
        self._synced = entry.end.offset if sync else self._synced
        self.appended += 1
        return entry

    def torn(self) -> bytes:
        """Return what a crash has left after the last whole line."""
        size = self.end()
        end = START
        for entry in self.read(until=size):
            end = entry.end
        if size <= end.offset:
            return b""
        with self.path.open("rb") as file:
            file.seek(end.offset)
            return file.read(size - end.offset)

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
            self._synced = self._end.offset
            return self._end

    def make_durable(self, position: Position) -> None:
        """Make durable what stands before `position`, unless it is known to be.

        Raises:
            NotStored: the disk refuses.
        """
        if self._synced < position.offset:
            self.sync()

    def close(self) -> None:
        """Give the files back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._end = None

    def _give_up(self, size: int | None) -> bool:
        """Cut off what a failed append left, and never trust this descriptor again."""
        descriptor, self._descriptor, self._end = self._descriptor, None, None
        if descriptor is None:
            return True
        try:
            if size is not None:
                self._disk.truncate(descriptor, size)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _open(self) -> tuple[int, int]:
        """Return the descriptor of the file, which is the one we know, and its size."""
        status = regular_status(self.path)
        self._identify(status)
        size = status.st_size if status else 0
        if self._descriptor is not None:
            return self._descriptor, size
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            self._descriptor = self._disk.open(self.path, flags)
            if not size:  # its name may not be durable yet
                directory = Path(os.path.realpath(self.path)).parent
                with suppress(PermissionError):  # it is not ours, and was there before
                    self._disk.sync_directory(directory.parent)
                self._disk.sync_directory(directory)
                self._identify(os.fstat(self._descriptor))
        except OSError as error:
            self._give_up(None)
            raise StoreUnavailable(self.path, reason(error)) from error
        return self._descriptor, size

    def _identify(self, status: os.stat_result | None) -> None:
        """Know the file again; another one in its place would be another store."""
        file = None if status is None else (status.st_dev, status.st_ino)
        if self._file not in {None, file}:
            raise ForeignFile(self.path, "was removed or replaced while in use")
        self._file = file

    def _catch_up(self, descriptor: int, size: int) -> None:
        """Learn the lines that others appended; drop a torn one that a crash left."""
        end = self._learn_up_to(descriptor, size)
        try:
            if end.offset < size:
                self._disk.truncate(descriptor, end.offset)
            elif end.offset > size:  # the last line lacks its line feed
                self._disk.write_all(descriptor, b"\n")
        except OSError as error:
            self._give_up(None)
            raise NotStored(self.path, reason(error)) from error

    def _learn_up_to(self, descriptor: int, size: int) -> Position:
        if self._end is None:
            self.ledger = Ledger()
            self._end = self._reader.settled(descriptor, size)
            self._synced = self._end.offset
        if size < self._end.offset - 1:  # the last line may lack its line feed
            raise ForeignFile(self.path, "was cut while in use")
        for entry in self._reader.entries(descriptor, self._end, size):
            self._learn(entry)
        return self._end

    def _learn(self, entry: Entry) -> None:
        line = entry.line
        self.ledger.apply(line.deliveries, line.owner, entry.start)
        self._synced = max(self._synced, line.settled)
        self._end = entry.end


def _encoded(line: Line[Message]) -> bytes:
    try:
        raw = codec.encode(line)
        codec.decode(raw)
    except (ValueError, TypeError) as error:  # msgspec's are ValueErrors
        raise WrongPayload(f"a message cannot be stored: {error}") from error
    return raw
