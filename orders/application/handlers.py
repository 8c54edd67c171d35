"""What is done about each message: plain functions of a message and named dependencies.

A command's handler may refuse (raise) and may return a value. An event's subscriber hears of it
after it is stored, and may send commands in turn. The two tables at the end are the routing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..domain.commands import CancelOrder, NotifySales, PlaceOrder, RecordBestseller, ShipOrder
from ..domain.events import BestsellerFound, OrderCreated, OrderRejected
from ..domain.order import Order
from ..errors import InvalidOrder, KeyTaken
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event
from .notifications import Notice, Notifier
from .unit_of_work import UnitOfWork


def place_order(command: PlaceOrder, *, uow: UnitOfWork) -> str:
    """Store a new order; return its id, or the first order's if the key was used before."""
    try:
        with uow:
            try:
                order = Order.place(command.items, command.customer, command.key)
            except InvalidOrder as error:
                uow.emit(OrderRejected(reason=str(error)))
                raise
            if order.key is not None and (first := uow.orders.with_key(order.key)):
                return first
            uow.orders.add(order)
            return order.id
    except KeyTaken as taken:  # by another process, between our look and our commit
        return taken.order_id


def ship_order(command: ShipOrder, *, uow: UnitOfWork) -> None:
    """Ship a placed order."""
    with uow:
        uow.orders.get(command.order_id).ship()


def cancel_order(command: CancelOrder, *, uow: UnitOfWork) -> None:
    """Cancel a placed order."""
    with uow:
        uow.orders.get(command.order_id).cancel(command.reason)


def notify_sales(command: NotifySales, *, notifier: Notifier) -> None:
    """Hand the notice to the sales department."""
    notifier.notify(Notice(command.order_id, command.items))


def record_bestseller(command: RecordBestseller, *, uow: UnitOfWork) -> None:
    """Record it as an event; whoever hears of it notifies the sales department."""
    order_id, item, times = command.order_id, command.item, command.times
    with uow:
        uow.emit(BestsellerFound(order_id=order_id, item=item, times=times))


def order_created(event: OrderCreated, *, bus: MessageBus) -> None:
    """Have sales notified of a new order."""
    bus.send(NotifySales(order_id=event.order_id, items=event.items))


def bestseller_found(event: BestsellerFound, *, notifier: Notifier) -> None:
    """Hand the news to the sales department."""
    title = f"Bestseller, ordered {event.times} times"
    notifier.notify(Notice(event.order_id, (event.item,), title))


COMMAND_HANDLERS: Mapping[type[Command], Callable[..., Any]] = {
    PlaceOrder: place_order,
    ShipOrder: ship_order,
    CancelOrder: cancel_order,
    NotifySales: notify_sales,
    RecordBestseller: record_bestseller,
}

EVENT_SUBSCRIBERS: Mapping[type[Event], tuple[Callable[..., Any], ...]] = {
    OrderCreated: (order_created,),
    BestsellerFound: (bestseller_found,),
}
