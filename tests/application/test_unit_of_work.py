"""A unit of work is stored whole or not at all, and nobody hears of it before."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from orders import (
    CancelOrder,
    Command,
    Event,
    NotifySales,
    Order,
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderRejected,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.adapters.files.disk import Disk
from orders.adapters.files.store import FilesStore
from orders.application.notifications import NullNotifier
from orders.application.store import Filter
from orders.domain.events import Added, Committed, RolledBack, UnitEvent
from orders.errors import (
    Conflict,
    EndlessLoop,
    InvalidOrder,
    KeyTaken,
    NotStored,
    OrderNotFound,
    OrdersError,
    WrongPayload,
)
from orders.messaging.message import MAX_HOPS, UnknownMessage
from orders.queries.wording import name_of


class CrateFilled(Event, frozen=True):
    topic: ClassVar[str] = "crate-filled"

    crate: str = ""


class FillCrates(Command, frozen=True):
    topic: ClassVar[str] = "fill-crates"


class Refusal(Exception):
    pass


def place(*items, **fields):
    return PlaceOrder(items=items or ("100 inch TV",), **fields)


def an_order(*items, **fields):
    return Order.place(items or ["100 inch TV"], **fields)


@pytest.fixture
def app(sales, failures):
    """The order system in memory, its notices kept by `sales`."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    with bootstrap(":memory:", notifier=sales, on_failure=note) as app:
        yield app


def messages(app, kind=object):
    """What the log holds of one class."""
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def names(app):
    return [name_of(message) for message in messages(app)]


@pytest.fixture
def placed(app, sales):
    """The id of an order placed long ago."""
    order_id = app.bus.send(place())
    sales.notices.clear()
    return order_id


@pytest.fixture
def crates(app):
    """The crates that subscribers heard of."""
    crates = []
    app.bus.subscribe(CrateFilled, lambda event: crates.append(event.crate), name="crates")
    return crates


@pytest.fixture
def other(app, sales):
    """Somebody else on the same store."""
    return bootstrap(store=app.store, notifier=sales)


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


# Emitting


def test_the_same_event_emitted_twice_in_one_unit_is_published_and_stored_once(app, crates):
    event = CrateFilled("C1")
    with app.uow() as uow:
        uow.emit(event)
        uow.emit(event)
        with app.uow():
            uow.emit(event)
    assert crates == ["C1"]
    assert len(messages(app)) == 1


def test_two_events_that_say_the_same_are_two(app, crates):
    with app.uow() as uow:
        uow.emit(CrateFilled("C1"))
        uow.emit(CrateFilled("C1"))
    assert crates == ["C1", "C1"]


def test_emitting_outside_a_unit_is_immediate_and_stored(app, crates):
    app.uow().emit(CrateFilled("C1"))
    assert crates == ["C1"]
    assert names(app) == ["CrateFilled"]


def test_an_event_emitted_by_a_handler_has_the_command_as_its_cause(app):
    def fill(command, *, uow):
        uow.emit(CrateFilled("C1"))

    app.bus.register(FillCrates, fill)
    app.bus.send(FillCrates())
    command, event = messages(app)
    assert (event.causation_id, event.correlation_id) == (command.id, command.id)


@pytest.mark.parametrize(
    "payload", [ShipOrder(order_id="1"), OrderEvent(order_id="1"), "crate-filled", None]
)
def test_what_is_no_event_with_a_topic_cannot_be_emitted(app, sales, payload):
    with pytest.raises(WrongPayload), app.uow() as uow:
        uow.orders.add(an_order())
        uow.emit(CrateFilled("C1"))
        uow.emit(payload)
    assert messages(app) == sales.notices == []


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda: OrderShipped(order_id="of nobody"), WrongPayload),
        (lambda: OrderCreated(order_id="1", items=("TV",), key=" k "), InvalidOrder),
        (lambda: OrderCreated(order_id="1", items=()), InvalidOrder),
        (lambda: OrderCreated(order_id=" ", items=("TV",)), InvalidOrder),
        (lambda: OrderCreated(order_id="1", items=({"TV": 1},)), InvalidOrder),
        (lambda: CrateFilled(object()), WrongPayload),
        (lambda: CrateFilled(b"bytes"), WrongPayload),
        (lambda: CrateFilled("\ud800"), WrongPayload),
        (lambda: OrderRejected(reason=5), WrongPayload),
    ],
)
def test_an_event_that_breaks_a_rule_or_could_not_be_read_back_is_not_stored(app, make, refusal):
    order_id = app.bus.send(place())
    head = app.store.head()
    with pytest.raises(refusal):
        app.uow().emit(make())
    assert app.store.head() == head
    assert [state.id for state in app.orders.list()] == [order_id]


