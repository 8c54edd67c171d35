"""Where orders are looked up: the port, and TinyDB behind it.

Orders are never written here by hand. The repository is the fold of the event log: it reads
the state file, folds in the lines that came after it, and now and then writes the result
back. So a state file may be old, gone or damaged without any order being lost.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from sys import maxsize
from typing import Protocol

import msgspec
from tinydb import TinyDB

from .disk import Disk, aside
from .domain import CHANGES, Order, OrderState, evolve
from .errors import AmbiguousOrder, LogDamaged, OrderNotFound, StoreError
from .event_log import EventLog
from .events import OrderCreated, OrderEvent
from .filters import EVERY_ORDER, Filter, query
from .ledger import START, Position
from .line import checksum
from .log_reader import Entry
from .storage import (
    FORMAT,
    Documents,
    Head,
    KeyDocument,
    Loaded,
    OrderDocument,
    OrderTables,
    StateStorage,
    Tables,
)

SMALL = 1 << 20  # bytes; below, every command brings the state file up to date


class OrderRepository(Protocol):
    """Looks orders up. What it returns is the caller's own: changing it changes nothing here."""

    def verify(self) -> None:
        """Raise StoreError if what is stored is not of the log that is to be added to."""

    def get(self, order_id: str) -> Order:
        """Return the order with this id; raise OrderNotFound."""

    def find(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""

    def resolve(self, prefix: str) -> str:
        """Return the id that begins with `prefix`; raise OrderNotFound or AmbiguousOrder."""

    def with_keys(self, keys: Iterable[str]) -> dict[str, str]:
        """Return, by key, the ids of the orders placed with these keys; an id is a key, too."""

    def version(self, order_id: str) -> int:
        """Return the order's stored version; 0 where there is no such order."""

    def note(self, entry: Entry) -> None:
        """Take note of a line that this process has appended."""

    def list(self, wanted: Filter = ..., limit: int | None = None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""

    def count(self, wanted: Filter = ...) -> int:
        """Return how many orders are wanted."""


class TinyDBOrderRepository:
    """Orders in TinyDB's JSON, always as current as the log.

    Args:
        path: the state file, `orders.json`.
        log: the event log that the state is the fold of.
        disk: does the file calls.
        warn: told in a sentence when the state file had to be set aside.
        distrust: why the state file is not to be used but made anew, if so.

    Attributes:
        damage: what is wrong with the state file, once it was looked at.
    """

    def __init__(
        self,
        path: Path,
        log: EventLog,
        disk: Disk,
        warn: Callable[[str], None],
        distrust: str | None = None,
    ) -> None:
        self.path = path
        self._log = log
        self._disk = disk
        self._warn = warn
        self._distrust = distrust
        self._storage = StateStorage(path, disk, OrderTables)
        # The fold changes the tables under TinyDB, whose query cache would not notice.
        self._orders = TinyDB(storage=lambda: self._storage).table("orders", cache_size=0)
        self._lock = log.thread_lock  # two locks could be taken in two orders
        self._position: Position | None = None  # up to which the log is folded in
        self._line = ""  # checksum of the last line folded in
        self._head: Head | None = None
        self.damage: str | None = None
        self._documents = Documents({}, OrderDocument)  # the table of orders
        self._keys = Documents({}, KeyDocument)
        self._verified = False

    def get(self, order_id: str) -> Order:
        """Return the order with this id.

        Raises:
            OrderNotFound: there is none.
        """
        if (state := self.find(order_id)) is None:
            raise OrderNotFound(order_id)
        return Order(state)

    def find(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        with self._lock:
            self.refresh()
            return self._state(order_id)

    def resolve(self, prefix: str) -> str:
        """Return the only order id that begins with `prefix`.

        Raises:
            OrderNotFound: none does.
            AmbiguousOrder: several do.
        """
        with self._lock:
            self.refresh()
            numbers = self._documents.by("id")
            if prefix in numbers:
                return prefix
            found = [order_id for order_id in numbers if prefix and order_id.startswith(prefix)]
        if not found:
            raise OrderNotFound(prefix)
        if len(found) > 1:
            raise AmbiguousOrder(prefix, found)
        return found[0]

    def with_keys(self, keys: Iterable[str]) -> dict[str, str]:
        """Return, by key, the ids of the orders placed with these keys; an id is a key, too."""
        with self._lock:
            self.refresh()
            by_key, by_id = self._keys.by("key"), self._documents.by("id")
            found = {key: number for key in keys if (number := by_key.get(key) or by_id.get(key))}
            if found:  # who gets this answer takes the order for stored
                self._log.make_durable(self.position)
            return {key: str(self._documents[number]["id"]) for key, number in found.items()}

    def version(self, order_id: str) -> int:
        """Return the order's stored version; 0 where there is no such order."""
        state = self.find(order_id)
        return state.version if state else 0

    def list(self, wanted: Filter = EVERY_ORDER, limit: int | None = None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        with self._lock:
            self.refresh()
            if wanted == EVERY_ORDER:
                newest = islice(reversed(self._documents), limit and min(limit, maxsize))
                return [self._stored(number) for number in newest]
            found = self._orders.search(query(wanted))
        return [msgspec.convert(document, OrderState) for document in found[::-1][:limit]]

    def count(self, wanted: Filter = EVERY_ORDER) -> int:
        """Return how many orders are wanted."""
        with self._lock:
            self.refresh()
            if wanted == EVERY_ORDER:
                return len(self._documents)
            return self._orders.count(query(wanted))

    def key_of(self, order_id: str) -> str:
        """Return the key that the order was placed with, or else its id."""
        with self._lock:
            self.refresh()
            document = self._keys.get(self._documents.by("id")[order_id])
        return document["key"] if document else order_id

    def refresh(self, until: int | None = None) -> None:
        """Fold in what has been appended to the log, up to a byte of it if that is given."""
        with self._lock:
            if self._position is None:
                self._position = self._load()
            elif self._position.offset == self._log.size():
                return
            for entry in self._log.read(self._position, until=until):
                self._fold(entry)

    def note(self, entry: Entry) -> None:
        """Fold in a line that this process has appended, without reading it back."""
        with self._lock:
            if self._position == entry.start:
                self._fold(entry)

    @property
    def position(self) -> Position:
        """Up to where the log is folded in."""
        return self._position or START

    def tables(self, until: int | None = None) -> Tables:
        """Return the tables of orders and keys, to be looked at only; see `refresh`."""
        with self._lock:
            self.refresh(until)
            return {name: self._storage.tables[name] for name in ("orders", "keys")}

    def verify(self) -> None:
        """Check, at little cost, that the state file is one of this log, before adding to it.

        Raises:
            ForeignFile: it is not ours.
            StoreError: it knows more than the log.
        """
        with self._lock:
            if self._verified:
                return
            head = self._storage.head()
            is_plausible = head is not None and self._is_made_of_this_log(head)
            if self._storage.size() and not is_plausible:
                self._position = self._load()  # which tells damage from a lost log
            self._verified = True

    def checkpoint(self) -> bool:
        """Write the state file if the log has gone on since; return whether that was so.

        Raises:
            NotStored, NotWritten: the disk refuses; the file is as it was, no order is lost.
        """
        if not self._distrust:
            self.verify()
        with self._lock, self._log.writing():
            self._log.sync()  # the state must not know what a power cut could take from the log
            self.refresh()
            position = self._position or START
            self._look_again()
            if self._head and self._head.seq == position.seq and not self.damage:
                return False
            if self.damage:
                self._set_aside(self.damage)
            head = Head(FORMAT, position.seq, position.offset, self._line, "")
            self._storage.write({"log": {"1": msgspec.structs.asdict(head)}, **self.tables()})
            self._head, self.damage = head, None
            return True

    def checkpoint_if_due(self) -> bool:
        """Write the state file if that is cheap, or if the log has outgrown it by half."""
        size = self._storage.size()
        head = self._head or self._storage.head()
        behind = self._log.end() - (head.offset if head else 0)
        due = max(size, behind) < SMALL or behind > max(SMALL, size // 2)
        return self.checkpoint() if due else False

    def _look_again(self) -> None:
        """See whether another program has put something else in the state file's place."""
        head = self._storage.head()
        if self._distrust or not self._storage.size():
            self._head = None
        elif head is None or not self._is_made_of_this_log(head):
            self.damage = self._storage.load().damage or "was made of another log"

    def _load(self) -> Position:
        """Take over the state file as far as it can be trusted."""
        loaded = Loaded(None, {}, self._distrust) if self._distrust else self._storage.load()
        head, tables, damage = loaded
        if damage and not self._log.end():
            raise StoreError(f"{self.path} {damage}, and there is no event log to mend it from")
        if head is not None and not self._is_made_of_this_log(head):
            raise StoreError(
                f"{self.path} was made of {head.seq} lines of a log that {self._log.path} is not"
                " (or no longer); restore that file from a backup, or move the state file away"
                " to go on with the log as it is"
            )
        self._head, self._line, self.damage = head, head.line if head else "", damage
        self._documents = Documents(tables.get("orders", {}), OrderDocument)
        self._keys = Documents(tables.get("keys", {}), KeyDocument)
        self._storage.tables = {"orders": self._documents, "keys": self._keys}
        self._verified = True
        return head.position if head else START

    def _is_made_of_this_log(self, head: Head) -> bool:
        return head.format == FORMAT and self._log.ends_at(head.position, head.line)

    def _fold(self, entry: Entry) -> None:
        for message in entry.line.messages:
            if isinstance(message, CHANGES):
                self._apply(message, entry.line.seq)
        self._position, self._line = entry.end, checksum(entry.raw)

    def _apply(self, event: OrderEvent, seq: int) -> None:
        try:
            state = evolve(self._state(event.order_id), event)
        except ValueError as error:
            raise LogDamaged(self._log.path, seq, str(error)) from error
        number = self._documents.by("id").get(state.id) or str(len(self._documents) + 1)
        self._documents.put(number, msgspec.to_builtins(state))
        if isinstance(event, OrderCreated) and event.key is not None:
            self._keys.put(number, {"key": event.key, "order_id": state.id})

    def _state(self, order_id: str) -> OrderState | None:
        number = self._documents.by("id").get(order_id)
        return None if number is None else self._stored(number)

    def _stored(self, number: str) -> OrderState:
        return msgspec.convert(self._orders.get(doc_id=int(number)), OrderState)

    def _set_aside(self, damage: str) -> None:
        if not self._storage.size():
            return
        kept = aside(self.path)
        self._disk.replace_atomically(kept, self.path.read_bytes())
        self._warn(f"{self.path} {damage}: it is kept as {kept.name} and made anew from the log")
