"""The `eventsource-py` package on its SQLite store, with two subscriptions of its manager.

Durability: SQLite with write-ahead log; the store does not set `synchronous`, whose default is
FULL: one transaction an order, and an fsync at its end. The bus has both subscribers run before
`save` returns. What they make of an event lives in memory, as in the package's own example, and
so do their positions, which its bus does not tell them: started anew, they read the log from
its beginning. Its projections in a database would cost two more transactions an order, for the
counts and for the position.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import TextIO
from uuid import UUID, uuid4

from eventsource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    InMemoryCheckpointRepository,
    InMemoryEventBus,
    register_event,
)
from eventsource.adapters.sqlite import SQLiteEventStore
from eventsource.application.subscriptions import SubscriptionConfig, SubscriptionManager
from pydantic import BaseModel
from workload import check_sold, nowhere, placements, print_notice

FILE = "events.sqlite"


@register_event
class OrderCreated(DomainEvent):
    """An order was placed."""

    event_type: str = "OrderCreated"
    aggregate_type: str = "Order"
    items: list[str]


class OrderState(BaseModel):
    """What an order is, as the fold of its events."""

    order_id: UUID
    items: list[str] = []


class Order(AggregateRoot[OrderState]):
    """An order."""

    aggregate_type = "Order"

    def place(self, items: list[str]) -> None:
        """Order the items."""
        version = self.get_next_version()
        self.apply_event(
            OrderCreated(aggregate_id=self.aggregate_id, items=items, aggregate_version=version)
        )

    def _get_initial_state(self) -> OrderState:
        return OrderState(order_id=self.aggregate_id)

    def _apply(self, event: DomainEvent) -> None:
        if isinstance(event, OrderCreated):
            self._state = OrderState(order_id=self.aggregate_id, items=event.items)


class ItemSales:
    """Counts the items."""

    def __init__(self) -> None:
        self.sold: Counter[str] = Counter()

    def subscribed_to(self) -> list[type[DomainEvent]]:
        """Return which events it wants."""
        return [OrderCreated]

    async def handle(self, event: OrderCreated) -> None:
        """Count those of an order."""
        self.sold.update(event.items)


class Sales:
    """Prints the notices."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def subscribed_to(self) -> list[type[DomainEvent]]:
        """Return which events it wants."""
        return [OrderCreated]

    async def handle(self, event: OrderCreated) -> None:
        """Print that of an order."""
        print_notice(event.aggregate_id, event.items, self.stream)


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    return asyncio.run(_run(directory, orders, deadline))


async def _run(directory: Path, orders: int, deadline: float) -> int:
    done = 0
    store, bus = SQLiteEventStore(str(directory / FILE)), InMemoryEventBus()
    repository = AggregateRepository(store, Order, "Order", event_publisher=bus)
    manager = SubscriptionManager(store, bus, InMemoryCheckpointRepository())
    with nowhere() as stream:
        sales = ItemSales()
        for subscriber in (sales, Sales(stream)):
            await manager.subscribe(subscriber, SubscriptionConfig(start_from="beginning"))
        await manager.start()
        for items in placements(orders, deadline):
            order = repository.create_new(uuid4())
            order.place(items)
            await repository.save(order)
            done += 1
        await manager.stop()
    await store.close()
    check_sold(sales.sold, done)
    return done


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    return asyncio.run(_stored(directory))


async def _stored(directory: Path) -> int:
    store = SQLiteEventStore(str(directory / FILE))
    count = len([event async for event in store.read_category("Order")])
    await store.close()
    return count
