"""What every engine promises: the port of `orders/application/store.py`, as sentences."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Timer
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from orders.adapters.memory import MemoryStore
from orders.application.store import (
    START,
    Change,
    Commit,
    Delivery,
    Failure,
    Filter,
    Match,
    Pending,
    Snapshot,
)
from orders.domain.commands import PlaceOrder
from orders.domain.events import (
    BestsellerFound,
    OrderCreated,
    OrderEvent,
    OrderRejected,
    OrderShipped,
)
from orders.domain.order import Order
from orders.errors import (
    AlreadySettled,
    Conflict,
    KeyTaken,
    OrdersError,
    StoreError,
    WrongPayload,
)
from orders.messaging.message import Event, UnknownMessage

UNREADABLE = OrderRejected(reason="\ud800")  # a lone surrogate has no UTF-8


ENGINES = ("memory", "files", "postgres")


def opener(engine, directory, new_schema):
    """Return what opens one store of this engine again and again."""
    if engine == "memory":
        store = MemoryStore()
        return lambda: store
    if engine == "postgres":
        from orders.adapters.postgres.store import PostgresStore

        url = new_schema()
        return lambda: PostgresStore(url)
    from orders.adapters.files.store import FilesStore

    return lambda: FilesStore(directory / "store")


@pytest.fixture(params=ENGINES)
def opened(request, tmp_path):
    """A function that opens the store once more, as another terminal would."""

    def new_schema():  # only where it is needed, for on some platforms there is no server
        return request.getfixturevalue("new_schema")()

    open_store = opener(request.param, tmp_path, new_schema)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(open_store()))


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def another(opened):
    """A second handle on the same store."""
    return opened()


def commit_of(*orders, messages=(), **rest):
    """Return a commit of what these orders have pending, and of other messages."""
    raised = [event for order in orders for event in order.pending]
    changes = [Change(order.state, order.stored_version, order.key) for order in orders]
    stamped = [message.caused_by(None) for message in [*raised, *messages]]
    return Commit(tuple(stamped), tuple(changes), **rest)


def place(store, *items, customer=None, key=None, subscribers=()):
    """Store a new order whose event calls for deliveries."""
    order = Order.place(items or ("magic carpet",), customer, key)
    (created,) = order.pending
    store.commit(commit_of(order, pending=tuple(Delivery(created.id, s) for s in subscribers)))
    order.mark_stored()
    return order


def notified(store, subscriber="sales"):
    """Store a new order, and return the pending delivery of its event."""
    place(store, subscribers=[subscriber])
    *_, pending = store.pending()
    return pending.delivery


def outcome(delivery, status="done"):
    return replace(delivery, status=status, attempts=delivery.attempts + 1, seconds=0.25)


def again(delivery):
    return replace(delivery, status="pending", attempts=delivery.attempts + 1)


def moved(store, order_id, move="ship"):
    """Return a stored order, shipped or cancelled in memory only."""
    order = Order(store.order(order_id))
    getattr(order, move)()
    return order


def numbers(store, **wanted):
    return [record.number for record in store.read(match=Match(**wanted))]


def contents(store):
    """Return all that can be seen of a store."""
    return (
        [astuple(record)[1:] for record in store.read()],
        store.orders(),
        list(store.pending()),
        list(store.deliveries()),
        store.keys([order.id for order in store.orders()]),
    )


def at_once(count, work):
    """Run `work(0)`, `work(1)`, ... in as many threads at the same moment; return the results."""
    barrier = Barrier(count)

    def run(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# Commits


def test_an_empty_store_has_nothing(store):
    assert contents(store) == ([], [], [], [], {})
    assert store.order("nobody") is None
    assert store.count() == 0
    assert store.messages(["nobody"]) == {}
    assert list(store.read(after=store.head())) == []


def test_what_one_commits_everybody_sees(store, another):
    order = Order.place(["magic carpet"], "Aladdin")
    command = PlaceOrder(items=("magic carpet",), customer="Aladdin").caused_by(None)
    (created,) = order.pending
    created = created.caused_by(command)
    delivery = Delivery(created.id, "sales")
    commit = Commit((command, created), (Change(order.state, 0),), (delivery,))
    cursor = store.commit(commit)
    assert another.order(order.id) == order.state
    (record,) = another.read()
    assert record.messages == (command, created)
    assert record.deliveries == (delivery,)
    assert record.time.tzinfo is UTC
    assert record.cursor == another.head() == cursor


def test_a_commit_that_need_not_be_durable_is_seen_at_once(store, another):
    order = Order.place(["lamp"])
    store.commit(commit_of(order, is_durable=False))
    assert another.order(order.id) == order.state


def test_a_commit_of_nothing_stores_nothing(store):
    place(store)
    before = store.head()
    assert store.commit(Commit()) == before == store.head()
    assert numbers(store) == [1]


def test_commits_are_counted(store):
    place(store)
    order = place(store)
    with pytest.raises((Conflict, WrongPayload)):  # whichever the engine sees first
        store.commit(Commit(changes=(Change(order.state, 0),), messages=(UNREADABLE,)))
    assert store.commits == 2


def test_what_came_of_a_delivery_that_another_has_settled_meanwhile_is_refused(store, another):
    delivery = notified(store)
    store.release()
    attempt = again(delivery)
    assert another.claim([(delivery, attempt)])
    another.commit(Commit(outcomes=(outcome(attempt),)))
    with pytest.raises(AlreadySettled):
        store.commit(Commit(outcomes=(outcome(delivery),)))


@pytest.mark.parametrize("reason", ["conflict", "key", "outcome", "reaction", "message"])
def test_a_commit_that_is_refused_leaves_nothing(store, another, reason):
    stored = place(store, key="first")
    settled = notified(store)
    store.commit(Commit(outcomes=(outcome(settled),)))
    good, waiting = Order.place(["lamp"], key="second"), notified(store)
    bad = {
        "conflict": commit_of(good, Order(replace(stored.state, version=7))),
        "key": commit_of(good, Order.place(["tv"], key="first")),
        "outcome": commit_of(good, outcomes=(outcome(waiting), outcome(settled))),
        "reaction": commit_of(good, reactions=(outcome(settled),)),
        "message": commit_of(good, messages=[UNREADABLE]),
    }[reason]
    before = contents(another)
    with pytest.raises((Conflict, KeyTaken, AlreadySettled, WrongPayload)):
        store.commit(replace(bad, pending=(Delivery(good.pending[0].id, "sales"),)))
    assert contents(another) == contents(store) == before
    assert store.messages([good.pending[0].id]) == {}
    assert store.ids(keys=["second"]) == {}
    store.commit(commit_of(good))  # which is as new as before
    assert another.order(good.id) == good.state


def test_an_order_changed_meanwhile_is_a_conflict(store, another):
    order_id = place(store).id
    shipped, cancelled = moved(store, order_id), moved(another, order_id, "cancel")
    store.commit(commit_of(shipped))
    with pytest.raises(Conflict) as refused:
        another.commit(commit_of(cancelled))
    assert refused.value.order_id == order_id
    assert (refused.value.expected, refused.value.actual) == (1, 2)
    assert another.order(order_id) == shipped.state


def test_a_change_of_an_order_that_is_not_there_is_a_conflict(store):
    order = Order(Order.place(["tv"]).state)
    order.ship()
    with pytest.raises(Conflict) as refused:
        store.commit(commit_of(order))
    assert (refused.value.expected, refused.value.actual) == (1, 0)


def test_an_order_is_created_once(store, another):
    order = Order.place(["tv"])
    store.commit(commit_of(order))
    with pytest.raises(Conflict) as refused:
        another.commit(commit_of(order))
    assert (refused.value.expected, refused.value.actual) == (0, 1)
    assert store.count() == 1


def test_a_key_belongs_to_the_first_order(store, another):
    first = place(store, key="key")
    with pytest.raises(KeyTaken) as refused:
        place(another, key="key")
    assert (refused.value.key, refused.value.order_id) == ("key", first.id)


def test_the_id_of_an_order_is_a_key_that_is_taken(store):
    first = place(store)
    with pytest.raises(KeyTaken) as refused:
        place(store, key=first.id)
    assert (refused.value.key, refused.value.order_id) == (first.id, first.id)


def test_two_orders_of_one_commit_cannot_share_a_key(store):
    first, second = Order.place(["a"], key="key"), Order.place(["b"], key="key")
    with pytest.raises(KeyTaken) as refused:
        store.commit(commit_of(first, second))
    assert refused.value.order_id == first.id
    assert store.count() == 0


def test_a_commit_holds_many_orders(store, another):
    orders = [Order.place([f"item {number}"]) for number in range(100)]
    store.commit(commit_of(*orders))
    assert another.orders() == [order.state for order in reversed(orders)]
    assert numbers(another) == [1]


def test_a_commit_says_whether_it_is_stored(store, another):
    order, delivery = Order.place(["tv"]), notified(store)
    commit, settling = commit_of(order), Commit(outcomes=(outcome(delivery),), is_durable=False)
    assert not store.holds(commit)
    assert not store.holds(settling)
    store.commit(commit)
    store.commit(settling)
    place(another)
    assert store.holds(commit)
    assert store.holds(settling)
    assert not store.holds(commit_of(Order.place(["tv"])))


@pytest.mark.parametrize("text", ["🧞 lamp", "سجادة", "\\\"'{}[]", "ﬀ ǅ ẞ", "a" * 500, "<&>%s"])
def test_every_text_comes_back_as_it_was(store, another, text):
    order = place(store, text, customer=text, key=text)
    assert another.order(order.id) == order.state
    assert another.ids(keys=[text]) == {text: order.id}
    assert next(another.read()).messages[0].items == (text,)


def test_an_order_of_a_thousand_items_comes_back_whole(store, another):
    order = place(store, *(f"item {number}" for number in range(1000)))
    assert another.order(order.id) == order.state


# Deliveries


def test_an_outcome_is_recorded_once(store, another):
    delivery = notified(store)
    store.commit(Commit(outcomes=(outcome(delivery),)))
    assert list(another.pending()) == []
    with pytest.raises(AlreadySettled) as refused:
        another.commit(Commit(outcomes=(outcome(delivery, "failed"),)))
    assert (refused.value.event_id, refused.value.subscriber) == delivery.key
    assert [account.delivery.status for account in store.deliveries()] == ["done"]


def test_a_delivery_that_nobody_called_for_has_no_outcome(store):
    place(store)
    with pytest.raises(AlreadySettled):
        store.commit(Commit(outcomes=(Delivery("event", "sales", "done"),)))


def test_a_reaction_is_recorded_once(store, another):
    place(store)
    seen = store.head()
    reaction = Delivery(next(store.read()).messages[0].id, "bestsellers", "done", attempts=1)
    store.commit(Commit(reactions=(reaction,), seen=seen))
    for looked in (START, seen):
        with pytest.raises(AlreadySettled) as refused:
            another.commit(Commit(reactions=(reaction,), seen=looked))
        assert (refused.value.event_id, refused.value.subscriber) == reaction.key
    assert [account.delivery for account in another.deliveries()] == [reaction]
    assert list(another.pending()) == []


def test_one_commit_settles_reacts_and_calls_for_deliveries(store, another):
    found, order = notified(store), Order.place(["tv"])
    commit = commit_of(
        order,
        pending=(Delivery(order.pending[0].id, "sales"), Delivery(order.pending[0].id, "stock")),
        outcomes=(outcome(found),),
        reactions=(Delivery(found.event, "bestsellers", "done", attempts=1),),
    )
    store.commit(commit)
    *_, record = another.read()
    assert record.deliveries == commit.outcomes + commit.reactions + commit.pending
    assert tuple(pending.delivery for pending in another.pending()) == commit.pending


def test_reactions_to_other_events_and_of_others_are_no_obstacle(store, another):
    seen, reactions = store.head(), []
    for event, subscriber in [("1", "stats"), ("2", "stats"), ("1", "bestsellers")]:
        reactions.append(Delivery(event, subscriber, "done", attempts=1))
        another.commit(Commit(reactions=(reactions[-1],), seen=seen))
    assert [account.delivery for account in store.deliveries()] == reactions


def test_pending_deliveries_come_oldest_first(store, another):
    orders = [place(store, subscribers=["sales", "stock"]) for _ in range(3)]
    expected = [
        Delivery(record.messages[0].id, subscriber)
        for record in store.read()
        for subscriber in ("sales", "stock")
    ]
    assert len(orders) * 2 == len(expected)
    assert [pending.delivery for pending in another.pending()] == expected
    store.commit(Commit(outcomes=(outcome(expected.pop(2)),)))
    assert [pending.delivery for pending in another.pending()] == expected


def test_deliveries_are_found_by_status(store, another):
    done, failed, dead, pending = [notified(store) for _ in range(4)]
    error = {"error": "Boom: ✗", "failures": (Failure(0.5, "Boom"),)}
    failed = replace(outcome(failed, "failed"), **error)
    for settled in (outcome(done), failed, outcome(dead, "dead")):
        store.commit(Commit(outcomes=(settled,)))
    expected = [outcome(done), failed, outcome(dead, "dead"), pending]
    assert [account.delivery for account in another.deliveries()] == expected
    found = another.deliveries("pending", "failed")
    assert [account.delivery for account in found] == [failed, pending]


def test_a_delivery_has_the_times_of_its_first_and_its_last_record(store):
    delivery = notified(store)
    place(store)
    store.commit(Commit(outcomes=(outcome(delivery),)))
    first, _, last = store.read()
    (account,) = store.deliveries()
    assert (account.since, account.changed) == (first.time, last.time)


def test_deliveries_are_abandoned_once_released(store, another):
    delivery = notified(store)
    assert [pending.is_abandoned for pending in another.pending()] == [False]
    assert not another.claim([(delivery, again(delivery))])
    store.release()
    assert [pending.is_abandoned for pending in another.pending()] == [True]
    assert [account.is_abandoned for account in another.deliveries()] == [True]
    notified(store)
    assert [pending.is_abandoned for pending in another.pending()] == [True, False]


def test_an_abandoned_delivery_is_claimed_once(store, another):
    found = notified(store)
    store.release()
    attempt = replace(again(found), deaths=1)
    assert another.claim([(found, attempt)])
    assert not store.claim([(found, again(found))])  # it does not stand as it was found
    assert not store.claim([(attempt, again(attempt))])  # somebody is at it
    assert list(store.pending()) == [Pending(attempt, False)]
    *_, record = store.read()
    assert (record.messages, record.deliveries) == ((), (attempt,))
    another.commit(Commit(outcomes=(outcome(attempt),)))
    assert [account.delivery for account in store.deliveries()] == [outcome(attempt)]


@pytest.mark.parametrize("status", ["failed", "dead"])
def test_what_has_failed_is_claimed_once(store, another, status):
    found = outcome(notified(store), status)
    store.commit(Commit(outcomes=(found,)))
    attempt = replace(again(found), retries=1)
    assert not store.claim([(replace(found, attempts=7), attempt)])
    assert another.claim([(found, attempt)])
    assert not store.claim([(found, attempt)])
    assert list(store.pending()) == [Pending(attempt, False)]


def test_what_is_done_or_unknown_is_not_claimed(store):
    found, unknown = notified(store), Delivery("event", "sales")
    store.commit(Commit(outcomes=(outcome(found),)))
    before = store.head()
    assert not store.claim([(found, again(found))])
    assert not store.claim([(unknown, again(unknown))])
    assert store.head() == before


def test_a_claim_that_was_released_can_be_claimed_again(store, another):
    found = notified(store)
    store.release()
    assert another.claim([(found, attempt := again(found))])
    another.release()
    assert not store.claim([(found, again(found))])  # it does not stand as it was found
    assert store.claim([(attempt, again(attempt))])


def test_of_many_who_claim_a_delivery_one_gets_it(opened):
    stores = [opened() for _ in range(8)]
    for _ in range(3):
        found = notified(stores[0])
        stores[0].release()
        claims = [(found, again(found))]
        won = at_once(8, lambda number: stores[number].claim(claims))  # noqa: B023 - it is called in this turn
        assert sorted(won) == [[]] * 7 + [claims]


def failures(store):
    """Return claims of deliveries that have failed, of events that are stored as one and alone."""
    orders = [Order.place([item]) for item in ("tv", "lamp", "rug")]
    pending = [Delivery(order.pending[0].id, "sales") for order in orders]
    store.commit(commit_of(*orders, pending=tuple(pending)))
    pending += [notified(store), notified(store)]
    failed = [outcome(delivery, "failed") for delivery in pending]
    for one in failed:
        store.commit(Commit(outcomes=(one,), is_durable=False))
    return [(one, replace(again(one), retries=1)) for one in failed]


def test_of_many_deliveries_those_are_claimed_that_nobody_else_has(store, another):
    claims = failures(store)
    attempts = [attempt for _, attempt in claims]
    assert another.claim(claims[1:4:2]) == claims[1:4:2]
    assert store.claim([]) == []
    assert store.claim(claims) == claims[::2]
    assert store.claim(claims) == another.claim(claims) == []
    claimed = [attempts[number] for number in (1, 3, 0, 2, 4)]
    assert list(store.pending()) == [Pending(attempt, False) for attempt in claimed]
    assert len(store.messages({found.event for found, _ in claims})) == len(claims)
    for attempt in attempts:
        store.commit(Commit(outcomes=(outcome(attempt),), is_durable=False))
    assert list(another.pending()) == []


def test_of_many_who_claim_many_deliveries_each_is_made_by_one(opened):
    stores = [opened() for _ in range(4)]
    claims = failures(stores[0])
    won = at_once(4, lambda number: stores[number].claim(claims))
    keys = sorted(found.key for ours in won for found, _ in ours)
    assert keys == sorted(found.key for found, _ in claims)


def test_deferred_deliveries_are_left_to_whoever_comes_first(store, another):
    order = Order.place(["tv"])
    found = Delivery(order.pending[0].id, "sales")
    store.commit(commit_of(order, pending=(found,), is_deferred=True))
    assert list(store.pending()) == list(another.pending()) == [Pending(found, True, True)]
    (account,) = another.deliveries()
    assert (account.is_abandoned, account.is_deferred) == (True, True)
    attempt = again(found)
    assert store.claim([(found, attempt)])
    assert not another.claim([(found, attempt)])
    assert list(another.pending()) == [Pending(attempt, False, False)]
    store.release()
    assert list(another.pending()) == [Pending(attempt, True, False)]
    (account,) = another.deliveries()
    assert (account.is_abandoned, account.is_deferred) == (True, False)


def test_a_reaction_that_is_recorded_as_pending_is_its_makers_alone(store, another):
    place(store)
    reaction = Delivery(next(store.read()).messages[0].id, "bestsellers")
    seen = store.head()
    store.commit(Commit(reactions=(reaction,), seen=seen, is_durable=False))
    assert list(another.pending()) == [Pending(reaction, False, False)]
    assert not another.claim([(reaction, again(reaction))])
    with pytest.raises(AlreadySettled):
        another.commit(Commit(reactions=(reaction,), seen=seen))
    store.release()
    attempt = again(reaction)
    assert another.claim([(reaction, attempt)])
    another.commit(Commit(outcomes=(outcome(attempt),)))
    assert [account.delivery for account in store.deliveries()] == [outcome(attempt)]


# Restoring


def eventful():
    """Return a store in which everything has happened that a record can say."""
    store = MemoryStore()
    lamp = place(store, "lamp", customer="Zoë", key="key", subscribers=["sales", "stock"])
    tv = place(store, "tv", subscribers=["sales"])
    store.commit(commit_of(moved(store, lamp.id), moved(store, tv.id, "cancel")))
    done, failed, dead, left = [notified(store, f"one of {number}") for number in range(4)]
    store.commit(Commit(outcomes=(outcome(done),)))
    failed = replace(outcome(failed, "failed"), error="Boom: ✗", failures=(Failure(0.5, "Boom"),))
    store.commit(Commit(outcomes=(failed, replace(outcome(dead, "dead"), retries=5))))
    store.release()
    assert store.claim([(left, replace(again(left), deaths=1))])
    store.commit(Commit(reactions=(Delivery(left.event, "bestsellers", "done", attempts=1),)))
    unknown = UnknownMessage(id="m", name="Refunded@2", fields={"order_id": lamp.id, "name": [1.5]})
    store.commit(Commit((OrderRejected(reason="empty").caused_by(None),)))
    refunded = replace(store.order(lamp.id), status="refunded", version=3)
    *_, last = store.read()
    foreign = replace(last, number=last.number + 1, messages=(unknown,), states=(refunded,))
    store.restore([foreign])
    return store


def restored(store, records):
    """Return what can be seen of a store after it was given these records in two parts."""
    store.restore(records[:4])
    store.restore(records[4:])
    return store


def test_a_restored_store_is_as_the_first_one_was_and_its_pending_deliveries_are_nobodys(
    store, another
):
    source = eventful()
    restored(store, list(source.read()))
    for one in (store, another):
        assert [astuple(replace(r, process=None))[1:] for r in one.read()] == [
            astuple(record)[1:] for record in source.read()
        ]
        assert one.orders() == source.orders()
        ids = [order.id for order in source.orders()]
        assert one.keys(ids) == source.keys(ids) != {}
        assert one.ids(keys=["key"]) == source.ids(keys=["key"]) != {}
        pending = [found.delivery for found in source.pending()]
        assert list(one.pending()) == [Pending(delivery, True, True) for delivery in pending]
        for ours, theirs in zip(one.deliveries(), source.deliveries(), strict=True):
            assert replace(ours, is_abandoned=False, is_deferred=False) == replace(
                theirs, is_abandoned=False
            )
    assert [finding for finding in another.check() if not finding.is_well] == []


def test_a_restored_store_goes_on(store, another):
    source = eventful()
    restored(store, list(source.read()))
    head, number = another.head(), len(list(source.read()))
    with pytest.raises(KeyTaken):
        place(another, key="key")
    (found, *_) = (pending.delivery for pending in another.pending())
    assert another.claim([(found, again(found))])
    another.commit(Commit(outcomes=(outcome(again(found)),)))
    order = place(another)
    assert [record.number for record in store.read(head)] == [number + 1, number + 2, number + 3]
    assert store.order(order.id) == order.state
    shipped = moved(store, order.id)
    store.commit(commit_of(shipped))
    assert another.order(order.id) == shipped.state


def test_records_that_do_not_follow_are_not_restored(store, another):
    first, second, third, *_ = eventful().read()
    store.restore([first])
    before = contents(another)
    for wrong in ([first], [third], [second, second], [second, first]):
        with pytest.raises(StoreError, match="cannot follow"):
            store.restore(wrong)
        assert contents(another) == contents(store) == before
    store.restore([])
    store.restore([second, third])
    assert numbers(another) == [1, 2, 3]


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


# Threads


def test_of_eight_threads_that_commit_nothing_is_lost(store, another):
    stores = [store, another]

    def work(number):
        one = stores[number % 2]
        orders = [place(one, subscribers=["sales"]) for _ in range(5)]
        for _ in range(3):
            read = numbers(one)
            assert read == list(range(1, len(read) + 1))
        return orders

    placed = {order.id for orders in at_once(8, work) for order in orders}
    assert {order.id for order in another.orders()} == placed
    assert numbers(store) == list(range(1, 41))
    assert len(list(store.pending())) == 40


def test_of_eight_threads_that_change_one_order_one_wins(store, another):
    for _ in range(4):
        order_id = place(store).id
        rivals = [moved(store, order_id, move) for move in ["ship", "cancel"] * 4]

        def work(number, rivals=rivals):
            try:
                [store, another][number % 2].commit(commit_of(rivals[number]))
            except Conflict:
                return None
            return rivals[number].state

        (winner,) = filter(None, at_once(8, work))
        assert store.order(order_id) == another.order(order_id) == winner


def test_of_eight_threads_that_use_one_key_one_wins(store, another):
    def work(number):
        with suppress(KeyTaken):
            return place([store, another][number % 2], key="key")

    (winner,) = filter(None, at_once(8, work))
    assert store.ids(keys=["key"]) == {"key": winner.id}
    assert store.count() == 1


# Upkeep


def test_a_sound_store_has_nothing_to_repair(store):
    notified(store)
    before = contents(store)
    assert [finding for finding in store.check() if not finding.is_well] == []
    assert list(store.repair()) == []
    assert contents(store) == before


def test_a_checkpoint_changes_nothing_that_is_seen(store, another):
    place(store)
    before = contents(store)
    store.checkpoint()
    assert not store.checkpoint()
    assert contents(store) == contents(another) == before


def test_a_store_that_was_closed_can_be_used_again(store, another):
    place(store)
    store.close()
    store.close()
    place(store)
    assert store.count() == another.count() == 2
    assert isinstance(store.location, str)


# All engines alike

STEPS = st.lists(  # what to do, with which order or delivery, and how
    st.tuples(
        st.sampled_from(["place", "move", "stale", "settle", "react", "release", "claim"]),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, database=None)
@given(steps=STEPS)
def test_the_same_steps_make_the_same_store_of_every_engine(new_schema, steps):
    with TemporaryDirectory() as directory, ExitStack() as stack:
        stores = [
            stack.enter_context(closing(opener(engine, Path(directory), new_schema)()))
            for engine in ENGINES
        ]
        for step in steps:
            act = action(stores[0], *step)
            first, *others = [outcome_of(act, store) for store in stores]
            assert others == [first] * len(others), step
        first, *others = [untimed(store) for store in stores]
        assert others == [first] * len(others)


def action(model, kind, which, how):
    """Return what a step does, to be done to each engine; `model` says what there is."""
    orders, accounts = model.orders()[::-1], list(model.deliveries())
    order = Order(orders[which % len(orders)]) if orders else Order.place(["tv"])
    known = accounts[which % len(accounts)].delivery if accounts else Delivery("event", "sales")
    if kind == "place":
        order = Order.place(["lamp"] * (which + 1), key=[None, "a", "b", order.id][how])
        pending = (Delivery(order.pending[0].id, s) for s in ("sales", "stock")[: which % 3])
        commit = commit_of(order, pending=tuple(pending), is_deferred=which > 5)
    elif kind == "move":
        with suppress(OrdersError):
            order.ship() if how % 2 else order.cancel("because")
        commit = commit_of(*[order] * bool(order.pending))
    elif kind == "stale":
        rejected = OrderRejected(reason="?").caused_by(None)
        commit = Commit((rejected,), (Change(order.state, order.version + 1 + how),))
    elif kind == "settle":
        statuses = ("done", "failed", "dead", "failed")
        commit = Commit(outcomes=(outcome(known, statuses[how]),), is_durable=False)
    elif kind == "react":
        commit = Commit(reactions=(Delivery(f"event {which}", "policy", "done"),))
    elif kind == "claim" and known.status != "done":
        found = replace(known, retries=how % 2)  # as it stands, or not
        return lambda store: store.claim([(found, again(known))])
    else:
        return lambda store: store.release()
    return lambda store: store.commit(commit) and None  # each engine has cursors of its own


def outcome_of(act, store):
    """Return what came of an action: its result, or its error with all that it carries."""
    try:
        return act(store)
    except OrdersError as error:
        return type(error), vars(error)


def untimed(store):
    """Return all that can be seen of a store but its own cursors and times."""
    records, orders, pending, accounts, keys = contents(store)
    return (
        [(number, messages, deliveries) for number, _, messages, deliveries, *_ in records],
        orders,
        pending,
        [(account.delivery, account.is_abandoned, account.is_deferred) for account in accounts],
        keys,
    )
