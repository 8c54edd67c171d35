"""Deliveries, as the fold of what the log's lines say of them."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from ...application.store import Delivery, DeliveryKey
from ...messaging.message import Message
from .line import BEGINNING, Line, Outstanding, Position, Summary


class Ledger:
    """The pending deliveries, oldest first."""

    def __init__(self, outstanding: Iterable[Outstanding] = ()) -> None:
        # The oldest is asked for at each commit, which a dict that shrinks from its beginning
        # answers ever more slowly.
        self._pending = OrderedDict((one.delivery.key, one) for one in outstanding)

    def __len__(self) -> int:
        return len(self._pending)

    def apply(
        self,
        deliveries: Iterable[Delivery],
        owner: str | None,
        at: Position,
        event: Position | None = None,
    ) -> None:
        """Learn what a line of the log says, which stands at `at`; the event perhaps elsewhere."""
        for delivery in deliveries:
            key = delivery.key
            self._pending.pop(key, None)
            if delivery.status == "pending":
                self._pending[key] = Outstanding(delivery, owner, *at, event)

    def find(self, key: DeliveryKey) -> Outstanding | None:
        """Return this delivery if it is still pending."""
        return self._pending.get(key)

    def outstanding(self) -> tuple[Outstanding, ...]:
        """Return the pending deliveries, oldest first."""
        return tuple(self._pending.values())

    def settled_before(self, offset: int) -> int:
        """Return up to which byte of the log nothing is pending, at most `offset`."""
        oldest = next(iter(self._pending.values()), None)
        return offset if oldest is None else min(oldest.offset, offset)


class Entered(NamedTuple):
    """A delivery as it stands, its owner, and when and where it was heard of."""

    delivery: Delivery
    owner: str | None
    since: datetime
    changed: datetime
    first: Position  # of the line that has its event


class Accounts:
    """Every delivery that the log knows of, oldest first, settled ones too.

    Attributes:
        by_key: the deliveries by event id and subscriber.
        position: up to where the log was read.
    """

    def __init__(self) -> None:
        self.by_key: dict[DeliveryKey, Entered] = {}
        self.position = BEGINNING

    def apply(self, line: Summary | Line[Message], start: Position) -> None:
        """Learn what a line of the log says."""
        for delivery in line.deliveries:
            known = self.by_key.get(delivery.key)
            since, first = (known.since, known.first) if known else (line.time, start)
            self.by_key[delivery.key] = Entered(delivery, line.owner, since, line.time, first)
