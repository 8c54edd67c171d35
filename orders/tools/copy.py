"""Moving house: a whole store carried into another one, of whatever engine.

The log is carried, record by record, and all else follows from it. What the target holds must
be the beginning of what the source holds, so a copy that was interrupted goes on when it is run
again, and no other store is ever written to. In the end the two are compared.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from os.path import realpath
from typing import Any, NamedTuple

from msgspec.structs import astuple, replace

from ..application.store import START, Cursor, Record, Store
from ..bootstrap import App
from ..errors import FollowerError, Interrupted, OrdersError, StoreError
from ..projections.replay import replay
from ..settings import MEMORY

CHUNK = 500  # records that are written together
ROUNDS = 20  # looks for what was written meanwhile

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Copied(NamedTuple):
    """What came of a copy, in records."""

    total: int
    carried: int  # now; the others were there
    is_complete: bool  # else the source was written to all the time


class _Common(NamedTuple):
    """How many records two stores have in common, up to where, and how many the first has."""

    number: int
    cursor: Cursor
    total: int


def copy(source: App, target: App, progress: Progress) -> Copied:
    """Carry into the target what it lacks, and compare.

    Args:
        source: the application on the store to read.
        target: the one on the store to write to, which is empty or the beginning of a copy.
        progress: shows how many records of how many are carried; see `Console.progress`.

    Raises:
        OrdersError: they are one store, the source is empty, or the target another store.
        StoreError: one of them cannot be used, or the copy is not what it should be.
        Interrupted: somebody pressed Ctrl-C; to run it again goes on.
    """
    ours, theirs = source.store, target.store
    if _is_same(ours, theirs):
        raise OrdersError(f"{ours.location} cannot be copied to itself", "name another store")
    if not ours.head():
        raise OrdersError(f"{ours.location} holds nothing to copy", "name another store")
    common = _common(ours, theirs)
    with progress("Copying", common.total - common.number) as advance:
        end = _carry(ours, theirs, common.cursor, advance)
    copied = _common(ours, theirs, end)
    if copied.number < copied.total:
        raise StoreError(f"{theirs.location} has {copied.number:,} of {copied.total:,} records")
    is_equal, is_complete = _derived(ours) == _derived(theirs), ours.head() == end
    if is_complete and not is_equal:
        raise StoreError(f"{theirs.location} has the records of {ours.location}, not its orders")
    for finding in theirs.check():
        if not finding.is_well:
            raise StoreError(f"the copy is not well: {finding.text}", finding.cure)
    try:
        deque(replay(theirs, target.projections.values(), keep=True), maxlen=0)
    except FollowerError as error:  # it can be made again from the log
        target.warn(str(error))
    return Copied(copied.total, copied.total - common.number, is_complete)


def _common(source: Store, target: Store, until: Cursor | None = None) -> _Common:
    """Compare every record that the target has; read all of the source, which may be damaged."""
    copies = target.read()
    number, cursor, total = 0, START, 0
    for record in source.read(until=until):
        total = record.number
        if (copied := next(copies, None)) is not None:
            if _essence(copied) != _essence(record):
                raise _another(source, target, record.number)
            number, cursor = record.number, record.cursor
    if (more := next(copies, None)) is not None:
        raise _another(source, target, more.number)
    return _Common(number, cursor, total)


def _another(source: Store, target: Store, number: int) -> OrdersError:
    return OrdersError(
        f"{target.location} is no copy of {source.location}: record {number:,} is another one;"
        " nothing was changed",
        "copy into a store that is empty",
    )


def _carry(source: Store, target: Store, after: Cursor, advance: Callable[[], None]) -> Cursor:
    """Carry what the source has after a place, and what comes meanwhile; return up to where."""
    carried = 0
    try:
        for _ in range(ROUNDS):
            if (end := source.head()) == after:
                break
            records = source.read(after, end)
            while chunk := [*islice(records, CHUNK)]:
                target.restore(chunk)
                carried += len(chunk)
                for _ in chunk:
                    advance()
            after = end
    except KeyboardInterrupt:
        raise Interrupted(f"{carried:,} records copied", "run it again for the rest") from None
    return after


def _essence(record: Record) -> tuple[Any, ...]:
    """Return what has to arrive of a record: all but what each engine has of its own."""
    return astuple(replace(record, cursor=START, process=None))


def _derived(store: Store) -> tuple[Any, ...]:
    """Return what follows from the records: orders, keys, deliveries.

    Who writes at the same time as others may queue deliveries in another order than the log's.
    """
    orders = list(store.orders())
    keys = dict(store.keys([order.id for order in orders]))
    accounts = store.deliveries()
    return (
        orders,
        keys,
        {one.delivery.key: (one.delivery, one.since, one.changed) for one in accounts},
    )


def _is_same(source: Store, target: Store) -> bool:
    ours, theirs = source.location, target.location
    if MEMORY in {ours, theirs}:  # which each has one of its own
        return source is target
    return ours == theirs or ("://" not in ours and realpath(ours) == realpath(theirs))
