"""What came of an order: one tree from each command to every effect, read from the log."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from ..application.store import Delivery, Failure, Match, Status, Store
from ..application.unit_of_work import UnitOfWork
from ..domain.text import count, ordinal
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event, Message, UnknownMessage
from ..messaging.subscriptions import Handler
from ..projections.follower import waiting_for
from ..projections.policy import Policy
from .wording import detail, name_of, place_of, source_of


class Traced(Protocol):
    """What a trace needs of an application."""

    store: Store
    bus: MessageBus
    unit_of_work: UnitOfWork

    @property
    def policies(self) -> Mapping[str, Callable[[], Policy]]:
        """What makes each policy, by name."""


Kind = Literal["command", "event", "attempt", "killed", "taken over", "absent"] | Status


Waits = Literal["worker", "recovery", "process"]
"""What a delivery waits for, if it is pending."""


class Node(NamedTuple):
    """A message, a delivery, or one attempt of one; what came of it is below it.

    Attributes:
        name: the message's or the subscriber's.
        id: the message's.
        time: of the message; else when it was recorded.
        text: all there is to say.
        is_well: whether it went as it should.
        children: what came of it.
        kind: what it is, or how the delivery stands.
        began: when it began, where that is known.
        function: who handles it, if that is known to this process.
        note: what a picture says besides all this.
    """

    name: str
    id: str
    time: datetime | None
    text: str
    is_well: bool
    children: list["Node"]
    kind: Kind
    began: datetime | None = None
    function: Handler | None = None
    note: str = ""


class Heard(NamedTuple):
    """What a record of the log says of one delivery."""

    time: datetime
    delivery: Delivery
    process: int | None  # that set out to make it


History = list[Heard]  # what the log says of one delivery, oldest first


def trace(app: Traced, order_id: str) -> list[Node]:
    """Return the tree of every conversation about the order, the oldest first."""
    messages, senders = _conversations(app.store, order_id)
    deliveries = _deliveries(app.store, {m.id for _, m in messages if _is_event(m)})
    pending = list(app.store.pending())
    deferred = {found.delivery.key for found in pending if found.is_deferred}
    abandoned = {found.delivery.key for found in pending if found.is_abandoned} - deferred
    late = [
        (name, make, {event.id for event in waiting_for(app.store, make)})
        for name, make in app.policies.items()
    ]
    roots: list[Node] = []
    seen: dict[str, Node] = {}  # causes come before their effects
    for number, message in messages:
        node, histories = (
            _message_node(app, number, message, order_id),
            deliveries.get(message.id, {}),
        )
        node.children.extend(_left(histories, message.id, abandoned))
        for subscriber, history in histories.items():
            key = (message.id, subscriber)
            waits: Waits = (
                "worker" if key in deferred else "recovery" if key in abandoned else "process"
            )
            node.children.append(_delivery_node(app, subscriber, history, waits))
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


def _conversations(store: Store, order_id: str) -> tuple[list[tuple[int, Message]], dict[str, str]]:
    """Return the messages of each conversation about the order, and by which subscriber sent.

    Each message comes with its record's number.
    """
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
                messages.append((record.number, message))
                if message.causation_id in senders:  # else one of several, in one commit
                    causes[message.id] = senders[message.causation_id]
    return messages, causes


def _deliveries(store: Store, events: Collection[str]) -> dict[str, dict[str, History]]:
    """Return what the log says of these events' deliveries, by event and subscriber."""
    found: dict[str, dict[str, History]] = {}
    for record in store.read(match=Match(events=events)) if events else ():
        for delivery in record.deliveries:
            if delivery.event in events:
                history = found.setdefault(delivery.event, {}).setdefault(delivery.subscriber, [])
                history.append(Heard(record.time, delivery, record.process))
    return found


def _message_node(app: Traced, number: int, message: Message, order_id: str) -> Node:
    text = detail(message, ("time", "order_id") if _order_id(message) == order_id else ("time",))
    if isinstance(message, Command):
        kind: Kind = "command"
        handler, note = next(iter(app.bus.handlers(type(message))), None), ""
    else:
        own = detail(message, ("time", "order_id", "items", "customer", "key"))
        kind, handler, note = "event", None, f"{own}  record {number}".strip()
    if handler is not None:
        text = f"handled by {source_of(handler)} {text}"
    return Node(
        name_of(message), message.id, message.time, text, True, [], kind, None, handler, note
    )


