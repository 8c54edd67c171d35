"""What commands show, as plain values: rows of text, and objects for JSON."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec

from ..application.store import Account, Delivery, Finding, Record
from ..domain.order import OrderState
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event, Message, as_stored, message_classes
from ..messaging.subscriptions import Handler, Target, matches
from ..queries.wording import detail, name_of, own_fields, source_of
from ..tools.json_lines import as_json
from .times import iso

if TYPE_CHECKING:  # a start pays for what it uses
    from ..projections.replay import Replayed
    from ..queries.history import Step
    from ..queries.trace import Node

Row = tuple[str, ...]


def order_row(order: OrderState) -> Row:
    """Return the order as id, time placed, status, customer, items in JSON."""
    return order.id, iso(order.placed_at), order.status, order.customer or "", as_json(order.items)


def step_row(step: "Step") -> Row:
    """Return a step as time, event and what it adds to the order's own facts."""
    added = detail(step.event, without=("time", "order_id", "items", "customer"))
    return iso(step.event.time), name_of(step.event), added


def with_history(order: OrderState, steps: "Iterable[Step]") -> dict[str, Any]:
    """Return the order's JSON object with its history."""
    history = [
        {"version": step.state.version, "event": name_of(step.event), **own_fields(step.event)}
        for step in steps
    ]
    return {**msgspec.to_builtins(order), "history": history}


def record_rows(record: Record) -> Iterator[Row]:
    """Yield a record of the log as rows: number, time, what, its id or its event's, detail."""
    number = str(record.number)
    for message in record.messages:
        yield number, iso(message.time), name_of(message), message.id, detail(message)
    for delivery in record.deliveries:
        yield number, iso(record.time), "Delivery", delivery.event, outcome(delivery)


def record_object(record: Record) -> dict[str, Any]:
    """Return a record of the log for JSON."""
    return {
        "seq": record.number,
        "time": record.time,
        "messages": list(map(_message_object, record.messages)),
        "deliveries": list(map(_delivery_object, record.deliveries)),
    }


def feed_objects(record: Record) -> Iterator[dict[str, Any]]:
    """Yield each message and delivery of a record for JSON, with the record's number."""
    number = record.number
    for message in record.messages:  # first in the object, whatever the message's fields are called
        yield {"seq": number} | _message_object(message) | {"seq": number}
    for delivery in record.deliveries:
        yield {"seq": number, "time": record.time, "delivery": _delivery_object(delivery)}


def request_row(topic: str, answer: Mapping[str, Any]) -> Row:
    """Return a request as its id, what was asked for, the order's id, and its status or why not."""
    order = answer.get("order", {})
    said = order.get("status") or answer["error"]
    return answer["request"] or "", topic, order.get("id", ""), said


def outcome(delivery: Delivery) -> str:
    """Return to whom it was, and what came of it."""
    facts = [delivery.subscriber, delivery.status]
    if delivery.attempts > 1:
        facts.append(f"after {delivery.attempts} attempts")
    if delivery.error:
        facts.append(delivery.error)
    return " ".join(facts)


def account_row(account: Account) -> Row:
    """Return a delivery as event, subscriber, status, attempts, time changed, last error."""
    delivery = account.delivery
    attempts, changed = str(delivery.attempts), iso(account.changed)
    error = delivery.error or ""
    return delivery.event, delivery.subscriber, delivery.status, attempts, changed, error


def account_object(account: Account) -> dict[str, Any]:
    """Return a delivery for JSON, with the times at which it was first and last heard of."""
    times = {"since": account.since, "changed": account.changed}
    return _delivery_object(account.delivery) | times


def finding_row(finding: Finding) -> Row:
    """Return what the doctor found as state, subject, finding, and the command that cures it."""
    state = "NOT WELL" if finding.state == "bad" else finding.state
    return state, finding.subject, finding.text, finding.cure


def trace_rows(nodes: Iterable["Node"], depth: int = 0) -> Iterator[Row]:
    """Yield the nodes of a tree and what is below them: depth, name, id, time, text."""
    for node in nodes:
        if node.kind in {"killed", "taken over"}:  # the delivery says how often that was
            continue
        time = iso(node.time) if node.time else ""
        yield str(depth), node.name, node.id, time, node.text
        yield from trace_rows(node.children, depth + 1)


def replay_rows(replayed: "Replayed") -> Iterator[Row]:
    """Yield what a replay found: projection, verdict; then each difference."""
    yield replayed.name, "not kept" if replayed.found == "nothing" else replayed.found, ""
    for table, key, kept, rebuilt in replayed.differences:
        change = f"kept {_entry(kept)}, the log says {_entry(rebuilt)}"
        yield replayed.name, f"{table} {as_json(key)}", change


def last_days(days: Sequence[tuple[date, int]], most: int) -> list[tuple[str, int]]:
    """Return the last days and their numbers, those between that have none included."""
    numbers = {day.toordinal(): number for day, number in days}
    first, last = min(numbers), max(numbers)
    shown = range(max(first, last - most + 1), last + 1)
    return [(str(date.fromordinal(day)), numbers.get(day, 0)) for day in shown]


def wiring(bus: MessageBus, policies: Mapping[Handler, Collection[Target]]) -> Iterator[Row]:
    """Yield topic, message, kind and who handles it with the place in the source, a row each.

    Args:
        bus: knows its handlers and subscribers.
        policies: what reacts to which events besides.
    """
    for message in sorted(message_classes().values(), key=lambda kind: issubclass(kind, Event)):
        handled_by = bus.handlers(message)
        if issubclass(message, Event):
            for react, follow in policies.items():
                handled_by += [react] * any(matches(target, message) for target in follow)
        kind = "command" if issubclass(message, Command) else "event"
        names = ", ".join(map(source_of, handled_by)) or "nobody"
        yield str(message.topic), message.__name__, kind, names


def _message_object(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(as_stored(message))
    return fields


def _delivery_object(delivery: Delivery) -> dict[str, Any]:
    return {
        "event": delivery.event,
        "subscriber": delivery.subscriber,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "retries": delivery.retries,
        "error": delivery.error,
    }


def _entry(value: Any) -> str:
    return "nothing" if value is None else as_json(value)
