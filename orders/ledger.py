"""Who is still owed what: the fold of the log's deliveries.

A commit of events also records, in the same line, a pending delivery for every subscriber
registered at that moment. Whatever comes of it is a later line. A delivery is

    pending -> done | failed        failed: given up for now, shown, and open to `orders retry`

so what is owed after a crash is read from the log, never guessed.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Outcome = Literal["pending", "done", "failed"]


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one event's delivery to one subscriber, as the log stores it."""

    event: str  # its id
    subscriber: str  # its name
    status: Outcome = "pending"
    attempts: int = 0  # so far
    seconds: float = 0.0  # that the last attempt took
    error: str | None = None


class Owed(NamedTuple):
    """A pending delivery and where it comes from."""

    delivery: Delivery
    owner: str | None  # the lease of the process that set out to deliver it
    offset: int  # of the log line that recorded it, in bytes
    seq: int  # of that line


class Ledger:
    """The pending deliveries, oldest first."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], Owed] = {}

    def apply(
        self, deliveries: Iterable[Delivery], *, owner: str | None, offset: int, seq: int
    ) -> None:
        """Take note of what a line of the log says."""
        for delivery in deliveries:
            key = (delivery.event, delivery.subscriber)
            if delivery.status == "pending":
                self._pending[key] = Owed(delivery, owner, offset, seq)
            else:
                self._pending.pop(key, None)

    def is_pending(self, event: str, subscriber: str) -> bool:
        """Return whether this delivery is still owed."""
        return (event, subscriber) in self._pending

    def pending(self) -> list[Owed]:
        """Return what is owed, oldest first."""
        return list(self._pending.values())

    def settled_before(self, offset: int) -> int:
        """Return up to which byte of the log nothing is owed, at most `offset`."""
        oldest = next(iter(self._pending.values()), None)
        return offset if oldest is None else min(oldest.offset, offset)
