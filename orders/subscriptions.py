"""Who wants to hear which events: by class, by topic, or by a glob of topics."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .errors import UnknownTopic, WrongPayload
from .message import Event, message_classes

Handler = Callable[..., Any]
Target = type[Event] | str  # an event class, which stands for its subclasses too, or a glob


class Subscriber(NamedTuple):
    """One handler of events; its name is stable, for its deliveries are recorded under it."""

    name: str
    function: Handler
    run: Callable[[Event], object]  # the function with its dependencies


class Subscription(NamedTuple):
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


def log_failure(subscriber: Subscriber, event: Event, error: BaseException) -> None:
    """Report a subscriber's failure through `logging`, which prints it unless told otherwise."""
    import logging  # noqa: PLC0415 - 5 ms that only a failure has to pay

    logging.getLogger("orders").warning(
        "%s failed on %s %s: %r", subscriber.name, type(event).__name__, event.id, error
    )
