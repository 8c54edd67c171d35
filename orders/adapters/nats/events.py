"""The events of a store, as a relay sends them: where each stands, and on from where.

Files may show an event before it is on the disk, so what is read here is synced first.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ...application.store import START, Cursor, Match, Record, Store
from ...errors import OrdersError
from ...messaging.message import Event, UnknownMessage
from .cloudevents import encode, source_of

TOGETHER = 200  # records that are read, and synced, at once


class Found(NamedTuple):
    """An event, and where it stands in the log."""

    event: Event
    record: Record
    place: int  # among the record's messages
    before: Cursor  # somewhere before the record


class Start(NamedTuple):
    """Where to go on in the log.

    Attributes:
        cursor: to read on from there.
        before: somewhere before the last event that was sent.
        rest: what is left of the record that this is of.
    """

    cursor: Cursor
    before: Cursor = START
    rest: tuple[Found, ...] = ()


class Events:
    """Reads the events of a store.

    Args:
        store: is only read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._source = ""

    @property
    def source(self) -> str:
        """What the store is called; empty while it has no event."""
        if not self._source:
            first = next(iter(self._store.read()), None)
            self._source = source_of(first) if first else ""
        return self._source

    def read(self, after: Cursor) -> list[Record]:
        """Return the records after a cursor, but not too many; they are durable.

        Raises:
            StoreError: the store cannot be used.
        """
        records = [*islice(self._store.read(after), TOGETHER)]
        if records:
            self._store.sync(records[-1].cursor)
        return records

    def find(self, event_id: str, hint: Cursor) -> Start | None:
        """Return the place behind an event, which is after `hint` or anywhere.

        Raises:
            StoreError: the store cannot be used.
        """
        if not event_id:
            return Start(hint, hint)
        for after in dict.fromkeys((hint, START)):
            for record in self._store.read(after, match=Match(events=[event_id])):
                for place, message in enumerate(record.messages, 1):
                    if message.id == event_id:
                        return Start(record.cursor, after, tuple(among([record], after, place)))
        return None

    def encode(self, found: Found) -> bytes:
        """Return an event as it is sent."""
        return encode(found.event, found.record, found.place, self.source)


def among(records: Sequence[Record], before: Cursor, done: int = 0) -> Iterator[Found]:
    """Yield the events of records; of the first one, `done` messages are left out.

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
