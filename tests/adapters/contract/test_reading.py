"""The log, the orders and the snapshots are read as they were stored."""

import json
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from threading import Timer
from time import monotonic

from storing import commit_of, moved, notified, numbers, outcome, place

from orders.application.store import START, Commit, Delivery, Filter, Snapshot
from orders.domain.events import (
    BestsellerFound,
    OrderCreated,
    OrderEvent,
    OrderRejected,
    OrderShipped,
)
from orders.messaging.message import Event

# The log


def test_records_are_numbered_without_a_gap(store, another):
    deliveries = [notified(one) for one in (store, another, store)]
    store.commit(Commit(outcomes=(outcome(deliveries[0]),)))
    records = list(another.read())
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert all(one.cursor < other.cursor for one, other in pairwise(records))
    assert all(one.time <= other.time for one, other in pairwise(records))


def test_what_lies_between_two_places_is_read(store, another):
    places = [START]
    for _ in range(4):
        place(store)
        places.append(store.head())
    for start, after in enumerate(places):
        found = [record.number for record in another.read(after)]
        assert found == list(range(start + 1, 5))
        for end, until in enumerate(places):
            found = [record.number for record in another.read(after, until)]
            assert found == list(range(start + 1, end + 1))


def test_cursors_are_ordered_and_survive_json(store, another):
    cursors = [START]
    for _ in range(12):
        place(store)
        cursors.append(store.head())
    assert cursors == sorted(set(cursors))
    stored = [tuple(json.loads(json.dumps(cursor))) for cursor in cursors]
    assert stored == cursors
    assert [record.number for record in another.read(stored[7], stored[9])] == [8, 9]


def test_every_wanted_record_is_read(store, another):
    lamp = place(store, "lamp", subscribers=["sales"])  # 1
    tv = place(store, "tv", subscribers=["stock"])  # 2
    (lamp_created,), (tv_created,) = (record.messages for record in store.read())
    store.commit(commit_of(moved(store, lamp.id)))  # 3
    delivery = Delivery(lamp_created.id, "sales", "done", attempts=1)
    store.commit(Commit(outcomes=(delivery,)))  # 4
    found = BestsellerFound(order_id=tv.id, item="tv", times=10).caused_by(tv_created)
    store.commit(Commit(messages=(found,)))  # 5
    store.commit(Commit(messages=(OrderRejected(reason="empty").caused_by(None),)))  # 6
    for wanted, expected in [
        ({"order_id": lamp.id}, {1, 3}),
        ({"order_id": tv.id}, {2, 5}),
        ({"conversations": [tv_created.correlation_id]}, {2, 5}),
        ({"events": {lamp_created.id}}, {1, 4}),
        ({"events": [lamp_created.id, found.id]}, {1, 4, 5}),
        ({"types": [OrderCreated]}, {1, 2}),
        ({"types": (OrderShipped, BestsellerFound)}, {3, 5}),
        ({"types": [OrderEvent]}, {1, 2, 3}),
        ({"types": [Event]}, {1, 2, 3, 5, 6}),
        ({"subscriber": "sales"}, {1, 4}),
        ({"order_id": lamp.id, "subscriber": "stock"}, {1, 2, 3}),
        ({}, {1, 2, 3, 4, 5, 6}),
    ]:
        read = numbers(another, **wanted)
        assert read == sorted(set(read))
        assert expected <= set(read), wanted


def test_thousands_of_ids_can_be_wanted(store, another):
    for _ in range(3):
        place(store)
    created = [record.messages[0].id for record in store.read()]
    wanted = [*(f"id {number}" for number in range(2000)), created[1]]
    assert 2 in numbers(another, events=wanted)
    assert 2 in numbers(another, conversations=wanted)
    assert list(another.messages(wanted)) == [created[1]]


def test_a_reader_is_not_disturbed_by_what_is_appended(store, another):
    for _ in range(3):
        place(store)
    reader = store.read()
    found = [next(reader).number]
    for _ in range(3):
        place(another)
        place(store)
    assert found + [record.number for record in reader] == [1, 2, 3]


def test_messages_are_found_by_id(store, another):
    place(store)
    rejected = OrderRejected(reason="empty").caused_by(None)
    store.commit(Commit(messages=(rejected,)))
    created = next(store.read()).messages[0]
    found = another.messages([rejected.id, "nobody", created.id])
    assert found == {rejected.id: rejected, created.id: created}


def test_waiting_ends_with_the_commit_of_another(store, another):
    place(store)
    after = store.head()
    timer = Timer(0.1, place, [another])
    timer.start()
    start = monotonic()
    assert store.wait(after, 20)
    assert monotonic() - start < 10
    timer.join()
    assert store.wait(after, 0)


def test_waiting_in_vain_ends_in_time(store):
    place(store)
    start = monotonic()
    assert not store.wait(store.head(), 0.1)
    assert not store.wait(store.head(), 0)
    assert 0.09 < monotonic() - start < 5


