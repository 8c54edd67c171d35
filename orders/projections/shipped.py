"""The projections and the policy that come with the package."""

from collections.abc import Iterator
from datetime import date
from typing import ClassVar

from ..domain.commands import RecordBestseller
from ..domain.events import OrderCancelled, OrderCreated, OrderShipped
from ..messaging.message import Event
from .policy import Policy
from .projection import Projection


class ItemSales(Projection):
    """How often each item was ordered; what a cancelled order asked for does not count."""

    name = "item-sales"
    follow = (OrderCreated, OrderShipped, OrderCancelled)
    columns: ClassVar = {"sold": ("item", "times"), "open": ("order_id", "items")}

    def apply(self, event: Event) -> None:
        """Count an order's items; forget a shipped order's, take a cancelled one's off again."""
        sold, still_open = self.tables["sold"], self.tables["open"]
        match event:
            case OrderCreated():
                still_open[event.order_id] = list(event.items)
                for item in event.items:
                    sold[item] = sold.get(item, 0) + 1
            case OrderShipped():
                still_open.pop(event.order_id, None)
            case OrderCancelled():
                for item in still_open.pop(event.order_id, ()):
                    sold[item] -= 1
                    if not sold[item]:
                        del sold[item]

    def times(self, item: str) -> int:
        """Return how often the item was ordered."""
        return int(self.tables["sold"].get(item, 0))

    def ranking(self) -> list[tuple[str, int]]:
        """Return items and how often each was ordered, the most ordered first, then by name."""
        return sorted(self.tables["sold"].items(), key=lambda row: (-row[1], row[0]))


class OrdersADay(Projection):
    """How many orders were placed on each day, in UTC."""

    name = "orders-a-day"
    follow = (OrderCreated,)
    columns: ClassVar = {"days": ("day", "orders")}

    def apply(self, event: Event) -> None:
        """Count the order on its day."""
        days, day = self.tables["days"], event.time.date().isoformat()
        days[day] = days.get(day, 0) + 1

    def days(self) -> list[tuple[date, int]]:
        """Return days and how many orders each had, the oldest first."""
        return sorted((date.fromisoformat(day), n) for day, n in self.tables["days"].items())


class Bestseller(Policy):
    """Has sales notified of an item when it is ordered for the tenth time."""

    name = "bestseller"
    follow = (OrderCreated,)
    columns: ClassVar = {"ordered": ("item", "times")}

    TIMES: ClassVar[int] = 10

    def apply(self, event: Event) -> None:
        """Count the items; that an order is cancelled later does not count them back."""
        if isinstance(event, OrderCreated):
            ordered = self.tables["ordered"]
            for item in event.items:
                ordered[item] = ordered.get(item, 0) + 1

    def react(self, event: Event) -> Iterator[RecordBestseller]:
        """Yield the news of each item for which this order was the tenth."""
        if isinstance(event, OrderCreated):
            for item in dict.fromkeys(event.items):
                times = self.tables["ordered"][item]
                if times - event.items.count(item) < self.TIMES <= times:
                    yield RecordBestseller(event.order_id, item, times)


SHIPPED: tuple[type[Projection], ...] = (ItemSales, OrdersADay, Bestseller)
