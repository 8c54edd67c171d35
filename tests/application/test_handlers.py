"""What is done about each message, through the whole system and as plain functions."""

import io
import sys

import pytest

from orders import (
    CancelOrder,
    Notice,
    NotifySales,
    Order,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.adapters.notifiers import ConsoleNotifier
from orders.application.handlers import (
    COMMAND_HANDLERS,
    EVENT_SUBSCRIBERS,
    cancel_order,
    notify_sales,
    order_created,
    place_order,
    ship_order,
)
from orders.application.notifications import NullNotifier
from orders.application.store import Filter
from orders.errors import (
    AmbiguousOrder,
    ForbiddenMove,
    InvalidOrder,
    KeyTaken,
    OrderNotFound,
    WiringError,
    WrongPayload,
)

NOTICE = """\
============
New Order:
============
ID: aafc3ad9-417c-484b-8ed7-3960e7241ba8
Items: ['100 inch TV', 'magic carpet']
"""
NOTICE_ID = "aafc3ad9-417c-484b-8ed7-3960e7241ba8"
ITEMS = ("100 inch TV", "magic carpet")


def place(**fields):
    return PlaceOrder(items=ITEMS, **fields)


@pytest.fixture
def app(sales):
    """The order system in memory, its notices kept by `sales`."""
    with bootstrap(":memory:", notifier=sales) as app:
        yield app


def messages(app, kind=object):
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


class FakeOrders(dict):
    """Orders by id, like those of a unit of work."""

    def add(self, order):
        self[order.id] = order

    def get(self, order_id):
        return self[order_id]

    def with_key(self, key):
        return next((order.id for order in self.values() if order.key == key), None)


class FakeUnitOfWork:
    """A unit of work that keeps everything, and may fail at its end."""

    def __init__(self, failure=None):
        self.orders = FakeOrders()
        self.emitted = []
        self.failure = failure

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None and self.failure:
            raise self.failure

    def emit(self, event):
        self.emitted.append(event)


class FakeBus:
    def __init__(self):
        self.sent = []

    def send(self, command):
        self.sent.append(command)


# Placing


def test_placing_an_order_returns_its_id_stores_it_and_notifies_sales(app, sales):
    order_id = app.bus.send(place(customer="Aladdin"))
    order = app.orders.get(order_id)
    assert (order.id, order.items, order.customer) == (order_id, ITEMS, "Aladdin")
    assert (order.status, order.version) == ("placed", 1)
    assert sales.notices == [Notice(order_id, ITEMS)]


def test_placing_raises_order_created_with_all_that_was_asked(app):
    order_id = app.bus.send(place(customer=" Aladdin ", key="k1"))
    created = messages(app, OrderCreated)[0]
    assert (created.order_id, created.items) == (order_id, ITEMS)
    assert (created.customer, created.key) == ("Aladdin", "k1")


@pytest.mark.parametrize("items", [(), (" ",), ("a\x1bb",), ("x" * 501,), ("a",) * 1001, (5,)])
def test_a_bad_order_is_refused_and_nobody_is_notified(app, sales, items):
    rejected = []
    app.bus.subscribe(OrderRejected, rejected.append, name="rejected")
    with pytest.raises(InvalidOrder) as refusal:
        app.bus.send(PlaceOrder(items=items))
    assert [event.reason for event in rejected] == [str(refusal.value)]
    assert app.orders.count() == 0
    assert sales.notices == []


@pytest.mark.parametrize("items", ["TV", 5, None, {"TV": 1}])
def test_what_is_no_list_of_items_never_becomes_a_command(items):
    with pytest.raises(WrongPayload, match="items of PlaceOrder must be tuple"):
        PlaceOrder(items=items)


def test_the_same_key_again_returns_the_first_order_and_notifies_nobody(app, sales):
    first = app.bus.send(place(key="k1"))
    head = app.store.head()
    assert app.bus.send(place(key="k1")) == first
    assert app.bus.send(PlaceOrder(items=("another",), key=" k1 ")) == first
    assert app.orders.count() == 1
    assert sales.order_ids == [first]
    assert app.store.head() == head


def test_the_same_key_again_in_another_process_returns_the_first_order(data, sales):
    with bootstrap(data, notifier=sales) as app:
        first = app.bus.send(place(key="k1"))
    with bootstrap(data, notifier=sales) as later:
        assert later.bus.send(place(key="k1")) == first
    assert sales.order_ids == [first]


def test_the_same_key_twice_in_one_unit_is_one_order(app, sales):
    with app.uow():
        first = app.bus.send(place(key="k1"))
        assert app.bus.send(place(key="k1 ")) == first
    assert app.orders.count() == len(sales.notices) == 1


def test_orders_without_a_key_or_with_different_ones_are_different(app):
    keys = [None, None, "k1", "K1"]
    assert len({app.bus.send(place(key=key)) for key in keys}) == app.orders.count() == 4


def test_place_order_is_a_plain_function():
    uow = FakeUnitOfWork()
    order_id = place_order(place(customer="Aladdin", key="k1"), uow=uow)
    order = uow.orders[order_id]
    assert (order.items, order.customer, order.key) == (ITEMS, "Aladdin", "k1")
    assert uow.emitted == []


def test_place_order_as_a_plain_function_returns_the_first_order_of_a_key():
    uow = FakeUnitOfWork()
    first = Order.place(ITEMS, key="k1")
    uow.orders.add(first)
    assert place_order(place(key="k1"), uow=uow) == first.id
    assert list(uow.orders) == [first.id]


def test_place_order_as_a_plain_function_emits_why_it_refuses():
    uow = FakeUnitOfWork()
    with pytest.raises(InvalidOrder):
        place_order(PlaceOrder(items=()), uow=uow)
    assert [event.reason for event in uow.emitted] == ["an order needs at least one item"]
    assert uow.orders == {}


def test_place_order_as_a_plain_function_yields_to_who_took_the_key_meanwhile():
    uow = FakeUnitOfWork(KeyTaken("k1", "the winner's"))
    assert place_order(place(key="k1"), uow=uow) == "the winner's"


# Shipping and cancelling


def test_shipping_an_order_changes_its_state_and_notifies_nobody(app, sales):
    order_id = app.bus.send(place())
    assert app.bus.send(ShipOrder(order_id=order_id)) is None
    assert (app.orders.get(order_id).status, app.orders.get(order_id).version) == ("shipped", 2)
    assert [event.order_id for event in messages(app, OrderShipped)] == [order_id]
    assert len(sales.notices) == 1


@pytest.mark.parametrize("reason", [None, "moth holes"])
def test_cancelling_an_order_changes_its_state_and_keeps_the_reason(app, reason):
    order_id = app.bus.send(place())
    assert app.bus.send(CancelOrder(order_id=order_id, reason=reason)) is None
    assert app.orders.get(order_id).status == "cancelled"
    assert [event.reason for event in messages(app, OrderCancelled)] == [reason]


@pytest.mark.parametrize("first", [ShipOrder, CancelOrder])
@pytest.mark.parametrize("second", [ShipOrder, CancelOrder])
def test_a_move_that_the_state_forbids_is_refused(app, first, second):
    order_id = app.bus.send(place())
    app.bus.send(first(order_id=order_id))
    head = app.store.head()
    with pytest.raises(ForbiddenMove):
        app.bus.send(second(order_id=order_id))
    assert app.store.head() == head


def test_a_cancellation_for_a_bad_reason_is_refused(app):
    order_id = app.bus.send(place())
    with pytest.raises(InvalidOrder, match=r"reason contains .*U\+202E"):
        app.bus.send(CancelOrder(order_id=order_id, reason="x\u202ey"))
    assert app.orders.get(order_id).status == "placed"


@pytest.mark.parametrize("order_id", ["", "of nobody", "\ud800", "\x1b[2J", "../events.jsonl"])
@pytest.mark.parametrize("command", [ShipOrder, CancelOrder])
def test_an_order_that_is_not_there_cannot_move(app, command, order_id):
    app.bus.send(place())
    with pytest.raises(OrderNotFound) as refusal:
        app.bus.send(command(order_id=order_id))
    assert refusal.value.order_id == order_id


def test_the_beginning_of_an_id_is_no_id_here(app):
    order_id = app.bus.send(place())
    with pytest.raises(OrderNotFound):
        app.bus.send(ShipOrder(order_id=order_id[:8]))


def test_ship_order_and_cancel_order_are_plain_functions():
    uow = FakeUnitOfWork()
    shipped, cancelled = Order.place(ITEMS), Order.place(ITEMS)
    uow.orders.add(shipped)
    uow.orders.add(cancelled)
    ship_order(ShipOrder(order_id=shipped.id), uow=uow)
    cancel_order(CancelOrder(order_id=cancelled.id, reason="moth holes"), uow=uow)
    assert (shipped.status, cancelled.status) == ("shipped", "cancelled")


# Notifying


def test_a_new_order_sends_exactly_one_command_to_notify_sales():
    bus = FakeBus()
    order_created(OrderCreated(order_id="1", items=ITEMS), bus=bus)
    assert [(type(sent), sent.order_id, sent.items) for sent in bus.sent] == [
        (NotifySales, "1", ITEMS)
    ]


def test_every_order_is_notified_once_in_the_order_of_placing(app, sales):
    placed = [app.bus.send(place()) for _ in range(3)]
    assert sales.order_ids == placed
    assert [command.order_id for command in messages(app, NotifySales)] == placed


def test_notify_sales_hands_the_notice_to_the_notifier(sales):
    notify_sales(NotifySales(order_id="1", items=ITEMS), notifier=sales)
    assert sales.notices == [Notice("1", ITEMS)]


def test_a_notifier_that_fails_does_not_undo_the_order(failures):
    class Deaf:
        def notify(self, notice):
            raise ConnectionError("nobody answers")

    def note(subscriber, event, error):
        failures.append(str(error))

    with bootstrap(":memory:", notifier=Deaf(), on_failure=note) as app:
        order_id = app.bus.send(place())
        assert app.orders.get(order_id).status == "placed"
    assert failures == ["nobody answers"]


def test_the_notice_is_the_articles_byte_for_byte(capsys):
    ConsoleNotifier().notify(Notice(NOTICE_ID, ITEMS))
    assert capsys.readouterr().out == NOTICE


def test_placing_prints_the_notice_on_the_console_by_default(capsys):
    with bootstrap(":memory:") as app:
        order_id = app.bus.send(place())
    out, err = capsys.readouterr()
    assert out == NOTICE.replace(NOTICE_ID, order_id)
    assert err == ""


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("magic\x1b[31mcarpet\n", r"'magic\x1b[31mcarpet\n'"),
        ("\u202ecarpet", r"'\u202ecarpet'"),
        ("\ud800", r"'\ud800'"),
        ("[red]x[/red]", "'[red]x[/red]'"),
        ("it's", '"it\'s"'),
        ("שטיח 👨‍👩‍👧", None),
    ],
)
def test_a_notice_shows_hostile_items_harmlessly_as_python_would(item, shown):
    line = str(Notice("1", (item,))).splitlines()[-1]
    assert line == f"Items: [{shown or repr(item)}]"


