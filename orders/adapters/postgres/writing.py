"""What is written: commits and claims by a function of the server's each, restored records."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, LiteralString, cast

import msgspec
import psycopg
from psycopg import errors

from ...application.store import Commit, Cursor, Delivery, Record, check_follows
from ...domain.order import OrderState
from ...errors import AlreadySettled, Conflict, KeyTaken, OrdersError
from .connection import Session
from .fold import Folded, fold
from .record import Row, encode, encode_part

COMMIT = b"select store_commit($1, $2), is_heard()"
CLAIM: LiteralString = "select claim_delivery(%s, %s, %s, %s, %s, %s, %s::text[], %s::text[], %s)"

REFUSALS: dict[str, type[Conflict | KeyTaken | AlreadySettled]] = {
    "OR001": Conflict,
    "OR002": KeyTaken,
    "OR003": AlreadySettled,
}
TRIES = 5  # of a commit that the server took back, as two waited for each other

LAST_NUMBER: LiteralString = """
    select number_at(era, xid, seq) from record order by era desc, xid desc, seq desc limit 1
"""
RESTORE_RECORD: LiteralString = """
    insert into record (era, seq, time, about, kinds, body) values (%s, %s, %s, %s, %s, %s)
"""
RESTORE_DELIVERY: LiteralString = """
    insert into delivery (event, subscriber, status, body, since, changed)
    values (%s, %s, %s, %s, %s, %s)
    on conflict (event, subscriber) do update
    set status = excluded.status, body = excluded.body, owner = null, changed = excluded.changed,
        queued = excluded.queued
"""
RESTORE_ORDER: LiteralString = """
    insert into orders
        (id, version, status, placed_at, customer, items, state, key, era, xid, place)
    values (
        %s, %s, %s, %s, %s, %s, %s, %s, %s,
        coalesce(%s::bigint, pg_current_xact_id()::text::bigint), %s
    )
    on conflict (id) do update
    set version = excluded.version, status = excluded.status, customer = excluded.customer,
        items = excluded.items, state = excluded.state
"""


class _Change(msgspec.Struct, frozen=True):
    """What the server's function is told of an order that changes."""

    id: str
    version: int
    status: str
    placed_at: datetime
    customer: str
    items: str
    state: str
    key: str | None
    expected: int
    place: int


class _Part(msgspec.Struct, frozen=True):
    """What it is told of a delivery."""

    event: str
    subscriber: str
    kind: str
    status: str
    body: str


class _Given(msgspec.Struct, frozen=True):
    """What it is told of a commit."""

    era: int
    owner: int | None
    about: list[str]
    kinds: list[str]
    changes: list[_Change] | None
    parts: list[_Part]


def store(session: Session, commit: Commit, row: Row, lease: int) -> tuple[Cursor, bool]:
    """Store a commit, unless it is refused; return the place behind it, and if anybody listens.

    Raises:
        Conflict, KeyTaken, AlreadySettled: as `Store.commit`.
        psycopg.Error: the server could not.
    """
    given = _Given(
        session.era,
        None if commit.is_deferred else lease,
        row.about,
        row.kinds,
        [
            _Change(*_columns_of(change.state), change.key, change.expected, place)
            for place, change in enumerate(commit.changes, start=1)
        ]
        or None,
        _parts(commit),
    )
    parameters = msgspec.json.encode(given), row.body.encode()  # an array is slow to make
    for tried in range(1, TRIES + 1):
        try:
            answer = session.call(COMMIT, *parameters)
            xid, is_heard = cast("bytes", answer.get_value(0, 0)), answer.get_value(0, 1)
            return (session.era, int(xid), 0), is_heard == b"t"
        except (errors.DeadlockDetected, errors.SerializationFailure):
            if tried == TRIES:
                raise
        except psycopg.Error as error:
            raise _refusal(error) or error from None
    raise AssertionError


def claim(session: Session, found: Delivery, attempt: Delivery, row: Row, lease: int) -> bool:
    """Make a pending delivery ours, if it stands as found and nobody is at it."""
    parameters = (
        session.era,
        lease,
        *found.key,
        encode_part(found),
        encode_part(attempt),
        row.about,
        row.kinds,
        row.body,
    )
    return bool(cast("tuple[Any]", session.link.execute(CLAIM, parameters).fetchone())[0])


def restore(session: Session, records: Sequence[Record], location: str) -> None:
    """Append records as they are, and what follows from them, in one transaction.

    Raises:
        StoreError: they do not follow what is here.
    """
    with session.link.transaction():
        session.link.execute("lock table record in share row exclusive mode")  # nobody commits
        last = session.link.execute(LAST_NUMBER).fetchone()
        check_follows(records, last[0] if last else 0, location)
        orders = _known(session, records)
        before = {order_id: folded.state for order_id, folded in orders.items()}
        fold(records, location, orders)
        session.link.cursor().executemany(RESTORE_RECORD, _record_rows(records, session.era))
        write_deliveries(session, records)
        changed = [one for key, one in orders.items() if one.state is not before.get(key)]
        write_orders(session, (one._replace(record=None) for one in changed))


def write_orders(session: Session, orders: Iterable[Folded]) -> None:
    """Write orders to their table, each with the place of its record if it is in the log."""
    rows = (
        (*_columns_of(state), key, *(record.cursor[:2] if record else (session.era, None)), place)
        for place, (state, key, record) in enumerate(orders, start=1)
    )
    session.link.cursor().executemany(RESTORE_ORDER, rows)


def write_deliveries(session: Session, records: Iterable[Record]) -> None:
    """Write to their table what records say of deliveries; nobody is at the pending ones."""
    rows = (
        (*one.key, one.status, encode_part(one), record.time, record.time)
        for record in records
        for one in record.deliveries
    )
    session.link.cursor().executemany(RESTORE_DELIVERY, rows)


def _known(session: Session, records: Iterable[Record]) -> dict[str, Folded]:
    """Return the orders that records may change, as they stand."""
    ids = {id_ for one in records for id_ in encode(one.messages, (), one.states, None).about}
    ids |= {state.id for one in records for state in one.states}
    rows = session.link.execute(
        "select id, key, state::text from orders where id = any(%s)", [list(ids)]
    )
    return {
        id_: Folded(msgspec.json.decode(state, type=OrderState), key, None)
        for id_, key, state in rows
    }


def _record_rows(records: Iterable[Record], era: int) -> Iterable[tuple[Any, ...]]:
    for seq, one in enumerate(records):
        row = encode(one.messages, one.deliveries, one.states, None)
        yield era, seq, one.time, row.about, row.kinds, row.body


def _columns_of(state: OrderState) -> tuple[str, int, str, datetime, str, str, str]:
    """Return id, version, status, time, customer, items and state, as the tables have them."""
    customer, items = (state.customer or "").casefold(), "\n".join(state.items).casefold()
    facts = state.id, state.version, state.status, state.placed_at
    return (*facts, customer, items, encode_part(state))


def _parts(commit: Commit) -> list["_Part"]:
    parts = [("outcome", one) for one in commit.outcomes]
    parts += [("reaction", one) for one in commit.reactions]
    parts += [("pending", one) for one in commit.pending]
    return [_Part(*one.key, kind, one.status, encode_part(one)) for kind, one in parts]


def _refusal(error: psycopg.Error) -> OrdersError | None:
    """Return what the server's function has refused, if that is what the error says."""
    kind = REFUSALS.get(error.sqlstate or "")
    return kind(*msgspec.json.decode(error.diag.message_detail or "")) if kind else None
