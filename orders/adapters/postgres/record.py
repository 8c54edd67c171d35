"""A record of the log as its row has it: what it is found by, and its body, as JSON."""

from collections.abc import Sequence
from typing import Any

import msgspec

from ...application.store import Delivery, Match
from ...domain.order import OrderState
from ...errors import UnreadableMessage, WrongPayload
from ...messaging.message import (
    Message,
    NewerRevision,
    UnknownMessage,
    as_stored,
    decode_message,
    message_classes,
    new_id,
)


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record says, its messages not decoded."""

    messages: tuple[msgspec.Raw, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    states: tuple[OrderState, ...] = ()
    process: int | None = None  # that set out to make the pending deliveries


class Row(msgspec.Struct, frozen=True):
    """What a record's row has besides its place and its time."""

    about: list[str]  # ids of messages, conversations, orders, delivered events; or of its own
    kinds: list[str]  # names of messages and subscribers
    body: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)


def encode(
    messages: Sequence[Message],
    deliveries: Sequence[Delivery],
    states: Sequence[OrderState],
    process: int | None,
) -> Row:
    """Return the row of a record.

    Raises:
        WrongPayload: a message could not be read back.
    """
    try:
        encoded = tuple(_encoder.encode(as_stored(message)) for message in messages)
        for data in encoded:
            decode_message(data)
        body = Body(tuple(map(msgspec.Raw, encoded)), tuple(deliveries), tuple(states), process)
        text = _encoder.encode(body).decode()
    except (ValueError, TypeError) as error:  # msgspec's are ValueErrors
        raise WrongPayload(f"a message cannot be stored: {error}") from error
    about = {text for message in messages for text in _ids(message)}
    about.update(delivery.event for delivery in deliveries)
    if process is not None and not messages:  # others may set out to make the same delivery
        about.add(new_id())
    kinds = {_name(message) for message in messages}
    kinds.update(delivery.subscriber for delivery in deliveries)
    return Row(sorted(about), sorted(kinds), text)


def encode_part(part: Delivery | OrderState) -> str:
    """Return a delivery or an order as it is kept in a table of its own."""
    return _encoder.encode(part).decode()


def decode(body: str, location: str, number: int) -> tuple[tuple[Message, ...], Body]:
    """Return the messages of a record, and what else is in its body.

    Raises:
        UnreadableMessage: this program cannot read a message.
    """
    found = _decoder.decode(body)
    return tuple(_message(bytes(data), location, number) for data in found.messages), found


def wanted_ids(match: Match) -> list[str]:
    """Return what records are to be about, one of it at least."""
    ids = {*match.conversations, *match.events}
    return sorted(ids if match.order_id is None else {*ids, match.order_id})


def wanted_kinds(match: Match) -> list[str]:
    """Return names of which a record is to have one at least."""
    kinds = message_classes().values()
    names = {kind.__name__ for kind in kinds if issubclass(kind, tuple(match.types))}
    return sorted(names if match.subscriber is None else {*names, match.subscriber})


def order_id_of(message: Message) -> str | None:
    """Return the id of the order that a message is about."""
    fields: dict[str, Any] = message.fields if isinstance(message, UnknownMessage) else {}
    found = getattr(message, "order_id", fields.get("order_id"))
    return found if isinstance(found, str) else None


def _name(message: Message) -> str:
    return message.name if isinstance(message, UnknownMessage) else type(message).__name__


def _ids(message: Message) -> list[str]:
    order_id = order_id_of(message)
    ids = [message.id, message.correlation_id]
    return ids if order_id is None else [*ids, order_id]


def _message(data: bytes, location: str, number: int) -> Message:
    try:
        return decode_message(data)
    except ValueError as error:
        is_newer = isinstance(error, NewerRevision)
        advice = "" if is_newer else "; give its class an upcast() from this"
        name = msgspec.json.decode(data).get("type")
        why = f"a stored {name} cannot be read: {error}{advice}"
        raise UnreadableMessage(location, number, why) from error
