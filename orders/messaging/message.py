"""Messages: what the parts of the system say to each other.

A `Command` asks for something and may be refused; an `Event` says what has happened and
cannot be. Both are frozen values. Every message has an id, the conversation it belongs to
(`correlation_id`), the message that caused it (`causation_id`) and a UTC time; the system
fills these in. As JSON, the shape that the event log stores:

    {"type": "OrderCreated", "id": "...", "correlation_id": "...", "causation_id": "...",
     "time": "2026-11-21T09:30:00.123456Z", ...the fields of the class...}

`hops`, left out where it is 0, counts the events on the chain of causes.

When a class changes so that its stored messages no longer fit, it says so in its tag, and how
to read the older ones:

    class OrderCreated(OrderEvent, frozen=True, kw_only=True, tag="OrderCreated@2"):
        @classmethod
        def upcast(cls, fields, revision): ...
"""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Self, get_args, get_origin

import msgspec
from msgspec.structs import astuple, fields, force_setattr

from ..errors import DuplicateMessage, EndlessLoop, WiringError, WrongPayload

MAX_HOPS = 100  # events that cause each other, before it is a circle

_HYPHENATED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_PLAIN = (str, int, float, bool, datetime, dict, tuple, NoneType)
# Classes with types that the values of their fields may have; which fields then have lists.
_accepted: dict[tuple[type, tuple[type, ...]], tuple[str, ...]] = {}

_by_name: dict[str, type["Message"]] = {}
_by_topic: dict[str, type["Message"]] = {}


class NewerRevision(ValueError):
    """A message was stored by a newer version of this program, or of a plugin."""


