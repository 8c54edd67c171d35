"""What was: orders as they were at a time or at a version, from the log alone."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import reduce
from itertools import takewhile
from typing import NamedTuple

from ..application.store import EVERYTHING, Match, Store
from ..domain.events import OrderEvent
from ..domain.order import OrderState, evolve, is_change
from ..errors import ForbiddenMove, LogDamaged


class Step(NamedTuple):
    """Something that happened to an order, and the version it made."""

    version: int
    event: OrderEvent


def of_order(store: Store, order_id: str) -> list[Step]:
    """Return what happened to the order, oldest first."""
    changes = (event for _, event in _changes(store, Match(order_id=order_id)))
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


def orders_at(store: Store, time: datetime) -> list[OrderState]:
    """Return every order as it was at `time`, newest first.

    Raises:
        LogDamaged: an event cannot follow those before it.
    """
    orders: dict[str, OrderState] = {}
    later: set[str] = set()  # orders whose next event is after `time`: clocks may be set back
    for number, event in _changes(store):
        if event.order_id in later:
            continue
        if event.time > time:
            later.add(event.order_id)
            continue
        try:
            orders[event.order_id] = evolve(orders.get(event.order_id), event)
        except ForbiddenMove as error:
            raise LogDamaged(store.location, number, str(error)) from error
    return [*orders.values()][::-1]


def _changes(store: Store, match: Match = EVERYTHING) -> Iterator[tuple[int, OrderEvent]]:
    for record in store.read(match=match):
        for message in record.messages:
            if isinstance(message, OrderEvent) and is_change(type(message)):
                yield record.number, message
