"""The message bus: who hears what. The only module that talks to pypubsub.

Each bus owns a private pypubsub `Publisher` on which every topic is declared with its
payload, so a mistyped topic or a wrong payload raises instead of vanishing. pypubsub keeps
its listeners weakly and stops at the first that raises; so the bus itself is the one
listener of each topic, keeps handlers strongly, and isolates subscribers from each other.

What is being handled and what waits to be published are context variables, so that threads
and asyncio tasks do not see each other's.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from inspect import Parameter, signature
from threading import Lock
from types import GeneratorType
from typing import Any

from pubsub.core import Publisher, Topic

from ..errors import (
    DuplicateHandler,
    DuplicateSubscriber,
    NoHandler,
    UnsuppliedParameter,
    WiringError,
    WrongPayload,
)
from .message import Command, Event, Message
from .subscriptions import (
    Handler,
    Subscriber,
    Subscription,
    Target,
    check_synchronous,
    check_target,
    display_name,
    log_failure,
    matches,
    stable_name,
)


class _Queue(deque[Event]):
    """Events that wait for their turn, while somebody is publishing."""

    is_open = True


class MessageBus:
    """Routes commands to their handler and events to their subscribers, by topic.

    Args:
        dependencies: what handlers may ask for, by parameter name.
        on_failure: called with (subscriber, event, error) when a subscriber raises.

    Attributes:
        deliver: runs one subscriber with the event that is being handled. An application
            replaces it to record deliveries and retry them.
        on_handled: called with each command that its handler has completed.
        on_refused: called with each command that its handler has not.
        on_published: called when all that waited has been published.
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
        self.on_refused: Callable[[Command], None] = lambda _command: None
        self.on_published: Callable[[], None] = lambda: None
        self._publisher = Publisher()
        self._publisher.setTopicUnspecifiedFatal()
        self._topics: dict[type[Message], Topic] = {}  # those that are listened to
        self._handlers: dict[type[Command], tuple[Handler, Handler]] = {}
        self._subscriptions: list[Subscription] = []
        self._heard: dict[type[Event], tuple[Subscriber, ...]] = {}
        self._lock = Lock()
        self._handling: ContextVar[Message | None] = ContextVar("handling", default=None)
        self._queue: ContextVar[_Queue | None] = ContextVar("queue", default=None)

    def register(self, command: type[Command], handler: Handler) -> None:
        """Let `handler` handle `command`; it is called with the message and its dependencies.

        Raises:
            WrongPayload: `command` is not a command with a topic.
            DuplicateHandler: the command has a handler already.
            UnsuppliedParameter: the handler asks for something that nothing supplies.
            WiringError: the handler cannot be called, is asynchronous or a generator.
        """
        if not (isinstance(command, type) and issubclass(command, Command) and command.topic):
            raise WrongPayload(f"{command!r} is no command with a topic; only those are handled")
        if command in self._handlers:
            first, _ = self._handlers[command]
            raise DuplicateHandler(command, display_name(first), display_name(handler))
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
        subscriptions match runs once an event. Deliveries are recorded under `name`; a function
        of a module or a class has one of its own, a lambda or a local function must be given one.

        Raises:
            UnknownTopic: no event has this topic, or none that the glob matches.
            WrongPayload: `target` is neither a topic nor a class of events.
            DuplicateSubscriber: another handler goes by this name.
            UnsuppliedParameter: the handler asks for something that nothing supplies.
            WiringError: the name is not stable or not printable, the priority is no number, or
                the handler cannot be called, is asynchronous or a generator.
        """
        check_target(target)
        if not isinstance(priority, int):
            raise WiringError(f"{priority!r} is no priority", "give a whole number")
        with self._lock:  # or another thread could keep what it found before
            subscriber = self._subscriber(handler, name)
            self._subscriptions.append(Subscription(target, subscriber, priority))
            self._heard.clear()
        return subscriber

    def unsubscribe(self, name: str) -> None:
        """Leave out the subscriber of this name, or do nothing where there is none."""
        with self._lock:
            self._subscriptions = [s for s in self._subscriptions if s.subscriber.name != name]
            self._heard.clear()

    def send(self, command: Command) -> Any:
        """Hand `command` to its handler; return what it returns, raise what it raises.

        Raises:
            NoHandler: nothing handles this command.
            WrongPayload: `command` is not a command.
        """
        if not isinstance(command, Command):
            raise WrongPayload(f"{type(command).__name__} is no command", "send commands only")
        if type(command) not in self._handlers:
            raise NoHandler(type(command))
        reply: list[Any] = []
        message = command.caused_by(self._handling.get())
        self._topics[type(command)].publish(message=message, reply=reply)
        return reply.pop()

    def publish(self, *events: Event) -> None:
        """Run each event's subscribers, now; what they raise in turn waits for its turn.

        This records nothing: emit through a unit of work what must not be lost.

        Raises:
            WrongPayload: one of `events` is not an event with a topic.
        """
        for event in events:
            if not isinstance(event, Event) or event.topic is None:
                raise WrongPayload(f"{type(event).__name__} is no event with a topic")
        cause = self._handling.get()
        stamped = [event.caused_by(cause) for event in events]
        queue = self._queue.get()
        if queue is not None and queue.is_open:
            queue.extend(stamped)
            return
        queue = _Queue(stamped)
        token = self._queue.set(queue)
        try:
            while queue:
                event = queue.popleft()
                if self.subscribers(type(event)):
                    self._topics[type(event)].publish(message=event)
        finally:
            queue.is_open = False  # a task that has inherited it publishes by itself
            self._queue.reset(token)
        self.on_published()

    @property
    def handling(self) -> Message | None:
        """The message that is being handled here, or None."""
        return self._handling.get()

    def subscribers(self, event: type[Event]) -> tuple[Subscriber, ...]:
        """Return who hears events of this class, in the order in which they run."""
        if (heard := self._heard.get(event)) is not None:
            return heard
        with self._lock:  # pypubsub's making of topics is not for several threads
            matching = [s for s in self._subscriptions if matches(s.target, event)]
            matching.sort(key=lambda subscription: subscription.priority)
            heard = tuple({s.subscriber.name: s.subscriber for s in matching}.values())
            if heard:
                self._listen(event, self._publish)
            self._heard[event] = heard
        return heard

    def handlers(self, message: type[Message]) -> list[Handler]:
        """Return the functions that messages of this class are given to, in order."""
        if issubclass(message, Event):
            return [subscriber.function for subscriber in self.subscribers(message)]
        return [handler for kind, (handler, _) in self._handlers.items() if kind is message]

    def subscriber(self, name: str) -> Subscriber | None:
        """Return the subscriber of this name, or None."""
        known = (subscription.subscriber for subscription in self._subscriptions)
        return next((subscriber for subscriber in known if subscriber.name == name), None)

    @contextmanager
    def handling_of(self, message: Message) -> Iterator[None]:
        """Make `message` the cause of what is sent and emitted meanwhile."""
        token = self._handling.set(message)
        try:
            yield
        finally:
            self._handling.reset(token)

    def run_isolated(self, subscriber: Subscriber, event: Event) -> None:
        """Run `subscriber` with `event`; report whatever it raises but Ctrl-C."""
        try:
            subscriber.run(event)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - subscribers are strangers
            self.report(subscriber, event, error)

    def report(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Report a subscriber's failure; a reporter that fails as well changes nothing."""
        with suppress(Exception):
            self.on_failure(subscriber, event, error)

    # pypubsub calls these two, one for every topic of commands, one for every topic of events;
    # their parameters are the payload that it lets a topic carry.

    def _handle(self, message: Command, reply: list[Any]) -> None:
        _, run = self._handlers[type(message)]
        token = self._handling.set(message)  # `handling_of` takes three times as long
        try:
            result = run(message)
            self.on_handled(message)
        except BaseException:
            self.on_refused(message)
            raise
        finally:
            self._handling.reset(token)
        reply.append(result)

    def _publish(self, message: Event) -> None:
        token = self._handling.set(message)
        try:
            for subscriber in self.subscribers(type(message)):
                self.deliver(subscriber, message)
        finally:
            self._handling.reset(token)

    def _listen(self, message: type[Message], listener: Callable[..., None]) -> None:
        topic = self._publisher.getTopicMgr().getOrCreateTopic(message.topic, listener)
        self._publisher.subscribe(listener, message.topic)
        self._topics[message] = topic

    def _subscriber(self, handler: Handler, name: str | None) -> Subscriber:
        known = {s.subscriber.name: s.subscriber for s in self._subscriptions}
        same = (subscriber for subscriber in known.values() if subscriber.function == handler)
        if name is None and (subscriber := next(same, None)) is not None:
            return subscriber
        name = stable_name(handler, name)
        if name not in known:
            return Subscriber(name, handler, self._supply(handler))
        if known[name].function != handler:
            raise DuplicateSubscriber(name)
        return known[name]

    def _supply(self, handler: Handler) -> Handler:
        """Bind the dependencies that `handler` names after its first parameter, the message."""
        check_synchronous(handler)
        name = display_name(handler)
        try:
            parameters = list(signature(handler).parameters.values())
        except (TypeError, ValueError) as error:
            raise WiringError(f"{handler!r} cannot be a handler: {error}") from error
        takes_message = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        if not parameters or parameters[0].kind not in (*takes_message, Parameter.VAR_POSITIONAL):
            raise WiringError(f"{name} must take the message as its first parameter")
        supplied = {}
        for parameter in parameters[1:]:
            if parameter.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
                continue
            by_name = parameter.kind is not Parameter.POSITIONAL_ONLY
            if by_name and parameter.name in self.dependencies:
                supplied[parameter.name] = self.dependencies[parameter.name]
            elif parameter.default is Parameter.empty:
                raise UnsuppliedParameter(name, parameter.name, sorted(self.dependencies))

        def run(message: Message) -> Any:
            result = handler(message, **supplied)
            if isinstance(result, GeneratorType) or hasattr(result, "__await__"):
                getattr(result, "close", lambda: None)()  # or Python warns that nobody awaited it
                raise WiringError(f"{name} returned {result!r}, which nobody runs", "do the work")
            return result

        return run
