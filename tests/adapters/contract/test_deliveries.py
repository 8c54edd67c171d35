"""A delivery is pending until its outcome is recorded; of many who would make it, one does."""

import pytest
from msgspec.structs import replace
from storing import again, at_once, commit_of, notified, outcome, place

from orders.application.store import START, Commit, Delivery, Failure, Pending
from orders.domain.order import Order
from orders.errors import AlreadySettled

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
