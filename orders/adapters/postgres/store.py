"""The PostgreSQL engine behind the store port; `schema.sql` draws its tables.

A commit is one call of a function of the server's, and one transaction; nothing is locked but
the rows that it changes. The log is read in the order of transaction ids, up to the oldest
transaction under way: so nothing is skipped and nothing is read twice, in whatever order
transactions end.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC
from typing import LiteralString, TypeVar

import msgspec

from ...application.store import (
    EVERY_ORDER,
    EVERYTHING,
    START,
    Account,
    Claim,
    Commit,
    Cursor,
    Delivery,
    Filter,
    Finding,
    Match,
    Pending,
    Record,
    Snapshot,
    Status,
    changed_by_plugins,
)
from ...domain.order import OrderState
from ...errors import Conflict, KeyTaken, NotStored, StoreError, WrongPayload
from ...messaging.message import Message
from ..forks import abandon_in_children
from . import record as records
from . import writing
from .address import Address
from .connection import TRIES, Connection, Session
from .orders import Orders
from .reading import LogReader
from .refusals import ConnectionLost
from .snapshots import Snapshots

T = TypeVar("T")

PAGE = 500  # deliveries that are fetched at once
POLL = 0.5  # seconds between two looks at the log, for a hint may be lost
SOON = 0.005  # seconds after a hint until what it is about can be read; doubled up to POLL

# On a standby nobody can see who is at work on the primary.
ABANDONED: LiteralString = """
    (owner is null or owner not in (select owner from lease)) and not pg_is_in_recovery()
