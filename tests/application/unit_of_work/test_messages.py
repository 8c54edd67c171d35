"""What is emitted in a unit of work is stored once, in order, with its cause; what it announces."""

import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sending import CrateFilled, FillCrates, Refusal, an_order, messages, names, place

from orders import (
    CancelOrder,
    NotifySales,
    Order,
    OrderCreated,
    OrderEvent,
    OrderRejected,
    OrderShipped,
    ShipOrder,
    bootstrap,
)
from orders.application.store import Filter
from orders.domain.events import Added, Committed, RolledBack, UnitEvent
from orders.errors import Conflict, InvalidOrder, OrderNotFound, WrongPayload
from orders.messaging.message import UnknownMessage
from orders.queries.wording import name_of

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
