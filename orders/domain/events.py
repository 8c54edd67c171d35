"""Events: what can happen. All are stored in the log, except a unit's own.

Subscribing to a base class hears its subclasses: `OrderEvent` is every change of an order.
"""

from typing import ClassVar

from ..messaging.message import Event


class OrderEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one order.

    How it changes the order is registered with `apply` (see `order.py`); an event without such
    a rule is about an order, and changes nothing.
    """

    status: ClassVar[str | None] = None
    """The status that the order has afterwards; None: the same as before."""

    order_id: str


class OrderCreated(OrderEvent, frozen=True, kw_only=True):
    """An order was placed."""

    topic: ClassVar[str] = "order-created"
    status: ClassVar[str] = "placed"

    items: tuple[str, ...]
    customer: str | None = None
    key: str | None = None


class OrderShipped(OrderEvent, frozen=True, kw_only=True):
    """An order was sent off."""

    topic: ClassVar[str] = "order-shipped"
    status: ClassVar[str] = "shipped"


class OrderCancelled(OrderEvent, frozen=True, kw_only=True):
    """An order was called off."""

    topic: ClassVar[str] = "order-cancelled"
    status: ClassVar[str] = "cancelled"

    reason: str | None = None


class OrderRejected(Event, frozen=True, kw_only=True):
    """A PlaceOrder was refused; published even though its unit of work is rolled back."""

    topic: ClassVar[str] = "order-rejected"
    survives_rollback: ClassVar[bool] = True

    reason: str


class BestsellerFound(Event, frozen=True, kw_only=True):
    """An item was ordered often."""

    topic: ClassVar[str] = "bestseller-found"

    order_id: str  # the order that made it one
    item: str
    times: int  # it was ordered


class UnitEvent(Event, frozen=True, kw_only=True):
    """What a unit of work does with an order; announced in this process only."""

    stored: ClassVar[bool] = False

    order_id: str


class Added(UnitEvent, frozen=True):
    """An order came under a unit of work."""

    topic: ClassVar[str] = "unit-added"


class Committed(UnitEvent, frozen=True):
    """The unit's changes of the order are stored."""

    topic: ClassVar[str] = "unit-committed"


class RolledBack(UnitEvent, frozen=True):
    """The unit's changes of the order are undone."""

    topic: ClassVar[str] = "unit-rolled-back"
