"""The order system you can kill at any line: event-driven Python on pypubsub and TinyDB."""

from .bootstrap import App, bootstrap
from .bus import MessageBus
from .commands import CancelOrder, NotifySales, PlaceOrder, ShipOrder
from .domain import Order
from .errors import OrdersError
from .events import OrderCancelled, OrderCreated, OrderEvent, OrderRejected, OrderShipped
from .message import Command, Event
from .notifier import Notice, Notifier
from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "App",
    "CancelOrder",
    "Command",
    "Event",
    "MessageBus",
    "Notice",
    "Notifier",
    "NotifySales",
    "Order",
    "OrderCancelled",
    "OrderCreated",
    "OrderEvent",
    "OrderRejected",
    "OrderShipped",
    "OrdersError",
    "PlaceOrder",
    "Settings",
    "ShipOrder",
    "__version__",
    "bootstrap",
]
