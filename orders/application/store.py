"""The store port: all that the application knows of where orders and messages are kept.

A store is an append-only log of commits, and what follows from it: the current orders, the
deliveries that are pending (the outbox), and snapshots of projections. No byte offset,
checksum, lock, file name, line or SQL passes through here, so an engine can be files, memory
or a database; one contract suite in `tests/adapters/contract` runs on each of them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from ..domain.events import OrderEvent
from ..domain.order import OrderState
from ..errors import StoreError
from ..messaging.message import Event, Message

Cursor = tuple[int, ...]
"""A place between two commits: opaque, ordered, storable as JSON; `START` is before all."""

START: Cursor = ()

Status = Literal["pending", "done", "failed", "dead"]

DeliveryKey = tuple[str, str]
"""What tells a delivery from every other: event id and subscriber."""


class Failure(msgspec.Struct, frozen=True):
    """An attempt that failed and was followed by another one at once."""

    seconds: float
    error: str


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known of one event's delivery to one subscriber.

    pending -> done
            -> failed -> (retried) pending -> done | failed | dead
    """

    event: str  # its id
    subscriber: str  # its name
    status: Status = "pending"
    attempts: int = 0  # made so far; the first counts when it has ended, others when they begin
    retries: int = 0  # made so far, by hand or by workers
    deaths: int = 0  # of processes that set out to deliver it
    seconds: float = 0.0  # that the last attempt took
    error: str | None = None  # of the last attempt
    failures: tuple[Failure, ...] = ()  # before that one, in the same run

    @property
    def key(self) -> DeliveryKey:
        """What tells this delivery from every other."""
        return self.event, self.subscriber


Claim = tuple[Delivery, Delivery]
"""A delivery as it was found, and as it is while it is tried once more."""


class Pending(msgspec.Struct, frozen=True):
    """A pending delivery, and whether nobody is at it: whoever set out to make it is gone."""

    delivery: Delivery
    is_abandoned: bool
    is_deferred: bool = False  # then nobody ever set out to make it


class Account(msgspec.Struct, frozen=True):
    """A delivery as it stands, and when it was first and last heard of."""

    delivery: Delivery
    since: datetime
    changed: datetime
    is_abandoned: bool  # it is pending, and whoever set out to make it is gone
    is_deferred: bool = False  # then nobody ever set out to make it


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a commit makes of one order."""

    state: OrderState  # afterwards
    expected: int  # the version it builds on; 0: there is no such order yet
    key: str | None = None  # the idempotency key of a new order


class Commit(msgspec.Struct, frozen=True):
    """What is stored together or not at all. The engine checks it; the unit of work gathers it.

    Attributes:
        messages: commands and events, in order; the events include those that make `changes`.
        changes: one for each order that changes.
        pending: the deliveries that the events call for; this process sets out to make them.
        outcomes: what came of deliveries that must still be pending.
        reactions: what came of deliveries that nobody may have recorded before; one that is
            pending is this process's to make.
        seen: up to where whoever makes `reactions` has looked for such records.
        is_durable: whether it must survive a power cut once `Store.commit` has returned.
        is_deferred: whether the pending deliveries are left to whoever comes first.
    """

    messages: tuple[Message, ...] = ()
    changes: tuple[Change, ...] = ()
    pending: tuple[Delivery, ...] = ()
    outcomes: tuple[Delivery, ...] = ()
    reactions: tuple[Delivery, ...] = ()
    seen: Cursor = START
    is_durable: bool = True
    is_deferred: bool = False

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """All that is recorded of deliveries, in this order."""
        return self.outcomes + self.reactions + self.pending

    @property
    def makes_pending(self) -> bool:
        """Whether deliveries are pending afterwards that were not before."""
        return bool(self.pending) or "pending" in [one.status for one in self.reactions]


def changed_by_plugins(commit: Commit) -> tuple[OrderState, ...]:
    """Return the orders that events of plugins change: a process without these is to know, too."""
    if not commit.changes:
        return ()
    changed = {
        message.order_id
        for message in commit.messages
        if isinstance(message, OrderEvent) and type(message).__module__ != OrderEvent.__module__
    }
    return tuple([one.state for one in commit.changes if one.state.id in changed])


class Record(msgspec.Struct, frozen=True):
    """A commit, or a change of deliveries, as it is read back."""

    cursor: Cursor  # after it
    number: int  # counts records from 1, without a gap
    time: datetime
    messages: tuple[Message, ...]
    deliveries: tuple[Delivery, ...]
    states: tuple[OrderState, ...] = ()  # as events of plugins, perhaps unknown here, left them
    process: int | None = None  # set out to make the pending deliveries, where the engine knows it


def check_follows(records: Sequence[Record], number: int, location: str) -> None:
    """Refuse to restore records that do not follow the `number` that a store has.

    Raises:
        StoreError: they do not.
    """
    for expected, record in enumerate(records, number + 1):
        if record.number != expected:
            raise StoreError(
                f"{location} has {expected - 1:,} records, so number {record.number:,} cannot"
                " follow: somebody else writes there, or it is another store"
            )


class Match(msgspec.Struct, frozen=True):
    """Which records are wanted: those that fit one of these; all, where none is given.

    An engine may yield others as well: whoever reads looks at what is in a record.
    """

    order_id: str | None = None  # with a message about this order
    conversations: Collection[str] = ()  # with a message of one of these correlation ids
    events: Collection[str] = ()  # with one of these events, or a delivery of one; ids
    types: Collection[type[Event]] = ()  # with an event of one of these classes
    subscriber: str | None = None  # with a delivery to this subscriber


EVERYTHING = Match()


class Filter(msgspec.Struct, frozen=True):
    """Which orders are wanted; None lets every order through."""

    status: str | None = None
    item: str | None = None  # part of an item's name, in any case
    customer: str | None = None  # part of the customer's name, in any case
    since: datetime | None = None  # placed at or after
    until: datetime | None = None  # placed before

    def matches(self, order: OrderState) -> bool:
        """Return whether the order is wanted."""
        return (
            self.status in {None, order.status}
            and (self.item is None or any(_within(self.item, item) for item in order.items))
            and (self.customer is None or _within(self.customer, order.customer or ""))
            and (self.since is None or order.placed_at >= self.since)
            and (self.until is None or order.placed_at < self.until)
        )


EVERY_ORDER = Filter()


class Snapshot(msgspec.Struct, frozen=True):
    """A projection's tables, and the place in the log that they are made of."""

    cursor: Cursor
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]]  # documents by table and number
    damage: str | None = None  # why it cannot be used, if so; then there are no tables


