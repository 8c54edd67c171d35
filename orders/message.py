"""Messages: what the parts of the system say to each other.

A `Command` asks for something and may be refused; an `Event` says what has happened and
cannot be. Both are frozen values. Every message has an id, the conversation it belongs to
(`correlation_id`), the message that caused it (`causation_id`) and a UTC time; the system
fills these in. As JSON, the shape that the event log stores:

    {"type": "OrderCreated", "id": "...", "correlation_id": "...", "causation_id": "...",
     "time": "2026-11-21T09:30:00.123456Z", ...the fields of the class...}
"""

import re
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from uuid import uuid4

import msgspec

from .errors import DuplicateMessage, WiringError

_TOPIC = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_by_name: dict[str, type["Message"]] = {}
_by_topic: dict[str, type["Message"]] = {}


def new_id() -> str:
    """Return a random id: a UUID, version 4."""
    return str(uuid4())


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


class Message(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True, omit_defaults=True
):
    """Base of commands and events; a class without a topic is a family, not a message.

    Raises:
        DuplicateMessage: on definition, when the name or the topic of a class is taken.
        WiringError: on definition, when the topic is not lower-case-words-with-hyphens.
    """

    topic: ClassVar[str | None] = None

    id: str = msgspec.field(default_factory=new_id)
    correlation_id: str = ""
    causation_id: str | None = None
    time: datetime = msgspec.field(default_factory=now)

    def __init_subclass__(cls, **config: Any) -> None:
        super().__init_subclass__(**config)
        if (first := _by_name.get(cls.__name__)) is not None:
            raise DuplicateMessage("the name", first, cls)
        topic = cls.__dict__.get("topic")
        if topic is None:
            cls.topic = None  # a topic is not inherited
        else:
            if not _TOPIC.fullmatch(topic):
                raise WiringError(f"{topic!r} is not a topic; write it like order-created")
            if (first := _by_topic.get(topic)) is not None:
                raise DuplicateMessage("the topic", first, cls)
            _by_topic[topic] = cls
        _by_name[cls.__name__] = cls

    def __post_init__(self) -> None:
        """Freeze lists, which a caller might change later, and take times to UTC."""
        for name in self.__struct_fields__:
            if isinstance(value := getattr(self, name), list):
                msgspec.structs.force_setattr(self, name, tuple(value))
        if self.time.tzinfo is not UTC:
            known = self.time if self.time.tzinfo else self.time.replace(tzinfo=UTC)
            msgspec.structs.force_setattr(self, "time", known.astimezone(UTC))

    def caused_by(self, cause: "Message | None") -> Self:
        """Return this message as part of the conversation of `cause`; a stamped one stays."""
        if self.correlation_id:
            return self
        if cause is None:
            return msgspec.structs.replace(self, correlation_id=self.id)
        return msgspec.structs.replace(
            self, correlation_id=cause.correlation_id, causation_id=cause.id
        )


class Command(Message, frozen=True, kw_only=True):
    """A request in the imperative: exactly one handler, which may refuse or return a value."""


class Event(Message, frozen=True, kw_only=True):
    """A fact in the past tense: told to none or many subscribers."""

    stored: ClassVar[bool] = True
    """Whether a unit of work writes the event to the log."""

    survives_rollback: ClassVar[bool] = False
    """Whether the event is stored and published even when its unit of work fails."""


class UnknownMessage(Message, frozen=True, kw_only=True):
    """A message in the log of a class that this process does not define; only ever read."""

    name: str
    fields: dict[str, Any]


def name_of(message: Message) -> str:
    """Return the class name that the message was stored under."""
    return message.name if isinstance(message, UnknownMessage) else type(message).__name__


def decode_message(data: bytes) -> Message:
    """Decode one message from JSON.

    Raises:
        ValueError: the JSON is no message, or not one that its class can read.
    """
    fields = msgspec.json.decode(data, type=dict[str, Any])
    name = fields.pop("type", None)
    if (kind := _by_name.get(str(name))) is not None and kind.topic is not None:
        return msgspec.json.decode(data, type=kind)
    own = {key: fields.pop(key) for key in Message.__struct_fields__ if key in fields}
    return msgspec.convert(
        {**own, "type": "UnknownMessage", "name": name, "fields": fields}, UnknownMessage
    )


def message_classes() -> dict[str, type[Message]]:
    """Return every message class that has a topic, by topic, in order of definition."""
    return dict(_by_topic)
