"""A projection with a bug is corrected and rebuilt from the log; nobody is notified again."""

from typing import ClassVar

from .. import CancelOrder, Event, OrderCancelled, OrderCreated, PlaceOrder
from ..projections.follower import current
from ..projections.projection import Projection
from ..projections.replay import replay
from .stage import Stage


class Turnover(Projection):
    """How many items were sold; its author has forgotten that orders are cancelled."""

    name = "turnover"
    follow = (OrderCreated, OrderCancelled)
    columns: ClassVar = {"sold": ("what", "items"), "orders": ("order_id", "items")}

    def apply(self, event: Event) -> None:
        """Count the items."""
        if isinstance(event, OrderCreated):
            self.tables["orders"][event.order_id] = len(event.items)
            self.add(len(event.items))

    def add(self, items: int) -> None:
        """Count so many items more."""
        self.tables["sold"]["items"] = self.items + items

    @property
    def items(self) -> int:
        """How many items were sold."""
        return int(self.tables["sold"].get("items", 0))


class CorrectedTurnover(Turnover):
    """The same without the bug."""

    def apply(self, event: Event) -> None:
        """Count the items; take those of a cancelled order off again."""
        super().apply(event)
        if isinstance(event, OrderCancelled):
            self.add(-self.tables["orders"][event.order_id])


def run(stage: Stage) -> None:
    """Count wrongly, find out, count again from the first event."""
    with stage.open() as app:
        stage.step(
            "Two orders, one cancelled; a projection counts the items sold",
            asks="How many were sold?",
            sends=CancelOrder,
        )
        app.bus.send(PlaceOrder(("100 inch TV", "magic carpet")))
        app.bus.send(CancelOrder(app.bus.send(PlaceOrder(("soft cheese",))), "it was hard"))
        counted = current(app.store, Turnover, app.warn).items
        stage.say(f"items sold: {counted}")
        stage.check("it has counted a cancelled one", counted == 3)
        notices, end = len(stage.notices), app.store.head()

        stage.step(
            "The bug is corrected; what would change is shown first",
            "orders replay --dry-run",
            asks="Where are the numbers that nobody has counted so far?",
        )
        (found,) = replay(app.store, [CorrectedTurnover], keep=False)
        stage.beside(("Table", "Key", "Kept", "The log says"), *found.differences)
        stage.check("the difference is found", [d[2:] for d in found.differences] == [(3, 2)])
        stage.check("nothing has changed", current(app.store, Turnover, app.warn).items == 3)

        stage.step(
            "It is rebuilt from the first event",
            "orders replay",
            asks="Will sales be notified of two orders again?",
        )
        list(replay(app.store, [CorrectedTurnover], keep=True))
        counted = current(app.store, CorrectedTurnover, app.warn).items
        stage.say(f"items sold: {counted}")
        stage.check("two items were sold", counted == 2)
        stage.check("nobody was notified again", len(stage.notices) == notices)
        stage.check("the log is as it was", app.store.head() == end)
