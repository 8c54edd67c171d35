"""What was: orders as they were at a time or at a version, from the log alone."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from ..application.store import EVERYTHING, Match, Record, Store
from ..domain.events import OrderEvent
from ..domain.order import OrderState, evolve, is_change
from ..errors import ForbiddenMove, LogDamaged
from ..messaging.message import Message, UnknownMessage


class Step(NamedTuple):
    """Something that happened to an order, and the order as it was then."""

    event: Message  # of a plugin that is not loaded: an UnknownMessage
    state: OrderState


def of_order(store: Store, order_id: str) -> list[Step]:
    """Return what happened to the order, oldest first."""
    return list(_steps(store, order_id))


def until(steps: Iterable[Step], time: datetime) -> list[Step]:
    """Return the steps up to the first one after `time`."""
    return list(takewhile(lambda step: step.event.time <= time, steps))


def orders_at(store: Store, time: datetime) -> list[OrderState]:
    """Return every order as it was at `time`, newest first.

    Raises:
        LogDamaged: an event cannot follow those before it.
    """
    orders: dict[str, OrderState] = {}
    later: set[str] = set()  # orders whose next event is after `time`: clocks may be set back
    for event, state in _steps(store):
        if event.time > time:
            later.add(state.id)
        elif state.id not in later:
            orders[state.id] = state
    return [*orders.values()][::-1]


def _steps(store: Store, order_id: str | None = None) -> Iterator[Step]:
    """Yield what happened to an order, or to all: of the others not every record is read."""
    states: dict[str, OrderState] = {}
    for record in store.read(match=EVERYTHING if order_id is None else Match(order_id=order_id)):
        left = {state.id: state for state in record.states if order_id in {None, state.id}}
        unknown = {
            str(m.fields.get("order_id")): m
            for m in record.messages
            if isinstance(m, UnknownMessage)
        }
        for message in record.messages:
            if (
                isinstance(message, OrderEvent)
                and is_change(type(message))
                and order_id in {None, message.order_id}
            ):
                state = _evolved(store, record, states.get(message.order_id), message)
                states[state.id] = state
                yield Step(message, state)
        for known in unknown.keys() & left.keys():  # of each its last: the event, no command
            yield Step(unknown[known], left[known])
        states |= left


def _evolved(
    store: Store, record: Record, state: OrderState | None, event: OrderEvent
) -> OrderState:
    try:
        return evolve(state, event)
    except ForbiddenMove as error:
        raise LogDamaged(store.location, record.number, str(error)) from error
