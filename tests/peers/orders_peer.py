"""This package: one line of an append-only log for each order.

Durability: the order, its event and what its subscribers are owed are one line, and one
fsync, before `send` returns. That a subscriber has run is a line of its own, which the next
order's fsync takes along: a power cut makes it run again, and loses nothing. The files of
state and of counts are replaced atomically, with the position in the log that they are made
of, when the store is closed; until then a crash costs no more than reading the log again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from workload import check_sold, nowhere, placements

from orders import App, PlaceOrder, bootstrap
from orders.adapters.notifiers.console import ConsoleNotifier
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import ItemSales

LONG = 600  # seconds, more than any follower is behind


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    done = 0
    with (
        nowhere() as stream,
        bootstrap(directory, notifier=ConsoleNotifier(stream)) as app,
        item_counter(app) as sold,
    ):
        for items in placements(orders, deadline):
            app.bus.send(PlaceOrder(items=items))
            done += 1
    check_sold(sold, done)
    return done


@contextmanager
def item_counter(app: App) -> Iterator[Mapping[str, int]]:
    """Count the items of every order placed meanwhile; yield the counts."""
    with SingleThreadedRunner(app, [ItemSales]) as runner:
        yield runner.get(ItemSales).tables["sold"]


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    with bootstrap(directory) as app:
        return app.orders.count()


def fill(directory: Path, events: int) -> None:
    """Store that many events for `catch_up`, as placing orders does."""
    with nowhere() as stream, bootstrap(directory, notifier=ConsoleNotifier(stream)) as app:
        for items in placements(events, float("inf")):
            app.bus.send(PlaceOrder(items=items))


def catch_up(directory: Path) -> Mapping[str, int]:
    """Have a newcomer count the items of all stored events; return the counts."""
    with bootstrap(directory) as app, SingleThreadedRunner(app, [ItemSales]) as runner:
        runner.wait(app.store.head(), LONG)
        return runner.get(ItemSales).tables["sold"]
