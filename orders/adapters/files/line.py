"""A line of the event log: its shape, its checksum, and what a crash makes of it.

    {"format":1,"seq":7,"time":"2026-11-21T09:30:00.123456Z",
     "messages":[{"type":"PlaceOrder",...},{"type":"OrderCreated",...}],
     "deliveries":[{"event":"<id>","subscriber":"order_created"}],
     "owner":"<lease>","settled":812,"synced":1340,
     "outstanding":[{"delivery":{...},"owner":"<lease>","offset":812,"seq":5}],
     "states":[{"id":"<order>","status":"refunded",...}],"claimed":[812,5],"crc":"1c291ca3"}

One line is one commit; it is there whole or not at all. `seq` counts lines without a gap, so
it is also the line's number. `deliveries` become pending with the commit, or are what came of
earlier ones; `owner` is the lease of the process that set out to make the pending ones.

`settled` is the byte from which a newcomer reads, so that whoever opens a log of any length
reads its end only: before it nothing was pending, or the line there lists in `outstanding` what
was. `synced` is the byte before which, to the writer's knowledge, all was on the disk; it is
left out where `settled` says no less. `states` are the orders that the commit's events of
plugins have changed, for those who read the line without the plugin. `claimed` is the place of
the event whose delivery another process takes over, or tries again. `crc` is the CRC-32 of all
bytes before it. What is empty or zero is left out.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar, Union
from zlib import crc32

import msgspec
from msgspec.structs import replace

from ...application.store import Delivery
from ...domain.order import OrderState
from ...errors import WrongPayload
from ...messaging.message import (
    Message,
    NewerRevision,
    UnknownMessage,
    as_stored,
    decode_message,
    message_classes,
)

FORMAT = 1

M = TypeVar("M")


class Position(NamedTuple):
    """A place between two lines of the log: `seq` lines, `offset` bytes stand before it."""

    offset: int = 0
    seq: int = 0


BEGINNING = Position()


class Outstanding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pending delivery, its owner's lease, and the place of the line that recorded it."""

    delivery: Delivery
    owner: str | None
    offset: int
    seq: int
    event: Position | None = None  # where its event is, if not there

    @property
    def place(self) -> Position:
        """The place of the line that has the event."""
        return self.event or Position(self.offset, self.seq)


class Frame(msgspec.Struct, frozen=True):
    """What a line says of itself and of those before it."""

    seq: int
    time: datetime
    settled: int = 0
    synced: int = 0

    @property
    def proven(self) -> int:
        """The byte before which everything was on the disk when the line was written."""
        return max(self.settled, self.synced)


class Summary(Frame, frozen=True):
    """What a line says of deliveries, too: all that whoever appends has to know of it."""

    deliveries: tuple[Delivery, ...] = ()
    owner: str | None = None
    outstanding: tuple[Outstanding, ...] = ()
    claimed: Position | None = None


