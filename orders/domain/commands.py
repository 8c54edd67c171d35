"""Commands: what can be asked of the system. Each has one handler in `application/handlers.py`."""

from typing import ClassVar

from ..messaging.message import Command


class PlaceOrder(Command, frozen=True):
    """Place an order; returns the order's id. The same `key` again returns the first order's."""

    topic: ClassVar[str] = "place-order"

    items: tuple[str, ...]
    customer: str | None = None
    key: str | None = None


class ShipOrder(Command, frozen=True):
    """Ship a placed order."""

    topic: ClassVar[str] = "ship-order"

    order_id: str


class CancelOrder(Command, frozen=True):
    """Cancel a placed order."""

    topic: ClassVar[str] = "cancel-order"

    order_id: str
    reason: str | None = None


class NotifySales(Command, frozen=True):
    """Tell the sales department about a new order."""

    topic: ClassVar[str] = "notify-sales"

    order_id: str
    items: tuple[str, ...]


class RecordBestseller(Command, frozen=True):
    """Record that an item sells well; the sales department is told of that event."""

    topic: ClassVar[str] = "record-bestseller"

    order_id: str  # the order that made it one
    item: str
    times: int  # it was ordered
