"""The lines that `tour`, `watch` and `log` show on a terminal: from a record, as plain values.

Each has the same columns: number, topic, message, handler, place in the source.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from itertools import pairwise, takewhile
from typing import Any, Literal, NamedTuple, Protocol

from ..application.store import Delivery, Record, Status
from ..domain.text import ordinal
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Message, UnknownMessage, message_classes, now
from ..messaging.subscriptions import Handler, display_name
from ..projections.policy import Policy
from ..queries.wording import detail, link_of, name_of, place_of

SHORT_ID = 8  # characters of an id that are shown; any unambiguous beginning will do

Kind = Literal["command", "event"] | Status

MARKS: Mapping[str, str] = {
    "command": "◆",
    "event": "●",
    "pending": "",
    "done": "✓",
    "failed": "✗",
    "dead": "✗",
}
NAMES: Mapping[str, str] = {
    "pending": "pending",
    "done": "delivered",
    "failed": "failed",
    "dead": "dead",
}


class Wired(Protocol):
    """What lines need of an application: who handles what."""

    bus: MessageBus

    @property
    def policies(self) -> Mapping[str, Callable[[], Policy]]:
        """What makes each policy, by name."""


class Line(NamedTuple):
    """A message or a delivery of a record.

    Attributes:
        number: the record's.
        time: of the message, or of the record that says what came of the delivery.
        kind: what sort of message it is, or how the delivery stands.
        topic: the message's; a delivery has none.
        name: the message's, or how the delivery stands in a word.
        id: of the order that a message is about; of the event that a delivery is of.
        handler: who handles the command, or is delivered to.
        place: where the handler begins: ``handlers.py:20``.
        link: the same for terminals that open what is clicked on; empty where there is no source.
        text: what the event says, or what there is to say of the delivery.
    """

    number: int
    time: datetime
    kind: Kind
    topic: str
    name: str
    id: str
    handler: str
    place: str
    link: str
    text: str


def lines_of(record: Record, app: Wired) -> list[Line]:
    """Return a line for each message and each delivery of a record, in order."""
    return [*_messages(record, app), *(_delivery(record, one, app) for one in record.deliveries)]


def request_line(number: int, topic: str, answer: Mapping[str, Any], app: Wired) -> Line:
    """Return a line for a request of another service and its answer."""
    kind = message_classes().get(topic)
    handler = next(iter(app.bus.handlers(kind)), None) if kind else None
    order = answer.get("order", {})
    return Line(
        number,
        now(),
        "command" if order else "failed",
        topic,
        kind.__name__ if kind else "",
        order.get("id", ""),
        "" if handler is None else display_name(handler),
        *_source(handler),
        answer.get("error") or f"{order['status']}: {', '.join(order['items'])}",
    )


def about(message: Message) -> str:
    """Return what a message says of its order: the items, or its own fields."""
    fields = message.fields if isinstance(message, UnknownMessage) else {}
    items = getattr(message, "items", fields.get("items"))
    if isinstance(items, tuple | list):
        return ", ".join(map(str, items))
    return detail(message, ("time", "order_id"))


def order_of(message: Message) -> str:
    """Return the id of the order that the message is about; empty where it is about none."""
    fields = message.fields if isinstance(message, UnknownMessage) else {}
    return str(getattr(message, "order_id", fields.get("order_id", "")))


def handler_of(name: str, app: Wired) -> Handler | None:
    """Return the function behind a subscriber or a policy, if it is known to this process."""
    if (known := app.bus.subscriber(name)) is not None:
        return known.function
    make = app.policies.get(name)
    return None if make is None else make().react


def cause(delivery: Delivery) -> str:
    """Return why the delivery failed, in few words: a line has no room for the error's class."""
    kind, _, text = (delivery.error or "").partition(": ")
    return text or kind


def short_length(ids: Collection[str]) -> int:
    """Return how many characters tell these ids from each other; eight at least."""
    ordered = sorted(set(ids))
    shared = [_shared(*pair) + 1 for pair in pairwise(ordered)]
    return max(SHORT_ID, *shared, 0)


def _messages(record: Record, app: Wired) -> Iterator[Line]:
    for message in record.messages:
        is_command = isinstance(message, Command)
        handler = next(iter(app.bus.handlers(type(message))), None) if is_command else None
        yield Line(
            record.number,
            message.time,
            "command" if is_command else "event",
            type(message).topic or "",
            name_of(message),
            order_of(message),
            "" if handler is None else display_name(handler),
            *_source(handler),
            "" if is_command else about(message),
        )


def _delivery(record: Record, delivery: Delivery, app: Wired) -> Line:
    is_done = delivery.status == "done"
    return Line(
        record.number,
        record.time,
        delivery.status,
        "",
        NAMES[delivery.status],
        delivery.event,
        delivery.subscriber,
        *_source(handler_of(delivery.subscriber, app) if is_done else None),
        _what_came(delivery),
    )


def _what_came(delivery: Delivery) -> str:
    if delivery.error:
        return cause(delivery)
    if delivery.deaths:
        return "taken over" if delivery.status == "pending" else "late"
    return f"{ordinal(delivery.attempts)} attempt" if delivery.attempts > 1 else ""


def _source(handler: Handler | None) -> tuple[str, str]:
    if handler is None:
        return "", ""
    return place_of(handler) or "", link_of(handler) or ""


def _shared(first: str, second: str) -> int:
    both = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