class Line(msgspec.Struct, Generic[M], frozen=True, omit_defaults=True):
    """A line of the log without its checksum."""

    format: int
    seq: int
    time: datetime
    messages: tuple[M, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    owner: str | None = None
    settled: int = 0
    synced: int = 0
    outstanding: tuple[Outstanding, ...] = ()
    states: tuple[OrderState, ...] = ()
    claimed: Position | None = None


class Encoded(NamedTuple):
    """Messages and their JSON, from which they can be read back."""

    messages: tuple[Message, ...] = ()
    json: msgspec.Raw | None = None


NOTHING = Encoded()


class UnreadableLineError(ValueError):
    """A line is as it was written, but this program cannot read it."""


_CRC = b',"crc":"%08x"}'
_CRC_LENGTH = len(_CRC % 0)
_FORMATTED = b'{"format":%d,' % FORMAT
_BEGINNING = _FORMATTED + b'"seq":%d,'
_encoder = msgspec.json.Encoder()
_decoders: dict[int, "_Decoders"] = {}
_raw_decoder: msgspec.json.Decoder[Line[Any]] = msgspec.json.Decoder(Line[msgspec.Raw])
_raw_messages_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_frame_decoder = msgspec.json.Decoder(Frame)
parse_summary = msgspec.json.Decoder(Summary).decode
"""Decode of a sound line what it says of deliveries."""


def encode_messages(messages: Iterable[Message]) -> Encoded:
    """Encode messages for a line, before its number is known; see that they can be read back.

    Raises:
        WrongPayload: they cannot.
    """
    values = tuple(messages)
    try:
        is_plain = UnknownMessage not in map(type, values)
        json = _encoder.encode(values if is_plain else list(map(as_stored, values)))
        try:
            _decoders_of_known().messages.decode(json)
        except msgspec.ValidationError:  # perhaps only of a class that is not defined here
            for message in _raw_messages_decoder.decode(json):
                decode_message(bytes(message))
    except (ValueError, TypeError) as error:  # msgspec's are ValueErrors
        raise WrongPayload(f"a message cannot be stored: {error}") from error
    return Encoded(values, msgspec.Raw(json) if values else None)


def encode(line: Line[Message], messages: msgspec.Raw | None = None) -> bytes:
    """Return the line with its checksum, without a line feed.

    Args:
        line: what to encode.
        messages: its messages, if they were encoded before.

    Raises:
        WrongPayload: a text has characters that no JSON can have.
    """
    try:
        if line.messages:
            stored: Any = messages or tuple(map(as_stored, line.messages))
            line = replace(line, messages=stored)
        content = _encoder.encode(line)[:-1]
    except ValueError as error:
        raise WrongPayload(f"a delivery cannot be stored: {error}") from error
    return content + _CRC % crc32(content)


def check(raw: bytes) -> bytes:
    """Return the line, whose checksum is right; to decoders it is a field that nobody asks for.

    Raises:
        ValueError: it is not, or this is no line of a log.
    """
    if raw[-_CRC_LENGTH:] != _CRC % crc32(raw[:-_CRC_LENGTH]):
        what = "the checksum does not match" if is_ours(raw) else "this is no line of a log"
        raise ValueError(what)
    return raw


def is_sound(raw: bytes, seq: int) -> bool:
    """Return whether this is line `seq` as it was written, in the format that is read here."""
    checksum = _CRC % crc32(raw[:-_CRC_LENGTH])
    return raw.endswith(checksum) and raw.startswith(_BEGINNING % seq)


def refuse(raw: bytes, seq: int) -> None:
    """Say what is wrong with a line that is not sound.

    Raises:
        UnreadableLineError: a newer version wrote it.
        ValueError: the line is not what was written, or not where.
    """
    _check_format(raw)
    raise ValueError(f"number {decode_frame(raw).seq} stands at line {seq}")


def is_ours(raw: bytes) -> bool:
    """Return whether a line, however damaged, begins like one of a log."""
    return raw.startswith(b'{"format":')


def decode(raw: bytes) -> Line[Message]:
    """Check and decode a line; messages of classes that are unknown here are kept as such.

    Raises:
        UnreadableLineError: a newer version wrote it, or a class of its messages has changed.
        ValueError: the line is not what was written.
    """
    _check_format(raw)
    return parser()(raw)


def parser() -> Callable[[bytes], Line[Message]]:
    """Return what decodes sound lines, as `decode` does, for many of them."""
    known = _decoders_of_known().line

    def parse(raw: bytes) -> Line[Message]:
        try:
            return known.decode(raw)
        except msgspec.ValidationError:  # perhaps only of a class that is not defined here
            return _decode_one_by_one(raw)

    return parse


def decode_summary(raw: bytes) -> Summary:
    """Check a line and decode what it says of deliveries, which takes a fraction of the time.

    Raises:
        UnreadableLineError: a newer version wrote it.
        ValueError: the line is not what was written.
    """
    _check_format(raw)
    return parse_summary(raw)


def _check_format(raw: bytes) -> None:
    if not check(raw).startswith(_FORMATTED):
        number = msgspec.json.decode(raw)["format"]
        raise UnreadableLineError(
            f"it has format {number}, of a newer version of orders; update it"
        )


def decode_frame(raw: bytes) -> Frame:
    """Check a line, and decode all but what it records.

    Raises:
        ValueError: the line is not what was written.
    """
    return _frame_decoder.decode(check(raw))


def as_written(text: str) -> bytes:
    """Return what a line contains if it has this text, or one that contains it."""
    return msgspec.json.encode(text)[1:-1]


def is_torn(raw: bytes, seq: int) -> bool:
    """Return whether `raw`, which no line feed follows, is a line `seq` that was cut short."""
    begins = _BEGINNING % seq
    content, *_ = raw.rpartition(_CRC[:8])
    is_whole = raw[len(content) :].startswith(_CRC % crc32(content))
    return raw[: len(begins)] == begins[: len(raw)] and not is_whole


class _Decoders(NamedTuple):
    line: msgspec.json.Decoder[Line[Message]]
    messages: msgspec.json.Decoder[tuple[Message, ...]]


def _decoders_of_known() -> _Decoders:
    """Return decoders for all classes of messages that are defined by now."""
    kinds = message_classes()
    if (decoders := _decoders.get(len(kinds))) is None:
        union: Any = Union[tuple(kinds.values())]  # noqa: UP007 - of as many classes as there are
        decoders = _decoders[len(kinds)] = _Decoders(
            msgspec.json.Decoder(Line[union]), msgspec.json.Decoder(tuple[union, ...])
        )
    return decoders


def _decode_one_by_one(raw: bytes) -> Line[Message]:
    line = _raw_decoder.decode(raw)
    messages = tuple(_decode_message(bytes(message)) for message in line.messages)
    fields = msgspec.structs.asdict(line) | {"messages": messages}
    return Line(**fields)


def _decode_message(data: bytes) -> Message:
    try:
        return decode_message(data)
    except ValueError as error:
        advice = "give its class a revision and an upcast() from this"
        if isinstance(error, NewerRevision):
            advice = "update it"
        name = msgspec.json.decode(data).get("type")
        raise UnreadableLineError(f"a stored {name} cannot be read: {error}; {advice}") from error
