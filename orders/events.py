"""Events: what can happen. All are stored in the log, except a unit's own.

Subscribing to a base class hears its subclasses: `OrderEvent` is every change of an order.
"""

from typing import ClassVar

from . import settings
from .message import Event


class OrderEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one order; the fold of these is the order."""

    order_id: str


class OrderCreated(OrderEvent, frozen=True, kw_only=True):
    """An order was placed."""

    topic: ClassVar[str] = settings.ORDER_CREATED

    items: tuple[str, ...]
    customer: str | None = None
    key: str | None = None


class OrderShipped(OrderEvent, frozen=True, kw_only=True):
    """An order left the house."""

    topic: ClassVar[str] = settings.ORDER_SHIPPED


class OrderCancelled(OrderEvent, frozen=True, kw_only=True):
    """An order was called off."""

    topic: ClassVar[str] = settings.ORDER_CANCELLED

    reason: str | None = None


class OrderRejected(Event, frozen=True, kw_only=True):
    """A PlaceOrder was refused; told even though its unit of work is rolled back."""

    topic: ClassVar[str] = settings.ORDER_REJECTED
    survives_rollback: ClassVar[bool] = True

    reason: str


class BestsellerFound(Event, frozen=True, kw_only=True):
    """An item was ordered often."""

    topic: ClassVar[str] = settings.BESTSELLER_FOUND

    order_id: str  # the order that made it one
    item: str
    times: int  # it was ordered


class UnitEvent(Event, frozen=True, kw_only=True):
    """What a unit of work does with an order; announced in this process only."""

    stored: ClassVar[bool] = False

    order_id: str


class Added(UnitEvent, frozen=True):
    """An order came under a unit of work."""

    topic: ClassVar[str] = settings.UNIT_ADDED


class Committed(UnitEvent, frozen=True):
    """The unit's changes of the order are stored."""

    topic: ClassVar[str] = settings.UNIT_COMMITTED


class RolledBack(UnitEvent, frozen=True):
    """The unit's changes of the order are undone."""

    topic: ClassVar[str] = settings.UNIT_ROLLED_BACK
