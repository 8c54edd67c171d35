"""The event log, `events.jsonl`: what happened, append-only. The truth of the store.

A commit is one line (see `line.py`), appended under a lock and synced after it: while the disk is
at it others append behind it, and one sync serves them all. Until then nobody was told that the
line is stored; who reads it before adds to it, if anything, lines whose sync is its sync, too. A
write cut short by a crash leaves a last line without its end; the next writer cuts it off and
keeps a copy. Anything else that is not as written is an error that names the line.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ...application.store import Delivery, DeliveryKey
from ...domain.order import OrderState
from ...errors import ChangedInUse, NotStored, StoreError, WrongPayload
from ...messaging.message import now
from . import line as codec
from .disk import Disk, available, copy_path, reason
from .ledger import Ledger
from .line import BEGINNING, FORMAT, NOTHING, Encoded, Line, Outstanding, Position, Summary
from .lock import FileLock
from .log_file import LogFile
from .reader import Entry, Found, L, LogReader, Wanted, Watch

UNSYNCED = 1 << 15  # bytes that may wait for a sync; a newcomer has to read them
UNLISTED = 1 << 17  # bytes after which a line lists what is pending, or a newcomer reads them
LISTED = 256  # bytes, about, of one delivery in such a list
TAIL = 11  # bytes at a line's end that tell it from others: its checksum


class EventLog:
    """Appends commits and reads them back, for any number of processes and threads.

    Args:
        path: the file; created by the first append, with its directory.
        lock: held to append, and to learn how far committed lines go.
        disk: does the file calls.
        vouched: returns the byte before which other files prove that all was on the disk.
        watch: is entered for whatever takes long to read.

    Attributes:
        kept: where the copy is of what was cut off last.
        threads: held by the thread of this process that reads or appends.
    """

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        disk: Disk,
        vouched: Callable[[], int] = lambda: 0,
        watch: Watch | None = None,
    ) -> None:
        self.path = path
        self.kept: Path | None = None
        self.threads = lock.threads
        self._lock = lock
        self._disk = disk
        self._reader = LogReader(path, disk, lambda: max(self._synced, vouched()), watch)
        self._file = LogFile(path, disk)
        self._end: Position | None = None  # where the log ended when last looked at
        self._tail = b""  # of the line there
        self._time: datetime | None = None  # of that line
        self._caught_up: tuple[int, datetime | None] = (0, None)  # end and time when last caught up
        self._synced = 0  # bytes that are known to be on the disk
        self._settled = 0  # from this byte on a newcomer reads
        self._ledger = Ledger()
        self._learned = BEGINNING  # up to where the ledger knows the log
        self._own: dict[DeliveryKey, int] = {}  # the byte behind our line that made it pending

    # Reading

    def end(self) -> int:
        """Return the log's size in bytes, no append being under way; 0 where there is none.

        Raises:
            ForeignFile: something else stands in its place, or now does.
        """
        if self._end is None and not self._file.check():
            return 0  # and no lock file is made
        with self._lock.held(reading=True):
            return self._file.check()

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
        return self._read(after, until, codec.parser(), wanted)

    def summaries(
        self, after: Position, until: Position, wanted: Wanted
    ) -> Iterator[Found[Summary]]:
        """Yield what the wanted lines between two positions say of deliveries; see `read`."""
        return self._read(after, until, codec.parse_summary, wanted)

    def _read(
        self,
        after: Position,
        until: Position | None,
        parse: Callable[[bytes], L],
        wanted: Wanted | None,
    ) -> Iterator[Found[L]]:
        if until is not None and self._end is not None and until <= self._end:
            end = until.offset  # which was looked at before
        elif (end := self.end()) < after.offset - 1:  # the last line may lack its line feed
            raise ChangedInUse(self.path, "cut or changed")
        elif until is not None:
            end = min(end, until.offset)
        if end > after.offset:
            with self._file.reading() as descriptor:
                yield from self._reader.entries(descriptor, after, end, parse, wanted)

    def at(self, positions: Iterable[Position]) -> Iterator[Entry]:
        """Yield the lines that begin at these positions, where some do."""
        if end := self.end():
            with self._file.reading() as descriptor:
                for position in positions:
                    if entry := self._reader.at(descriptor, position, end):
                        yield entry

    def latest(self, since: datetime) -> bytes:
        """Return, inside `writing()`, the log's end with all lines of that time or later."""
        if self._time is None or self._time < since:
            return b""
        descriptor, end = self._for_writing()
        offset, time = self._caught_up
        if time is None or time >= since:
            return self._reader.latest(descriptor, end.offset, since)
        with available(self.path):
            return self._disk.read(descriptor, end.offset - offset, offset)

    def position(self, proven: Position | None = None) -> Position:
        """Return where the last whole line ends: at `proven` if none was read and the size fits."""
        with self.threads:
            if self._end is None and proven and self._file.check() == proven.offset:
                return proven
            known = self._end.offset if self._end else 0
            if (end := self._file.check()) != known:  # else whoever appends has not begun to
                end = self.end()
            if not (end or known):
                return BEGINNING
            with self._file.reading() as descriptor:
                return self._find_end(descriptor, end)

    def ledger(self) -> Ledger:
        """Return the deliveries that are pending where the log ended when last looked at."""
        with self.threads:
            if self._end is not None and self._learned != self._end:
                with self._file.reading() as descriptor:
                    if self._learned.offset < self._settled:
                        self._begin(descriptor, self._end.offset)
                    for found in self._summaries(descriptor, self._learned, self._end.offset):
                        self._learn(found)
            return self._ledger

    def is_pending(self, key: DeliveryKey) -> bool:
        """Return, inside `writing()`, whether a delivery is pending.

        One that this process has set out to make is, unless others have mentioned it since.
        """
        if self._learned != self._end and (offset := self._own.get(key)) is not None:
            descriptor, end = self._for_writing()
            with available(self.path):
                since = self._disk.read(descriptor, end.offset - offset, offset)
            if codec.as_written(key[0]) not in since:
                return True
        return self.ledger().find(key) is not None

    def ends_at(self, position: Position, checksum: str) -> bool:
        """Return whether a line with this checksum ends at `position`; the beginning always."""
        return position.seq == 0 or (
            0 < position.offset <= self.end() + 1  # the last line may lack its line feed
            and self._before(position) == b'"%s"}' % checksum.encode()
        )

    def checksum_at(self, position: Position) -> str:
        """Return the checksum of the line that ends at `position`; nothing at the beginning."""
        return self._before(position)[1:9].decode() if position.seq else ""

    def torn(self, end: Position = BEGINNING) -> bytes:
        """Return what a crash has left after the last whole line; `end` is that of one."""
        if not self.end():
            return b""  # and no lock file is made where there is no store
        with self._lock.held(reading=True):
            for entry in self.read(end):
                end = entry.end
            with self._file.reading() as descriptor, available(self.path):
                return self._disk.read(descriptor, max(0, self.end() - end.offset), end.offset)

    # Writing

    @contextmanager
    def writing(self) -> Iterator[Position]:
        """Hold the log for appending, knowing all that others have appended; yield its end.

        Raises:
            StoreBusy: somebody else holds it for too long.
            LogDamaged: a line that it had to read is not what was written.
        """
        if self._file.descriptor is None:
            self._disk.make_directory(self.path.parent)
        with self._lock.held():
            yield self._catch_up(*self._file.open())

    def append(
        self,
        content: Encoded = NOTHING,
        deliveries: tuple[Delivery, ...] = (),
        *,
        owner: str | None = None,
        states: tuple[OrderState, ...] = (),
        claimed: Position | None = None,
        time: datetime | None = None,
    ) -> Entry:
        """Append one commit, inside `writing()`; it is not on the disk yet, see `confirm`.

        Its time is the present one, unless another is given.

        Raises:
            NotStored: the disk refuses; the log is as it was.
            WrongPayload: it is no valid text.
        """
        descriptor, start = self._for_writing()
        settled, outstanding = self._newcomers(start)
        try:
            if outstanding or start.offset - self._synced > UNSYNCED:
                self._disk.sync(descriptor)
                self._synced = start.offset
                settled = settled if outstanding else self._newcomers(start)[0]
            line = Line(
                FORMAT,
                start.seq + 1,
                time or now(),
                content.messages,
                deliveries,
                owner,
                settled,
                self._synced if self._synced > settled else 0,
                outstanding,
                states,
                claimed,
            )
            raw = codec.encode(line, content.json)
            self._disk.write_all(descriptor, raw + b"\n")
        except WrongPayload:
            raise
        except BaseException as error:  # Ctrl-C too must not leave half a line
            self._end = None
            is_cut = self._file.cut(start.offset)
            if isinstance(error, OSError):
                raise NotStored(self.path, reason(error), is_certain=is_cut) from error
            raise
        entry = Found(line, start, Position(start.offset + len(raw) + 1, line.seq), raw)
        self._learn(entry)
        for delivery in deliveries:
            if delivery.status == "pending" and owner is not None:
                self._own[delivery.key] = entry.end.offset
            else:
                self._own.pop(delivery.key, None)
        return entry

    def confirm(self, *entries: Entry) -> None:
        """Make lines durable that this thread has just appended as one, or take them back.

        Raises:
            NotStored: the disk refuses. Where others have appended behind the lines they stay;
                the system tells them, too, when they sync.
        """
        try:
            self._sync(entries[-1].end)
        except OSError as error:
            is_cut = self._take_back(entries[0].start, entries[-1].end)
            raise NotStored(self.path, reason(error), is_certain=is_cut) from error

    def make_durable(self, position: Position) -> None:
        """Make durable what stands before `position`, unless it is known to be.

        Raises:
            NotStored: the disk refuses.
        """
        try:
            self._sync(position)
        except OSError as error:
            raise NotStored(self.path, reason(error), is_certain=False) from error

    def close(self) -> None:
        """Give the files back."""
        self._file.close()
        self._end = None

    def _for_writing(self) -> tuple[int, Position]:
        """Return the open file and the log's end, which `writing()` has found."""
        descriptor = self._file.descriptor
        if descriptor is None or self._end is None or not self._lock.is_held:
            raise RuntimeError("this belongs inside writing()")
        return descriptor, self._end

    def _newcomers(self, start: Position) -> tuple[int, tuple[Outstanding, ...]]:
        """Return from where a newcomer reads, and, if that is far, what is to be listed here.

        Who shares the log with others leaves it to the one whose line comes next to a limit to
        learn what all of them have pending.
        """
        if self._learned == start or start.offset - self._settled > UNLISTED // 2:
            ledger = self._ledger if self._learned == start else self.ledger()
            settled = self._settled = max(self._settled, ledger.settled_before(self._synced))
            if (far := start.offset - settled) > UNLISTED and far > 4 * LISTED * len(ledger) > 0:
                return start.offset, ledger.outstanding()
        return self._settled, ()

    def _sync(self, position: Position) -> None:
        """Sync what stands before `position`; other processes may append and sync meanwhile."""
        with self.threads:
            if self._synced < position.offset:
                descriptor = self._file.descriptor or self._file.open()[0]
                try:
                    self._disk.sync(descriptor)
                except OSError:
                    self.close()
                    raise
                self._synced = max(self._synced, position.offset)

    def _take_back(self, start: Position, end: Position) -> bool:
        """Cut off lines whose sync has failed; return whether that could be done."""
        try:
            with self._lock.held():
                _, size = self._file.open()
                return size == end.offset and self._file.cut(start.offset)
        except StoreError:
            return False

    def _before(self, position: Position) -> bytes:
        """Return the last bytes of the line that ends at `position`: `"1c291ca3"}`."""
        with self._file.reading() as descriptor, available(self.path):
            return self._disk.read(descriptor, TAIL, max(0, position.offset - TAIL - 1))

    def _catch_up(self, descriptor: int, size: int) -> Position:
        """Find the end of what others appended; cut off a torn line, having copied it."""
        end = self._find_end(descriptor, size)
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
            self.close()
            raise NotStored(self.path, reason(error)) from error
        return end

    def _find_end(self, descriptor: int, size: int) -> Position:
        """Find where the last whole line ends, of a log of this size."""
        if self._end is None:
            self._begin(descriptor, size)
            self._end, self._tail, self._time = self._learned, b"", None
            self._synced = self._settled = self._learned.offset
        if not self._reader.is_there(descriptor, self._end, self._tail, size):
            raise ChangedInUse(self.path, "cut or changed")
        self._caught_up = self._end.offset, self._time
        if size > self._end.offset:
            last = self._tail and self._reader.last(descriptor, self._end, size)
            for found in [last] if last else self._summaries(descriptor, self._end, size):
                self._learn(found)
            if self._end.offset < size:  # what a crash has left is to be looked at line by line
                self._tail = b""
        return self._end

    def _begin(self, descriptor: int, size: int) -> None:
        """Begin to learn what is pending where a newcomer does."""
        self._ledger, self._learned = Ledger(), self._reader.settled(descriptor, size)

    def _summaries(self, descriptor: int, after: Position, end: int) -> Iterator[Found[Summary]]:
        return self._reader.entries(descriptor, after, end, codec.parse_summary)

    def _learn(self, found: Entry | Found[Summary]) -> None:
        """Take over what a line says; to do so twice, interrupted, makes no difference."""
        line = found.line
        if line.outstanding:
            self._ledger, self._learned = Ledger(line.outstanding), found.start
        if self._learned == found.start:  # or lines are missing that others have appended
            self._ledger.apply(line.deliveries, line.owner, found.start, line.claimed)
            self._learned = found.end
        self._settled = max(self._settled, line.settled)
        self._synced = max(self._synced, line.synced or line.settled)
        if self._end is None or found.end > self._end:
            self._end, self._tail, self._time = found.end, found.raw[-TAIL:], line.time
