"""The `pybondi` package, with TinyDB as the store. It needs Python 3.12 or later.

Durability: the package stores nothing itself; its session commits the resources that it is
given, here a repository on TinyDB. TinyDB writes the whole file anew for every order, in
place, and calls fsync; a crash in the middle of that leaves half a file. Events live in
memory: a crash before a follower has run loses the notice.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO
from uuid import uuid4

from pybondi import Command, Depends, Event, Service, Session
from tinydb import TinyDB
from workload import check_sold, nowhere, placements, print_notice

FILE = "orders.json"


@dataclass
class PlaceOrder(Command):
    """Place an order."""

    items: list[str]


@dataclass
class OrderCreated(Event):
    """An order was placed."""

    order_id: str
    items: list[str]


class OrderRepository:
    """A session's resource: what was added is stored when the session commits."""

    def __init__(self, database: TinyDB) -> None:
        self.database = database
        self.added: list[dict[str, object]] = []

    def begin(self) -> None:
        """Forget what an earlier session left."""
        self.added = []

    def add(self, order_id: str, items: list[str]) -> None:
        """Have an order stored."""
        self.added.append({"id": order_id, "items": items})

    def commit(self) -> None:
        """Store what was added, in one write."""
        self.database.insert_multiple(self.added)
        self.added = []

    def rollback(self) -> None:
        """Forget what was added."""
        self.added = []

    def close(self) -> None:
        """Keep the file open, for the next session."""


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    done = 0
    sold: Counter[str] = Counter()
    service = Service(cast_dependency=False)

    # Every handler names a dependency: without one, its message does not arrive (2.0.1).

    @service.handler
    def place_order(
        command: PlaceOrder, repository: Annotated[OrderRepository, Depends(lambda: repository)]
    ) -> None:
        order_id = str(uuid4())
        with Session(repository):
            repository.add(order_id, command.items)
        service.consume(OrderCreated(order_id, command.items))

    @service.consumer
    def count_items(event: OrderCreated, sold: Annotated[Counter, Depends(lambda: sold)]) -> None:
        sold.update(event.items)

    @service.consumer
    def notify_sales(
        event: OrderCreated, stream: Annotated[TextIO, Depends(lambda: stream)]
    ) -> None:
        print_notice(event.order_id, event.items, stream)

    with nowhere() as stream, TinyDB(directory / FILE) as database:
        repository = OrderRepository(database)
        for items in placements(orders, deadline):
            service.handle(PlaceOrder(items))
            done += 1
    check_sold(sold, done)
    return done


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    with TinyDB(directory / FILE) as database:
        return len(database)
