"""What commands show, as plain values: rows for `list`, `show`, `log` and `topics`."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec

from .bus import MessageBus
from .domain import OrderState
from .history import Step
from .ledger import Account
from .line import Line
from .message import Command, Event, Message, UnknownMessage, name_of
from .subscriptions import Handler, Target, matches
from .times import iso

Row = tuple[str, ...]
Format = Literal["json", "jsonl", "csv"]


def count(number: int, what: str) -> str:
    """Return a number with its noun: ``1 order``, ``2 orders``, ``2 processes``."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{ending}"


def ordinal(number: int) -> str:
    """Return a number's place: ``1st``, ``2nd``, ``11th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 // 10 != 1 else 0, "th")
    return f"{number}{ending}"


def record(order: OrderState) -> Row:
    """Return the order as id, time placed, status, customer, items in JSON."""
    return order.id, iso(order.placed_at), order.status, order.customer or "", as_json(order.items)


def step_row(step: Step) -> Row:
    """Return a step as time, event and what it adds to the order's own facts."""
    added = detail(step.event, without=("time", "order_id", "items", "customer"))
    return iso(step.event.time), name_of(step.event), added


def with_history(order: OrderState, steps: list[Step]) -> dict[str, Any]:
    """Return the order's JSON object with its history."""
    history = [
        {"version": step.version, "event": name_of(step.event), **own_fields(step.event)}
        for step in steps
    ]
    return {**msgspec.to_builtins(order), "history": history}


def log_rows(line: Line[Message]) -> Iterator[Row]:
    """Yield a line of the log as rows: seq, time, what, its id or event's, detail."""
    seq = str(line.seq)
    for message in line.messages:
        yield message_row(line.seq, message)
    for delivery in line.deliveries:
        facts = [delivery.subscriber, delivery.status]
        if delivery.attempts > 1:
            facts.append(f"after {delivery.attempts} attempts")
        if delivery.error:
            facts.append(delivery.error)
        yield seq, iso(line.time), "Delivery", delivery.event, " ".join(facts)


def message_row(seq: int, message: Message) -> Row:
    """Return a message as the number of its line, time, name, id, detail."""
    return str(seq), iso(message.time), name_of(message), message.id, detail(message)


def message_object(seq: int, message: Message) -> dict[str, Any]:
    """Return a message for JSON, as the log has it, with the number of its line."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    if isinstance(message, UnknownMessage):
        fields |= {"type": fields.pop("name"), **fields.pop("fields")}
    return {"seq": seq} | fields | {"seq": seq}  # whatever the fields are called


def last_days(days: Sequence[tuple[date, int]], most: int) -> list[tuple[str, int]]:
    """Return the last days and their numbers, those between that have none included."""
    numbers = {day.toordinal(): number for day, number in days}
    first, last = min(numbers), max(numbers)
    shown = range(max(first, last - most + 1), last + 1)
    return [(str(date.fromordinal(day)), numbers.get(day, 0)) for day in shown]


def delivery_row(account: Account) -> Row:
    """Return a delivery as event, subscriber, status, attempts, time changed, last error."""
    delivery = account.delivery
    attempts = str(delivery.attempts)
    changed = iso(account.changed)
    error = delivery.error or ""
    return delivery.event, delivery.subscriber, delivery.status, attempts, changed, error


def delivery_object(account: Account) -> dict[str, Any]:
    """Return a delivery for JSON."""
    delivery = account.delivery
    return {
        "event": delivery.event,
        "subscriber": delivery.subscriber,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "retries": delivery.retries,
        "error": delivery.error,
        "since": account.since,
        "changed": account.changed,
    }


def wiring(bus: MessageBus, policies: Mapping[Handler, Collection[Target]]) -> Iterator[Row]:
    """Yield topic, message, kind and who handles it with the place in the source, a row each.

    Args:
        bus: knows its handlers and subscribers.
        policies: what reacts to which events besides.
    """
    for message, functions in sorted(bus.wiring(), key=lambda row: issubclass(row[0], Event)):
        handled_by = [*functions]
        if issubclass(message, Event):
            for react, follow in policies.items():
                handled_by += [react] * any(matches(target, message) for target in follow)
        kind = "command" if issubclass(message, Command) else "event"
        names = ", ".join(map(source_of, handled_by)) or "nobody"
        yield str(message.topic), message.__name__, kind, names


def source_of(function: Callable[..., Any]) -> str:
    """Return a function's name with the file and line where it begins."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    place = place_of(function)
    return f"{name} ({place})" if place else name


def place_of(function: Callable[..., Any]) -> str | None:
    """Return the file and line where a function begins, if it has source."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else None


def as_json(value: Any) -> str:
    """Return a value as one line of JSON."""
    return msgspec.json.encode(value).decode()


def json_array(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a JSON array of which each of `lines` is an element."""
    yield "["
    waiting: str | None = None
    for line in lines:
        if waiting is not None:
            yield f" {waiting},"
        waiting = line
    if waiting is not None:
        yield f" {waiting}"
    yield "]"


def own_fields(message: Message) -> dict[str, Any]:
    """Return a message's time and the fields that only its class has."""
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
        f"{name}={as_json(value)}"
        for name, value in own_fields(message).items()
        if name not in without
    )
