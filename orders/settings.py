"""Names and numbers that the whole system agrees on: topics, and what the environment sets."""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import NamedTuple, Self

from .errors import OrdersError

PLACE_ORDER = "place-order"
SHIP_ORDER = "ship-order"
CANCEL_ORDER = "cancel-order"
NOTIFY_SALES = "notify-sales"
RECORD_BESTSELLER = "record-bestseller"

ORDER_CREATED = "order-created"
ORDER_SHIPPED = "order-shipped"
ORDER_CANCELLED = "order-cancelled"
ORDER_REJECTED = "order-rejected"
BESTSELLER_FOUND = "bestseller-found"

UNIT_ADDED = "unit-added"
UNIT_COMMITTED = "unit-committed"
UNIT_ROLLED_BACK = "unit-rolled-back"


class Settings(NamedTuple):
    """Where the store lives and how long a process waits for another one."""

    data: Path = Path("data")
    lock_timeout: float = 10.0  # seconds
    fault: str | None = None  # where to fail on purpose; see faults.py

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read ``ORDERS_DATA``, ``ORDERS_LOCK_TIMEOUT`` and ``ORDERS_FAULT``.

        Raises:
            OrdersError: the timeout is not a number of seconds.
        """
        timeout = environment.get("ORDERS_LOCK_TIMEOUT", "10")
        try:
            seconds = float(timeout)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= TIMEOUT_MAX:  # more than a lock can wait for
            raise OrdersError(f"ORDERS_LOCK_TIMEOUT is {timeout!r}; give seconds, like 10 or 0.5")
        data = Path(environment.get("ORDERS_DATA") or "data")
        return cls(data, seconds, environment.get("ORDERS_FAULT") or None)
