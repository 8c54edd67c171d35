"""The eventsourcing library's example, on orders: an application that leads, followers that count.

Nobody sends the followers anything: they follow the log, each from its own cursor.
"""

from .. import OrderCreated, PlaceOrder
from ..domain.commands import RecordBestseller
from ..projections.runners import MultiThreadedRunner, Runner, SingleThreadedRunner
from ..projections.shipped import Bestseller, ItemSales, OrdersADay
from .stage import Stage

ORDERS = (("dinosaurs", "trucks", "internet"), ("dinosaurs", "trucks"), ("dinosaurs",))
COUNTS = ((1, 1, 1), (2, 2, 1), (3, 2, 1))  # of dinosaurs, trucks, internet after each order
SECONDS = 30  # that a follower may take to catch up


def run(stage: Stage) -> None:
    """Play it under both runners; then let a follower come late."""
    for kind in (SingleThreadedRunner, MultiThreadedRunner):
        _play(stage, kind)
    _come_late(stage)


def _play(stage: Stage, kind: type[Runner]) -> None:
    stage.step(
        f"{kind.__name__}: three orders; ItemSales follows",
        asks="How does a follower know where it was?",
        sends=PlaceOrder,
    )
    with (
        stage.open(stage.data / kind.__name__) as app,
        kind(app, [ItemSales]) as runner,
    ):
        for items, expected in zip(ORDERS, COUNTS, strict=True):
            app.bus.send(PlaceOrder(items))
            runner.wait(app.store.head(), SECONDS)
            counted = tuple(map(runner.get(ItemSales).times, ORDERS[0]))
            stage.check(", ".join(map("{} {}".format, ORDERS[0], counted)), counted == expected)


def _come_late(stage: Stage) -> None:
    stage.step(
        "A follower that comes late begins with the first event",
        asks="Can one ask a question of the past that nobody thought of then?",
        sends=OrderCreated,
    )
    with stage.open(stage.data / SingleThreadedRunner.__name__) as app:
        with SingleThreadedRunner(app, [ItemSales, OrdersADay]) as runner:
            days = runner.get(OrdersADay).days()
            stage.check("it has counted three orders", [count for _, count in days] == [3])
            sold = runner.get(ItemSales).times("dinosaurs")
            stage.check("the other one resumes, and counts nothing twice", sold == COUNTS[-1][0])

        stage.step(
            "A follower may send commands: the tenth order of an item makes it a bestseller",
            asks="What if it sends one, and its process dies before it has noted that?",
            sends=RecordBestseller,
        )
        with SingleThreadedRunner(app, [Bestseller]):
            app.bus.send(PlaceOrder(("dinosaurs",) * 7))
            news = [notice.items for notice in stage.notices if "Bestseller" in notice.title]
            stage.check("sales were notified of it, once", news == [("dinosaurs",)])
