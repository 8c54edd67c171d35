"""The log in the order of transactions: nothing skipped, nothing twice, whatever is under way."""

import random
import time
from collections import defaultdict
from contextlib import closing
from threading import Timer
from typing import ClassVar

import psycopg
import pytest
from storing import commit_of, moved, numbers, place

from orders.adapters.postgres import reading, writing
from orders.adapters.postgres import store as store_module
from orders.adapters.postgres.store import PostgresStore, _encode
from orders.application.store import START, Change, Commit, Snapshot
from orders.domain.events import OrderEvent
from orders.domain.order import Order, apply
from orders.errors import Conflict


class Touched(OrderEvent, frozen=True, kw_only=True):
    """An order was looked at: it can happen any number of times."""

    topic: ClassVar[str] = "touched"

    by: int = 0


@apply.register
def _(_event: Touched, order):
    return order


def commit_and_wait(store, commit, wait, *, is_taken_back=False):
    """Store a commit in a transaction that is open for a while, and perhaps rolled back."""

    def work(session):
        with session.link.transaction(force_rollback=is_taken_back):
            writing.store(session, commit, _encode(commit), store.connection.lease)
            wait()

    store.connection.run_once(work)


def test_what_stands_behind_a_transaction_under_way_is_read_after_it(store, url):
    first, second = Order.place(["first"]), Order.place(["second"])
    with closing(PostgresStore(url)) as other:

        def meanwhile():
            other.commit(commit_of(second))
            assert other.order(second.id) == second.state  # it is stored
            assert numbers(other) == []
            assert other.head() == START
            assert not other.wait(START, 0)

        commit_and_wait(store, commit_of(first), meanwhile)
        records = list(other.read())
    assert [record.messages[0].items[0] for record in records] == ["first", "second"]
    assert [record.number for record in records] == [1, 2]


def test_what_is_rolled_back_holds_nothing_back_for_good(store, url):
    lost = Order.place(["lost"])
    with closing(PostgresStore(url)) as other:
        commit_and_wait(store, commit_of(lost), lambda: place(other), is_taken_back=True)
        assert numbers(other) == [1]
        assert other.order(lost.id) is None


def test_what_was_just_stored_is_shown_though_another_transaction_is_about_to_end(
    store, postgres, monkeypatch
):
    monkeypatch.setattr(reading, "PATIENCE", 60)
    with psycopg.connect(postgres.url("template1")) as other:
        other.execute("select pg_current_xact_id()")
        timer = Timer(0.1, other.rollback)
        place(store)
        timer.start()
        assert numbers(store) == [1]
        timer.join()


def test_who_has_waited_for_a_transaction_in_vain_waits_no_more_for_it(
    store, postgres, monkeypatch
):
    waits = []
    monkeypatch.setattr(reading.time, "sleep", waits.append)
    with psycopg.connect(postgres.url("template1")) as other:
        other.execute("select pg_current_xact_id()")
        place(store)
        assert numbers(store) == []
        assert waits
        waits.clear()
        place(store)
        assert numbers(store) == []
        assert waits == []
    assert numbers(store) == [1, 2]


def test_a_transaction_of_another_database_holds_the_log_back_and_not_the_orders(store, postgres):
    with psycopg.connect(postgres.url("template1")) as other:
        other.execute("select pg_current_xact_id()")
        order = place(store)
        assert store.order(order.id) == order.state
        assert store.count() == 1
        assert numbers(store) == []
    assert numbers(store) == [1]


def test_whoever_waits_is_told_and_need_not_look(store, url, monkeypatch):
    monkeypatch.setattr(store_module, "POLL", 60)
    with closing(PostgresStore(url)) as other:
        after, told = other.head(), []
        await_hint = other.connection.await_hint
        hear = lambda seconds: told.append(await_hint(seconds)) or told[-1]
        monkeypatch.setattr(other.connection, "await_hint", hear)
        timer = Timer(0.1, place, [store])
        timer.start()
        assert other.wait(after, 60)
        timer.join()
    assert True in told


