"""A store can be carried into another, looked over, and closed."""

import pytest
from msgspec.structs import astuple, replace
from storing import again, commit_of, contents, moved, notified, numbers, outcome, place

from orders.adapters.memory import MemoryStore
from orders.application.store import Commit, Delivery, Failure, Pending
from orders.domain.events import OrderRejected
from orders.errors import KeyTaken, StoreError
from orders.messaging.message import UnknownMessage

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


# Upkeep


def test_a_sound_store_has_nothing_to_repair(store):
    notified(store)
    before = contents(store)
    assert [finding for finding in store.check() if not finding.is_well] == []
    assert list(store.repair()) == []
    assert contents(store) == before


def test_there_is_nothing_to_bring_up_to_date_where_nothing_is_stored(store):
    assert not store.checkpoint()


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
