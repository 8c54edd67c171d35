"""How messages, handlers and numbers are put into words, on every screen alike."""

from collections.abc import Collection
from inspect import unwrap
from pathlib import Path
from typing import Any

import msgspec

from ..messaging.message import Message, UnknownMessage
from ..messaging.subscriptions import Handler, display_name


def name_of(message: Message) -> str:
    """Return the class name that the message was stored under."""
    return message.name if isinstance(message, UnknownMessage) else type(message).__name__


def own_fields(message: Message) -> dict[str, Any]:
    """Return a message's time and the fields that only its class has, as far as they are set."""
    if isinstance(message, UnknownMessage):
        return {"time": message.time, **message.fields}
    common = set(Message.__struct_fields__) - {"time"}
    return {
        name: value
        for name, value in msgspec.structs.asdict(message).items()
        if name not in common and value is not None
    }


def detail(message: Message, without: Collection[str] = ("time",)) -> str:
    """Return the message's own fields as ``name=JSON``."""
    return " ".join(
        f"{name}={msgspec.json.encode(value).decode()}"
        for name, value in own_fields(message).items()
        if name not in without
    )


def place_of(handler: Handler) -> str | None:
    """Return the file and line where a handler begins, if it has source: ``handlers.py:20``."""
    code = getattr(unwrap(handler), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else None


def link_of(handler: Handler) -> str | None:
    """Return the address of a handler's source, which terminals can open, if it has one."""
    code = getattr(unwrap(handler), "__code__", None)
    if code is None or not (path := Path(code.co_filename)).is_absolute():
        return None  # typed in, or made while running
    return f"{path.as_uri()}#{code.co_firstlineno}"


def source_of(handler: Handler) -> str:
    """Return a handler's name with the place where it begins."""
    place = place_of(handler)
    return f"{display_name(handler)} ({place})" if place else display_name(handler)