def _delivery_node(app: Traced, subscriber: str, history: History, waits: Waits) -> Node:
    """Return a delivery with each of its attempts, if there is more to say than that it ran."""
    time, last, _ = history[-1]
    what_came = [*_what_came(history, waits == "recovery")]
    state = {
        "done": "ran",
        "failed": f"failed; try orders retry {last.event[:8]}",
        "dead": f"dead letter, given up after retries; try orders retry {last.event[:8]}",
        "pending": _why_pending(app, last, waits),
    }[last.status]
    function = _function(app, subscriber)
    facts = [_source(function), state]
    took = f"{last.seconds * 1000:.1f} ms"
    if last.status == "done":
        facts.append(f"at the {ordinal(last.attempts)} attempt" if last.attempts > 1 else "")
        facts.append(f"in {took}")
    if last.deaths:
        facts.append(f"(taken over from {count(last.deaths, 'process')} that died)")
    is_well = last.status == "done"
    attempts = [node for node in what_came if node.kind == "attempt"]
    if is_well and len(attempts) == 1:
        what_came = [node for node in what_came if node.kind != "attempt"]
    note = state
    if is_well:
        late = "late" if last.deaths else ""
        again = f"{ordinal(last.attempts)} attempt" if last.attempts > 1 else ""
        note = ", ".join(filter(None, (late, again, took)))
    began = None if last.status == "pending" else time - timedelta(seconds=last.seconds)
    text = " ".join(filter(None, facts))
    return Node(subscriber, "", time, text, is_well, what_came, last.status, began, function, note)


def _what_came(history: History, is_abandoned: bool) -> Iterator[Node]:
    """Yield each attempt, each process that died in one, and each that took over."""
    deaths, process = 0, None
    for position, (time, delivery, owner) in enumerate(history):
        if delivery.deaths > deaths:
            if position > 1:  # else it is said of the event
                yield _killed(process, "in the midst of it")
            by = "another process" if owner is None else f"process {owner}"
            yield Node("", "", time, "", False, [], "taken over", time, None, f"taken over by {by}")
        deaths, process = delivery.deaths, owner
        if delivery.status != "pending":
            yield from _attempts(time, delivery)
    if is_abandoned and len(history) > 1:
        yield _killed(process, "in the midst of it")


def _attempts(time: datetime, delivery: Delivery) -> Iterator[Node]:
    runs = [*delivery.failures, Failure(delivery.seconds, delivery.error or "")]
    began = time - timedelta(seconds=sum(run.seconds for run in runs))
    for number, run in enumerate(runs, delivery.attempts - len(delivery.failures)):
        is_well = delivery.status == "done" and run is runs[-1]
        outcome = "ran" if is_well else "failed"
        took = f"{run.seconds * 1000:.1f} ms"
        text = f"{outcome} in {took}{'' if is_well else f': {run.error}'}"
        note = f"{ordinal(number)} attempt, {took}{'' if is_well else f': {run.error}'}"
        yield Node(f"attempt {number}", "", time, text, is_well, [], "attempt", began, None, note)
        began += timedelta(seconds=run.seconds)


def _left(
    histories: Mapping[str, History], event: str, abandoned: Collection[tuple[str, str]]
) -> Iterator[Node]:
    """Yield that the process that stored the event died before it had delivered it to all."""
    left = [
        subscriber
        for subscriber, (_, *later) in histories.items()
        if (later[0].delivery.deaths if later else (event, subscriber) in abandoned)
    ]
    if left:
        yield _killed(
            histories[left[0]][0].process,
            f"{len(left)} deliver{'y' if len(left) == 1 else 'ies'} pending",
        )


def _killed(process: int | None, when: str) -> Node:
    who = "a process" if process is None else f"process {process}"
    return Node("", "", None, "", False, [], "killed", None, None, f"{who} was killed, {when}")


def _absent(app: Traced, message: Message, known: Collection[str]) -> Iterator[Node]:
    """Yield who would hear such an event now, but was not to hear this one."""
    if isinstance(message, Event) and not isinstance(message, UnknownMessage):
        for subscriber in app.bus.subscribers(type(message)):
            name, function = subscriber.name, subscriber.function
            if name not in known:
                why = "did not run: it was not registered when the event was stored"
                text = f"({place_of(function)}) {why}"
                yield Node(name, "", None, text, False, [], "absent", None, function, why)


def _late(name: str, make: Callable[[], Policy]) -> Node:
    function = make().react
    why = "has not run yet; orders checkpoint has it do so"
    text = f"({place_of(function)}) {why}"
    return Node(name, "", None, text, False, [], "pending", None, function, why)


def _why_pending(app: Traced, delivery: Delivery, waits: Waits) -> str:
    if _function(app, delivery.subscriber) is None:
        return "has not run: it waits for a process that has this subscriber"
    by = "a worker" if app.unit_of_work.is_deferring else "orders checkpoint"
    return {
        "worker": "has not run yet: it waits for a worker",
        "recovery": f"has not run: its process died; {by} delivers it",
        "process": "has not run yet: a process is at work on it",
    }[waits]


def _function(app: Traced, subscriber: str) -> Handler | None:
    if (known := app.bus.subscriber(subscriber)) is not None:
        return known.function
    make = app.policies.get(subscriber)
    return None if make is None else make().react


def _source(function: Handler | None) -> str:
    return "(not registered in this process)" if function is None else f"({place_of(function)})"


def _is_event(message: Message) -> bool:
    return isinstance(message, Event | UnknownMessage)


def _order_id(message: Message) -> str | None:
    if isinstance(message, UnknownMessage):
        return message.fields.get("order_id")
    return getattr(message, "order_id", None)
