"""The health of the database: what is well, what is not, and what of that can be repaired.

The log is the truth. It is folded from the first record and compared with the tables of orders
and deliveries, which can be made from it anew.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, LiteralString, NamedTuple

import msgspec

from ...application.store import Delivery, DeliveryKey, Finding, Record
from ...domain.order import OrderState
from ...domain.text import count
from ...errors import StoreError
from .connection import Session
from .fold import Folded, fold
from .schema import MIGRATIONS
from .writing import write_deliveries, write_orders

if TYPE_CHECKING:
    from .store import PostgresStore

REPAIR = "orders doctor --repair"
OLDEST = 140_000  # of PostgreSQL that will do, as the server numbers itself
SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")
APART = 5.0  # seconds that clocks may differ

SERVER: LiteralString = """
    select current_setting('server_version_num')::integer, current_setting('server_version'),
        clock_timestamp()
"""

HOLDER: LiteralString = """
    select held.pid, activity.application_name, activity.datname,
        extract(epoch from clock_timestamp() - activity.xact_start)::integer
    from pg_locks held left join pg_stat_activity activity using (pid)
    where held.locktype = 'transactionid' and held.granted and held.mode = 'ExclusiveLock'
    order by age(held.transactionid) desc limit 1
"""


class _Derived(NamedTuple):
    """What follows from the log, as it does and as the tables have it."""

    records: int
    orders: dict[str, Folded]
    has_right_orders: bool
    has_right_deliveries: bool


def check(store: "PostgresStore") -> Iterator[Finding]:
    """Look at everything; change nothing."""
    try:
        session = store.connection.run(lambda session: session)
    except StoreError as error:  # what follows would only say so again
        yield Finding("bad", "log", str(error), error.hint or "")
        return
    yield from _server(store, session)
    schema, version = store.address.schema, len(MIGRATIONS)
    yield Finding("ok", "schema", f'"{schema}" has version {version}, in era {session.era}')
    yield from _durability(store)
    yield from _horizon(store)
    try:
        derived = store.connection.run(lambda session: _derive(store, session))
    except StoreError as error:
        yield Finding("bad", "log", str(error), error.hint or "")
        return
    yield Finding("ok", "log", f"{count(derived.records, 'record')}, every event follows")
    if derived.has_right_orders:
        text = f"{count(len(derived.orders), 'order')}, equal to the fold of the log"
        yield Finding("ok", "state", text)
    else:
        yield Finding("bad", "state", "the orders are not the fold of the log", REPAIR)
    if not derived.has_right_deliveries:
        yield Finding("bad", "deliveries", "they are not the fold of the log", REPAIR)


def repair(store: "PostgresStore") -> Iterator[str]:
    """Make what is wrong anew from the log, in one transaction; yield what was done.

    Raises:
        StoreError: the log cannot be folded, or the server refuses.
    """
    done = store.connection.run(lambda session: _repair(store, session))
    yield from done


def _repair(store: "PostgresStore", session: Session) -> list[str]:
    link, done = session.link, []
    with link.transaction():
        link.execute("lock table record in share row exclusive mode")  # nobody commits meanwhile
        derived = _compare(store, session)
        if not derived.has_right_orders:
            link.execute("delete from orders")
            write_orders(session, derived.orders.values())
            done.append("made the orders anew from the log")
        if not derived.has_right_deliveries:
            link.execute("delete from delivery")
            write_deliveries(session, list(store.log.everything(session)))
            done.append("made the deliveries anew from the log")
    return done


def _derive(store: "PostgresStore", session: Session) -> _Derived:
    with session.link.transaction():
        session.link.execute("set transaction isolation level repeatable read, read only")
        return _compare(store, session)


def _compare(store: "PostgresStore", session: Session) -> _Derived:
    orders: dict[str, Folded] = {}
    deliveries: dict[DeliveryKey, Delivery] = {}
    records = 0

    def observed() -> Iterator[Record]:
        nonlocal records
        for record in store.log.everything(session):
            records += 1
            deliveries.update((delivery.key, delivery) for delivery in record.deliveries)
            yield record

    fold(observed(), store.location, orders)
    expected = {id_: (folded.state, folded.key) for id_, folded in orders.items()}
    kept = {
        id_: (msgspec.json.decode(state, type=OrderState), key)
        for id_, state, key in session.link.execute("select id, state::text, key from orders")
    }
    bodies = session.link.execute("select body from delivery")
    found = (msgspec.json.decode(body, type=Delivery) for (body,) in bodies)
    has_right_deliveries = deliveries == {delivery.key: delivery for delivery in found}
    return _Derived(records, orders, expected == kept, has_right_deliveries)


def _server(store: "PostgresStore", session: Session) -> Iterator[Finding]:
    before = datetime.now(UTC)
    ((number, version, moment),) = store.connection.rows(SERVER)
    passed = datetime.now(UTC) - before
    text = f"PostgreSQL {version}{', a read-only standby' if session.is_standby else ''}"
    if number < OLDEST:
        yield Finding("bad", "server", f"{text}; 14 or later is needed", "update the server")
    else:
        yield Finding("ok", "server", text)
    apart = abs((moment - before - passed / 2).total_seconds())
    if apart > APART + passed.total_seconds():
        text = f"that of the server and ours are {apart:.0f} s apart"
        yield Finding("bad", "clock", text, "have both machines ask a time server")


def _durability(store: "PostgresStore") -> Iterator[Finding]:
    query: LiteralString = (
        "select name from unnest(%s::text[]) name where current_setting(name) = 'off'"
    )
    if off := [name for (name,) in store.connection.rows(query, [list(SETTINGS)])]:
        text = f"the server has {' and '.join(off)} off: a power cut may take what was acknowledged"
        cure = "; ".join(f"alter system set {name} = on" for name in off)
        yield Finding("bad", "durability", text, cure)
    else:
        yield Finding("ok", "durability", f"{', '.join(SETTINGS)} are on")


def _horizon(store: "PostgresStore") -> Iterator[Finding]:
    settled = store.head()
    newest, _ = store.log.ends()
    if newest <= settled:
        yield Finding("ok", "horizon", "everything that is stored can be read")
        return
    text = "what was stored last cannot be read yet: "
    for pid, application, database, age in store.connection.rows(HOLDER):
        since = "some time" if age is None else f"{age} s"
        who = f"process {pid} ({application or 'unknown'}, database {database or 'unknown'})"
        text += f"a transaction of {who} is open since {since}"
        cure = f"select pg_terminate_backend({pid})"
        yield Finding("bad", "horizon", text, cure)
        return
    yield Finding("bad", "horizon", text + "a prepared transaction is open", "rollback prepared")