def new_id() -> str:
    """Return a random id: a UUID, version 4, in a quarter of the time that `uuid.uuid4` takes."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_hyphenated(name: object) -> bool:
    """Return whether this is a name in lower-case-words-with-hyphens."""
    return isinstance(name, str) and _HYPHENATED.fullmatch(name) is not None


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag=True,
    omit_defaults=True,
    gc=False,  # values of plain types make no cycles
):
    """Base of commands and events; a class without a topic is a family, not a message.

    Raises:
        DuplicateMessage: on definition, when the name or the topic of a class is taken.
        WiringError: on definition, when the topic is not lower-case-words-with-hyphens; on
            construction, when the tag is neither the class's name nor that with @ and a revision.
        WrongPayload: on construction, when a field has a value of a wrong type.
    """

    topic: ClassVar[str | None] = None

    stored: ClassVar[bool] = True
    """Whether a unit of work writes it to the log."""

    id: str = msgspec.field(default_factory=new_id)
    correlation_id: str = ""
    causation_id: str | None = None
    hops: int = 0
    time: datetime = msgspec.field(default_factory=now)

    def __init_subclass__(cls, **config: Any) -> None:
        super().__init_subclass__(**config)
        if (first := _by_name.get(cls.__name__)) is not None:
            raise DuplicateMessage("the name", first, cls)
        topic = cls.__dict__.get("topic")
        if topic is None:
            cls.topic = None  # a topic is not inherited
        else:
            if not is_hyphenated(topic):
                raise WiringError(f"{topic!r} is not a topic", "write it like order-created")
            if (first := _by_topic.get(topic)) is not None:
                raise DuplicateMessage("the topic", first, cls)
            _by_topic[topic] = cls
        _by_name[cls.__name__] = cls

    def __post_init__(self) -> None:
        """Check types, freeze lists, which a caller might change later, and take times to UTC."""
        types = (type(self), tuple(map(type, astuple(self))))
        if types not in _accepted:
            _accepted[types] = self._check_types()
        for name in _accepted[types]:
            force_setattr(self, name, tuple(getattr(self, name)))
        if self.time.tzinfo is not UTC:
            known = self.time if self.time.tzinfo else self.time.replace(tzinfo=UTC)
            force_setattr(self, "time", known.astimezone(UTC))

    def _check_types(self) -> tuple[str, ...]:
        """Refuse values of wrong types; return the names of the fields that have lists."""
        name, tag = type(self).__name__, type(self).__struct_config__.tag  # not there on definition
        tagged, at, revision = str(tag).partition("@")
        if tagged != name or (at and not (revision.isdecimal() and revision[0] != "0")):
            raise WiringError(f"{tag!r} is not a tag of {name}", f"write {name}@2")
        lists = tuple(f.name for f in fields(self) if isinstance(getattr(self, f.name), list))
        for field in fields(self):
            value = () if field.name in lists else getattr(self, field.name)
            allowed = _plain_types(field.type)
            if allowed and not isinstance(value, allowed):
                wanted = " or ".join(kind.__name__ for kind in allowed)
                raise WrongPayload(
                    f"{field.name} of {name} must be {wanted}, not {type(value).__name__}"
                )
        return lists

    def caused_by(self, cause: "Message | None") -> Self:
        """Return this message as part of the conversation of `cause`; a stamped one stays.

        Raises:
            EndlessLoop: a hundred events have caused each other; or this would be the last one,
                which nobody could react to any more.
        """
        if self.correlation_id:
            return self
        # As `copy.copy`, in a quarter of the time; nobody else has it yet, so it may be filled in.
        stamped: Self = self.__copy__()  # type: ignore[attr-defined]
        if cause is None:
            force_setattr(stamped, "correlation_id", self.id)
            return stamped
        hops = cause.hops + isinstance(cause, Event)
        if hops + isinstance(self, Event) > MAX_HOPS:
            raise EndlessLoop(type(self), type(cause), hops)
        force_setattr(stamped, "correlation_id", cause.correlation_id)
        force_setattr(stamped, "causation_id", cause.id)
        force_setattr(stamped, "hops", hops)
        return stamped

    @classmethod
    def upcast(cls, fields: dict[str, Any], revision: int) -> dict[str, Any]:  # noqa: ARG003 - for those who override it
        """Return the fields of a message stored by an older `revision` as this one has them.

        Args:
            fields: decoded from JSON; times and ids are text.
            revision: the number after the `@` of the tag that it was stored under; else 1.

        Raises:
            ValueError: there is no way.
        """
        raise ValueError(f"{cls.__name__} does not say how to read its revision {revision}")


class Command(Message, frozen=True, kw_only=True):
    """A request in the imperative: exactly one handler, which may refuse or return a value."""


class Event(Message, frozen=True, kw_only=True):
    """A fact in the past tense: published to none or many subscribers."""

    survives_rollback: ClassVar[bool] = False
    """Whether the event is stored and published even when its unit of work fails."""


class UnknownMessage(Message, frozen=True, kw_only=True):
    """A message in the log of a class that this process does not define; only ever read."""

    name: str
    fields: dict[str, Any]


def as_stored(message: Message) -> Any:
    """Return what its stored JSON is made of: the message, or of an unknown class what it was."""
    if not isinstance(message, UnknownMessage):
        return message
    fields: dict[str, Any] = msgspec.to_builtins(message)
    return fields | {"type": fields.pop("name"), **fields.pop("fields")}


def decode_message(data: bytes) -> Message:
    """Decode one message from JSON.

    Raises:
        NewerRevision: its class is newer where it was stored.
        ValueError: the JSON is no message, or not one that its class can read.
    """
    fields = msgspec.json.decode(data, type=dict[str, Any])
    tag = fields.pop("type", None)
    name, revision = _parse_tag(tag)
    if (kind := _by_name.get(name)) is not None and kind.topic is not None:
        current = kind.__struct_config__.tag
        if tag == current:
            return msgspec.json.decode(data, type=kind)
        if revision > _parse_tag(current)[1]:  # to pass over it would be to forget what happened
            raise NewerRevision(f"{tag} is of a newer version of orders")
        return _upcast(kind, fields, revision)
    own = {key: fields.pop(key) for key in Message.__struct_fields__ if key in fields}
    return msgspec.convert(
        {**own, "type": "UnknownMessage", "name": tag, "fields": fields}, UnknownMessage
    )


def _upcast(kind: type[Message], fields: dict[str, Any], revision: int) -> Message:
    try:
        current = {**kind.upcast(fields, revision), "type": kind.__struct_config__.tag}
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{kind.__name__} cannot read its revision {revision}: {error}") from error
    return msgspec.convert(current, kind)


def _parse_tag(tag: Any) -> tuple[str, int]:
    """Return name and revision of a tag: ``OrderCreated`` is revision 1 of that class."""
    name, _, revision = str(tag).partition("@")
    return name, int(revision) if revision.isdecimal() else 1


def message_classes() -> Mapping[str, type[Message]]:
    """Return every message class that has a topic, by topic, in order of definition."""
    return MappingProxyType(_by_topic)


def _plain_types(annotation: Any) -> tuple[type, ...]:
    """Return the classes that a field's value may be of; none where only a decoder can tell."""
    kinds = get_args(annotation) if NoneType in get_args(annotation) else (annotation,)
    plain = tuple(get_origin(kind) or kind for kind in kinds)
    return plain if set(plain) <= set(_PLAIN) else ()
