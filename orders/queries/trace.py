"""What came of an order: one tree from each command to every effect, read from the log."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from ..application.store import Delivery, Match, Store
from ..domain.text import count, ordinal
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event, Message, UnknownMessage, detail, name_of
from ..messaging.subscriptions import place_of, source_of
from ..projections.follower import waiting_for
from ..projections.policy import Policy


class Traced(Protocol):
    """What a trace needs of an application."""

    store: Store
    bus: MessageBus

    @property
    def policies(self) -> Mapping[str, Callable[[], Policy]]:
        """What makes each policy, by name."""


class Node(NamedTuple):
    """A message, a delivery, or one attempt of one; what came of it is below it."""

    name: str
    id: str
    time: datetime | None
    text: str
    is_well: bool
    children: list["Node"]


History = list[tuple[datetime, Delivery]]  # what the log says of one delivery, oldest first


def trace(app: Traced, order_id: str) -> list[Node]:
    """Return the tree of every conversation about the order, the oldest first."""
    messages, senders = _conversations(app.store, order_id)
    deliveries = _deliveries(app.store, {m.id for m in messages if _is_event(m)})
    abandoned = {found.delivery.key for found in app.store.pending() if found.is_abandoned}
    late = [
        (name, make, {event.id for event in waiting_for(app.store, make)})
        for name, make in app.policies.items()
    ]
    roots: list[Node] = []
    seen: dict[str, Node] = {}  # causes come before their effects
    for message in messages:
        node, histories = _message_node(app, message, order_id), deliveries.get(message.id, {})
        for subscriber, history in histories.items():
            is_abandoned = (message.id, subscriber) in abandoned
            node.children.append(_delivery_node(app, subscriber, history, is_abandoned))
        node.children.extend(_absent(app, message, histories))
        node.children.extend(_late(name, make) for name, make, ids in late if message.id in ids)
        if (cause := seen.get(message.causation_id or "")) is None:
            roots.append(node)
        else:
            sender = (senders.get(message.id), "")
            below = [child for child in cause.children if (child.name, child.id) == sender]
            (below[0] if below else cause).children.append(node)
        seen.setdefault(message.id, node)
    return roots


def _conversations(store: Store, order_id: str) -> tuple[list[Message], dict[str, str]]:
    """Return the messages of each conversation about the order, and by which subscriber sent."""
    about = {
        message.correlation_id
        for record in store.read(match=Match(order_id=order_id))
        for message in record.messages
        if _order_id(message) == order_id
    }
    messages, causes = [], {}
    for record in store.read(match=Match(conversations=about)) if about else ():
        ran = Counter(d.event for d in record.deliveries if d.status != "pending")
        senders = {d.event: d.subscriber for d in record.deliveries if ran[d.event] == 1}
        for message in record.messages:
            if message.correlation_id in about:
                messages.append(message)
                if message.causation_id in senders:  # else one of several, in one commit
                    causes[message.id] = senders[message.causation_id]
    return messages, causes


def _deliveries(store: Store, events: Collection[str]) -> dict[str, dict[str, History]]:
    """Return what the log says of these events' deliveries, by event and subscriber."""
    found: dict[str, dict[str, History]] = {}
    for record in store.read(match=Match(events=events)) if events else ():
        for delivery in record.deliveries:
            if delivery.event in events:
                by_subscriber = found.setdefault(delivery.event, {})
                by_subscriber.setdefault(delivery.subscriber, []).append((record.time, delivery))
    return found


def _message_node(app: Traced, message: Message, order_id: str) -> Node:
    text = detail(message, ("time", "order_id") if _order_id(message) == order_id else ("time",))
    if isinstance(message, Command) and (handler := app.bus.handler(type(message))) is not None:
        text = f"handled by {source_of(handler)} {text}"
    return Node(name_of(message), message.id, message.time, text, True, [])


def _delivery_node(app: Traced, subscriber: str, history: History, is_abandoned: bool) -> Node:
    """Return a delivery with each of its attempts, if there is more to say than that it ran."""
    time, last = history[-1]
    attempts = [*_attempts(history)]
    state = {
        "done": "ran",
        "failed": f"failed; try orders retry {last.event[:8]}",
        "dead": f"dead letter, given up after retries; try orders retry {last.event[:8]}",
        "pending": _why_pending(app, last, is_abandoned),
    }[last.status]
    facts = [_source(app, subscriber), state]
    if last.status == "done":
        facts.append(f"at the {ordinal(last.attempts)} attempt" if last.attempts > 1 else "")
        facts.append(f"in {last.seconds * 1000:.1f} ms")
    if last.deaths:
        facts.append(f"(taken over from {count(last.deaths, 'process')} that died)")
    is_plain = len(attempts) == 1 and last.status == "done"
    text = " ".join(filter(None, facts))
    is_well = last.status == "done"
    return Node(subscriber, "", time, text, is_well, [] if is_plain else attempts)


def _attempts(history: History) -> Iterator[Node]:
    for time, delivery in history:
        if delivery.status == "pending":
            continue
        number = delivery.attempts - len(delivery.failures)
        for failure in delivery.failures:
            yield _attempt(number, time, failure.seconds, failure.error)
            number += 1
        yield _attempt(number, time, delivery.seconds, delivery.error)


def _attempt(number: int, time: datetime, seconds: float, error: str | None) -> Node:
    outcome = "ran" if error is None else "failed"
    text = f"{outcome} in {seconds * 1000:.1f} ms{'' if error is None else f': {error}'}"
    return Node(f"attempt {number}", "", time, text, error is None, [])


def _absent(app: Traced, message: Message, known: Collection[str]) -> Iterator[Node]:
    """Yield who would hear such an event now, but was not to hear this one."""
    if isinstance(message, Event) and not isinstance(message, UnknownMessage):
        for subscriber in app.bus.subscribers(type(message)):
            if subscriber.name not in known:
                why = "did not run: it was not registered when the event was stored"
                text = f"({place_of(subscriber.function)}) {why}"
                yield Node(subscriber.name, "", None, text, False, [])


def _late(name: str, make: Callable[[], Policy]) -> Node:
    text = f"({place_of(make().react)}) has not run yet; orders checkpoint has it do so"
    return Node(name, "", None, text, False, [])


def _why_pending(app: Traced, delivery: Delivery, is_abandoned: bool) -> str:
    subscriber = delivery.subscriber
    if app.bus.subscriber(subscriber) is None and subscriber not in app.policies:
        return "has not run: it waits for a process that has this subscriber"
    if is_abandoned:
        return "has not run: its process died; orders checkpoint delivers it"
    return "has not run yet: a process is at work on it"


def _source(app: Traced, subscriber: str) -> str:
    if (known := app.bus.subscriber(subscriber)) is not None:
        return f"({place_of(known.function)})"
    if (make := app.policies.get(subscriber)) is not None:
        return f"({place_of(make().react)})"
    return "(not registered in this process)"


def _is_event(message: Message) -> bool:
    return isinstance(message, Event | UnknownMessage)


def _order_id(message: Message) -> str | None:
    if isinstance(message, UnknownMessage):
        return message.fields.get("order_id")
    return getattr(message, "order_id", None)
