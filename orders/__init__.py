"""The order system you can kill at any line: event-driven Python on pypubsub and TinyDB."""

from . import startup  # before all else, see there

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .application.notifications import Notice, Notifier
from .application.orders import Orders
from .application.unit_of_work import UnitOfWork
from .bootstrap import App, bootstrap
from .domain.commands import CancelOrder, NotifySales, PlaceOrder, ShipOrder
from .domain.events import (
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderRejected,
    OrderShipped,
)
from .domain.order import Order, OrderState
from .errors import (
    AmbiguousOrder,
    Conflict,
    FollowerError,
    ForbiddenMove,
    InvalidOrder,
    NotStored,
    OrderNotFound,
    OrdersError,
    StoreBusy,
    StoreError,
    WiringError,
)
from .messaging.bus import MessageBus
from .messaging.message import Command, Event
from .settings import Settings

if not startup.is_module():  # of which the command line is certain to come next
    startup.end()

if TYPE_CHECKING:
    from .projections.policy import Policy
    from .projections.projection import Projection
    from .projections.runners import MultiThreadedRunner, SingleThreadedRunner

__version__ = "0.1.0"

__all__ = [
    "AmbiguousOrder",
    "App",
    "CancelOrder",
    "Command",
    "Conflict",
    "Event",
    "FollowerError",
    "ForbiddenMove",
    "InvalidOrder",
    "MessageBus",
    "MultiThreadedRunner",
    "NotStored",
    "Notice",
    "Notifier",
    "NotifySales",
    "Order",
    "OrderCancelled",
    "OrderCreated",
    "OrderEvent",
    "OrderNotFound",
    "OrderRejected",
    "OrderShipped",
    "OrderState",
    "Orders",
    "OrdersError",
    "PlaceOrder",
    "Policy",
    "Projection",
    "Settings",
    "ShipOrder",
    "SingleThreadedRunner",
    "StoreBusy",
    "StoreError",
    "UnitOfWork",
    "WiringError",
    "__version__",
    "bootstrap",
]

# Imported when they are first used: a command that only reads need not wait for them.
_LATER = {
    "MultiThreadedRunner": "runners",
    "Policy": "policy",
    "Projection": "projection",
    "SingleThreadedRunner": "runners",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".projections.{_LATER[name]}", __name__), name)
    return globals().setdefault(name, value)