class Finding(msgspec.Struct, frozen=True):
    """One sentence on the health of one subject; what waits for somebody is well, too."""

    state: Literal["ok", "waiting", "bad"]
    subject: str
    text: str
    cure: str = ""  # the command that cures it, if one does

    @property
    def is_well(self) -> bool:
        """Return whether nothing is to be done about it."""
        return self.state != "bad"


class Store(Protocol):
    """Keeps commits, orders, deliveries and snapshots. Any number of processes may use one.

    Every method may raise StoreError: the store is damaged, busy or out of reach. What a
    method returns is the caller's own.

    Attributes:
        location: for messages: a directory, or a URL without its password.
        commits: how many commits this object has stored.
    """

    location: str
    commits: int

    def commit(self, commit: Commit) -> Cursor:
        """Store it all, or nothing; return the place behind it.

        Raises:
            Conflict: an order has not the version that a change expects.
            KeyTaken: the key of a new order belongs to another one.
            AlreadySettled: a delivery among the outcomes is not pending any more, or one among
                the reactions was recorded.
            NotStored: it could not be written.
            WrongPayload: a message could not be read back.
        """

    def restore(self, records: Sequence[Record]) -> None:
        """Append records of another store as they are, in order.

        Time, messages, deliveries and states; the pending deliveries belong to nobody; the
        orders follow from the messages.

        Raises:
            StoreError: the first is not numbered as the next record here, or a later one not as
                the one after it.
            NotStored: not all could be written.
        """

    def holds(self, commit: Commit) -> bool:
        """Return whether a commit that was interrupted in `commit` is stored all the same."""

    def head(self) -> Cursor:
        """Return the place behind the last record."""

    def read(
        self, after: Cursor = START, until: Cursor | None = None, match: Match = EVERYTHING
    ) -> Iterator[Record]:
        """Yield the records between two places, oldest first; up to the last one by default."""

    def wait(self, after: Cursor, timeout: float) -> bool:
        """Wait until there is something after a place, `timeout` seconds at most."""

    def sync(self, until: Cursor) -> None:
        """Make durable what stands before a place: to tell others of it is to promise it.

        Raises:
            NotStored: the disk refuses.
        """

    def messages(self, ids: Collection[str]) -> Mapping[str, Message]:
        """Return those of these messages that are stored, by id."""

    def order(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""

    def orders(self, wanted: Filter = ..., limit: int | None = None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""

    def count(self, wanted: Filter = ...) -> int:
        """Return how many orders are wanted."""

    def ids(self, *, prefix: str | None = None, keys: Collection[str] = ()) -> Mapping[str, str]:
        """Return ids of orders: by id those that begin with `prefix`, or by key those with `keys`.

        An order placed without a key has its id for one. Orders found by key are durable.
        """

    def keys(self, order_ids: Collection[str]) -> Mapping[str, str]:
        """Return, by order id, the keys of those of these orders that were placed with one."""

    def pending(self) -> Iterator[Pending]:
        """Yield the pending deliveries, oldest first."""

    def claim(self, claims: Sequence[Claim]) -> list[Claim]:
        """Let this process make those of these deliveries that still stand as they were found.

        Returns them; with each of the others another process was quicker, or is at it. Where it
        raises, some may be this process's to make all the same, until it calls `release`.
        """

    def release(self) -> None:
        """Let other processes make the pending deliveries that this one set out to make."""

    def deliveries(self, *statuses: Status) -> Iterator[Account]:
        """Yield the deliveries in one of these states, oldest first; all where none is given."""

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none."""

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, tables and cursor in one step, in place of the one before."""

    def saved(self) -> Sequence[str]:
        """Return the names of the snapshots."""

    def is_due(self, name: str) -> bool:
        """Return whether to bring this snapshot up to date now.

        It is while that is cheap; after that, when the log has outgrown it by half, so that the
        cost of each commit stays constant.
        """

    def is_stale(self, name: str) -> bool:
        """Return whether so much of the log follows this snapshot that a newer one is worth it."""

    def check(self) -> Iterator[Finding]:
        """Say how the store is, in all that only this engine can tell; change nothing."""

    def repair(self) -> Iterator[str]:
        """Mend what `check` has found, keeping copies; yield what was done, a sentence each."""

    def checkpoint(self) -> bool:
        """Bring what is derived from the log up to date; return whether something changed."""

    def close(self) -> None:
        """Let go of everything; the store may be used again."""


def _within(part: str, text: str) -> bool:
    return part.casefold() in text.casefold()
