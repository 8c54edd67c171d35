"""The files engine behind the store port.

data/events.jsonl         what happened: the event log, the truth
data/orders.json          what is: current orders, derived from the log
data/projections/*.json   snapshots of projections, derived too
data/orders.lock          held by whoever appends
data/.running/*           leases: a locked file for each process that delivers
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import groupby
from pathlib import Path

from ...application.store import (
    EVERY_ORDER,
    EVERYTHING,
    START,
    Account,
    Claim,
    Commit,
    Cursor,
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
from ...domain.order import OrderState
from ...errors import NotStored, NotWritten, OrdersError, StoreBusy
from ...messaging.message import Message
from ..forks import abandon_in_children
from .conflicts import check_deliveries, check_orders, claimable
from .disk import Disk, available
from .leases import Leases, process_of
from .ledger import Accounts
from .line import BEGINNING, Position, encode_messages
from .lock import FileLock
from .log import EventLog
from .lookup import find_messages
from .matching import containing, with_deliveries
from .orders import Orders
from .reader import Entry, Watch
from .snapshots import Snapshots
from .state import proven

POLL = 0.05  # seconds between two looks at the log's size


class FilesStore:
    """Keeps commits, orders, deliveries and snapshots in a directory; see the port `Store`.

    Args:
        directory: where the files are; touched when first needed.
        lock_timeout: seconds to wait for another process.
        disk: does the file calls; a test may give one that fails.
        warn: called with a sentence when something was survived.
        watch: is entered for whatever takes long to read.

    Attributes:
        directory: where the files are.
        log_path: the event log.
        state_path: the current orders.
        accounts: of the deliveries, as far as the log was read for them.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lock_timeout: float = 10.0,
        disk: Disk | None = None,
        warn: Callable[[str], None] = lambda _text: None,
        watch: Watch | None = None,
    ) -> None:
        self.directory = Path(directory)
        with available(self.directory):  # where the current directory was removed, it is nowhere
            self.location = str(self.directory.absolute())
        self.commits = 0
        self.log_path = self.directory / "events.jsonl"
        self.state_path = self.directory / "orders.json"
        self.disk = disk or Disk()
        self._lock_timeout = lock_timeout
        self._warn = warn
        self._watch = watch
        self._compose()
        abandon_in_children(self)

    def _compose(self) -> None:
        """Begin with nothing open and nothing known."""
        self.lock = FileLock(self.directory / "orders.lock", self._lock_timeout)
        self.leases = Leases(self.directory / ".running", self.disk)
        self.log = EventLog(self.log_path, self.lock, self.disk, self._vouched, self._watch)
        self.state = self.new_state()
        self.snapshots = Snapshots(self.directory / "projections", self.log, self.disk)
        self.accounts = Accounts()
        self._has_stored = False
        self._begun: tuple[Commit, Position] | None = None  # the last commit, and where

    def abandon(self) -> None:
        """Begin anew in a child process, which must not share what its parent has open."""
        self.log.close()
        self.lock.abandon()
        self.leases.abandon()
        self._compose()

    # Commits

    def commit(self, commit: Commit) -> Cursor:
        """Store it all, or nothing; return the place behind it. The port says what it raises."""
        deliveries = commit.deliveries
        if not (commit.messages or commit.changes or deliveries):
            return self.head()
        content, states = encode_messages(commit.messages), changed_by_plugins(commit)
        with self.log.threads:
            with self._writing() as end:
                check_orders(commit.changes, self.state, end)
                check_deliveries(commit, self.log)
                if not (commit.messages or deliveries):
                    return _cursor(end)
                is_ours = commit.makes_pending and not commit.is_deferred
                owner = self.leases.mine() if is_ours else None
                self._has_stored, self._begun = True, (commit, end)
                entry = self.log.append(content, deliveries, owner=owner, states=states)
            if commit.is_durable:
                self._confirm(entry)
            self.state.add(entry)
            self.commits += 1
            return entry.end

    def _confirm(self, *entries: Entry) -> None:
        """Make appended lines durable; if they are in doubt, let others deliver their events."""
        try:
            self.log.confirm(*entries)
        except NotStored as error:
            if not error.is_certain:
                self.release()
            raise

    def restore(self, records: Sequence[Record]) -> None:
        """Append records of another store as they are, in order; one sync for all."""
        with self._writing() as end:
            check_follows(records, end.seq, self.location)
            self._has_stored = True
            for record in records:
                content = encode_messages(record.messages)
                entry = self.log.append(
                    content, record.deliveries, states=record.states, time=record.time
                )
                self.state.add(entry)
            self.log.make_durable(self.log.position())

    def holds(self, commit: Commit) -> bool:
        """Return whether a commit that was interrupted in `commit` is stored all the same."""
        deliveries = commit.deliveries
        ids = [message.id for message in commit.messages]
        events = [*ids, *(delivery.event for delivery in deliveries)]
        wanted = containing(Match(events=events[:1]))
        with self._writing():
            is_last = self._begun is not None and self._begun[0] is commit
            begun = self._begun[1] if self._begun and is_last else BEGINNING
            is_stored = any(
                [message.id for message in entry.line.messages] == ids
                and entry.line.deliveries == deliveries
                for entry in self.log.read(begun, wanted=wanted)
            )
            if is_stored and commit.is_durable:
                self.log.make_durable(self.log.position())
            return is_stored

    def _writing(self) -> AbstractContextManager[Position]:
        """Hold the store for writing, once it is clear that the state belongs to the log.

        What is refused is refused before anything is cut off, appended or made.
        """
        self.state.verify()
        return self.log.writing()

    # The log

    def head(self) -> Cursor:
        """Return the place behind the last record."""
        return _cursor(self.log.position())

    def read(
        self, after: Cursor = START, until: Cursor | None = None, match: Match = EVERYTHING
    ) -> Iterator[Record]:
        """Yield the records between two places, oldest first; up to the last one by default."""
        end = None if until is None else Position(*until)
        for line, _, position, _ in self.log.read(Position(*after), end, containing(match)):
            yield Record(
                position,
                line.seq,
                line.time,
                line.messages,
                line.deliveries,
                line.states,
                process_of(line.owner),
            )

    def wait(self, after: Cursor, timeout: float) -> bool:
        """Wait until there is something after a place, `timeout` seconds at most."""
        position, deadline = Position(*after), time.monotonic() + timeout
        while True:
            if self.log.position() > position:
                return True
            if (left := deadline - time.monotonic()) <= 0:
                return False
            time.sleep(min(POLL, left))

    def sync(self, until: Cursor) -> None:
        """Make durable what stands before a place."""
        self.log.make_durable(Position(*until))

    def messages(self, ids: Collection[str]) -> Mapping[str, Message]:
        """Return those of these messages that are stored, by id."""
        return find_messages(self.log, self.accounts, ids)

    # Orders

    def order(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        return self.state.find(order_id)

    def orders(
        self, wanted: Filter = EVERY_ORDER, limit: int | None = None
    ) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        return self.state.newest(wanted, limit)

    def count(self, wanted: Filter = EVERY_ORDER) -> int:
        """Return how many orders are wanted."""
        return self.state.count(wanted)

    def ids(self, *, prefix: str | None = None, keys: Collection[str] = ()) -> Mapping[str, str]:
        """Return ids of orders: by id those that begin with `prefix`, by key those with `keys`.

        An order placed without a key has its id for one. Orders found by key are durable.
        """
        found = {} if prefix is None else self.state.beginning_with(prefix)
        return found | (self.state.with_keys(keys) if keys else {})

    def keys(self, order_ids: Collection[str]) -> Mapping[str, str]:
        """Return, by order id, the keys of those of these orders that were placed with one."""
        return self.state.keys_of(order_ids)

    # Deliveries

    def pending(self) -> Iterator[Pending]:
        """Yield the pending deliveries, oldest first."""
        with self.log.threads:
            self.log.position()
            outstanding = self.log.ledger().outstanding()
        is_abandoned = self._abandonment()
        for one in outstanding:
            yield Pending(one.delivery, is_abandoned(one.owner), one.owner is None)

    def claim(self, claims: Sequence[Claim]) -> list[Claim]:
        """Let this process make those of these deliveries that still stand as they were found.

        Returns them; with each of the others another process was quicker, or is at it.
        """
        with self.log.threads:
            with self._writing():
                are_failed = any(found.status != "pending" for found, _ in claims)
                accounts = self._current_accounts().by_key if are_failed else {}
                events = claimable(claims, self.log.ledger(), accounts, self._abandonment())
                ours = [claim for claim in claims if claim[0].key in events]
                if not ours:
                    return []
                self._has_stored = True
                owner = self.leases.mine()
                entries = [
                    self.log.append(
                        deliveries=tuple(one for _, one in ones), owner=owner, claimed=at
                    )
                    for at, ones in groupby(ours, lambda claim: events[claim[0].key])
                ]
            self._confirm(*entries)
            for entry in entries:
                self.state.add(entry)
            return ours

    def release(self) -> None:
        """Let other processes make the pending deliveries that this one set out to make."""
        self.leases.close()

    def deliveries(self, *statuses: Status) -> Iterator[Account]:
        """Yield the deliveries in one of these states, oldest first; all where none is given."""
        with self.log.threads:
            accounts = tuple(self._current_accounts().by_key.values())
        is_abandoned = self._abandonment()
        for delivery, owner, since, changed, _ in accounts:
            if not statuses or delivery.status in statuses:
                is_pending = delivery.status == "pending"
                is_left = is_pending and is_abandoned(owner)
                yield Account(delivery, since, changed, is_left, is_left and owner is None)

    def _current_accounts(self) -> Accounts:
        accounts, end = self.accounts, self.log.position()
        for found in self.log.summaries(accounts.position, end, with_deliveries):
            accounts.apply(found.line, found.start)
        accounts.position = end
        return accounts

    def _abandonment(self) -> Callable[[str | None], bool]:
        """Return what tells whether the owner of a lease is gone, asking for each lease once."""
        return cache(lambda owner: not self.leases.is_alive(owner))

    # Snapshots

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none."""
        return self.snapshots.load(name)

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, tables and cursor in one step, in place of the one before."""
        with self._writing():
            self.snapshots.save(name, snapshot)

    def saved(self) -> Sequence[str]:
        """Return the names of the snapshots."""
        return [path.stem for path in self.snapshots.paths]

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
        """Repair what `check` has found, keeping copies; yield what was done, a sentence each.

        Raises:
            StoreError: the log is damaged, or gone.
        """
        from .check import repair  # noqa: PLC0415 - only doctor needs it

        return repair(self)

    def checkpoint(self) -> bool:
        """Bring the state file up to date; return whether something changed."""
        return self.state.checkpoint()

    def close(self) -> None:
        """Bring the state file up to date if that is due; let go of everything."""
        try:
            if self._has_stored:
                self.state.checkpoint_if_due()
            elif self.state.damage:
                self._warn(
                    f"{self.state_path} {self.state.damage}; the log was used instead, and the"
                    " next command that writes makes the file anew"
                )
        except (NotStored, NotWritten, StoreBusy) as error:
            self._warn(f"{error}; the orders themselves are safe in the log")
        except OrdersError as error:
            self._warn(str(error))
        finally:
            self._has_stored = False
            self.leases.close()
            self.log.close()
            self.lock.close()

    def new_state(self) -> Orders:
        """Return a fold of the log of its own, for comparison."""
        return Orders(self.state_path, self.log, self.disk, self._warn)

    def _vouched(self) -> int:
        return max(proven(self.state_path, self.disk), self.snapshots.proven())


def _cursor(position: Position) -> Cursor:
    return position if position.seq else START
