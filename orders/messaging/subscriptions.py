"""Who wants to hear which events: by class, by topic, or by a glob of topics."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import Any

import msgspec

from ..errors import UnknownTopic, WiringError, WrongPayload
from .message import Event, message_classes

Handler = Callable[..., Any]
Target = type[Event] | str  # an event class, which stands for its subclasses too, or a glob


class Subscriber(msgspec.Struct, frozen=True):
    """One handler of events; its name is stable, for its deliveries are recorded under it."""

    name: str
    function: Handler
    run: Callable[[Event], object]  # the function with its dependencies


class Subscription(msgspec.Struct, frozen=True):
    """What a subscriber asked to hear."""

    target: Target
    subscriber: Subscriber
    priority: int


def check_target(target: Target) -> None:
    """Refuse what no event will ever match.

    Raises:
        UnknownTopic: no event has this topic, or none that the glob matches.
        WrongPayload: it is neither a topic nor a class of events.
    """
    if isinstance(target, str):
        topics = [topic for topic, kind in message_classes().items() if issubclass(kind, Event)]
        if not any(fnmatchcase(topic, target) for topic in topics):
            raise UnknownTopic(target, topics)
    elif not (isinstance(target, type) and issubclass(target, Event)):
        raise WrongPayload(f"{target!r} is no event; only events are subscribed to")


def matches(target: Target, event: type[Event]) -> bool:
    """Return whether events of this class are meant."""
    if isinstance(target, str):
        return event.topic is not None and fnmatchcase(event.topic, target)
    return issubclass(event, target)


def display_name(handler: Handler) -> str:
    """Return what a handler is called in messages."""
    return getattr(handler, "__qualname__", type(handler).__qualname__)


def stable_name(handler: Handler, given: str | None) -> str:
    """Return the name that the handler's deliveries are recorded under, now and after a restart.

    Raises:
        WiringError: it has none of its own and none was given, or the given one is no name.
    """
    own = getattr(handler, "__qualname__", "<nameless>")
    if given is None and "<" in own:
        raise WiringError(
            f"{display_name(handler)} has no name that is the same after a restart",
            "give it one: name='...'",
        )
    name = own if given is None else given
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise WiringError(f"{name!r} is no name of a subscriber", "give it printable text")
    return name


def check_synchronous(handler: Handler) -> None:
    """Refuse a function whose call would only make something that nobody runs.

    Raises:
        WiringError: it is a coroutine function, a generator function or both.
    """
    function = unwrap(handler)
    while isinstance(function, partial):
        function = unwrap(function.func)
    called = type(function).__dict__.get("__call__", function)  # of an object that is called
    for kind in (iscoroutinefunction, isgeneratorfunction, isasyncgenfunction):
        if kind(function) or kind(called):
            raise WiringError(
                f"{display_name(handler)} is asynchronous or a generator, which nobody would run;"
                " handlers are plain functions"
            )


def log_warning(warning: str) -> None:
    """Pass a warning on to `logging`, which prints it unless told otherwise."""
    import logging  # noqa: PLC0415 - 5 ms that only a warning has to pay

    logging.getLogger("orders").warning("%s", warning)


def log_failure(subscriber: Subscriber, event: Event, error: BaseException) -> None:
    """Warn of a subscriber's failure."""
    log_warning(f"{subscriber.name} failed on {type(event).__name__} {event.id}: {error!r}")
