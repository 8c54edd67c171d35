"""A unit of work is stored whole or not at all, and nobody hears of it before."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sending import CrateFilled, Refusal, an_order, messages, names, place

from orders import OrderCreated, OrderRejected, OrderShipped, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.store import FilesStore
from orders.application.notifications import NullNotifier
from orders.errors import InvalidOrder, NotStored
from orders.queries.wording import name_of

# Stored together or not at all


def test_orders_and_events_are_stored_in_one_record(app):
    first, second = an_order(), an_order()
    with app.uow() as uow:
        uow.orders.add(first)
        uow.orders.add(second)
        uow.emit(CrateFilled("C1"))
    record = next(app.store.read())
    assert sorted(map(name_of, record.messages)) == ["CrateFilled", "OrderCreated", "OrderCreated"]
    assert {order.id for order in app.orders.list()} == {first.id, second.id}


def test_what_is_stored_is_no_longer_pending(app):
    order = an_order()
    with app.uow() as uow:
        uow.orders.add(order)
    assert (order.pending, order.stored_version) == ((), 1)


@pytest.mark.parametrize("error", [Refusal, KeyboardInterrupt, GeneratorExit])
def test_a_unit_that_fails_leaves_no_order_no_event_and_no_notice(app, sales, crates, error):
    with pytest.raises(error), app.uow() as uow:
        uow.orders.add(an_order())
        uow.emit(CrateFilled("C1"))
        raise error
    assert list(app.store.read()) == app.orders.list() == sales.notices == crates == []


def test_a_unit_that_fails_leaves_orders_in_memory_as_before(app, placed):
    with pytest.raises(Refusal), app.uow() as uow:
        order = uow.orders.get(placed)
        order.ship()
        raise Refusal
    assert (order.status, order.version, order.pending) == ("placed", 1, ())
    assert app.orders.get(placed).status == "placed"


def test_a_change_made_before_the_unit_stays_when_the_unit_fails(app, placed):
    order = app.orders.get(placed)
    order.ship()
    with pytest.raises(Refusal), app.uow() as uow:
        uow.orders.add(order)
        raise Refusal
    assert (order.status, len(order.pending)) == ("shipped", 1)
    with app.uow() as uow:
        uow.orders.add(order)
    assert app.orders.get(placed).status == "shipped"


def test_an_order_whose_unit_failed_can_be_stored_by_another(app, sales):
    order = an_order()
    with suppress(Refusal), app.uow() as uow:
        uow.orders.add(order)
        raise Refusal
    with app.uow() as uow:
        uow.orders.add(order)
    assert sales.order_ids == [order.id]


class FullDisk(Disk):
    """A disk that may be full."""

    full = False

    def write(self, descriptor, data):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(descriptor, data)


def test_a_unit_that_cannot_be_written_leaves_nothing_and_orders_as_before(data, sales):
    disk = FullDisk()
    with bootstrap(store=FilesStore(data, disk=disk), notifier=sales) as app:
        order_id = app.bus.send(place())
        disk.full = True
        with pytest.raises(NotStored, match="no space left"), app.uow() as uow:
            order = uow.orders.get(order_id)
            order.ship()
            uow.orders.add(an_order())
        disk.full = False
        assert (order.status, order.pending) == ("placed", ())
        assert [state.status for state in app.orders.list()] == ["placed"]
        assert sales.order_ids == [order_id]


def test_an_empty_unit_stores_nothing(app):
    with app.uow():
        pass
    assert app.store.commits == 0


def test_reading_in_a_unit_stores_nothing(app, placed):
    head = app.store.head()
    with app.uow() as uow:
        assert uow.orders.get(placed).id == placed
    assert app.store.head() == head


# Nobody hears of it before


def test_an_event_is_in_the_log_when_its_subscriber_runs(app):
    stored = []
    app.bus.subscribe(
        OrderCreated, lambda event: stored.append(event in messages(app)), name="look"
    )
    app.bus.send(place())
    assert stored == [True]


def test_an_event_is_published_after_the_block_has_ended(app, crates):
    with app.uow() as uow:
        uow.emit(CrateFilled("C1"))
        assert crates == []
        assert messages(app) == []
    assert crates == ["C1"]


def test_the_events_of_an_inner_unit_wait_for_the_outer_one(app, crates):
    with app.uow():
        with app.uow() as inner:
            inner.emit(CrateFilled("C1"))
        assert crates == []
    assert crates == ["C1"]


def test_events_are_published_in_the_order_of_their_emission(app, crates):
    with app.uow() as uow:
        uow.emit(CrateFilled("C1"))
        with app.uow():
            uow.emit(CrateFilled("C2"))
        uow.emit(CrateFilled("C3"))
    assert crates == ["C1", "C2", "C3"]
    assert [message.crate for message in messages(app)] == ["C1", "C2", "C3"]


# Nesting


def test_an_inner_failure_drops_only_the_inner_changes_and_events(app, sales, crates):
    outer, inner = an_order("outer"), an_order("inner")
    with app.uow() as uow:
        uow.orders.add(outer)
        uow.emit(CrateFilled("outer"))
        with suppress(Refusal), app.uow():
            uow.orders.add(inner)
            uow.emit(CrateFilled("inner"))
            raise Refusal
    assert [state.id for state in app.orders.list()] == sales.order_ids == [outer.id]
    assert crates == ["outer"]


def test_an_inner_failure_undoes_what_it_did_to_an_order_of_the_outer_unit(app, placed):
    with app.uow() as uow:
        order = uow.orders.get(placed)
        with suppress(Refusal), app.uow():
            order.ship()
            raise Refusal
        assert order.status == "placed"
        order.cancel()
    assert app.orders.get(placed).status == "cancelled"
    assert messages(app, OrderShipped) == []


def test_an_outer_failure_drops_what_the_inner_unit_had_done(app, sales, placed):
    head = app.store.head()
    with suppress(Refusal), app.uow() as uow:
        with app.uow():
            order = uow.orders.get(placed)
            order.ship()
            uow.orders.add(an_order())
        assert order.status == "shipped"
        raise Refusal
    assert (order.status, order.pending) == ("placed", ())
    assert app.store.head() == head
    assert sales.notices == []


def test_an_event_dropped_by_an_inner_unit_can_be_emitted_again(app, crates):
    event = CrateFilled("C1")
    with app.uow() as uow:
        with suppress(Refusal), app.uow():
            uow.emit(event)
            raise Refusal
        uow.emit(event)
    assert crates == ["C1"]


def test_units_nest_three_deep(app, crates):
    with app.uow() as uow:
        with app.uow():
            with suppress(Refusal), app.uow():
                uow.emit(CrateFilled("deepest"))
                raise Refusal
            uow.emit(CrateFilled("middle"))
        uow.emit(CrateFilled("outermost"))
    assert crates == ["middle", "outermost"]


def test_commands_sent_in_a_unit_are_part_of_it(app, placed):
    with suppress(Refusal), app.uow():
        app.bus.send(ShipOrder(order_id=placed))
        app.bus.send(place())
        raise Refusal
    assert [state.status for state in app.orders.list()] == ["placed"]


def test_a_unit_can_follow_one_that_failed(app):
    with suppress(Refusal), app.uow():
        raise Refusal
    with app.uow() as uow:
        uow.orders.add(an_order())
    assert app.orders.count() == 1


class Model:
    """What a unit of work should come to: a copy is a savepoint, to go back is to drop it."""

    def __init__(self, statuses, events):
        self.statuses, self.events = dict(statuses), list(events)

    def play(self, app, steps):
        """Do each step in the innermost unit of `app` and here."""
        for number, (step, argument) in enumerate(steps):
            with app.uow() as uow:
                if step == "add":
                    order = an_order()
                    uow.orders.add(order)
                    self.statuses[order.id] = "placed"
                elif step == "ship":
                    order_id = list(self.statuses)[argument % len(self.statuses)]
                    if self.statuses[order_id] == "placed":
                        uow.orders.get(order_id).ship()
                        self.statuses[order_id] = "shipped"
                elif step in {"emit", "reject"}:
                    text = f"{number} {step} {argument}"
                    uow.emit(CrateFilled(text) if step == "emit" else OrderRejected(reason=text))
                    self.events.append(text)
            if step in {"succeed", "fail"}:
                self.play_block(app, argument, fails=step == "fail")

    def play_block(self, app, steps, *, fails):
        inner = Model(self.statuses, self.events)
        with suppress(Refusal), app.uow():
            inner.play(app, steps)
            if fails:
                raise Refusal
        kept = self.events + [e for e in inner.events[len(self.events) :] if "reject" in e]
        self.events = kept if fails else inner.events
        self.statuses = self.statuses if fails else inner.statuses


changes = st.tuples(st.sampled_from(["add", "ship", "emit", "reject"]), st.integers(0, 9))
blocks = st.recursive(
    st.lists(changes, max_size=4),
    lambda inner: st.lists(changes | st.tuples(st.sampled_from(["succeed", "fail"]), inner)),
    max_leaves=8,
)


@given(blocks, st.booleans())
@settings(max_examples=50, deadline=None)
def test_units_nested_in_any_way_store_what_succeeded_and_what_survives(steps, fails):
    with bootstrap(":memory:", notifier=NullNotifier()) as app:
        model = Model({app.bus.send(place()): "placed"}, [])
        model.play_block(app, steps, fails=fails)
        found = [m for m in messages(app) if isinstance(m, CrateFilled | OrderRejected)]
        assert {state.id: state.status for state in app.orders.list()} == model.statuses
        assert [getattr(m, "crate", None) or m.reason for m in found] == model.events


# Surviving a rollback


def test_a_refused_order_is_published_and_stored_although_its_unit_is_rolled_back(app):
    reasons = []
    app.bus.subscribe(OrderRejected, lambda event: reasons.append(event.reason), name="why")
    with pytest.raises(InvalidOrder):
        app.bus.send(place(" "))
    assert reasons == ["item 1 is blank"]
    assert [event.reason for event in messages(app, OrderRejected)] == reasons
    assert app.orders.count() == 0


def test_what_survives_an_inner_unit_is_published_once_after_the_outer_one(app, sales):
    rejected = []
    app.bus.subscribe(OrderRejected, rejected.append, name="rejected")
    with app.uow() as uow:
        uow.orders.add(an_order())
        with suppress(InvalidOrder):
            app.bus.send(place(" "))
        assert rejected == []
    assert len(rejected) == len(messages(app, OrderRejected)) == len(sales.notices) == 1


def test_what_survives_an_inner_unit_survives_the_outer_one_too(app):
    rejected = []
    app.bus.subscribe(OrderRejected, rejected.append, name="rejected")
    with suppress(InvalidOrder), app.uow() as uow:
        uow.orders.add(an_order())
        app.bus.send(place(" "))
    assert len(rejected) == 1
    assert names(app) == ["OrderRejected"]


def test_what_survives_is_of_the_conversation_of_its_command(app):
    command = place(" ")
    with suppress(InvalidOrder):
        app.bus.send(command)
    event = messages(app, OrderRejected)[0]
    assert (event.causation_id, event.correlation_id) == (command.id, command.id)


def test_a_rejection_that_cannot_be_stored_does_not_hide_the_reason(data):
    disk, warnings = FullDisk(), []
    with bootstrap(store=FilesStore(data, disk=disk), on_warning=warnings.append) as app:
        disk.full = True
        with pytest.raises(InvalidOrder, match="blank"):
            app.bus.send(place(" "))
        disk.full = False
    assert warnings[0].startswith(
        "what was to survive a rollback was not recorded: could not write"
    )
