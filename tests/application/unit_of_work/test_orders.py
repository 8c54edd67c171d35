"""In a unit of work an order is one object, a key has one owner, one of two writers wins."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event as Flag

import pytest
from msgspec.structs import replace
from sending import CrateFilled, Refusal, an_order, messages, place

from orders import (
    CancelOrder,
    NotifySales,
    Order,
    OrderCancelled,
    OrderCreated,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.domain.events import Added
from orders.errors import Conflict, EndlessLoop, KeyTaken, OrdersError, WrongPayload
from orders.messaging.message import MAX_HOPS

# Identity


def test_an_order_got_twice_in_one_unit_is_one_object(app, placed):
    with app.uow() as uow:
        order = uow.orders.get(placed)
        assert uow.orders.get(placed) is order
        with app.uow():
            assert uow.orders.get(placed) is order


def test_an_order_placed_in_the_unit_can_be_got(app):
    order = an_order()
    with app.uow() as uow:
        uow.orders.add(order)
        assert uow.orders.get(order.id) is order


def test_another_copy_of_an_order_is_refused(app, placed):
    with app.uow() as uow:
        uow.orders.get(placed)
        with pytest.raises(OrdersError, match=f"order {placed} is in this unit already"):
            uow.orders.add(app.orders.get(placed))


def test_another_copy_in_an_inner_unit_is_refused(app, placed):
    with app.uow() as uow:
        uow.orders.get(placed)
        with app.uow(), pytest.raises(OrdersError, match="in this unit already"):
            uow.orders.add(app.orders.get(placed))


@pytest.mark.parametrize("wrong", [an_order().state, "an id", [an_order()], None])
def test_what_is_no_order_is_refused_and_the_next_unit_is_stored(app, wrong):
    with pytest.raises(WrongPayload, match="is no Order\ntry: add what `get`"), app.uow() as uow:
        uow.orders.add(wrong)
    assert app.bus.send(place()) in app.orders


def test_orders_outside_a_unit_are_a_clear_error(app, placed):
    uow = app.uow()
    for use in (
        lambda: uow.orders.get(placed),
        lambda: uow.orders.add(an_order()),
        lambda: uow.orders.with_key("k1"),
    ):
        with pytest.raises(OrdersError, match="no unit of work is open\ntry: use `with uow:`"):
            use()


# Keys


def test_a_key_is_found_in_the_unit_and_in_the_store(app):
    first, second = an_order(key="k1"), an_order(key="k2")
    with app.uow() as uow:
        uow.orders.add(first)
    with app.uow() as uow:
        uow.orders.add(second)
        with app.uow():
            assert uow.orders.with_key("k1") == first.id
            assert uow.orders.with_key("k2") == second.id
            assert uow.orders.with_key(first.id) == first.id
            assert uow.orders.with_key("k3") is None


def test_a_key_cannot_be_used_twice_in_one_unit(app):
    with pytest.raises(OrdersError, match="k1"), app.uow() as uow:
        uow.orders.add(an_order(key="k1"))
        uow.orders.add(an_order(key="k1"))
    assert app.orders.count() == 0


def test_a_key_cannot_be_used_again_by_an_event_emitted_by_hand(app):
    first = app.bus.send(place(key="k1"))
    with pytest.raises(OrdersError, match="k1"):
        app.uow().emit(OrderCreated(order_id="1", items=("100 inch TV",), key="k1"))
    assert [state.id for state in app.orders.list()] == [first]


def test_a_key_that_was_taken_meanwhile_names_the_order_that_has_it(app, other):
    with pytest.raises(KeyTaken) as refusal, app.uow() as uow:
        uow.orders.add(an_order(key="k1"))
        first = other.bus.send(place(key="k1"))
    assert (refusal.value.key, refusal.value.order_id) == ("k1", first)


def test_keys_that_were_looked_up_together_are_not_asked_for_again(app, other, monkeypatch):
    first = app.bus.send(PlaceOrder(("rope",), key="used"))
    with app.uow() as uow:
        assert uow.orders.with_keys(["used", "new", "newer"]) == {"used": first}
        with monkeypatch.context() as patch:
            patch.setattr(app.store, "ids", None)
            assert uow.orders.with_key("new") is None
            order_id = app.bus.send(PlaceOrder(("lamp",), key="new"))
            assert uow.orders.with_key("new") == order_id
            assert app.bus.send(PlaceOrder(("lamp",), key="new")) == order_id
    assert app.bus.send(PlaceOrder(("lamp",), key="new")) == order_id
    with pytest.raises(KeyTaken), app.uow() as uow:
        assert uow.orders.with_keys(["newer"]) == {}
        other.bus.send(PlaceOrder(("rug",), key="newer"))
        app.bus.send(PlaceOrder(("tv",), key="newer"))


def test_who_loses_the_race_for_a_key_gets_the_winners_order(app, other, sales):
    won = []

    def place_first(event):
        won.append(other.bus.send(place(key="k1")))

    # between our look at the keys and our commit
    app.bus.subscribe(Added, place_first, name="place_first")
    assert app.bus.send(place(key="k1")) == won[0]
    assert [state.id for state in app.orders.list()] == sales.order_ids == won


def test_an_endless_loop_found_at_the_end_of_a_unit_undoes_the_unit(app, placed):
    order = app.orders.get(placed)
    cause = CrateFilled(correlation_id="1", hops=MAX_HOPS)
    with pytest.raises(EndlessLoop), app.uow(), app.bus.handling_of(cause), app.uow() as uow:
        uow.orders.add(order)
        order.ship()
    assert (order.status, order.pending) == ("placed", ())


def test_an_inner_unit_is_not_the_cause_of_what_an_outer_one_did_before(app):
    order = an_order()
    with app.uow() as uow:
        uow.orders.add(order)
        app.bus.send(ShipOrder(order.id))
    created, shipping, shipped, *_ = messages(app)
    assert (created.causation_id, shipped.causation_id) == (None, shipping.id)
    assert created.correlation_id == created.id


# Two writers


def test_of_two_writers_on_one_version_one_wins_and_the_other_gets_a_conflict(app, other, placed):
    with pytest.raises(Conflict, match="changed by somebody else") as conflict, app.uow() as uow:
        order = uow.orders.get(placed)
        order.ship()
        other.bus.send(CancelOrder(order_id=placed))
    assert conflict.value.order_id == placed
    assert (conflict.value.expected, conflict.value.actual) == (1, 2)
    assert (order.status, order.version, order.pending) == ("placed", 1, ())
    assert app.orders.get(placed).status == other.orders.get(placed).status == "cancelled"
    assert messages(app, OrderShipped) == []


def test_a_conflict_drops_the_whole_unit(app, other, sales, placed):
    with suppress(Conflict), app.uow() as uow:
        uow.orders.add(an_order())
        uow.orders.get(placed).ship()
        other.bus.send(CancelOrder(order_id=placed))
    assert app.orders.count() == 1
    assert sales.notices == []


def test_an_order_that_was_only_read_conflicts_with_nobody(app, other, placed):
    with app.uow() as uow:
        uow.orders.get(placed)
        uow.orders.add(an_order())
        other.bus.send(CancelOrder(order_id=placed))
    assert app.orders.count() == 2


def test_a_stale_copy_conflicts_in_the_same_application_too(app, placed):
    stale = app.orders.get(placed)
    app.bus.send(CancelOrder(order_id=placed))
    stale.ship()
    with pytest.raises(Conflict), app.uow() as uow:
        uow.orders.add(stale)


def test_two_writers_on_two_orders_do_not_conflict(app, other, placed):
    second = other.bus.send(place())
    with app.uow() as uow:
        uow.orders.get(placed).ship()
        other.bus.send(ShipOrder(order_id=second))
    assert {state.status for state in app.orders.list()} == {"shipped"}


def test_an_event_emitted_for_an_order_that_another_handle_changed_meanwhile_conflicts(data):
    with bootstrap(data) as app, bootstrap(data) as other:
        order_id = app.bus.send(place())
        with pytest.raises(Conflict) as conflict, app.uow() as uow:
            uow.emit(OrderShipped(order_id=order_id))
            other.bus.send(CancelOrder(order_id=order_id))
        assert conflict.value.order_id == order_id
        assert (conflict.value.expected, conflict.value.actual) == (1, 2)
        assert app.orders.get(order_id).status == other.orders.get(order_id).status == "cancelled"
        assert messages(app, OrderShipped) == []


def test_an_order_emitted_by_two_handles_is_placed_by_one(data):
    created = OrderCreated(order_id="1", items=("100 inch TV",))
    with bootstrap(data) as app, bootstrap(data) as other:
        with pytest.raises(Conflict), app.uow() as uow:
            uow.emit(created)
            other.uow().emit(OrderCreated(order_id="1", items=("magic carpet",)))
        with pytest.raises(WrongPayload, match="it is placed, not new"):
            app.uow().emit(created)
        assert [state.items for state in app.orders.list()] == [("magic carpet",)]
        assert len(messages(app, OrderCreated)) == 1


def test_events_of_one_order_emitted_in_one_unit_follow_each_other(app):
    with app.uow() as uow:
        uow.emit(OrderCreated(order_id="1", items=("100 inch TV",), key="k1"))
        with suppress(Refusal), app.uow():
            uow.emit(OrderCancelled(order_id="1"))
            raise Refusal
        uow.emit(OrderShipped(order_id="1"))
        with pytest.raises(WrongPayload, match="cannot be cancelled: it is shipped"):
            uow.emit(OrderCancelled(order_id="1"))
    assert [(state.status, state.version) for state in app.orders.list()] == [("shipped", 2)]
    assert app.bus.send(place(key="k1")) == "1"


def test_an_order_in_the_unit_is_changed_and_no_event_of_it_emitted(app, placed):
    with app.uow() as uow:
        uow.orders.get(placed).ship()
        with pytest.raises(WrongPayload, match="is in this unit: change it, do not emit"):
            uow.emit(OrderCancelled(order_id=placed))
    with pytest.raises(WrongPayload, match="is in this unit already"), app.uow() as uow:
        uow.emit(OrderCreated(order_id="1", items=("100 inch TV",)))
        uow.orders.add(Order(replace(app.orders.get(placed).state, id="1")))
    assert app.orders.get(placed).status == "shipped"


# Threads


def test_four_threads_lose_nothing(app, sales):
    with ThreadPoolExecutor(4) as threads:
        placed = list(threads.map(lambda n: app.bus.send(place(f"item {n}")), range(40)))
    assert len(set(placed)) == app.orders.count() == 40
    assert sorted(sales.order_ids) == sorted(placed)
    assert len(messages(app, OrderCreated)) == len(messages(app, NotifySales)) == 40
    assert not list(app.store.pending())


def test_threads_that_read_and_write_do_not_block_each_other(app):
    done = Flag()

    def read():
        while not done.is_set():
            app.orders.list()

    orders = [an_order() for _ in range(40)]
    with app.uow() as uow:
        for order in orders:
            uow.orders.add(order)
    with ThreadPoolExecutor(3) as threads:
        reading = threads.submit(read)
        try:
            list(threads.map(lambda order: app.bus.send(ShipOrder(order_id=order.id)), orders))
        finally:
            done.set()
        reading.result()
    assert {state.status for state in app.orders.list()} == {"shipped"}


def test_each_thread_has_units_of_its_own(app, crates):
    with ThreadPoolExecutor(1) as threads, suppress(Refusal), app.uow() as uow:
        uow.emit(CrateFilled("ours"))
        threads.submit(uow.emit, CrateFilled("theirs")).result()
        with pytest.raises(OrdersError, match="no unit of work is open"):
            threads.submit(uow.orders.with_key, "k1").result()
        raise Refusal
    assert crates == ["theirs"]