class Stream(io.StringIO):
    """A stream that knows how much of it was flushed."""

    flushed = ""

    def flush(self):
        super().flush()
        self.flushed = self.getvalue()


def test_the_console_is_standard_output_as_it_is_now_and_flushed(monkeypatch):
    notifier = ConsoleNotifier()
    for _ in range(2):
        stream = Stream()
        monkeypatch.setattr(sys, "stdout", stream)
        notifier.notify(Notice(NOTICE_ID, ITEMS))
        assert stream.flushed == NOTICE


def test_the_console_may_be_another_stream(capsys):
    stream = Stream()
    ConsoleNotifier(stream).notify(Notice(NOTICE_ID, ITEMS))
    assert stream.flushed == NOTICE
    assert capsys.readouterr().out == ""


def test_nobody_is_notified_where_that_is_asked_for(capsys):
    with bootstrap(":memory:", notifier=NullNotifier()) as app:
        app.bus.send(place())
        assert not list(app.store.pending())
    assert capsys.readouterr().out == ""


# Looking orders up


@pytest.mark.parametrize("limit", [-1, "3", 2.5])
def test_a_limit_that_is_no_number_of_orders_is_refused(app, limit):
    with pytest.raises(WiringError, match="is no number of orders\ntry: give 0 or more"):
        app.orders.list(limit=limit)


