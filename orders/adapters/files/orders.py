"""The orders, as the fold of the event log, in TinyDB's tables.

Orders are never written here by hand. The state file is read, the lines that came after it are
folded in, and now and then the result is written back. So a state file may be old, gone or
damaged without any order being lost.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from sys import maxsize
from typing import Any

import msgspec
from tinydb.table import Table

from ...application.store import EVERY_ORDER, Filter
from ...domain.events import OrderCreated
from ...domain.order import OrderState, evolve, is_change
from ...errors import LogDamaged, OrdersError, StoreError
from .disk import Disk, available, copy_path
from .line import BEGINNING, Position
from .log import EventLog
from .matching import with_changes
from .reader import Entry
from .state import (
    FORMAT,
    Documents,
    Head,
    KeyDocument,
    RawTables,
    StateStorage,
    Tables,
    last_documents,
)

NOTHING = msgspec.Raw(b"{}")
SMALL = 1 << 20  # bytes; below, every command brings the state file up to date


class OrderTable(Table):
    """TinyDB's table of orders, which hands out its documents as they are: immutable."""

    document_class: Any = staticmethod(lambda order, _number: order)


class Orders:
    """Looks orders up, always as current as the log; for any number of threads.

    Args:
        path: the state file, `orders.json`.
        log: the event log that the state is the fold of.
        disk: does the file calls.
        warn: called with a sentence when a damaged state file was replaced.

    Attributes:
        path: the state file.
        damage: what is wrong with it, once it was looked at.
        position: up to where the log is folded in.
    """

    def __init__(self, path: Path, log: EventLog, disk: Disk, warn: Callable[[str], None]) -> None:
        self.path = path
        self.damage: str | None = None
        self.position = BEGINNING
        self._log = log
        self._disk = disk
        self._warn = warn
        self._storage = StateStorage(path, disk, RawTables)
        # The fold changes the tables under TinyDB, whose query cache would not notice.
        self._orders = OrderTable(self._storage, "orders", cache_size=0)
        self._is_loaded = False
        self._is_torn = False  # whether a line may be folded in half
        self._is_verified = False
        self._head: Head | None
        self._raw_orders: msgspec.Raw
        self._raw_keys: msgspec.Raw
        self._take_over(None, {})

    # Looking up

    def find(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        with self._log.threads:
            self.refresh()
            number = self._documents.by("id").get(order_id)
            return None if number is None else self._documents[number]

    def newest(self, wanted: Filter, limit: int | None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        with self._log.threads:
            self.refresh()
            if wanted != EVERY_ORDER:
                found: list[Any] = self._table.search(_query(wanted))
                return found[::-1][:limit]
            if limit and not self._is_split:
                last = last_documents(self._raw_orders, limit, dict[int, OrderState])
                return list(last.values())[::-1]
            newest = islice(reversed(self._documents), limit and min(limit, maxsize))
            return [self._documents[number] for number in newest]

    def count(self, wanted: Filter) -> int:
        """Return how many orders are wanted."""
        with self._log.threads:
            self.refresh()
            if wanted != EVERY_ORDER:
                return self._table.count(_query(wanted))
            if not self._is_split:
                return max(last_documents(self._raw_orders, 1, dict[int, OrderState]), default=0)
            return len(self._documents)

    def beginning_with(self, prefix: str) -> dict[str, str]:
        """Return the ids that begin with `prefix`, by id."""
        with self._log.threads:
            self.refresh()
            numbers = self._documents.by("id")
            return {order_id: order_id for order_id in numbers if order_id.startswith(prefix)}

    def with_keys(self, keys: Iterable[str]) -> dict[str, str]:
        """Return, by key, the ids of the orders placed with these keys; an id is a key, too."""
        with self._log.threads:
            self.refresh()
            by_key, by_id = self._keys.by("key"), self._documents.by("id")
            found = {key: number for key in keys if (number := by_key.get(key) or by_id.get(key))}
            if found:  # who gets this answer takes the order for stored
                self._log.make_durable(self.position)
            return {key: self._documents[number].id for key, number in found.items()}

    def keys_of(self, order_ids: Collection[str]) -> dict[str, str]:
        """Return, by id, the keys of those of these orders that were placed with one."""
        with self._log.threads:
            self.refresh()
            numbers = self._documents.by("id")
            found = {order_id: self._keys.get(numbers.get(order_id, "")) for order_id in order_ids}
            return {order_id: document.key for order_id, document in found.items() if document}

    def unknown(self, orders: Sequence[OrderState], end: Position) -> bool:
        """Return whether none of these orders is stored by `end`.

        Cheaper than `find`, which knows more if the answer is False: nothing is loaded or folded
        in. An order is made before it is stored, so it can only stand in lines of its time or
        later, which are searched for its id.
        """
        with self._log.threads:
            if self._is_loaded and not self._is_torn and self.position == end:
                return self._documents.by("id").keys().isdisjoint([order.id for order in orders])
            if not (latest := self._log.latest(min([order.placed_at for order in orders]))):
                return True
            return not any(msgspec.json.encode(order.id) in latest for order in orders)

    # Folding

    def begin(self) -> None:
        """Forget everything: the log is folded from its beginning, whatever the state file has."""
        self._take_over(None, {})
        self._is_loaded = self._is_verified = True

    def refresh(self, until: Position | None = None) -> None:
        """Fold in what has been appended to the log, up to a position in it if that is given."""
        with self._log.threads:
            if not self._is_loaded or self._is_torn:
                self._load()
            end = self._log.position(self.position) if until is None else until
            for entry in self._log.read(self.position, end, with_changes()):
                self._fold(entry)
            self.position = end

    def add(self, entry: Entry) -> None:
        """Fold in a line that this process has appended, without reading it back."""
        with self._log.threads:
            if self._is_loaded and not self._is_torn and self.position == entry.start:
                self._fold(entry)

    def tables(self) -> Tables:
        """Return the tables of orders and keys as folded, to be looked at only."""
        return {"orders": self._documents, "keys": self._keys}

    # The state file

    def verify(self) -> None:
        """Check, at little cost, that the state file is one of this log, before adding to it.

        Raises:
            ForeignFile: it is not ours.
            StoreError: it knows more than the log.
        """
        if self._is_verified:
            return
        with self._log.threads:
            head = self._storage.head()
            is_plausible = head is not None and self._is_made_of_this_log(head)
            if (size := self._storage.size()) and (size < SMALL or not is_plausible):
                self._load()  # which tells damage from a lost log
            self._is_verified = True

    def checkpoint(self, damage: str | None = None) -> bool:
        """Write the state file if the log has gone on since; return whether that was so.

        Where neither is, nothing is made.

        Args:
            damage: why the file is not to be used but made anew, if so.

        Raises:
            NotStored, NotWritten: the disk refuses; the file is as it was, no order is lost.
        """
        if not (self._log.end() or self._storage.size()):
            return False
        self.verify()
        self.refresh()  # which may take long, before the lock is held
        with self._log.threads, self._log.writing() as end:
            self._log.make_durable(end)  # or a power cut could leave less than the state knows
            self.refresh()
            if damage is None:
                self._look_again()
            damage = damage or self.damage
            if self._head and self._head.seq == self.position.seq and not damage:
                return False
            if damage and self._storage.size():
                kept = self.keep_copy()
                self._warn(
                    f"{self.path} {damage}: it is kept as {kept.name} and made anew from the log"
                )
            offset, seq = self.position
            head = Head(FORMAT, seq, offset, self._log.checksum_at(self.position))
            self._storage.write({"log": {"1": msgspec.to_builtins(head)}, **self.tables()})
            self._head, self.damage = head, None
            return True

    def checkpoint_if_due(self) -> bool:
        """Write the state file if that is cheap, or if the log has outgrown it by half."""
        size = self._storage.size()
        head = self._head or self._storage.head()
        behind = self._log.end() - (head.offset if head else 0)
        due = max(size, behind) < SMALL or behind > max(SMALL, size // 2)
        return self.checkpoint() if due else False

    def keep_copy(self) -> Path:
        """Keep a copy of the state file beside it; return where."""
        kept = copy_path(self.path)
        with available(self.path):
            data = self.path.read_bytes()
        self._disk.replace_atomically(kept, data)
        return kept

    def _look_again(self) -> None:
        """See whether another program has put something else in the state file's place."""
        head = self._storage.head()
        if not self._storage.size():
            self._head = None
        elif head is None or not self._is_made_of_this_log(head):
            self.damage = self._storage.load().damage or "was made of another log"

    def _load(self) -> None:
        """Take over the state file as far as it can be trusted."""
        loaded = self._storage.load()
        head, tables, damage = loaded.head, loaded.tables, loaded.damage
        if damage and not self._log.end():
            raise StoreError(
                f"{self.path} {damage}, and there is no event log to make it anew from"
            )
        if head is not None and not self._is_made_of_this_log(head):
            raise StoreError(
                f"{self.path} was made of {head.seq} lines of a log that {self._log.path} is not"
                " (or no longer)",
                "restore that file from a backup, or have orders doctor --repair keep a copy of the"
                " state and go on with the log as it is",
            )
        self._take_over(head, tables)
        self.damage = damage
        self._is_loaded = self._is_verified = True

    def _take_over(self, head: Head | None, tables: RawTables) -> None:
        self._head = head
        self._raw_orders = tables.get("orders", NOTHING)
        self._raw_keys = tables.get("keys", NOTHING)
        self.__dict__.pop("_documents", None)
        self.__dict__.pop("_keys", None)
        self.position = head.position if head else BEGINNING
        self._is_torn = False

    @cached_property
    def _documents(self) -> Documents:
        """The table of orders, which takes longer to split than to read."""
        return Documents(self._raw_orders, OrderState)

    @property
    def _is_split(self) -> bool:
        """Whether it is; until then its JSON is current, whose end has the newest orders."""
        return "_documents" in self.__dict__

    @property
    def _table(self) -> OrderTable:
        """The table of orders for TinyDB, to be searched."""
        self._storage.tables = {"orders": self._documents}
        return self._orders

    @cached_property
    def _keys(self) -> Documents:
        """The table of keys, which takes as long to decode as that of orders, and fewer need."""
        return Documents(self._raw_keys, KeyDocument)

    def _is_made_of_this_log(self, head: Head) -> bool:
        return head.format == FORMAT and self._log.ends_at(head.position, head.line)

    def _fold(self, entry: Entry) -> None:
        self._is_torn = True
        for message in entry.line.messages:
            if is_change(type(message)):
                self._apply(message, entry.line.seq)
        for state in entry.line.states:
            self._put(self._documents.by("id").get(state.id), state)
        self.position = entry.end
        self._is_torn = False

    def _apply(self, event: Any, number_of_line: int) -> None:
        number = self._documents.by("id").get(event.order_id)
        try:
            state = evolve(None if number is None else self._documents[number], event)
        except (OrdersError, ValueError) as error:
            raise LogDamaged(self._log.path, number_of_line, str(error)) from error
        number = self._put(number, state)
        if isinstance(event, OrderCreated) and event.key is not None:
            self._keys.put(number, KeyDocument(event.key, state.id))

    def _put(self, number: str | None, state: OrderState) -> str:
        number = number or str(len(self._documents) + 1)
        self._documents.put(number, state)
        return number


def _query(wanted: Filter) -> Any:
    return wanted.matches
