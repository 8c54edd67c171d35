"""The outbox: who is owed what, as the fold of the log's deliveries.

A commit of events also records, in the same line, a pending delivery for every subscriber
registered at that moment. Whatever comes of it is a later line:

    pending -> done
            -> failed -> (retried) pending -> done | failed | dead

A failed delivery is given up for now, and shown; `orders retry` makes it pending again. After
`RETRIES` of these it is a dead letter: still shown, and retried only by name. So what is owed
after a crash is read from the log, never guessed.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

RETRIES = 5  # by hand, before a delivery is a dead letter

Status = Literal["pending", "done", "failed", "dead"]
Key = tuple[str, str]  # event id, subscriber


class Failure(msgspec.Struct, frozen=True):
    """An attempt that failed and was followed by another one at once."""

    seconds: float
    error: str


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one event's delivery to one subscriber, as the log stores it."""

    event: str  # its id
    subscriber: str  # its name
    status: Status = "pending"
    attempts: int = 0  # made so far; the first counts when it has ended, others when they begin
    retries: int = 0  # made by hand so far
    deaths: int = 0  # of processes that set out to deliver it
    seconds: float = 0.0  # that the last attempt took
    error: str | None = None  # of the last attempt
    failures: tuple[Failure, ...] = ()  # before that one, in the same run

    @property
    def key(self) -> Key:
        """What tells this delivery from every other."""
        return self.event, self.subscriber


class Position(NamedTuple):
    """A place between two lines of the log: `seq` lines, `offset` bytes stand before it."""

    offset: int = 0
    seq: int = 0


START = Position()


class Owed(NamedTuple):
    """A pending delivery and where it comes from."""

    delivery: Delivery
    owner: str | None  # the lease of the process that set out to deliver it
    position: Position  # of the log line that recorded it


class Ledger:
    """The pending deliveries, oldest first."""

    def __init__(self) -> None:
        self._pending: dict[Key, Owed] = {}

    def apply(self, deliveries: Iterable[Delivery], owner: str | None, at: Position) -> None:
        """Take note of what a line of the log says."""
        for delivery in deliveries:
            self._pending.pop(delivery.key, None)
            if delivery.status == "pending":
                self._pending[delivery.key] = Owed(delivery, owner, at)

    def owed(self, key: Key) -> Owed | None:
        """Return this delivery if it is still owed."""
        return self._pending.get(key)

    def pending(self) -> list[Owed]:
        """Return what is owed, oldest first."""
        return list(self._pending.values())

    def settled_before(self, offset: int) -> int:
        """Return up to which byte of the log nothing is owed, at most `offset`."""
        oldest = next(iter(self._pending.values()), None)
        return offset if oldest is None else min(oldest.position.offset, offset)


class Account(NamedTuple):
    """A delivery as it stands, and when it was first and last heard of."""

    delivery: Delivery
    owner: str | None
    since: datetime
    changed: datetime


class Accounts:
    """Every delivery that the log knows of, settled ones too: for those who look.

    Attributes:
        by_key: the deliveries, oldest first.
        position: up to where the log was read.
    """

    def __init__(self) -> None:
        self.position = START
        self.by_key: dict[Key, Account] = {}

    def apply(self, deliveries: Iterable[Delivery], owner: str | None, time: datetime) -> None:
        """Take note of what a line of the log says."""
        for delivery in deliveries:
            known = self.by_key.get(delivery.key)
            since = known.since if known else time
            self.by_key[delivery.key] = Account(delivery, owner, since, time)

    def having(self, *statuses: Status) -> list[Account]:
        """Return the deliveries in one of these states, oldest first; all where none is given."""
        accounts = self.by_key.values()
        return [a for a in accounts if not statuses or a.delivery.status in statuses]
