"""The event log, `events.jsonl`: what happened, append-only. The truth of the store.

A commit is one line (see `line.py`), appended and synced under a lock. A write cut short by a
crash leaves a last line without its end; the next writer cuts it off and keeps a copy. Anything
else that is not as written is an error that names the line.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ...application.store import Delivery
from ...domain.order import OrderState
from ...errors import ForeignFile, NotStored, WrongPayload
from ...messaging.message import Message, now
from . import line as codec
from .disk import Disk, available, copy_path, reason, regular_status
from .ledger import Ledger
from .line import BEGINNING, FORMAT, Line, Outstanding, Position
from .lock import FileLock
from .reader import Entry, LogReader, Wanted

UNSYNCED = 1 << 15  # bytes that may wait for a sync; a newcomer has to read them
UNLISTED = 1 << 16  # bytes after which a line lists what is pending, or a newcomer reads them
LISTED = 256  # bytes, about, of one delivery in such a list


class EventLog:
    """Appends commits and reads them back, for any number of processes and threads.

    Args:
        path: the file; created by the first append, with its directory.
        lock: held to append, and to learn how far committed lines go.
        disk: does the file calls.
        vouched: returns the byte before which other files prove that all was on the disk.

    Attributes:
        ledger: the deliveries that are pending, up to date inside `writing()`.
        kept: where the copy is of what was cut off last.
        threads: held by the thread of this process that reads or appends.
    """

    def __init__(
        self, path: Path, lock: FileLock, disk: Disk, vouched: Callable[[], int] = lambda: 0
    ) -> None:
        self.path = path
        self.ledger = Ledger()
        self.kept: Path | None = None
        self.threads = lock.threads
        self._lock = lock
        self._disk = disk
        self._reader = LogReader(path, disk, lambda: max(self._synced, vouched()))
        self._descriptor: int | None = None
        self._file: tuple[int, int] | None = None  # device and inode, once seen
        self._end: Position | None = None  # how far this process knows the log
        self._synced = 0  # bytes of it that are known to be on the disk
        self._listed = 0  # the byte where the last line begins that lists what was pending

    # Reading

    def end(self) -> int:
        """Return the log's size in bytes, no append being under way; 0 where there is none.

        Raises:
            ForeignFile: something else stands in its place, or now does.
        """
        if not regular_status(self.path):
            self._identify(None)
            return 0
        with self._lock.held(reading=True), available(self.path):
            status = self.path.stat()
        self._identify(status)
        return status.st_size

    def read(
        self,
        after: Position = BEGINNING,
        until: Position | None = None,
        wanted: Wanted | None = None,
    ) -> Iterator[Entry]:
        """Yield the wanted lines between two positions in order, having checked every one.

        Raises:
            LogDamaged: a line is not what was written.
        """
        end = self.end()
        if end < after.offset - 1:  # the last line may lack its line feed
            raise ForeignFile(self.path, "was cut while in use")
        if until is not None:
            end = min(end, until.offset)
        if end > after.offset:
            with self._opened() as descriptor:
                yield from self._reader.entries(descriptor, after, end, wanted)

    def at(self, positions: Iterable[Position]) -> Iterator[Entry]:
        """Yield the lines that begin at these positions, where some do."""
        if end := self.end():
            with self._opened() as descriptor:
                for position in positions:
                    if entry := self._reader.at(descriptor, position, end):
                        yield entry

    def rest(self, offset: int) -> bytes:
        """Return the log as it stands, from a byte on."""
        if (end := self.end()) <= offset:
            return b""
        with self._opened() as descriptor, available(self.path):
            return self._disk.read(descriptor, end - offset, offset)

    def latest(self, since: datetime) -> bytes:
        """Return the end of the log as it stands, with all lines of that time or later."""
        if not (end := self.end()):
            return b""
        with self._opened() as descriptor:
            return self._reader.latest(descriptor, end, since)

    def position(self) -> Position:
        """Return where the last whole line ends, having learned what is pending there."""
        with self.threads:
            if (end := self.end()) == 0:
                return BEGINNING
            if self._end is not None and self._end.offset == end:
                return self._end
            with self._opened() as descriptor:
                return self._learn_up_to(descriptor, end)

    def size(self) -> int:
        """Return the file's size in bytes at this moment, an append perhaps being under way."""
        status = regular_status(self.path)
        return status.st_size if status else 0

    def ends_at(self, position: Position, checksum: str) -> bool:
        """Return whether a line with this checksum ends at `position`; the beginning always."""
        return position.seq == 0 or (
            0 < position.offset <= self.end() + 1  # the last line may lack its line feed
            and self._before(position) == b'"%s"}' % checksum.encode()
        )

    def checksum_at(self, position: Position) -> str:
        """Return the checksum of the line that ends at `position`; nothing at the beginning."""
        return self._before(position)[1:9].decode() if position.seq else ""

    def torn(self) -> bytes:
        """Return what a crash has left after the last whole line."""
        if not self.end():
            return b""  # and no lock file is made where there is no store
        with self._lock.held(reading=True):
            end = BEGINNING
            for entry in self.read():
                end = entry.end
            return self.rest(end.offset)

    # Writing

    @contextmanager
    def writing(self) -> Iterator[Position]:
        """Hold the log for appending, knowing all that others have appended; yield its end.

        Raises:
            StoreBusy: somebody else holds it for too long.
            LogDamaged: a line that it had to read is not what was written.
        """
        if self._descriptor is None:
            self._disk.make_directory(self.path.parent)
        with self._lock.held():
            yield self._catch_up(*self._open())

    def append(
        self,
        messages: Iterable[Message] = (),
        deliveries: Iterable[Delivery] = (),
        *,
        owner: str | None = None,
        states: tuple[OrderState, ...] = (),
        claimed: Position | None = None,
        sync: bool = True,
    ) -> Entry:
        """Append one commit, inside `writing()`; with `sync` it is on the disk on return.

        Raises:
            NotStored: the disk refuses; the log is as it was.
            WrongPayload: a message could not be read back, so it is not written.
        """
        start, descriptor = self._end, self._descriptor
        if start is None or descriptor is None or not self._lock.is_held:
            raise RuntimeError("append() belongs inside writing()")
        settled, outstanding = self._settled(start)
        try:
            if outstanding or start.offset - self._synced > UNSYNCED:
                self._disk.sync(descriptor)
                self._synced = start.offset
                settled = settled if outstanding else self._settled(start)[0]
            line = Line(
                FORMAT,
                start.seq + 1,
                now(),
                tuple(messages),
                tuple(deliveries),
                owner,
                settled,
                self._synced if self._synced > settled else 0,
                outstanding,
                states,
                claimed,
            )
            raw = _encoded(line)
            self._disk.write_all(descriptor, raw + b"\n")
            if sync:
                self._disk.sync(descriptor)
        except WrongPayload:
            raise
        except (
            BaseException
        ) as error:  # a Ctrl-C too must not leave half a line, or an unsynced one
            is_cut = self._give_up(start.offset)
            if isinstance(error, OSError):
                raise NotStored(self.path, reason(error), is_certain=is_cut) from error
            raise
        entry = Entry(line, start, Position(start.offset + len(raw) + 1, line.seq), raw)
        self._synced = entry.end.offset if sync else self._synced
        self._learn(entry)
        return entry

    def sync(self) -> None:
        """Make all that was appended durable.

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

    def _settled(self, start: Position) -> tuple[int, tuple[Outstanding, ...]]:
        """Return from where a newcomer reads, and, if that is far, what is to be listed here."""
        settled = max(self.ledger.settled_before(self._synced), self._listed)
        if self.ledger and start.offset - settled > max(UNLISTED, 4 * LISTED * len(self.ledger)):
            return start.offset, self.ledger.outstanding()
        return settled, ()

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
            with available(self.path):
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
                self._descriptor = self._disk.open(self.path, flags)
                if not size:  # its name may not be durable yet
                    directory = Path(os.path.realpath(self.path)).parent
                    with suppress(PermissionError):  # it is not ours, and was there before
                        self._disk.sync_directory(directory.parent)
                    self._disk.sync_directory(directory)
                    self._identify(os.fstat(self._descriptor))
        except BaseException:
            self._give_up(None)
            raise
        return self._descriptor, size

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with available(self.path):
            descriptor = self._disk.open(self.path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _identify(self, status: os.stat_result | None) -> None:
        """Know the file again; another one in its place would be another store."""
        file = None if status is None else (status.st_dev, status.st_ino)
        if self._file not in {None, file}:
            raise ForeignFile(self.path, "was removed or replaced while in use")
        self._file = file

    def _before(self, position: Position) -> bytes:
        """Return the last bytes of the line that ends at `position`: `"1c291ca3"}`."""
        with self._opened() as descriptor, available(self.path):
            return self._disk.read(descriptor, 11, max(0, position.offset - 12))

    def _catch_up(self, descriptor: int, size: int) -> Position:
        """Learn the lines that others appended; cut off a torn one, having copied it."""
        end = self._learn_up_to(descriptor, size)
        if end.offset < size:
            with available(self.path):
                torn = self._disk.read(descriptor, size - end.offset, end.offset)
            self.kept = copy_path(self.path)
            self._disk.replace_atomically(self.kept, torn)
        try:
            if end.offset < size:
                self._disk.truncate(descriptor, end.offset)
            elif end.offset > size:  # the last line lacks its line feed
                self._disk.write_all(descriptor, b"\n")
        except OSError as error:
            self._give_up(None)
            raise NotStored(self.path, reason(error)) from error
        return end

    def _learn_up_to(self, descriptor: int, size: int) -> Position:
        if self._end is None:
            self.ledger, self._listed, self._synced = Ledger(), 0, 0
            self._end = self._reader.settled(descriptor, size)
            self._synced = self._end.offset
        if size < self._end.offset - 1:  # the last line may lack its line feed
            raise ForeignFile(self.path, "was cut while in use")
        decode = codec.decode_all_but_messages
        for entry in self._reader.entries(descriptor, self._end, size, decode=decode):
            self._learn(entry)
        return self._end

    def _learn(self, entry: Entry) -> None:
        """Take over what a line says; to do so twice, interrupted, makes no difference."""
        line = entry.line
        if line.outstanding:
            self.ledger, self._listed = Ledger(line.outstanding), entry.start.offset
        self.ledger.apply(line.deliveries, line.owner, entry.start, line.claimed)
        self._synced = max(self._synced, line.settled, line.synced)
        self._end = entry.end


def _encoded(line: Line[Message]) -> bytes:
    try:
        raw = codec.encode(line)
        codec.decode(raw)
    except (ValueError, TypeError) as error:  # msgspec's are ValueErrors
        raise WrongPayload(f"a message cannot be stored: {error}") from error
    return raw
