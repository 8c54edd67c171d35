"""The message bus: who hears what. The only room that talks to pypubsub.

Each bus owns a private pypubsub `Publisher` on which every topic is declared with its
payload, so a mistyped topic or a wrong payload raises instead of vanishing. pypubsub keeps
its listeners weakly and stops at the first that raises; so the bus itself is the one
listener of each topic, keeps handlers strongly, and isolates subscribers from each other.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from inspect import Parameter, signature
from threading import Lock, local
from typing import Any

from pubsub.core import AUTO_TOPIC, Publisher  # noqa: TID251 - this is bus.py

from .errors import (
    DuplicateHandler,
    DuplicateSubscriber,
    NoHandler,
    UnsuppliedParameter,
    WiringError,
    WrongPayload,
)
from .message import Command, Event, Message, message_classes
from .subscriptions import (
    Handler,
    Subscriber,
    Subscription,
    Target,
    check_target,
    log_failure,
    matches,
)

STRANGE = (Exception, SystemExit)  # what a subscriber may raise and the others survive


class _Thread(local):
    """What one thread is busy with."""

    def __init__(self) -> None:
        self.handling: list[Message] = []
        self.results: list[Any] = []
        self.waiting: deque[Event] = deque()
        self.publishing = False


class MessageBus:
    """Routes commands to their handler and events to their subscribers, by topic.

    Args:
        dependencies: what handlers may ask for, by parameter name.
        on_failure: called with (subscriber, event, error) when a subscriber raises.

    Attributes:
        deliver: runs one subscriber with one event. An application replaces it to record
            deliveries and retry them; it must not raise what the subscriber raises.
        on_handled: called with each command that its handler has completed.
        on_published: called when all that was to be told has been.
    """

    def __init__(
        self,
        dependencies: Mapping[str, Any] | None = None,
        on_failure: Callable[[Subscriber, Event, BaseException], None] = log_failure,
    ) -> None:
        self.dependencies: dict[str, Any] = dict(dependencies or {})
        self.on_failure = on_failure
        self.deliver: Callable[[Subscriber, Event], None] = self.run_isolated
        self.on_handled: Callable[[Command], None] = lambda _command: None
        self.on_published: Callable[[], None] = lambda: None
        self._publisher = Publisher()
        self._publisher.setTopicUnspecifiedFatal()
        self._handlers: dict[type[Command], tuple[Handler, Handler]] = {}
        self._subscriptions: list[Subscription] = []
        self._heard: dict[type[Event], tuple[Subscriber, ...]] = {}
        self._thread = _Thread()
        self._lock = Lock()

    def register(self, command: type[Command], handler: Handler) -> None:
        """Let `handler` handle `command`; it is called with the message and its dependencies.

        Raises:
            WrongPayload: `command` is not a command with a topic.
            DuplicateHandler: the command has a handler already.
            UnsuppliedParameter: the handler asks for something that nothing supplies.
        """
        if not (isinstance(command, type) and issubclass(command, Command) and command.topic):
            raise WrongPayload(f"{command!r} is no command with a topic; only those are handled")
        if command in self._handlers:
            first, _ = self._handlers[command]
            raise DuplicateHandler(command, _name(first), _name(handler))
        self._handlers[command] = (handler, self._supply(handler))
        with self._lock:
            self._listen(command, self._handle)

    def subscribe(
        self,
        target: Target,
        handler: Handler,
        *,
        priority: int = 0,
        name: str | None = None,
    ) -> Subscriber:
        """Let `handler` hear events: of a class and its subclasses, a topic, or a glob of topics.

        Lower `priority` runs first, then who subscribed first. A handler that several of its
        subscriptions match runs once an event.

        Raises:
            UnknownTopic: no event has this topic, or none that the glob matches.
            WrongPayload: `target` is neither a topic nor a class of events.
            DuplicateSubscriber: another handler goes by this name.
            UnsuppliedParameter: the handler asks for something that nothing supplies.
        """
        check_target(target)
        with self._lock:  # or another thread could keep what it found before
            subscriber = self._subscriber(handler, name)
            self._subscriptions.append(Subscription(target, subscriber, priority))
            self._heard.clear()
        return subscriber

    def send(self, command: Command) -> Any:
        """Hand `command` to its handler; return what it returns, raise what it raises.

        Raises:
            NoHandler: nothing handles this command.
            WrongPayload: `command` is not a command.
        """
        if not isinstance(command, Command):
            raise WrongPayload(f"{type(command).__name__} is no command; send commands only")
        if type(command) not in self._handlers:
            raise NoHandler(type(command))
        self._publisher.sendMessage(command.topic, message=command.caused_by(self.handling))
        return self._thread.results.pop()

    def publish(self, *events: Event) -> None:
        """Tell each event's subscribers, now; what they raise in turn waits for its turn.

        This records nothing: emit through a unit of work what must not be lost.

        Raises:
            WrongPayload: one of `events` is not an event with a topic.
        """
        for event in events:
            if not isinstance(event, Event) or event.topic is None:
                raise WrongPayload(f"{type(event).__name__} is no event with a topic")
        thread = self._thread
        thread.waiting.extend(event.caused_by(self.handling) for event in events)
        if thread.publishing:
            return
        thread.publishing = True
        try:
            while thread.waiting:
                event = thread.waiting.popleft()
                if self.subscribers(type(event)):
                    self._publisher.sendMessage(event.topic, message=event)
        finally:
            thread.publishing = False
            thread.waiting.clear()  # not empty only if interrupted; what was stored is owed still
        self.on_published()

    @property
    def is_publishing(self) -> bool:
        """Whether this thread is in the middle of telling subscribers."""
        return self._thread.publishing

    @property
    def handling(self) -> Message | None:
        """The message that this thread is handling, or None."""
        return self._thread.handling[-1] if self._thread.handling else None

    @property
    def under_way(self) -> set[str]:
        """The ids of the messages that this thread is in the middle of handling."""
        return {message.id for message in self._thread.handling}

    def subscribers(self, event: type[Event]) -> tuple[Subscriber, ...]:
        """Return who hears events of this class, in the order in which they run."""
        if (heard := self._heard.get(event)) is not None:
            return heard
        with self._lock:  # pypubsub's making of topics is not for several threads
            matching = [s for s in self._subscriptions if matches(s.target, event)]
            matching.sort(key=lambda subscription: subscription.priority)
            heard = tuple({s.subscriber.name: s.subscriber for s in matching}.values())
            if heard:
                self._listen(event, self._tell)
            self._heard[event] = heard
        return heard

    def wiring(self) -> list[tuple[type[Message], list[Handler]]]:
        """Return each message with a topic and the functions that hear it, in order."""
        return [
            (kind, [subscriber.function for subscriber in self.subscribers(kind)])
            if issubclass(kind, Event)
            else (kind, [self._handlers[kind][0]] if kind in self._handlers else [])
            for kind in message_classes().values()
        ]

    def handler(self, command: type[Command]) -> Handler | None:
        """Return the command's handler, or None."""
        return self._handlers[command][0] if command in self._handlers else None

    def subscriber(self, name: str) -> Subscriber | None:
        """Return the subscriber of this name, or None."""
        known = (subscription.subscriber for subscription in self._subscriptions)
        return next((subscriber for subscriber in known if subscriber.name == name), None)

    @contextmanager
    def handling_of(self, message: Message) -> Iterator[None]:
        """Make `message` the cause of what this thread sends meanwhile."""
        handling = self._thread.handling
        handling.append(message)
        try:
            yield
        finally:
            handling.pop()

    def run_isolated(self, subscriber: Subscriber, event: Event) -> None:
        """Run `subscriber` with `event`; report what it raises."""
        try:
            with self.handling_of(event):
                subscriber.run(event)
        except STRANGE as error:
            self.report(subscriber, event, error)

    def report(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Report a subscriber's failure; a reporter that fails as well changes nothing."""
        with suppress(Exception):
            self.on_failure(subscriber, event, error)

    # pypubsub calls these two, one for every topic of commands, one for every topic of events.

    def _handle(self, message: Command, topic: Any = AUTO_TOPIC) -> None:
        _check_topic(message, topic)
        _, run = self._handlers[type(message)]
        handling = self._thread.handling
        handling.append(message)  # as handling_of, which costs a command a tenth of its time
        try:
            result = run(message)
        finally:
            handling.pop()
        self.on_handled(message)
        self._thread.results.append(result)

    def _tell(self, message: Event, topic: Any = AUTO_TOPIC) -> None:
        _check_topic(message, topic)
        for subscriber in self.subscribers(type(message)):
            self.deliver(subscriber, message)

    def _listen(self, message: type[Message], listener: Callable[..., None]) -> None:
        topics = self._publisher.getTopicMgr()
        topics.getOrCreateTopic(message.topic, _payload)
        self._publisher.subscribe(listener, message.topic)

    def _subscriber(self, handler: Handler, name: str | None) -> Subscriber:
        taken = {s.subscriber.name: s.subscriber for s in self._subscriptions}
        for subscriber in taken.values():
            if subscriber.function == handler and name in (None, subscriber.name):
                return subscriber
        if name is None:
            name = base = _name(handler)
            number = 1
            while name in taken:
                number += 1
                name = f"{base}-{number}"
        elif name in taken:
            raise DuplicateSubscriber(name)
        return Subscriber(name, handler, self._supply(handler))

    def _supply(self, handler: Handler) -> Handler:
        """Bind the dependencies that `handler` names after its first parameter, the message."""
        parameters = list(signature(handler).parameters.values())
        takes_message = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        if not parameters or parameters[0].kind not in (*takes_message, Parameter.VAR_POSITIONAL):
            raise WiringError(f"{_name(handler)} must take the message as its first parameter")
        supplied = {}
        for parameter in parameters[1:]:
            if parameter.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
                continue
            by_name = parameter.kind is not Parameter.POSITIONAL_ONLY
            if by_name and parameter.name in self.dependencies:
                supplied[parameter.name] = self.dependencies[parameter.name]
            elif parameter.default is Parameter.empty:
                raise UnsuppliedParameter(_name(handler), parameter.name, sorted(self.dependencies))
        return partial(handler, **supplied) if supplied else handler


def _payload(message: Message) -> None:
    """Declare for pypubsub what every topic carries: one argument, `message`."""


def _check_topic(message: object, topic: Any) -> None:
    if getattr(message, "topic", None) != topic.getName():
        raise WrongPayload(f"{type(message).__name__} does not belong on {topic.getName()!r}")


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)
