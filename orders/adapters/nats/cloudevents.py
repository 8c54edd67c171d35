"""Events as other services get them: CloudEvents 1.0, in JSON.

    {"specversion": "1.0", "id": "...", "source": "/orders/...", "type": "OrderCreated",
     "subject": "the order's id", "time": "2026-11-21T09:30:00.123456Z",
     "datacontenttype": "application/json", "correlationid": "...", "causationid": "...",
     "sequence": "000000000000017.00001", "data": {"order_id": "...", "items": ["rope"], ...}}

`id` is the event's: who has seen it has seen the event. `source` is the store, and the same
wherever the store is moved or copied to. `sequence` is the event's place in the log: the record's
number, then its place in there; events compare by it as text.

Left out is what is nobody else's business: `hops`, which guards this system against circles, and
the `key` of an order, which lets whoever knows it ask for that order again; and of the log, all
that is said of commands and deliveries.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from ...application.store import Record
from ...domain.events import OrderCreated
from ...messaging.message import Event, Message, UnknownMessage, decode_message

CONTENT_TYPE: Final = "application/cloudevents+json"

INTERNAL: Mapping[type[Event], Collection[str]] = {OrderCreated: ("key",)}
"""Fields of events of these classes that stay here."""

_NUMBER = re.compile(r"[0-9]{1,18}(?=\.)")
_ENVELOPE = {"type", *Message.__struct_fields__}


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands on the wire; see the CloudEvents specification for what it means."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    subject: str | None = None
    datacontenttype: str | None = None
    correlationid: str = ""
    causationid: str | None = None
    sequence: str = ""
    data: dict[str, Any] = {}


class Received(NamedTuple):
    """An event that came from another service, and where it stands in that one's log.

    Attributes:
        event: as it was, but for what is left out; of a class that may be unknown here.
        source: the store.
        number: of the record; 0 where it is not said.
    """

    event: Message
    source: str
    number: int


def source_of(first: Record) -> str:
    """Return what a store is called: after the first message of its log, which it has for ever."""
    return f"/orders/{quote(first.messages[0].id, safe='')}"


def encode(event: Event, record: Record, place: int, source: str) -> bytes:
    """Return an event as JSON.

    Args:
        event: a message of the record.
        record: of the log.
        place: of the event among the record's messages, from 0.
        source: of the store, as `source_of` names it.
    """
    fields: dict[str, Any] = msgspec.to_builtins(event)
    hidden = {*_ENVELOPE, *INTERNAL.get(type(event), ())}
    return msgspec.json.encode(
        CloudEvent(
            specversion="1.0",
            id=event.id,
            source=source,
            type=fields["type"],
            time=event.time,
            subject=getattr(event, "order_id", None),
            datacontenttype="application/json",
            correlationid=event.correlation_id,
            causationid=event.causation_id,
            sequence=f"{record.number:015}.{place:05}",
            data={name: value for name, value in fields.items() if name not in hidden},
        )
    )


def decode(data: bytes) -> Received:
    """Return the event that `encode` was given; one of an unknown class as an `UnknownMessage`.

    Raises:
        ValueError: it is no such event.
    """
    try:
        told = msgspec.json.decode(data, type=CloudEvent)
        event = decode_message(msgspec.json.encode(_stored(told)))
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # UTC lacks it
        raise ValueError(f"it is no event: {error}") from error
    if told.specversion != "1.0" or not (told.id and told.source and told.type):
        raise ValueError("it is no event of CloudEvents 1.0")
    if not isinstance(event, Event | UnknownMessage):
        raise ValueError(f"it is no event: {told.type} is a command")
    number = _NUMBER.match(told.sequence)
    return Received(event, told.source, int(number.group()) if number else 0)


def _stored(told: CloudEvent) -> dict[str, Any]:
    """Return the fields of an event as the log has them."""
    return {
        **{name: value for name, value in told.data.items() if name not in _ENVELOPE},
        "type": told.type,
        "id": told.id,
        "correlation_id": told.correlationid,
        "causation_id": told.causationid,
        "time": told.time,
    }