def test_an_event_whose_time_has_no_zone_is_taken_for_utc(app):
    time = datetime(2020, 11, 21, 9, 30)  # noqa: DTZ001 - no zone is the point
    app.uow().emit(OrderCreated(order_id="1", items=("100 inch TV",), time=time))
    (state,) = app.orders.list(Filter(until=time.replace(tzinfo=UTC) + timedelta(seconds=1)))
    assert (state.id, state.placed_at) == ("1", time.replace(tzinfo=UTC))


@pytest.mark.parametrize("items", [("\ud800",), (5,), ({"TV": object()},)])
def test_a_command_that_could_not_be_read_back_spoils_its_unit(app, sales, items):
    with pytest.raises(WrongPayload), app.uow() as uow:
        uow.orders.add(an_order())
        app.bus.send(NotifySales(order_id="1", items=items))
    assert messages(app) == app.orders.list() == []


# Announcements


@pytest.fixture
def announced(app):
    """What units of work say of orders, as (class name, order id)."""
    announced = []
    app.bus.subscribe(
        UnitEvent,
        lambda event: announced.append((type(event).__name__, event.order_id)),
        name="announced",
    )
    return announced


def test_added_and_committed_are_announced_for_each_order(app, announced):
    first, second = an_order(), an_order()
    with app.uow() as uow:
        uow.orders.add(first)
        assert announced == [("Added", first.id)]
        uow.orders.add(second)
        uow.orders.add(first)
    assert announced == [
        *(("Added", first.id), ("Added", second.id)),
        *(("Committed", first.id), ("Committed", second.id)),
    ]


def test_rolled_back_is_announced_for_each_order_and_committed_is_not(app, announced):
    first, second = an_order(), an_order()
    with suppress(Refusal), app.uow() as uow:
        uow.orders.add(first)
        uow.orders.add(second)
        raise Refusal
    assert announced[2:] == [("RolledBack", first.id), ("RolledBack", second.id)]


def test_rolled_back_is_announced_when_the_commit_fails(app, other, placed, announced):
    with suppress(Conflict), app.uow() as uow:
        uow.orders.get(placed).ship()
        other.bus.send(CancelOrder(order_id=placed))
    assert announced == [("Added", placed), ("RolledBack", placed)]


def test_only_the_orders_of_the_inner_unit_are_announced_as_rolled_back(app, announced):
    outer, inner = an_order(), an_order()
    with app.uow() as uow:
        uow.orders.add(outer)
        with suppress(Refusal), app.uow():
            uow.orders.add(inner)
            raise Refusal
    assert announced[2:] == [("RolledBack", inner.id), ("Committed", outer.id)]


def test_committed_is_announced_after_storing_and_before_the_events(app):
    happened = []

    def committed(event):
        happened.append(("committed", app.orders.get(event.order_id).status))

    app.bus.subscribe(Committed, committed, name="committed")
    app.bus.subscribe(OrderCreated, lambda event: happened.append("created"), name="created")
    app.bus.send(place())
    assert happened == [("committed", "placed"), "created"]


def test_the_order_is_as_before_when_its_rollback_is_announced(app, placed):
    states = []
    with suppress(Refusal), app.uow() as uow:
        order = uow.orders.get(placed)
        app.bus.subscribe(RolledBack, lambda event: states.append(order.status), name="look")
        order.ship()
        raise Refusal
    assert states == ["placed"]


def test_announcements_are_not_in_the_log(app, announced):
    app.bus.send(place())
    assert announced
    assert names(app) == ["PlaceOrder", "OrderCreated", "NotifySales"]
    assert {account.delivery.subscriber for account in app.store.deliveries()} == {"order_created"}


def test_who_fails_to_hear_an_announcement_harms_nobody(app, failures):
    def fail(event):
        raise Refusal

    app.bus.subscribe(UnitEvent, fail, name="fail")
    app.bus.send(place())
    assert app.orders.count() == 1
    assert {type(event) for _, event, _ in failures} == {Added, Committed}


