"""The schema: made once by many, migrated with what it has, and every query finds its index."""

import re
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest
from storing import at_once, commit_of, contents, moved, notified, outcome, place

from orders.adapters.postgres import schema
from orders.adapters.postgres.connection import Session
from orders.adapters.postgres.store import PostgresStore
from orders.application.store import Commit, Delivery, Filter, Match, Snapshot
from orders.errors import StoreUnreachable

ORDERS = 20_000
PAGES = 150  # of 8 kB, that a query may look at; a whole table of so many orders has hundreds


def test_of_eight_who_come_first_one_makes_the_schema(url):
    stores = [PostgresStore(url) for _ in range(8)]
    barrier = Barrier(8)

    def come(number):
        barrier.wait()
        return place(stores[number]).id

    placed = set(at_once(8, come))
    assert {order.id for order in stores[0].orders()} == placed
    for store in stores:
        store.close()


def test_an_older_schema_is_migrated_and_keeps_what_it_has(store, url, monkeypatch, tmp_path):
    notified(store)
    before = contents(store)
    migration = tmp_path / "version_2.sql"
    migration.write_text("alter table orders add column priority integer not null default 3;")
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, str(migration)])
    with closing(PostgresStore(url)) as newer:
        assert contents(newer) == before
        assert newer.connection.rows("select meta.version, priority from meta, orders") == [(2, 3)]
        place(newer)
    monkeypatch.undo()
    with closing(PostgresStore(url)) as older, pytest.raises(StoreUnreachable, match="version 2"):
        older.head()


def test_a_migration_that_fails_leaves_the_schema_as_it_was(store, url, monkeypatch, tmp_path):
    place(store)
    migration = tmp_path / "version_2.sql"
    migration.write_text("alter table orders add column priority integer; select 1 / 0;")
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, str(migration)])
    with closing(PostgresStore(url)) as newer, pytest.raises(Exception, match="division by zero"):
        newer.head()
    monkeypatch.undo()
    with closing(PostgresStore(url)) as again:
        assert again.connection.rows("select version from meta") == [(1,)]
        assert len(again.orders()) == 1


def test_a_schema_is_made_by_each_of_two_names(url):
    with closing(PostgresStore(url)) as one, closing(PostgresStore(url + "_b")) as another:
        place(one)
        assert another.orders() == []
        assert one.count() == 1


def fill(store, orders):
    """Make so many orders, each with its record and a delivery that is done."""
    place(store)
    store.connection.run(
        lambda session: session.link.execute(
            """
            insert into orders (id, version, status, placed_at, customer, items, state, era, xid,
                place, key)
            select md5(n::text), 1, 'placed', now() - interval '1 year' + n * interval '1 minute',
                'ada', 'rope', json_build_object('id', md5(n::text), 'items', array['rope'],
                    'customer', 'ada', 'status', 'placed',
                    'placed_at', '2026-01-01T00:00:00Z', 'version', 1),
                0, n, 1, 'key ' || n
            from generate_series(1, %(orders)s) n;
            """,
            {"orders": orders},
        )
    )
    store.connection.run(
        lambda session: session.link.execute(
            """
            insert into record (era, xid, time, about, kinds, body)
            select 0, n, now(), array[md5(n::text), 'e' || n], array['OrderCreated', 'sales'], '{}'
            from generate_series(1, %(orders)s) n
            """,
            {"orders": orders},
        )
    )
    store.connection.run(
        lambda session: session.link.execute(
            """
            insert into delivery (event, subscriber, status, body, since, changed)
            select 'e' || n, 'sales', 'done',
                json_build_object('event', 'e' || n, 'subscriber', 'sales', 'status', 'done'),
                now(), now()
            from generate_series(1, %(orders)s) n
            """,
            {"orders": orders},
        )
    )
    store.checkpoint()


class Explained:
    """A connection that explains each query, and remembers how many pages it looked at."""

    def __init__(self, link):
        self.link = link
        self.pages = {}

    def execute(self, query, parameters=None):
        self.explain(query, parameters)
        return self.link.execute(query, parameters)

    def explain(self, query, parameters):
        explained = f"explain (analyze, buffers, format json) {query}"
        with self.link.transaction(force_rollback=True):
            ((plan,),) = self.link.execute(explained, parameters).fetchall()
        pages = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        self.pages[" ".join(query.split())] = pages

    def __getattr__(self, name):
        return getattr(self.link, name)


@pytest.mark.parametrize("is_analyzed", [False, True])
@pytest.mark.sample(1)
def test_every_query_finds_what_it_wants_by_an_index(store, is_analyzed, monkeypatch):
    fill(store, ORDERS)
    if is_analyzed:
        store.connection.run(lambda session: session.link.execute("analyze"))
    for _ in range(5):
        notified(store)  # what each function does first is to plan
    session = store.connection.run(lambda session: session)
    explained = Explained(session.link)
    monkeypatch.setattr(store.connection, "_session", session._replace(link=explained))
    call = Session.call

    def call_explained(self, query, *parameters):
        explained.explain(re.sub(r"\$\d", "%s", query.decode()), [p.decode() for p in parameters])
        return call(session, query, *parameters)

    monkeypatch.setattr(Session, "call", call_explained)
    known = "0cc175b9c0f1b6a831c399e269772661"
    order = place(store, key="key")
    store.commit(commit_of(moved(store, order.id)))
    waiting = notified(store)
    store.commit(Commit(outcomes=(outcome(waiting),)))
    store.commit(Commit(reactions=(Delivery("e5", "policy", "done"),)))
    head = store.head()
    list(store.read(store.head()))
    list(store.read((0, ORDERS - 50, 0), (0, ORDERS, 0)))
    list(store.read(match=Match(order_id=order.id)))
    list(store.read(match=Match(events=["e77"], conversations=["nobody"])))
    store.wait(head, 0)
    store.messages([waiting.event])
    store.order(known)
    store.orders(limit=20)
    store.orders(Filter(status="placed"), limit=20)
    if is_analyzed:  # else it cannot be known that few are so new
        store.orders(Filter(since=order.placed_at), limit=20)
    store.count()
    store.count(Filter(since=order.placed_at))
    store.ids(prefix="0cc1")
    store.ids(keys=["key", known])
    store.keys([known])
    list(store.pending())
    list(store.deliveries("failed", "dead"))
    store.save("stats", Snapshot(head, {}))
    store.load("stats")
    store.is_due("stats")
    store.is_stale("stats")
    found = notified(store)
    store.release()
    assert store.claim([(found, found)])
    too_many = {query: pages for query, pages in explained.pages.items() if pages > PAGES}
    assert too_many == {}
    assert len(explained.pages) >= 20
    assert any("store_commit" in query for query in explained.pages)
    monkeypatch.undo()


def test_the_schema_is_part_of_the_package():
    assert (Path(schema.__file__).parent / schema.MIGRATIONS[0]).is_file()