"""


class PostgresStore:
    """Keeps commits, orders, deliveries and snapshots in a database; see the port `Store`.

    Args:
        url: `postgresql://...`, as libpq has it, and `schema=NAME` among its parameters.
        lock_timeout: seconds to wait for another transaction, or for a server that was lost.

    Raises:
        StoreUnreachable: it is no URL of a store.
    """

    def __init__(self, url: str, *, lock_timeout: float = 10.0) -> None:
        self.address = Address.parse(url)
        self.location = self.address.location
        self.commits = 0
        self._lock_timeout = lock_timeout
        self._compose()
        abandon_in_children(self)

    def _compose(self) -> None:
        """Begin with nothing open."""
        self.connection = Connection(self.address, self._lock_timeout)
        self.log = LogReader(self.connection)
        self.snapshots = Snapshots(self.connection)
        self._orders = Orders(self.connection)

    def abandon(self) -> None:
        """Begin anew in a child process, which must not share what its parent has open."""
        self.connection.abandon()
        self._compose()

    # Commits

    def commit(self, commit: Commit) -> Cursor:
        """Store it all, or nothing; return the place behind it.

        Raises:
            Conflict: an order has not the version that a change expects.
            KeyTaken: the key of a new order belongs to another one.
            AlreadySettled: a delivery among the outcomes is not pending any more, or one among
                the reactions was recorded.
            NotStored: it could not be written, or nobody can tell.
            WrongPayload: a message could not be read back.
        """
        if not (commit.messages or commit.deliveries):
            self._check(commit)
            return self.head()
        try:
            row = _encode(commit)
        except WrongPayload:
            self._check(commit)  # which comes first
            raise
        cursor = self._surely(row, lambda session: self._store(session, commit, row))
        self.commits += 1
        return cursor

    def _store(self, session: Session, commit: Commit, row: records.Row) -> Cursor:
        cursor, is_heard = writing.store(session, commit, row, self.connection.lease)
        if is_heard and commit.is_durable:
            self.connection.hint()
        return cursor

    def _surely(self, row: records.Row, work: Callable[[Session], T]) -> T | Cursor:
        """Return what `work` returns, which stores a record; or its place.

        That is where the connection was lost, and what came of it had to be found out.
        """
        lost: StoreError | None = None
        for _ in range(TRIES):
            try:
                return self.connection.run_once(work)
            except ConnectionLost as error:
                lost = error
            if (cursor := self._find(row)) is not None:
                return cursor
        raise NotStored(
            self.location, "the connection is lost again and again", "repeat the command"
        ) from lost

    def holds(self, commit: Commit) -> bool:
        """Return whether a commit that was interrupted in `commit` is stored all the same.

        Raises:
            NotStored: nobody can tell.
        """
        return (
            bool(commit.deliveries or commit.messages) and self._find(_encode(commit)) is not None
        )

    def _find(self, row: records.Row) -> Cursor | None:
        """Return the place of a commit, where it is stored; no session of ours is at it then."""
        query: LiteralString = """
            select era, xid, seq, body::text from record where about @> %s::text[]
            order by era desc, xid desc, seq desc
        """
        try:
            found = self.connection.rows(query, [row.about])
        except StoreError as error:
            raise NotStored(
                self.location,
                "the connection is lost",
                "look with orders list before you repeat the command",
                is_certain=False,
            ) from error
        return next((tuple(place) for *place, body in found if body == row.body), None)

    def _check(self, commit: Commit) -> None:
        """Refuse what `commit` would refuse of orders, and store nothing."""
        for change in commit.changes:
            known = self.order(change.state.id)
            if (actual := known.version if known else 0) != change.expected:
                raise Conflict(change.state.id, change.expected, actual)
        keys = {change.key: change.state.id for change in commit.changes if change.key is not None}
        for key, first in self.ids(keys=keys).items():
            if first != keys[key]:
                raise KeyTaken(key, first)

    def restore(self, records: Sequence[Record]) -> None:
        """Append records of another store as they are, in order, in one transaction."""
        self.connection.run_once(lambda session: writing.restore(session, records, self.location))
        self.log.add_milestones()
        self.connection.hint()

    # The log

    def head(self) -> Cursor:
        """Return the place behind the last record."""
        return self.log.head()

    def read(
        self, after: Cursor = START, until: Cursor | None = None, match: Match = EVERYTHING
    ) -> Iterator[Record]:
        """Yield the records between two places, oldest first; up to the last one by default."""
        return self.log.read(after, until, match)

    def wait(self, after: Cursor, timeout: float) -> bool:
        """Wait until there is something after a place, `timeout` seconds at most."""
        deadline, pause = time.monotonic() + timeout, POLL
        self.connection.listen()
        while True:
            _, settled = self.log.ends()
            if settled > after:
                return True
            if (left := deadline - time.monotonic()) <= 0:
                return False
            was_told = self.connection.await_hint(min(pause, left))
            pause = SOON if was_told else min(2 * pause, POLL)

    def sync(self, until: Cursor) -> None:
        """Do nothing: what can be read is durable."""

    def messages(self, ids: Collection[str]) -> Mapping[str, Message]:
        """Return those of these messages that are stored, by id."""
        wanted = set(ids)
        found = self.connection.rows(
            """
            select body::text, number_at(era, xid, seq) from record where about && %s::text[]
            order by era, xid, seq
            """,
            [sorted(wanted)],
        )
        read = (records.decode(body, self.location, number)[0] for body, number in found)
        return {
            message.id: message for messages in read for message in messages if message.id in wanted
        }

    # Orders

    def order(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        return self._orders.find(order_id)

    def orders(
        self, wanted: Filter = EVERY_ORDER, limit: int | None = None
    ) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        return self._orders.newest(wanted, limit)

    def count(self, wanted: Filter = EVERY_ORDER) -> int:
        """Return how many orders are wanted."""
        return self.log.count_orders() if wanted == EVERY_ORDER else self._orders.count(wanted)

    def ids(self, *, prefix: str | None = None, keys: Collection[str] = ()) -> Mapping[str, str]:
        """Return ids of orders: by id those that begin with `prefix`, by key those with `keys`.

        An order placed without a key has its id for one. Orders found by key are durable.
        """
        found = {} if prefix is None else self._orders.beginning_with(prefix)
        return found | (self._orders.with_keys(keys) if keys else {})

    def keys(self, order_ids: Collection[str]) -> Mapping[str, str]:
        """Return, by order id, the keys of those of these orders that were placed with one."""
        return self._orders.keys_of(order_ids)

    # Deliveries

    def pending(self) -> Iterator[Pending]:
        """Yield the pending deliveries, oldest first."""
        query: LiteralString = (
            "select queued, body, "
            + ABANDONED
            + ", owner is null from delivery where status = 'pending' and queued > %s"
            " order by queued limit %s"
        )
        after = 0
        while rows := self.connection.rows(query, (after, PAGE)):  # who wants a few reads a few
            for _, body, is_abandoned, is_deferred in rows:
                yield Pending(_delivery(body), is_abandoned, is_deferred)
            after = rows[-1][0]

    def claim(self, claims: Sequence[Claim]) -> list[Claim]:
        """Let this process make those of these deliveries that still stand as they were found.

        Returns them; with each of the others another process was quicker, or is at it.
        """
        return [claim for claim in claims if self._claim(*claim)]

    def _claim(self, found: Delivery, attempt: Delivery) -> bool:
        row = records.encode((), (attempt,), (), os.getpid())
        return bool(
            self._surely(
                row,
                lambda session: writing.claim(session, found, attempt, row, self.connection.lease),
            )
        )

    def release(self) -> None:
        """Let other processes make the pending deliveries that this one set out to make."""
        self.connection.release()

    def deliveries(self, *statuses: Status) -> Iterator[Account]:
        """Yield the deliveries in one of these states, oldest first; all where none is given."""
        query: LiteralString = (
            "select number, body, since, changed, status = 'pending' and "
            + ABANDONED
            + ", status = 'pending' and owner is null from delivery"
            " where number > %(after)s and (status = any(%(statuses)s) or %(all)s)"
        )
        if statuses and "done" not in statuses:
            query += " and status <> 'done'"  # as the index has it
        query += " order by number limit %(page)s"
        after = 0
        wanted = {"statuses": list(statuses), "all": not statuses, "page": PAGE}
        while rows := self.connection.rows(query, {"after": after, **wanted}):
            for _, body, since, changed, *whose in rows:
                times = since.astimezone(UTC), changed.astimezone(UTC)
                yield Account(_delivery(body), *times, *whose)
            after = rows[-1][0]

    # Snapshots

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none."""
        return self.snapshots.load(name)

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, tables and cursor in one step, in place of the one before."""
        self.snapshots.save(name, snapshot)

    def saved(self) -> Sequence[str]:
        """Return the names of the snapshots."""
        return self.snapshots.names()

    def is_due(self, name: str) -> bool:
        """Return whether to bring this snapshot up to date now: it is cheap, or has become so."""
        return self.snapshots.is_due(name)

    def is_stale(self, name: str) -> bool:
        """Return whether so much of the log follows this snapshot that a newer one is worth it."""
        return self.snapshots.is_stale(name)

    # Upkeep

    def check(self) -> Iterator[Finding]:
        """Say how the store is, in all that only this engine can tell; change nothing."""
        from .check import check  # noqa: PLC0415 - only doctor needs it

        return check(self)

    def repair(self) -> Iterator[str]:
        """Make anew from the log what is not its fold; yield what was done, a sentence each.

        Raises:
            StoreError: the log is damaged, or the server refuses.
        """
        from .check import repair  # noqa: PLC0415 - only doctor needs it

        return repair(self)

    def checkpoint(self) -> bool:
        """Note every thousandth record of the log; return whether there was one to note."""
        return self.log.add_milestones()

    def close(self) -> None:
        """Let go of everything; the store may be used again."""
        self.connection.close()


def _encode(commit: Commit) -> records.Row:
    deliveries = commit.deliveries
    is_ours = commit.makes_pending and not commit.is_deferred
    process = os.getpid() if is_ours else None
    return records.encode(commit.messages, deliveries, changed_by_plugins(commit), process)


def _delivery(data: str) -> Delivery:
    return _delivery_decoder.decode(data)


_delivery_decoder = msgspec.json.Decoder(Delivery)
