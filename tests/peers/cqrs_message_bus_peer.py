"""The `cqrs-message-bus` package, with TinyDB as the store.

Durability: the package stores nothing itself; its unit of work holds events back until the
block has ended, and TinyDB has stored the order in it by then. TinyDB writes the whole file
anew for every order, in place, and calls fsync; a crash in the middle of that leaves half a
file. Events live in memory: a crash before a follower has run loses the notice.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mb import Command, Event, MessageBus, UnitOfWork
from tinydb import TinyDB
from workload import check_sold, nowhere, placements, print_notice

FILE = "orders.json"


@dataclass(frozen=True)
class PlaceOrder(Command):
    """Place an order."""

    items: list[str]


@dataclass(frozen=True)
class OrderCreated(Event):
    """An order was placed."""

    order_id: str
    items: list[str]


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    done = 0
    sold: Counter[str] = Counter()

    def place_order(command: PlaceOrder, uow: UnitOfWork) -> str:
        order_id = str(uuid4())
        with uow:
            database.insert({"id": order_id, "items": command.items})
            uow.emit_event(OrderCreated(order_id, command.items))
        return order_id

    def count_items(event: OrderCreated) -> None:
        sold.update(event.items)

    def notify_sales(event: OrderCreated) -> None:
        print_notice(event.order_id, event.items, stream)

    bus = MessageBus()
    bus.subscribe_command(PlaceOrder, place_order)
    bus.subscribe_event(OrderCreated, count_items)
    bus.subscribe_event(OrderCreated, notify_sales)
    with nowhere() as stream, TinyDB(directory / FILE) as database:
        uow = UnitOfWork(bus)
        for items in placements(orders, deadline):
            uow.handle_command(PlaceOrder(items))
            done += 1
    check_sold(sold, done)
    return done


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    with TinyDB(directory / FILE) as database:
        return len(database)
