"""The `eventsourcing` library on SQLite files: an application and two followers of it.

Durability: SQLite with write-ahead log and `synchronous=FULL`, which is what the library
opens it with: an fsync at the end of each transaction. An order is a transaction of the
application, and one of each follower, which stores its position in the application's log
with what it has made of the event; so an order costs three. The counts are a table of the
follower's own, written with its position: its effects happen once.

The library at its best: the newer of its single-threaded runners, which hands events to
followers without reading them from the database again (the older one does a quarter less);
large sections of the log for who catches up. `eventsourcing_threads_peer.py` is the same with
a thread for each follower.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteCursor, SQLiteProcessRecorder
from eventsourcing.system import Follower, NewSingleThreadedRunner, Runner, System
from eventsourcing.utils import get_topic
from workload import check_sold, nowhere, placements, print_notice

SECTION = 1000  # events read from the log at a time, by who catches up
LONG = 600  # seconds, more than any follower is behind


class Order(Aggregate):
    """An order; the fold of its events."""

    @event("Created")
    def __init__(self, items: list[str]) -> None:
        self.items = items


class Orders(Application):
    """Places orders."""

    name = "orders"
    log_section_size = SECTION

    def place_order(self, items: list[str]) -> str:
        """Store a new order; return its id."""
        order = Order(items=items)
        self.save(order)
        return order.id


class ItemSalesRecorder(SQLiteProcessRecorder):
    """Keeps how many of each item were sold, in the transaction that keeps the position."""

    def construct_create_table_statements(self) -> list[str]:
        """Return what makes the tables."""
        return [
            *super().construct_create_table_statements(),
            "CREATE TABLE IF NOT EXISTS item_sales (item TEXT PRIMARY KEY, sold INTEGER)",
        ]

    def _insert_events(
        self,
        c: SQLiteCursor,
        stored_events: Sequence[StoredEvent],
        *,
        items: Sequence[str] = (),
        **kwargs: Any,
    ) -> Sequence[int] | None:
        c.executemany(
            "INSERT INTO item_sales VALUES (?, 1) ON CONFLICT (item) DO UPDATE SET sold = sold + 1",
            [(item,) for item in items],
        )
        return super()._insert_events(c, stored_events, **kwargs)

    def sold(self) -> dict[str, int]:
        """Return how many of each item were sold."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT item, sold FROM item_sales")
            return dict(map(tuple, cursor.fetchall()))


class ItemSales(Follower):
    """Counts the items."""

    name = "item_sales"
    pull_section_size = SECTION

    @singledispatchmethod
    def policy(self, domain_event: object, processing_event: ProcessingEvent) -> None:
        """Ignore other events."""

    @policy.register
    def _(self, domain_event: Order.Created, processing_event: ProcessingEvent) -> None:
        processing_event.collect_events(items=domain_event.items)


class Sales(Follower):
    """Prints the notices."""

    name = "sales"
    stream: ClassVar = None

    @singledispatchmethod
    def policy(self, domain_event: object, processing_event: ProcessingEvent) -> None:
        """Ignore other events."""

    @policy.register
    def _(self, domain_event: Order.Created, processing_event: ProcessingEvent) -> None:
        print_notice(domain_event.originator_id, domain_event.items, self.stream)


def environment(directory: Path) -> dict[str, str]:
    """Return the settings: a file for each application, for each keeps a position of its own."""
    names = [application.name for application in (Orders, ItemSales, Sales)]
    files = {f"{name.upper()}_SQLITE_DBNAME": str(directory / f"{name}.sqlite") for name in names}
    return files | {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "ITEM_SALES_PROCESS_RECORDER_TOPIC": get_topic(ItemSalesRecorder),
    }


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    return run_with(NewSingleThreadedRunner, directory, orders, deadline)


def run_with(make: type[Runner], directory: Path, orders: int, deadline: float) -> int:
    """Do so under one of the library's runners."""
    done = 0
    system = System([[Orders, ItemSales], [Orders, Sales]])
    with nowhere() as Sales.stream, make(system, environment(directory)) as runner:
        application = runner.get(Orders)
        for items in placements(orders, deadline):
            application.place_order(items)
            done += 1
        for follower in (ItemSales, Sales):
            runner.get(follower).recorder.wait(Orders.name, done, LONG)
        sold = runner.get(ItemSales).recorder.sold()
    check_sold(sold, done)
    return done


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    with Orders(environment(directory)) as application:
        return application.recorder.max_notification_id()


def fill(directory: Path, events: int) -> None:
    """Store that many events for `catch_up`, as placing orders does."""
    with Orders(environment(directory)) as application:
        for items in placements(events, float("inf")):
            application.place_order(items)


def catch_up(directory: Path) -> Mapping[str, int]:
    """Have a newcomer count the items of all stored events; return the counts.

    The library's runners have their followers catch up when the next order is placed, by the
    call made here. The ones with threads do a fifth less.
    """
    system = System([[Orders, ItemSales]])
    with NewSingleThreadedRunner(system, environment(directory)) as runner:
        follower = runner.get(ItemSales)
        follower.pull_and_process(Orders.name)
        return follower.recorder.sold()
