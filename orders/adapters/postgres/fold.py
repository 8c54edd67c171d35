"""The orders, as the fold of the log's records."""

from collections.abc import Iterable
from typing import NamedTuple

from ...application.store import Record
from ...domain.events import OrderCreated, OrderEvent
from ...domain.order import OrderState, evolve, is_change
from ...errors import LogDamaged, OrdersError


class Folded(NamedTuple):
    """An order as the log makes it.

    Attributes:
        state: the order.
        key: that it was placed with.
        record: of the log where it was placed; None where that is not among those folded.
    """

    state: OrderState
    key: str | None
    record: Record | None


def fold(
    records: Iterable[Record], location: str, orders: dict[str, Folded] | None = None
) -> dict[str, Folded]:
    """Return the orders by id, in the order in which they were placed.

    Args:
        records: of the log, in order.
        location: of the store, for errors.
        orders: as the records before these have left them.

    Raises:
        LogDamaged: an event cannot follow those before it.
    """
    orders = {} if orders is None else orders
    for record in records:
        for message in record.messages:
            if isinstance(message, OrderEvent) and is_change(type(message)):
                known = orders.get(message.order_id)
                try:
                    state = evolve(known.state if known else None, message)
                except (OrdersError, ValueError) as error:
                    raise LogDamaged(location, record.number, str(error)) from error
                key = message.key if isinstance(message, OrderCreated) else None
                orders[state.id] = (known or Folded(state, key, record))._replace(state=state)
        for state in record.states:
            known = orders.get(state.id)
            orders[state.id] = (known or Folded(state, None, record))._replace(state=state)
    return orders