def test_ctrl_c_while_committed_is_announced_leaves_the_notice_to_whoever_comes(app, other, sales):
    def interrupt(event):
        raise KeyboardInterrupt

    app.bus.subscribe(Committed, interrupt, name="interrupt")
    with pytest.raises(KeyboardInterrupt):
        app.bus.send(place())
    assert app.orders.count() == 1
    assert other.deliveries.recover() == 1
    assert sales.order_ids == [state.id for state in app.orders.list()]


# The messages of a command


def test_a_command_and_what_it_causes_are_stored_once_in_order(app):
    app.bus.send(place())
    assert names(app) == ["PlaceOrder", "OrderCreated", "NotifySales"]
    placing, created, notifying = messages(app)
    assert [placing.causation_id, created.causation_id] == [None, placing.id]
    assert notifying.causation_id == created.id
    assert {message.correlation_id for message in messages(app)} == {placing.id}


def test_a_command_whose_handler_uses_two_units_in_a_row_is_stored_once(app):
    def fill(command, *, uow):
        for crate in ("C1", "C2"):
            with uow:
                uow.emit(CrateFilled(crate))

    app.bus.register(FillCrates, fill)
    app.bus.send(FillCrates())
    with app.uow():
        app.bus.send(FillCrates())
    assert names(app) == ["FillCrates", "CrateFilled", "CrateFilled"] * 2


def test_a_command_whose_first_unit_fails_is_stored_with_the_second(app):
    def fill(command, *, uow):
        with suppress(Refusal), uow:
            uow.emit(CrateFilled("C1"))
            raise Refusal
        with uow:
            uow.emit(CrateFilled("C2"))

    app.bus.register(FillCrates, fill)
    app.bus.send(FillCrates())
    assert names(app) == ["FillCrates", "CrateFilled"]


def test_a_command_sent_by_a_handler_between_its_units_is_stored_once(app):
    def fill(command, *, uow, bus):
        uow.emit(CrateFilled("C1"))
        bus.send(place())
        uow.emit(CrateFilled("C2"))

    app.bus.register(FillCrates, fill)
    app.bus.send(FillCrates())
    assert names(app).count("FillCrates") == names(app).count("PlaceOrder") == 1
    assert names(app).count("NotifySales") == 1


def test_a_command_that_changes_nothing_is_not_stored(app, placed):
    head = app.store.head()
    with pytest.raises(OrderNotFound):
        app.bus.send(ShipOrder(order_id="of nobody"))
    assert app.store.head() == head


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
        with pytest.raises(WrongPayload, match="it is placed; only an order that is new can be"):
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


# Other programs


STRANGER = """
import sys
from typing import ClassVar
from orders import Event, PlaceOrder, bootstrap

class StockLow(Event, frozen=True):
    topic: ClassVar[str] = "stock-low"
    item: str

with bootstrap(sys.argv[1]) as app:
    with app.uow() as uow:
        app.bus.send(PlaceOrder(items=("100 inch TV",)))
        uow.emit(StockLow("100 inch TV"))
"""


def test_an_event_of_a_class_that_only_another_program_has_is_readable(data):
    subprocess.run([sys.executable, "-c", STRANGER, data], check=True, capture_output=True)
    with bootstrap(data) as app:
        low = messages(app, UnknownMessage)[0]
        assert (name_of(low), low.fields["item"]) == ("StockLow", "100 inch TV")
        assert names(app) == ["PlaceOrder", "OrderCreated", "StockLow", "NotifySales"]
        app.bus.send(place())
        assert app.orders.count() == 2


# Many events


@pytest.mark.parametrize("count", [5, 50, 600])
def test_a_subscriber_whose_effects_cannot_be_stored_spoils_no_large_unit(app, other, sales, count):
    """What comes of many events is stored together, unless one of them spoils that."""
    odd = []

    def disagree(event):
        if event.order_id == odd[0]:
            with app.uow() as uow:
                uow.orders.get(event.order_id).ship()
                if app.orders.get(event.order_id).version == 1:
                    other.bus.send(CancelOrder(event.order_id))  # another terminal is quicker

    app.bus.subscribe(OrderCreated, disagree, name="disagree")
    with app.uow() as uow:
        orders = [Order.place([f"item {number}"]) for number in range(count)]
        odd.append(orders[3].id)
        for order in orders:
            uow.orders.add(order)
    assert app.orders.count() == count
    statuses = Counter(account.delivery.status for account in app.store.deliveries())
    assert statuses == {"done": 2 * count - 1, "failed": 1}
    assert set(sales.order_ids) == {order.id for order in orders}
