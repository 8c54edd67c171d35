"""What came of an order: one tree from each command to every effect, read from the log."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from .bootstrap import App
from .event_log import EventLog
from .followers import owed_by
from .ledger import Delivery
from .line import as_written
from .message import Command, Event, Message, UnknownMessage, name_of
from .policies import POLICIES, Policy
from .times import iso
from .views import Row, count, detail, ordinal, place_of, source_of


class Node(NamedTuple):
    """A message, a delivery, or one attempt of one; what came of it is below it."""

    name: str
    id: str
    time: datetime | None
    text: str
    is_well: bool
    children: list["Node"]


class _Record(NamedTuple):
    """What a line of the log says of a delivery."""

    time: datetime
    delivery: Delivery
    owner: str | None


def trace(app: App, order_id: str) -> list[Node]:
    """Return the tree of every conversation about the order, the oldest first."""
    messages, senders = _conversations(app.log, order_id)
    records = _deliveries(app.log, {m.id for m in messages if _is_event(m)})
    late = [(policy, {event.id for event in owed_by(app, policy)}) for policy in POLICIES]
    roots: list[Node] = []
    seen: dict[str, Node] = {}  # causes come before their effects
    for message in messages:
        node, owed = _message_node(app, message, order_id), records.get(message.id, {})
        for subscriber, history in owed.items():
            node.children.append(_delivery_node(app, subscriber, history))
        node.children.extend(_absent(app, message, owed))
        node.children.extend(_late(policy) for policy, ids in late if message.id in ids)
        if (cause := seen.get(message.causation_id or "")) is None:
            roots.append(node)
        else:
            sender = (senders.get(message.id), "")
            below = [child for child in cause.children if (child.name, child.id) == sender]
            (below[0] if below else cause).children.append(node)
        seen.setdefault(message.id, node)
    return roots


def rows(nodes: Iterable[Node], depth: int = 0) -> Iterator[Row]:
    """Yield the nodes of a tree and what is below them: depth, name, id, time, text."""
    for node in nodes:
        time = iso(node.time) if node.time else ""
        yield str(depth), node.name, node.id, time, node.text
        yield from rows(node.children, depth + 1)


def _conversations(log: EventLog, order_id: str) -> tuple[list[Message], dict[str, str]]:
    """Return the messages of each conversation about the order, and by which subscriber sent."""
    about = {
        message.correlation_id
        for entry in log.read(containing=[as_written(order_id)])
        for message in entry.line.messages
        if _order_id(message) == order_id
    }
    messages, causes = [], {}
    for entry in log.read(containing=[as_written(conversation) for conversation in about]):
        ran = Counter(d.event for d in entry.line.deliveries if d.status != "pending")
        senders = {d.event: d.subscriber for d in entry.line.deliveries if ran[d.event] == 1}
        for message in entry.line.messages:
            if message.correlation_id in about:
                messages.append(message)
                if message.causation_id in senders:  # else one of several, in one commit
                    causes[message.id] = senders[message.causation_id]
    return messages, causes


def _deliveries(log: EventLog, events: Collection[str]) -> dict[str, dict[str, list[_Record]]]:
    """Return what the log says of these events' deliveries, by event and subscriber."""
    found: dict[str, dict[str, list[_Record]]] = {}
    if not events:
        return found
    for entry in log.read(containing=[as_written(event) for event in events]):
        for delivery in entry.line.deliveries:
            if delivery.event in events:
                record = _Record(entry.line.time, delivery, entry.line.owner)
                by_subscriber = found.setdefault(delivery.event, {})
                by_subscriber.setdefault(delivery.subscriber, []).append(record)
    return found


def _message_node(app: App, message: Message, order_id: str) -> Node:
    text = detail(message, ("time", "order_id") if _order_id(message) == order_id else ("time",))
    if isinstance(message, Command) and (handler := app.bus.handler(type(message))) is not None:
        text = f"handled by {source_of(handler)} {text}"
    return Node(name_of(message), message.id, message.time, text, True, [])


def _delivery_node(app: App, subscriber: str, history: list[_Record]) -> Node:
    """Return a delivery with each of its attempts, if there is more to say than that it ran."""
    last = history[-1].delivery
    attempts = [*_attempts(history)]
    state = {
        "done": "ran",
        "failed": f"failed; try orders retry {last.event[:8]}",
        "dead": f"dead letter, given up after retries; try orders retry {last.event[:8]}",
        "pending": _why_pending(app, subscriber, history[-1]),
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
    return Node(subscriber, "", history[-1].time, text, is_well, [] if is_plain else attempts)


def _attempts(history: list[_Record]) -> Iterator[Node]:
    for time, delivery, _ in history:
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


def _absent(app: App, message: Message, owed: Collection[str]) -> Iterator[Node]:
    """Yield who would hear such an event now, but was not owed this one."""
    if isinstance(message, Event) and not isinstance(message, UnknownMessage):
        for name, function, _ in app.bus.subscribers(type(message)):
            if name not in owed:
                why = "did not run: it was not registered when the event was stored"
                yield Node(name, "", None, f"({place_of(function)}) {why}", False, [])


def _late(policy: type[Policy]) -> Node:
    text = f"({place_of(policy.react)}) has not run yet; orders checkpoint has it do so"
    return Node(policy.name, "", None, text, False, [])


def _why_pending(app: App, subscriber: str, record: _Record) -> str:
    if app.bus.subscriber(subscriber) is None:
        return "has not run"
    if app.leases.is_alive(record.owner):
        return "has not run yet: a process is at work on it"
    return "has not run: its process died; orders checkpoint delivers it"


def _source(app: App, subscriber: str) -> str:
    policies = {policy.name: policy.react for policy in POLICIES}
    known = app.bus.subscriber(subscriber)
    function = known.function if known else policies.get(subscriber)
    return f"({place_of(function)})" if function else "(not registered in this process)"


def _is_event(message: Message) -> bool:
    return isinstance(message, Event | UnknownMessage)


def _order_id(message: Message) -> str | None:
    if isinstance(message, UnknownMessage):
        return message.fields.get("order_id")
    return getattr(message, "order_id", None)
