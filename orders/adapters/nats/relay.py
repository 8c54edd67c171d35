"""The relay: every stored event goes to a stream of JetStream, once and in the order of the log.

Where it stands, the stream says: its last message is the last event that it has. The store
remembers that as well, for a stream whose last message is gone. How the messages are kept in
order is told in `sender`.

Files may show an event before it is on the disk, so it is synced before it is sent.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from threading import Event as Flag
from typing import Literal, NamedTuple

from ...application import positions
from ...application.positions import Position
from ...application.store import START, Cursor, Match, Record, Store
from ...errors import OrdersError, StoreBusy, StoreError
from ...messaging.message import Event, UnknownMessage, message_classes, now
from . import cloudevents
from .connection import Address, Connection, keep_connected
from .refusals import NatsRefused
from .sender import Sender, StreamChanged
from .stream import Stream, Tail

Begin = Literal["store", "start", "now"]
"""Where to go on in a stream whose last message is gone."""

TOGETHER = 200  # records that are read, and synced, at once
FEW = 50  # records after which to wait for more, so that not each one costs a read and a sync
GATHER = 0.05  # seconds
LOOK = 0.25  # seconds between two looks whether to go on
CHECK = 5.0  # seconds without news after which to look at the stream again
KEEP = 5.0  # seconds between two positions that the store is given to remember; 1 when idle


class Start(NamedTuple):
    """Where to go on in the log.

    Attributes:
        cursor: to read on from there.
        rest: what is left of the record before that.
    """

    cursor: Cursor
    rest: "tuple[Found, ...]" = ()


class Found(NamedTuple):
    """An event, and where it stands in the log."""

    event: Event
    record: Record
    place: int  # among the record's messages
    before: Cursor  # somewhere before the record


class Relay:
    """Sends the events of a store to a stream.

    Args:
        store: is only read, but for the position, which it remembers.
        url: of the server.
        stream: its name; it is made where there is none.
        prefix: of the subjects; a topic follows.
        begin: where to begin in a stream whose last message is gone: with what it has not had as
            far as the store remembers, with the first event, or with the next.
        on_turn: called several times a second.
        say: called with a sentence about what was done.
        warn: called with an error that was survived.

    Attributes:
        relayed: how many events the server has acknowledged.
        losses: how many times the connection was lost.
        behind: seconds since the event that is to be sent was stored; 0 when all are sent.

    Raises:
        NatsRefused: it is no URL of a NATS server.
    """

    def __init__(
        self,
        store: Store,
        url: str,
        *,
        stream: str = "ORDERS",
        prefix: str = "orders.",
        begin: Begin = "store",
        on_turn: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _text: None,
        warn: Callable[[OrdersError], None] = lambda _error: None,
    ) -> None:
        self.relayed = 0
        self.losses = 0
        self.behind = 0.0
        self._store = store
        self._address = Address.parse(url)
        self._stream = stream
        self._prefix = prefix
        self._begin: Begin = begin
        self._on_turn = on_turn
        self._say = say
        self._warn = warn
        self._until_idle: float | None = None
        self._name = ""  # the store's, as source of events
        self._position: Position | None = None  # of the stream, as far as is known
        self._kept: Position | None = None  # as the store remembers it
        self._kept_at = 0.0
        self._is_lost = False
        self._is_stopped = Flag()

    def stop(self) -> None:
        """Have what is under way acknowledged, and return from `run`; for threads and signals."""
        self._is_stopped.set()

    def run(self, until_idle: float | None = None) -> None:
        """Relay until `stop` is called, or for `until_idle` seconds there was nothing to relay.

        Raises:
            NatsRefused: the server cannot be reached at first, or refuses.
            StoreError: the store cannot be used any more.
            OrdersError: an event is of a class that is not known here.
        """
        self._until_idle = until_idle
        location = self._address.location
        self._position = self._kept = positions.load(self._store, location, self._stream)
        asyncio.run(keep_connected(self._address, self._session, self._lost, self._is_wanted))

    def _is_wanted(self) -> bool:
        self._on_turn()
        return not self._is_stopped.is_set()

    def _lost(self, error: NatsRefused) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.losses += 1
            self._warn(error)

    async def _session(self, connection: Connection) -> None:
        """Relay over one connection."""
        stream = Stream(connection, self._stream, self._prefix, _topics())
        if await stream.open():
            self._say(f"Created the stream {self._stream}, for {self._prefix}>.")
        is_done = False
        while not is_done and self._is_wanted():
            tail = await stream.tail()
            start = self._start(tail)
            self._is_lost = False
            sender: Sender[Found] = Sender(
                connection, self._stream, tail, cloudevents.CONTENT_TYPE, self._stored
            )
            try:
                await sender.open()
                await self._relay(connection, stream, sender, start, is_empty=tail.id is None)
                is_done = True
            except StreamChanged:
                await asyncio.sleep(LOOK)
            finally:
                self._keep(at_once=True)

    async def _relay(
        self,
        connection: Connection,
        stream: Stream,
        sender: Sender[Found],
        start: Start,
        *,
        is_empty: bool,
    ) -> None:
        """Send all that follows, until that is no longer wanted.

        Raises:
            StreamChanged: the stream has another last message than was thought.
        """
        cursor = start.cursor
        await self._send(sender, start.rest)
        since = checked = time.monotonic()
        while self._is_wanted():
            if batch := self._read(cursor):
                had, cursor = cursor, batch[-1].cursor
                if await self._send(sender, _events(batch, had)):
                    since, is_empty = time.monotonic(), False
                self._keep()
                if len(batch) < FEW:
                    await asyncio.sleep(GATHER)
                continue
            await sender.finish()
            connection.check()  # which is idle, and would not be noticed to be lost
            self.behind = 0.0
            self._keep(every=1.0)
            idle = time.monotonic() - since
            if self._until_idle is not None and idle >= self._until_idle:
                return
            if time.monotonic() - max(since, checked) > CHECK:
                tail, checked = await stream.tail(), time.monotonic()
                is_emptied = tail.id is None and not is_empty
                if tail.sequence != sender.sequence or is_emptied:
                    raise StreamChanged
            pause = LOOK if self._until_idle is None else min(LOOK, self._until_idle - idle)
            with suppress(StoreBusy):
                await asyncio.to_thread(self._store.wait, cursor, pause)
        await sender.finish()

    def _read(self, cursor: Cursor) -> list[Record]:
        """Return the records after a cursor, but not too many; they are durable."""
        try:
            batch = [*islice(self._store.read(cursor), TOGETHER)]
            if batch:
                self._store.sync(batch[-1].cursor)
        except StoreBusy:  # there is time to look again
            return []
        return batch

    async def _send(
        self, sender: Sender[Found], events: Iterator[Found] | tuple[Found, ...]
    ) -> int:
        """Send events; return how many they were."""
        before = sender.sent
        for found in events:
            event, record, place, _ = found
            self.behind = (now() - record.time).total_seconds()
            data = cloudevents.encode(event, record, place, self._source())
            await sender.send(f"{self._prefix}{type(event).topic}", event.id, data, found)
        return sender.sent - before

    def _stored(self, found: Found, sequence: int) -> None:
        """Note that the stream has an event."""
        self.relayed += 1
        self._note(found.event.id, sequence, found.record.number, found.before)

    def _note(self, event_id: str, sequence: int, number: int, cursor: Cursor) -> None:
        location = self._address.location
        self._position = Position(location, self._stream, event_id, sequence, number, cursor)

    def _keep(self, *, every: float = KEEP, at_once: bool = False) -> None:
        """Have the store remember the position; but seldom, for that disturbs those who write."""
        is_due = at_once or time.monotonic() - self._kept_at >= every
        if self._position is None or self._position == self._kept or not is_due:
            return
        self._kept, self._kept_at = self._position, time.monotonic()
        try:
            positions.keep(self._store, self._position)
        except StoreBusy:
            self._kept = None
        except StoreError as error:  # the stream itself says where to go on
            self._warn(error)

    def _source(self) -> str:
        """Return what the store is called; empty while it has no event."""
        if not self._name:
            first = next(iter(self._store.read()), None)
            self._name = cloudevents.source_of(first) if first else ""
        return self._name

    def _start(self, tail: Tail) -> Start:
        """Return where to go on behind the end of the stream.

        Raises:
            NatsRefused: that cannot be told.
        """
        if tail.id is None:
            return self._start_anew(tail)
        begin, self._begin = self._begin, "store"
        last = self._last_of(tail)
        known = self._position.cursor if self._position else START
        found = self._find(last.event.id, known)
        if found is None:
            raise self._refusal(
                f"stream {self._stream} has an event that {self._store.location} does not have",
                "name a stream of its own with --stream, if the store was restored from a backup",
            )
        if self._position is None or self._position.event != last.event.id:
            self._note(last.event.id, tail.sequence, last.number, known)
        if begin != "store":
            self._say(
                f"Stream {self._stream} goes on after its last event, of record {last.number:,}."
            )
        return found

    def _last_of(self, tail: Tail) -> cloudevents.Received:
        """Return the stream's last event, which must be one of this store's."""
        hint = "name a stream of its own with --stream"
        try:
            last = cloudevents.decode(tail.data)
        except ValueError as error:
            raise self._refusal(
                f"message {tail.sequence} of stream {self._stream} is not from a relay", hint
            ) from error
        if last.source != self._source():
            raise self._refusal(f"stream {self._stream} has the events of another store", hint)
        return last

    def _start_anew(self, tail: Tail) -> Start:
        """Return where to begin in a stream whose last message is gone, and say so."""
        begin, self._begin = self._begin, "store"
        known = self._position
        gone = f"stream {self._stream} was purged or deleted, or its events aged out"
        is_new = tail.sequence == 0 and known is None
        if begin == "now":
            head = self._store.head()
            self._note("", tail.sequence, 0, head)
            self._say("Beginning with the next event; what the store has is not sent.")
            return Start(head)
        if begin == "start" or is_new:
            if not is_new:
                self._say(f"S{gone[1:]}; everything is sent again.")
            return Start(START)
        found = self._find(known.event, known.cursor) if known else None
        if known is None or found is None:
            raise self._refusal(
                f"{gone}, and {self._store.location} does not remember how far it was",
                "--from start, which sends everything, or --from now, which sends what comes",
            )
        self._warn(
            OrdersError(
                f"{gone}; going on after record {known.number:,}, as the store remembers",
                f"orders relay {self._address.location} --from start, to have everything again",
            )
        )
        return found

    def _find(self, event_id: str, hint: Cursor) -> Start | None:
        """Return the place behind an event, which is after `hint` or anywhere."""
        if not event_id:
            return Start(hint)
        for after in dict.fromkeys((hint, START)):
            for record in self._store.read(after, match=Match(events=[event_id])):
                for place, message in enumerate(record.messages, 1):
                    if message.id == event_id:
                        rest = tuple(_events([record], after, place))
                        return Start(record.cursor, rest)
        return None

    def _refusal(self, reason: str, hint: str) -> NatsRefused:
        return NatsRefused(self._address.location, reason, hint)


def _topics() -> list[str]:
    classes = message_classes().items()
    return [topic for topic, kind in classes if issubclass(kind, Event) and kind.stored]


def _events(records: list[Record], before: Cursor, done: int = 0) -> Iterator[Found]:
    """Yield the events of records; of the first, `done` messages are left out.

    Raises:
        OrdersError: one is of a class that is not known here, and so is its topic.
    """
    for record in records:
        for place, message in enumerate(record.messages):
            if isinstance(message, UnknownMessage):
                raise OrdersError(
                    f"record {record.number:,} has {message.name}, which nothing here defines",
                    "orders --plugin NAME relay, with the plugin that it is of",
                )
            if isinstance(message, Event) and place >= done:
                yield Found(message, record, place, before)
        before, done = record.cursor, 0
