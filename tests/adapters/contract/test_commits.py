"""A commit is stored whole, once, for all to see; or it is refused, and leaves nothing."""

from contextlib import suppress
from datetime import UTC

import pytest
from msgspec.structs import replace
from storing import again, at_once, commit_of, contents, moved, notified, numbers, outcome, place

from orders.application.store import Change, Commit, Delivery
from orders.domain.commands import PlaceOrder
from orders.domain.events import OrderRejected
from orders.domain.order import Order
from orders.errors import AlreadySettled, Conflict, KeyTaken, WrongPayload

UNREADABLE = OrderRejected(reason="\ud800")  # a lone surrogate has no UTF-8


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