# Orders


def test_orders_come_newest_first(store, another):
    orders = [place(store, f"item {number}") for number in range(5)]
    store.commit(commit_of(moved(store, orders[0].id)))  # which makes it no younger
    newest_first = [order.id for order in reversed(orders)]
    for limit, expected in [(None, 5), (2, 2), (0, 0), (99, 5), (10**30, 5)]:
        found = another.orders(limit=limit)
        assert [order.id for order in found] == newest_first[:expected]
    assert another.count() == 5


def test_orders_are_found_by_what_they_are(store, another):
    carpet = place(store, "Magic Carpet", customer="Aladdin")
    lamp = place(store, "lamp", "Straße", customer="Jasmine")
    tv = place(store, "tv")
    store.commit(commit_of(moved(store, lamp.id)))
    for wanted, expected in [
        (Filter(), [tv, lamp, carpet]),
        (Filter(status="placed"), [tv, carpet]),
        (Filter(status="shipped"), [lamp]),
        (Filter(status="unheard of"), []),
        (Filter(item="carp"), [carpet]),
        (Filter(item="STRASSE"), [lamp]),
        (Filter(customer="a"), [lamp, carpet]),
        (Filter(since=lamp.placed_at), [tv, lamp]),
        (Filter(until=lamp.placed_at), [carpet]),
        (Filter(since=tv.placed_at + timedelta(seconds=1)), []),
        (Filter(status="placed", customer="ALADDIN", item="carpet"), [carpet]),
    ]:
        assert [o.id for o in another.orders(wanted)] == [o.id for o in expected], wanted
        assert another.count(wanted) == len(expected)
        assert [o.id for o in another.orders(wanted, 1)] == [o.id for o in expected[:1]]


def test_ids_are_found_by_their_beginning(store, another):
    orders = [place(store) for _ in range(20)]
    for order in orders:
        for length in (1, 8, len(order.id)):
            prefix = order.id[:length]
            expected = {o.id: o.id for o in orders if o.id.startswith(prefix)}
            assert another.ids(prefix=prefix) == expected
    assert another.ids(prefix="z") == {}
    assert another.ids(prefix=orders[0].id + "0") == {}


def test_ids_are_found_by_key(store, another):
    keyed, plain = place(store, key="key"), place(store)
    found = another.ids(keys=["key", "unknown", plain.id])
    assert found == {"key": keyed.id, plain.id: plain.id}
    assert another.ids(keys=[]) == another.ids() == {}
    assert another.keys([plain.id, keyed.id, "nobody"]) == {keyed.id: "key"}


# Snapshots


def test_a_snapshot_is_kept_until_the_next(store, another):
    assert store.load("stats") is None
    place(store)
    first = Snapshot(store.head(), {"items": {"1": {"item": "🧞", "times": 1}}, "days": {}})
    store.save("stats", first)
    assert another.load("stats") == first
    place(store)
    second = Snapshot(store.head(), {"items": {"2": {"item": "tv", "times": 0.5, "last": None}}})
    another.save("stats", second)
    assert store.load("stats") == second
    assert store.load("bestsellers") is None


def test_the_snapshots_are_known_by_name(store, another):
    place(store)
    assert store.saved() == []
    for name in ("stats", "relay.0f", "stats"):
        store.save(name, Snapshot(store.head(), {}))
    assert sorted(store.saved()) == sorted(another.saved()) == ["relay.0f", "stats"]


def test_a_snapshot_may_be_empty(store, another):
    place(store)
    empty = Snapshot(store.head(), {})
    store.save("nothing", empty)
    assert another.load("nothing") == empty
    store.save("nothing", Snapshot(START, {}))
    assert list(another.read(another.load("nothing").cursor)) == list(another.read())


# What belongs to whom


def test_what_was_saved_is_the_stores_own(store, another):
    place(store)
    tables = {"items": {"1": {"times": 1}}}
    store.save("stats", Snapshot(store.head(), tables))
    tables["items"]["1"]["times"] = 99
    assert store.load("stats").tables == another.load("stats").tables != tables


def test_what_is_returned_is_the_callers_own(store):
    delivery = notified(store)
    order = place(store, key="key")
    store.save("stats", Snapshot(store.head(), {"items": {"1": {"times": 1}}}))

    def answers():
        return [
            store.orders(),
            store.ids(prefix=order.id[:8]),
            store.ids(keys=["key"]),
            store.keys([order.id]),
            store.messages([delivery.event]),
            store.load("stats").tables["items"]["1"],
            store.load("stats").tables["items"],
            store.load("stats").tables,
        ]

    before = answers()
    for answer in answers():
        with suppress(AttributeError, TypeError):  # it cannot be changed at all: so much the better
            answer.clear()
    assert answers() == before
    assert all(before)
