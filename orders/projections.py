"""Read models: each a pure fold of events into tables that answer one question quickly.

A projection knows nothing of logs, files or positions: given the same events in the same
order, its tables are the same. `followers.py` feeds it, and keeps its tables in TinyDB
together with the position in the log that they are made of:

    {"log": {"1": {...the position...}},
     "sold": {"1": {"item": "magic carpet", "times": 3}, ...},
     "open": {"1": {"order_id": "...", "items": ["magic carpet"]}, ...}}
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date
from typing import Any, ClassVar

from .events import OrderCancelled, OrderCreated, OrderShipped
from .message import Event
from .subscriptions import Target


class Projection(ABC):
    """A fold of events.

    Attributes:
        name: the name of its file; lower-case-words-with-hyphens.
        follow: the events it wants: classes, which stand for their subclasses, topics or globs.
        columns: for each table, what the key and the value of its documents are called.
        tables: what the events so far make, by table and key; values are of JSON's types.
    """

    name: ClassVar[str]
    follow: ClassVar[tuple[Target, ...]]
    columns: ClassVar[Mapping[str, tuple[str, str]]]

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.clear()

    def clear(self) -> None:
        """Be as before the first event."""
        self.tables = {table: {} for table in self.columns}

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Fold one event in."""

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return the tables as TinyDB keeps them: documents by number."""
        return {
            table: {
                str(number): {key: entry, value: content}
                for number, (entry, content) in enumerate(self.tables[table].items(), start=1)
            }
            for table, (key, value) in self.columns.items()
        }

    def restore(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `documents` returned.

        Raises:
            KeyError: it is of other tables.
        """
        self.tables = {
            table: {document[key]: document[value] for document in documents[table].values()}
            for table, (key, value) in self.columns.items()
        }


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


PROJECTIONS: tuple[type[Projection], ...] = (ItemSales, OrdersADay)
