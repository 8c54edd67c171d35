"""The memory engine: a store without a disk, for tests and notebooks.

What is committed is a list; all else is folded from it when somebody looks, up to an entry
that is counted last. So a commit is one `append`, which an interruption cannot cut in half.
This is the shortest description of what every engine has to do.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ..application.store import (
    EVERY_ORDER,
    EVERYTHING,
    START,
    Account,
    Change,
    Claim,
    Commit,
    Cursor,
    Delivery,
    DeliveryKey,
    Filter,
    Finding,
    Match,
    Pending,
    Record,
    Snapshot,
    Status,
    changed_by_plugins,
    check_follows,
)
from ..domain.events import OrderCreated, OrderEvent
from ..domain.order import OrderState, evolve, is_change
from ..errors import AlreadySettled, Conflict, KeyTaken, WrongPayload
from ..messaging.message import Message, UnknownMessage, decode_message, now
from ..settings import MEMORY


class _Entry(NamedTuple):
    record: Record
    commit: Commit


class MemoryStore:
    """Keeps everything in this process, for all of its threads; see the port `Store`."""

    def __init__(self) -> None:
        self.location = MEMORY
        self.commits = 0
        self._appended = Condition()  # its lock guards all that follows
        self._log: list[_Entry] = []
        self._folded = 0  # entries of the log that all below, but the snapshots, is made of
        self._orders: dict[str, OrderState] = {}
        self._keys: dict[str, str] = {}  # order ids by key
        self._messages: dict[str, Message] = {}
        self._accounts: dict[DeliveryKey, Account] = {}  # all deliveries
        self._pending: dict[DeliveryKey, Delivery] = {}
        self._ours: set[DeliveryKey] = set()  # pending ones that this store set out to make
        self._deferred: set[DeliveryKey] = set()  # pending ones that nobody set out to make
        self._snapshots: dict[str, bytes] = {}

    # Writing

    def commit(self, commit: Commit) -> Cursor:
        """Store it all, or nothing; return the place behind it.

        Raises:
            Conflict: an order has not the version that a change expects.
            KeyTaken: the key of a new order belongs to another one.
            AlreadySettled: a delivery among the outcomes is not pending any more, or one among
                the reactions was recorded.
            WrongPayload: a message could not be read back.
        """
        with self._current():
            self._check_orders(commit)
            self._check_deliveries(commit)
            _check_readable(commit.messages)
            if not (commit.messages or commit.deliveries):
                return self._head()
            self.commits += 1
            return self._append(commit)

    def restore(self, records: Sequence[Record]) -> None:
        """Append records of another store as they are, in order.

        Raises:
            StoreError: they do not follow what is here.
        """
        with self._current():
            check_follows(records, len(self._log), self.location)
            for record in records:
                commit = Commit(record.messages, self._changes(record), is_deferred=True)
                own = replace(record, cursor=(record.number,), process=None)
                self._log.append(_Entry(own, commit))
                with self._current():  # the next record builds on it
                    self._appended.notify_all()

    def holds(self, commit: Commit) -> bool:
        """Return whether a commit that was interrupted in `commit` is stored all the same."""
        with self._current():
            return any(entry.commit == commit for entry in reversed(self._log))

    def claim(self, claims: Sequence[Claim]) -> list[Claim]:
        """Let this store make those of these deliveries that still stand as they were found.

        Returns them; with each of the others somebody else was quicker, or is at it.
        """
        with self._current():
            ours = [claim for claim in claims if self._is_to_be_made(claim[0])]
            if ours:
                self._append(Commit(pending=tuple(attempt for _, attempt in ours)))
            return ours

    def release(self) -> None:
        """Let anybody make the pending deliveries that this store set out to make."""
        with self._current():
            self._ours.clear()

    # Reading the log

    def head(self) -> Cursor:
        """Return the place behind the last record."""
        with self._current():
            return self._head()

    def read(
        self, after: Cursor = START, until: Cursor | None = None, match: Match = EVERYTHING
    ) -> Iterator[Record]:
        """Yield the records between two places, oldest first; up to the last one by default."""
        end = self.head() if until is None else until
        (start,), (stop,) = after or (0,), end or (0,)
        for entry in self._log[start:stop]:
            if _fits(entry.record, match):
                yield entry.record

    def wait(self, after: Cursor, timeout: float) -> bool:
        """Wait until there is something after a place, `timeout` seconds at most."""
        with self._appended:
            return self._appended.wait_for(lambda: self._head() > after, timeout)

    def sync(self, until: Cursor) -> None:
        """Do nothing: nothing here is durable."""

    def messages(self, ids: Collection[str]) -> Mapping[str, Message]:
        """Return those of these messages that are stored, by id."""
        with self._current():
            return {key: self._messages[key] for key in ids if key in self._messages}

    # Orders

    def order(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        with self._current():
            return self._orders.get(order_id)

    def orders(
        self, wanted: Filter = EVERY_ORDER, limit: int | None = None
    ) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        with self._current():
            newest = reversed(self._orders.values())
            return [order for order in newest if wanted.matches(order)][:limit]

    def count(self, wanted: Filter = EVERY_ORDER) -> int:
        """Return how many orders are wanted."""
        return len(self.orders(wanted))

    def ids(self, *, prefix: str | None = None, keys: Collection[str] = ()) -> Mapping[str, str]:
        """Return ids of orders: those beginning with `prefix`, by id, or those with `keys`, by key.

        An order placed without a key has its id for one.
        """
        with self._current():
            if prefix is not None:
                return {found: found for found in self._orders if found.startswith(prefix)}
            return {key: found for key in keys if (found := self._with_key(key)) is not None}

    def keys(self, order_ids: Collection[str]) -> Mapping[str, str]:
        """Return, by order id, the keys of those of these orders that were placed with one."""
        wanted = set(order_ids)
        with self._current():
            return {found: key for key, found in self._keys.items() if found in wanted}

    # Deliveries

    def pending(self) -> Iterator[Pending]:
        """Yield the pending deliveries, oldest first."""
        with self._current():
            found = [
                Pending(delivery, key not in self._ours, key in self._deferred)
                for key, delivery in self._pending.items()
            ]
        return iter(found)

    def deliveries(self, *statuses: Status) -> Iterator[Account]:
        """Yield the deliveries in one of these states, oldest first; all where none is given."""
        with self._current():
            found = [
                replace(
                    account,
                    is_abandoned=key in self._pending and key not in self._ours,
                    is_deferred=key in self._deferred,
                )
                for key, account in self._accounts.items()
                if not statuses or account.delivery.status in statuses
            ]
        return iter(found)

    # Snapshots

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none."""
        snapshot = self._snapshots.get(name)
        return None if snapshot is None else msgspec.json.decode(snapshot, type=Snapshot)

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, tables and cursor in one step, in place of the one before."""
        self._snapshots[name] = msgspec.json.encode(snapshot)  # a copy, and proof that it can be

    def saved(self) -> Sequence[str]:
        """Return the names of the snapshots."""
        return list(self._snapshots)

    # Upkeep

    def is_due(self, name: str) -> bool:  # noqa: ARG002 - as the port has it
        """Return True: to bring a snapshot up to date is always cheap here."""
        return True

    def is_stale(self, name: str) -> bool:  # noqa: ARG002 - same
        """Return True: to save a snapshot is as cheap as to load it."""
        return True

    def check(self) -> Iterator[Finding]:
        """Say that there is nothing to check."""
        yield Finding("ok", "store", "is in memory, and gone with this process")

    def repair(self) -> Iterator[str]:
        """Do nothing: there is nothing that could be damaged."""
        return iter(())

    def checkpoint(self) -> bool:
        """Do nothing, for nothing has to be brought up to date; return False."""
        return False

    def close(self) -> None:
        """Do nothing: what is stored stays for as long as the store is used."""

    # Everything below is called with the lock held

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Hold the lock, everything being folded in."""
        with self._appended:
            for entry in self._log[self._folded :]:
                self._fold(entry)
                self._folded += 1
            yield

    def _fold(self, entry: _Entry) -> None:
        """Learn what an entry says; to learn it twice, after an interruption, does no harm."""
        record, commit = entry
        for change in commit.changes:
            self._orders[change.state.id] = change.state
            if change.key is not None:
                self._keys[change.key] = change.state.id
        self._messages |= {message.id: message for message in commit.messages}
        for delivery in record.deliveries:
            key = delivery.key
            since = self._accounts[key].since if key in self._accounts else record.time
            self._accounts[key] = Account(delivery, since, record.time, is_abandoned=False)
            self._pending.pop(key, None)
            self._ours.discard(key)
            self._deferred.discard(key)
            if delivery.status == "pending":
                self._pending[key] = delivery
                (self._deferred if commit.is_deferred else self._ours).add(key)

    def _append(self, commit: Commit) -> Cursor:
        number = len(self._log) + 1
        states = changed_by_plugins(commit)
        record = Record((number,), number, now(), commit.messages, commit.deliveries, states)
        self._log.append(_Entry(record, commit))
        self._appended.notify_all()
        return record.cursor

    def _changes(self, record: Record) -> tuple[Change, ...]:
        """Return what a record of another store makes of orders."""
        states: dict[str, OrderState] = {}
        keys: dict[str, str | None] = {}
        for message in record.messages:
            if isinstance(message, OrderEvent) and is_change(type(message)):
                order_id = message.order_id
                states[order_id] = evolve(states.get(order_id, self._orders.get(order_id)), message)
                if isinstance(message, OrderCreated):
                    keys[order_id] = message.key
        states |= {state.id: state for state in record.states}
        return tuple(Change(state, 0, keys.get(state.id)) for state in states.values())

    def _is_to_be_made(self, found: Delivery) -> bool:
        known = self._accounts.get(found.key)
        return known is not None and known.delivery == found and found.key not in self._ours

    def _head(self) -> Cursor:
        return self._log[-1].record.cursor if self._log else START

    def _with_key(self, key: str) -> str | None:
        return self._keys.get(key) or (key if key in self._orders else None)

    def _check_orders(self, commit: Commit) -> None:
        for change in commit.changes:
            known = self._orders.get(change.state.id)
            actual = known.version if known else 0
            if actual != change.expected:
                raise Conflict(change.state.id, change.expected, actual)
        taken: dict[str, str] = {}  # by this commit
        for change in commit.changes:
            if (key := change.key) is not None:
                first = self._with_key(key) or taken.setdefault(key, change.state.id)
                if first != change.state.id:
                    raise KeyTaken(key, first)

    def _check_deliveries(self, commit: Commit) -> None:
        for outcome in commit.outcomes:
            if outcome.key not in self._pending:
                raise AlreadySettled(*outcome.key)
        for reaction in commit.reactions:  # found at once, so `seen` is of no use here
            if reaction.key in self._accounts:
                raise AlreadySettled(*reaction.key)


def _check_readable(messages: Iterable[Message]) -> None:
    for message in messages:
        try:
            decode_message(msgspec.json.encode(message))
        except (ValueError, TypeError) as error:  # msgspec's are ValueErrors
            raise WrongPayload(f"a message cannot be stored: {error}") from error


def _fits(record: Record, match: Match) -> bool:
    return (
        match == EVERYTHING
        or any(_fits_message(message, match) for message in record.messages)
        or any(d.event in match.events for d in record.deliveries)
        or any(d.subscriber == match.subscriber for d in record.deliveries)
    )


def _fits_message(message: Message, match: Match) -> bool:
    fields = message.fields if isinstance(message, UnknownMessage) else {}
    order_id = getattr(message, "order_id", fields.get("order_id"))
    return (
        (match.order_id is not None and order_id == match.order_id)
        or message.correlation_id in match.conversations
        or message.id in match.events
        or isinstance(message, tuple(match.types))
    )