def test_as_many_orders_are_listed_as_are_asked_for_newest_first(app):
    placed = [app.bus.send(place()) for _ in range(3)][::-1]
    for limit, expected in {0: [], 2: placed[:2], 10**30: placed, None: placed}.items():
        assert [state.id for state in app.orders.list(limit=limit)] == expected


def test_orders_are_counted_by_what_is_wanted(app):
    app.bus.send(ShipOrder(app.bus.send(place())))
    app.bus.send(place())
    assert (app.orders.count(), app.orders.count(Filter(status="shipped"))) == (2, 1)


def test_an_id_is_found_by_a_beginning_that_only_it_has(app):
    first, second = app.bus.send(place()), app.bus.send(place())
    unique = next(n for n in range(1, 37) if first[:n] != second[:n])
    assert app.orders.resolve(first[:unique]) == app.orders.resolve(first) == first
    for unknown in ("", "of nobody", first + "0"):
        with pytest.raises(OrderNotFound):
            app.orders.resolve(unknown)


def test_a_beginning_of_several_ids_names_them(app):
    with app.uow() as uow:
        for number in range(7):
            uow.emit(OrderCreated(order_id=f"one-{number}", items=ITEMS))
    with pytest.raises(AmbiguousOrder, match="'one' fits 7 orders") as error:
        app.orders.resolve("one")
    assert sorted(error.value.candidates) == [f"one-{number}" for number in range(7)]


@pytest.mark.parametrize("other", [None, 5, ["x"], b"x"])
def test_what_is_no_id_is_the_id_of_no_order(app, other):
    assert other not in app.orders
    with app.uow() as uow:
        assert other not in uow.orders


def test_what_happens_to_an_order_that_was_looked_up_is_stored_by_a_unit_only(app):
    order_id = app.bus.send(place())
    app.orders.get(order_id).ship()
    assert app.orders.get(order_id).status == "placed"


# Routing


def test_the_routing_is_one_handler_a_command_and_the_subscribers_of_an_event(app):
    for command, handler in COMMAND_HANDLERS.items():
        assert app.bus.handlers(command) == [handler]
    for event, subscribers in EVENT_SUBSCRIBERS.items():
        assert app.bus.handlers(event) == list(subscribers)
