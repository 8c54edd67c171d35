"""The relay: every stored event goes to a stream of JetStream, once and in the order of the log.

Where it stands, the stream says: its last message is the last event that it has. The store
remembers that as well, for a stream whose last message is gone. How the messages are kept in
order is told in `sender`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

from nats.js.api import StreamConfig

from ...application import positions
from ...application.positions import Position
from ...application.store import START, Cursor, Record, Store
from ...errors import OrdersError, StoreBusy, StoreError
from ...messaging.message import Event, message_classes, now
from . import cloudevents
from .connection import Connection
from .endpoint import Endpoint
from .events import Events, Found, Start, among
from .refusals import NatsRefused
from .sender import Sender, StreamChanged
from .stream import Stream, Tail

Begin = Literal["store", "start", "now"]
"""Where to go on in a stream whose last message is gone."""

FEW = 50  # records after which to wait for more, so that not each one costs a read and a sync
GATHER = 0.05  # seconds
LOOK = 0.25  # seconds between two looks whether to go on
CHECK = 5.0  # seconds without news after which to look at the stream again
KEEP = 5.0  # seconds between two positions that the store is given to remember; 1 when idle


class Relay(Endpoint):
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
        WrongName: a stream cannot have this name.
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
        super().__init__(url, stream, on_turn, self._lost)
        self.relayed = 0
        self.losses = 0
        self.behind = 0.0
        self._store = store
        self._events = Events(store)
        self._prefix = prefix
        self._begin: Begin = begin
        self._say = say
        self._warn = warn
        self._position: Position | None = None  # of the stream, as far as is known
        self._kept: Position | None = None  # as the store remembers it
        self._kept_at = 0.0
        self._is_lost = False

    def run(self, until_idle: float | None = None) -> None:
        """Relay until `stop` is called, or for `until_idle` seconds there was nothing to relay.

        Raises:
            NatsRefused: the server cannot be reached at first, or refuses.
            StoreError: the store cannot be used any more.
            OrdersError: an event is of a class that is not known here.
        """
        self._position = self._kept = positions.load(self._store, self.location, self._stream)
        super().run(until_idle)

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
        cursor, present = start.cursor, sender.sequence + is_empty
        await self._send(sender, start.rest)
        since = checked = looked = time.monotonic()
        while self._is_wanted():
            if time.monotonic() - looked > CHECK:
                present, looked = await self._look(connection, sender, present), time.monotonic()
            if batch := self._read(cursor):
                had, cursor = cursor, batch[-1].cursor
                if await self._send(sender, among(batch, had)):
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

    async def _look(self, connection: Connection, sender: Sender[Found], present: int) -> int:
        """Say if a message is gone from the stream with all before it; return one that it has now.

        A stream that was emptied takes what follows all the same.
        """
        stored = sender.sequence
        info = await connection.ask(connection.jetstream.stream_info(self._stream))
        if not info.state.messages:  # which is said when it is known what follows
            return present
        if info.state.first_seq > present and not _forgets(info.config):
            url = self.location
            self._warn(
                OrdersError(
                    f"stream {self._stream} was purged, and has only what came since",
                    f"purge it while no relay runs, then orders relay {url} --stream"
                    f" {self._stream} --from start, to have everything again",
                )
            )
        return max(stored, info.state.first_seq)

    def _read(self, cursor: Cursor) -> list[Record]:
        try:
            return self._events.read(cursor)
        except StoreBusy:  # there is time to look again
            return []

    async def _send(self, sender: Sender[Found], events: Iterable[Found]) -> int:
        """Send events; return how many they were."""
        before = sender.sent
        for found in events:
            self.behind = (now() - found.record.time).total_seconds()
            subject = f"{self._prefix}{type(found.event).topic}"
            await sender.send(subject, found.event.id, self._events.encode(found), found)
        return sender.sent - before

    def _stored(self, found: Found, sequence: int) -> None:
        """Note that the stream has an event."""
        self.relayed += 1
        self._note(found.event.id, sequence, found.record.number, found.before)

    def _note(self, event_id: str, sequence: int, number: int, cursor: Cursor) -> None:
        self._position = Position(self.location, self._stream, event_id, sequence, number, cursor)

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
        found = self._events.find(last.event.id, known)
        if found is None:
            raise self._refusal(
                f"stream {self._stream} has an event that {self._store.location} does not have",
                "name a stream of its own with --stream, if the store was restored from a backup",
            )
        if self._position is None or self._position.event != last.event.id:
            self._note(last.event.id, tail.sequence, last.number, found.before)
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
        if last.source != self._events.source:
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
        found = self._events.find(known.event, known.cursor) if known else None
        if known is None or found is None:
            raise self._refusal(
                f"{gone}, and {self._store.location} does not remember how far it was",
                "--from start, which sends everything, or --from now, which sends what comes",
            )
        if not known.event and known.sequence == tail.sequence:
            return found  # it is as it was when only what comes was asked for
        after = f"record {known.number:,}" if known.event else "what was not to be sent"
        self._warn(
            OrdersError(
                f"{gone}; going on after {after}, as the store remembers",
                f"orders relay {known.url} --stream {self._stream} --from start, to"
                " have everything again",
            )
        )
        return found

    def _refusal(self, reason: str, hint: str) -> NatsRefused:
        return NatsRefused(self.location, reason, hint)


def _forgets(config: StreamConfig) -> bool:
    """Return whether a stream lets go of messages by itself."""
    limits = config.max_age, config.max_msgs, config.max_bytes, config.max_msgs_per_subject
    return any((limit or 0) > 0 for limit in limits)


def _topics() -> list[str]:
    classes = message_classes().items()
    return [topic for topic, kind in classes if issubclass(kind, Event) and kind.stored]