def test_of_what_is_pending_as_much_is_fetched_as_is_wanted(store, monkeypatch):
    monkeypatch.setattr(store_module, "PAGE", 2)
    for number in range(5):
        place(store, f"item {number}", subscribers=["sales"])
    fetched, rows = [], store.connection.rows
    monkeypatch.setattr(
        store.connection, "rows", lambda *query: fetched.append(rows(*query)) or fetched[-1]
    )
    first = next(store.pending())
    assert list(map(len, fetched)) == [2]
    monkeypatch.undo()
    found = list(store.pending())
    assert (len(found), found[0]) == (5, first)


def write(url, orders, events, me):
    """Touch random orders, with delays and rollbacks, until so many events are stored."""
    chance, stored = random.Random(me), 0
    with closing(PostgresStore(url, lock_timeout=60)) as store:
        while stored < events:
            order = Order(store.order(chance.choice(orders)))
            order.record(Touched(order_id=order.id, by=me))
            is_taken_back = chance.random() < 0.1
            delay = chance.choice([0, 0, 0, 0.002, 0.02])
            try:
                commit_and_wait(
                    store,
                    commit_of(order),
                    lambda: time.sleep(delay),  # noqa: B023 - it is called in this turn
                    is_taken_back=is_taken_back,
                )
            except Conflict:
                continue
            stored += not is_taken_back


