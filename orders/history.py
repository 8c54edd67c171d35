"""What was: orders as they were at a time or at a version, from the log alone."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import reduce
from itertools import takewhile
from typing import NamedTuple

from .domain import CHANGES, OrderState, evolve
from .errors import LogDamaged
from .event_log import EventLog
from .events import OrderEvent
from .line import as_written


class Step(NamedTuple):
    """Something that happened to an order, and the version it made."""

    version: int
    event: OrderEvent


def of_order(log: EventLog, order_id: str) -> list[Step]:
    """Return what happened to the order, oldest first."""
    changes = (event for _, event in _changes(log, as_written(order_id)))
    own = (event for event in changes if event.order_id == order_id)
    return [Step(version, event) for version, event in enumerate(own, start=1)]


def until(steps: Iterable[Step], time: datetime) -> list[Step]:
    """Return the steps up to the first one after `time`."""
    return list(takewhile(lambda step: step.event.time <= time, steps))


def fold(steps: Iterable[Step]) -> OrderState:
    """Return the order that the steps make.

    Raises:
        ValueError: there are none.
    """
    first, *later = steps
    return reduce(lambda state, step: evolve(state, step.event), later, evolve(None, first.event))


def orders_at(log: EventLog, time: datetime) -> list[OrderState]:
    """Return every order as it was at `time`, newest first.

    Raises:
        LogDamaged: an event cannot follow those before it.
    """
    orders: dict[str, OrderState] = {}
    later: set[str] = set()  # orders whose next event is after `time`: clocks may be set back
    for seq, event in _changes(log):
        if event.order_id in later:
            continue
        if event.time > time:
            later.add(event.order_id)
            continue
        try:
            orders[event.order_id] = evolve(orders.get(event.order_id), event)
        except ValueError as error:
            raise LogDamaged(log.path, seq, str(error)) from error
    return [*orders.values()][::-1]


def _changes(log: EventLog, *containing: bytes) -> Iterator[tuple[int, OrderEvent]]:
    for entry in log.read(containing=containing):
        for message in entry.line.messages:
            if isinstance(message, CHANGES):
                yield entry.line.seq, message
