"""What the environment sets."""

import os
import re
from collections.abc import Mapping
from threading import TIMEOUT_MAX
from typing import Literal, Self, cast

import msgspec

from .errors import OrdersError

MEMORY = ":memory:"  # as a store: nothing is written to disk
CONSOLE = "console"  # as a channel: notices are printed


Deliver = Literal["here", "worker"]
"""Who delivers what a process stores: itself, or a worker."""


class Settings(msgspec.Struct, frozen=True):
    """Where the store is, how long to wait, what fails, what is added, who hears, who delivers."""

    data: str = "data"  # a directory, postgresql://..., or MEMORY
    lock_timeout: float = 10.0  # seconds
    fault: str | None = None  # where to fail on purpose; see adapters/files/faults.py
    plugins: tuple[str, ...] = ()  # names of modules
    notify: str = CONSOLE  # where notices go; see adapters/notifiers
    deliver: Deliver = "here"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables named like these fields: ``ORDERS_DATA`` and so on.

        Raises:
            OrdersError: the timeout is not a number of seconds, or nobody delivers like that.
        """
        timeout = environment.get("ORDERS_LOCK_TIMEOUT", "10")
        try:
            seconds = float(timeout)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= TIMEOUT_MAX:  # more than a lock can wait for
            raise OrdersError(
                f"ORDERS_LOCK_TIMEOUT is {timeout!r}, which is no number of seconds",
                "give seconds, like 10 or 0.5",
            )
        deliver = environment.get("ORDERS_DELIVER") or "here"
        if deliver not in {"here", "worker"}:
            raise OrdersError(
                f"ORDERS_DELIVER is {deliver!r}; who delivers is here or worker",
                "set it to worker, or not at all",
            )
        plugins = (name.strip() for name in environment.get("ORDERS_PLUGINS", "").split(","))
        return cls(
            environment.get("ORDERS_DATA") or "data",
            seconds,
            environment.get("ORDERS_FAULT") or None,
            tuple(filter(None, plugins)),
            environment.get("ORDERS_NOTIFY") or CONSOLE,
            cast(Deliver, deliver),
        )


def without_password(store: str) -> str:
    """Return the name of a store as it may be shown: a URL without its password."""
    scheme, is_url, rest = store.partition("://")
    if not is_url:
        return store
    user, at, where = rest.rpartition("@")  # whatever characters a password has unquoted
    where = re.sub(r"(?<=[?&])(?:ssl)?password=[^&]*&?", "", where).rstrip("?&")
    return f"{scheme}://{user.partition(':')[0]}{at}{where}"