@pytest.mark.parametrize("events", [400, pytest.param(50_000, marks=pytest.mark.long)])
def test_of_eight_writers_a_follower_reads_every_event_once_and_in_order(events, store, url, fork):
    orders = [place(store).id for _ in range(60)]
    cursor, seen, versions, found = store.head(), set(), defaultdict(lambda: 1), []
    writers = [fork(write, url, orders, events // 8, me) for me in range(8)]
    while len(seen) < events:
        store.wait(cursor, 5)
        for record in store.read(cursor):
            cursor = record.cursor
            found.append(record.number)
            (event,) = record.messages
            assert event.id not in seen
            seen.add(event.id)
            (state,) = record.states  # of a plugin's event: as it has left the order
            assert state.version == versions[state.id] + 1
            versions[state.id] += 1
        assert all(writer.returncode in {None, 0} for writer in writers)
    assert [writer.wait() for writer in writers] == [0] * 8
    assert found == list(range(61, 61 + events))
    assert list(store.read(cursor)) == []
    assert {order.id: order.version for order in store.orders()} == {
        order: versions[order] for order in orders
    }


def test_numbers_and_counts_are_the_same_with_milestones_as_without(store, monkeypatch):
    monkeypatch.setattr(reading, "EVERY", 5)
    monkeypatch.setattr(reading, "PAGE", 3)
    orders = [place(store) for _ in range(13)]
    store.commit(commit_of(*[Order.place(["more"]) for _ in range(4)]))
    before = list(store.read())
    assert store.connection.rows("select number from milestone order by 1") == [(5,), (10,)]
    for _ in range(3):
        place(store)
    assert store.checkpoint()
    assert not store.checkpoint()
    assert store.connection.rows("select max(number) from milestone") == [(15,)]
    assert numbers(store) == list(range(1, 18))
    assert store.count() == len(store.orders()) == 20
    for record in before:
        assert [one.number for one in store.read(record.cursor)] == list(
            range(record.number + 1, 18)
        )
    found = [one.number for order in orders for one in store.read(match=match_of(order))]
    assert found == list(range(1, 14))


def test_orders_are_never_counted_from_the_first(store, monkeypatch):
    monkeypatch.setattr(reading, "EVERY", 5)
    for _ in range(12):
        place(store)
    assert store.count() == 12
    assert store.connection.rows("select max(number), max(orders) from milestone") == [(10, 9)]
    assert store.count() == 12


def match_of(order):
    from orders.application.store import Match

    return Match(order_id=order.id)


def test_two_versions_of_an_order_stand_in_its_order_whoever_began_first(store, url):
    """The transaction id is taken by the commit, so it is greater than those of what was read."""
    order_id = place(store).id
    with closing(PostgresStore(url)) as other:

        def work(session):
            with session.link.transaction():
                session.link.execute("select 1")  # begun before the other's
                other.commit(commit_of(touched(other, order_id)))
                commit = commit_of(touched(other, order_id))
                writing.store(session, commit, _encode(commit), store.connection.lease)

        store.connection.run_once(work)
        assert [record.states[0].version for record in other.read() if record.states] == [2, 3]


def touched(store, order_id):
    order = Order(store.order(order_id))
    order.record(Touched(order_id=order_id))
    return order


# Another cluster


def dump_and_restore(server, another, schema):
    dump = server.directory / f"{schema}.sql"
    server.run("pg_dump", "-d", server.url(), "-n", schema, "-f", dump)
    another.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", another.url(), "-f", dump)


@pytest.mark.long
def test_a_follower_goes_on_where_the_store_was_restored_into_another_cluster(
    store, postgres, server
):
    postgres.execute(  # so that the other cluster's ids are smaller
        "do $$ begin for n in 1..3000 loop perform pg_current_xact_id(); commit; end loop; end $$"
    )
    first = [place(store) for _ in range(5)]
    store.commit(commit_of(moved(store, first[0].id)))
    cursor = next(iter(store.read())).cursor
    store.save("stats", Snapshot(store.head(), {"items": {}}))
    store.close()
    dump_and_restore(postgres, server, store.address.schema)
    with closing(PostgresStore(server.url(schema=store.address.schema))) as restored:
        assert [record.number for record in restored.read(cursor)] == [2, 3, 4, 5, 6]
        assert restored.load("stats").damage is None
        head = restored.head()
        later = place(restored)
        assert [record.messages[0].order_id for record in restored.read(head)] == [later.id]
        assert restored.head() > head
        assert numbers(restored) == list(range(1, 8))
        assert [finding.text for finding in restored.check() if not finding.is_well] == []
        assert restored.orders()[0].id == later.id
    with closing(PostgresStore(server.url(schema=store.address.schema))) as again:
        assert again.connection.rows("select era from meta") == [(2,)]


# Moving house


def test_what_is_restored_is_what_was_there(store, url, new_schema, postgres):
    placed = [place(store, "Lamp", customer="Zoë", key=key, subscribers=["a", "b"]) for key in "xy"]
    store.commit(commit_of(moved(store, placed[0].id)))
    store.commit(commit_of(touched(store, placed[1].id)))
    records = list(store.read())
    with closing(PostgresStore(postgres.url(schema=new_schema().partition("schema=")[2]))) as copy:
        for start in range(0, len(records), 2):
            copy.restore(records[start : start + 2])
        assert [one.messages for one in copy.read()] == [one.messages for one in records]
        assert [one.time for one in copy.read()] == [one.time for one in records]
        assert numbers(copy) == numbers(store)
        assert copy.orders() == store.orders()
        assert copy.ids(keys=["x", "y"]) == store.ids(keys=["x", "y"])
        assert [(one.delivery, one.since, one.changed) for one in copy.deliveries()] == [
            (one.delivery, one.since, one.changed) for one in store.deliveries()
        ]
        assert {pending.is_abandoned for pending in copy.pending()} == {True}
        assert [finding for finding in copy.check() if not finding.is_well] == []
        place(copy)
        assert numbers(copy) == [1, 2, 3, 4, 5]


def test_deferred_deliveries_belong_to_nobody(store):
    from orders.application.store import Delivery

    order = Order.place(["rope"])
    pending = (Delivery(order.pending[0].id, "sales"),)
    store.commit(commit_of(order, pending=pending, is_deferred=True))
    assert [one.is_abandoned for one in store.pending()] == [True]
    assert [record.process for record in store.read()] == [None]


def test_a_change_without_a_message_is_checked_and_not_stored(store):
    order = place(store)
    shipped = moved(store, order.id)
    store.commit(Commit(changes=(Change(shipped.state, 1),)))
    assert store.order(order.id) == order.state
    with pytest.raises(Conflict):
        store.commit(Commit(changes=(Change(shipped.state, 7),)))
