"""Subscribers are strangers: whatever they raise, return or are called."""

import asyncio
from functools import partial

import pytest

from orders import OrderCreated, PlaceOrder, Policy, WiringError
from orders import bootstrap as wire
from orders.errors import Conflict, NotStored
from orders.messaging.bus import MessageBus
from orders.messaging.message import Event


@pytest.fixture
def app(sales):
    with wire(":memory:", notifier=sales) as app:
        yield app


class Exit(BaseException):
    """As a test runner's own."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, Exit, SystemExit, GeneratorExit])
def test_whatever_a_subscriber_raises_the_others_hear_and_it_is_recorded(app, sales, error):
    def escape(_event):
        raise error

    app.bus.subscribe(OrderCreated, escape, name="escape", priority=-1)
    order_id = app.bus.send(PlaceOrder(("rope",)))
    assert sales.order_ids == [order_id]
    (failed,) = app.store.deliveries("failed")
    assert failed.delivery.error.startswith(error.__name__)
    assert not list(app.store.pending())


def test_ctrl_c_in_a_subscriber_ends_the_command_and_leaves_the_rest_to_whoever_comes(app, sales):
    def interrupt(_event):
        app.bus.unsubscribe("interrupt")
        raise KeyboardInterrupt

    app.bus.subscribe(OrderCreated, interrupt, name="interrupt", priority=-1)
    with pytest.raises(KeyboardInterrupt):
        app.bus.send(PlaceOrder(("rope",)))
    assert app.orders.count() == 1
    assert [found.is_abandoned for found in app.store.pending()] == [True, True]
    assert app.deliveries.recover() == 1  # the other one has no subscriber any more
    assert len(sales.notices) == 1
    app.bus.subscribe(OrderCreated, lambda _event: None, name="interrupt")
    assert app.deliveries.recover() == 1
    assert not list(app.store.pending())


def test_an_outcome_that_cannot_be_recorded_can_be_retried_at_once(app, sales, monkeypatch):
    commit, is_full = app.store.commit, True

    def full(what):
        if is_full and (what.outcomes or what.reactions):
            raise NotStored("the disk", "no space left on device")
        return commit(what)

    monkeypatch.setattr(app.store, "commit", full)
    app.bus.send(PlaceOrder(("rope",)))
    assert [found.is_abandoned for found in app.store.pending()] == [True]
    is_full = False
    assert app.deliveries.recover() == 1
    assert not list(app.store.pending())
    assert len(sales.notices) == 2  # at least once


def test_a_conflict_in_one_of_many_deliveries_reruns_no_other(app):
    mails, conflicts = [], []

    def mail(event):
        mails.append(event.order_id)

    def quarrel(event):
        if not conflicts:
            conflicts.append(event)
            raise Conflict(event.order_id, 1, 2)

    app.bus.subscribe(OrderCreated, mail, name="mail")
    app.bus.subscribe(OrderCreated, quarrel, name="quarrel")
    with app.uow():
        ids = [app.bus.send(PlaceOrder((f"{number}",))) for number in range(200)]
    assert mails == ids
    assert not list(app.store.pending())
    assert sum(1 for _ in app.store.deliveries("done")) == 3 * 200


def test_effects_of_many_deliveries_are_stored_each_with_its_own_record(app):
    def follow_up(event):
        if event.customer is None:
            app.bus.send(PlaceOrder(event.items, customer="follow-up"))

    app.bus.subscribe(OrderCreated, follow_up, name="follow_up")
    with app.uow():
        for number in range(30):
            app.bus.send(PlaceOrder((f"{number}",)))
    assert app.orders.count() == 60
    assert not list(app.store.pending())


def nameless(_event):
    pass


async def asynchronous(_event):
    pass


def generator(_event):
    yield


class Callable:
    def __call__(self, event):
        pass


class AsynchronousCallable:
    async def __call__(self, event):
        pass


@pytest.mark.parametrize("handler", [lambda _event: None, partial(nameless), Callable()])
def test_a_subscriber_without_a_name_that_outlives_the_process_must_be_given_one(handler):
    with pytest.raises(WiringError, match="give it one"):
        MessageBus().subscribe(OrderCreated, handler)
    assert MessageBus().subscribe(OrderCreated, handler, name="it").name == "it"


def test_a_local_function_must_be_given_a_name_and_a_function_of_a_module_has_one():
    def local(_event):
        pass

    with pytest.raises(WiringError, match="give it one"):
        MessageBus().subscribe(OrderCreated, local)
    assert MessageBus().subscribe(OrderCreated, nameless).name == "nameless"


@pytest.mark.parametrize("name", [3, "", "  ", "a\nb", "\ud800", b"bytes", "\x1b[31m"])
def test_a_name_that_is_no_printable_text_is_refused(name):
    with pytest.raises(WiringError):
        MessageBus().subscribe(OrderCreated, nameless, name=name)


@pytest.mark.parametrize(
    "handler", [asynchronous, generator, partial(asynchronous), AsynchronousCallable()]
)
def test_a_handler_that_nobody_would_run_is_refused(handler):
    with pytest.raises(WiringError, match="plain functions"):
        MessageBus().subscribe(OrderCreated, handler, name="it")
    with pytest.raises(WiringError, match="plain functions"):
        MessageBus().register(PlaceOrder, handler)


def test_a_subscriber_that_returns_something_to_await_has_failed(app):
    app.bus.subscribe(OrderCreated, lambda event: [asynchronous(event)][0], name="it")
    app.bus.send(PlaceOrder(("rope",)))
    (failed,) = app.store.deliveries("failed")
    assert "which nobody runs" in failed.delivery.error


def test_an_order_whose_notice_could_never_be_given_is_not_stored(app):
    class Echoed(Event, frozen=True, kw_only=True):
        topic = "echoed"

    def echo(event):
        app.unit_of_work.emit(Echoed())
        if event.hops >= 97:
            app.bus.send(PlaceOrder((f"hop {event.hops}",)))

    app.bus.subscribe(Echoed, echo, name="echo")
    app.unit_of_work.emit(Echoed())
    accounts = [a.delivery for a in app.store.deliveries() if a.delivery.subscriber != "echo"]
    assert [order.items for order in app.orders.list()] == [("hop 98",), ("hop 97",)]
    assert [delivery.status for delivery in accounts] == ["done", "done"]


def test_strict_applications_raise_what_a_subscriber_raises():
    def broken(_event):
        raise LookupError("no such shelf")

    with wire(":memory:", strict=True) as app:
        app.bus.unsubscribe("order_created")
        app.bus.subscribe(OrderCreated, broken, name="broken")
        with pytest.raises(LookupError, match="no such shelf"):
            app.bus.send(PlaceOrder(("rope",)))


def test_what_a_strict_retry_has_claimed_and_not_tried_is_left_to_others(tmp_path):
    def broken(_event):
        raise LookupError("no such shelf")

    def wired(**options):
        app = wire(tmp_path, **options)
        app.bus.unsubscribe("order_created")
        app.bus.subscribe(OrderCreated, broken, name="broken")
        return app

    with wired() as app:
        for _ in range(3):
            app.bus.send(PlaceOrder(("rope",)))
    with wired(strict=True) as app:
        with pytest.raises(LookupError, match="no such shelf"):
            app.deliveries.retry()
        assert [found.is_abandoned for found in app.store.pending()] == [True, True]


def test_a_strict_application_raises_what_a_reaction_raises():
    class Grumpy(Policy):
        name = "grumpy"
        follow = (OrderCreated,)

        def apply(self, event):
            pass

        def react(self, event):
            raise LookupError("no such shelf")

    with wire(":memory:", strict=True) as app:
        app.follow(Grumpy)
        app.bus.send(PlaceOrder(("rope",)))
        (error,) = app.react()
        assert isinstance(error.__cause__, LookupError)


@pytest.mark.parametrize("order_id", [["x"], 5, b"x"])
def test_what_is_no_id_is_refused_by_name(app, order_id):
    for look_up in (app.orders.get, app.orders.resolve):
        with pytest.raises(WiringError, match="is no id of an order"):
            look_up(order_id)
    with app.uow() as uow, pytest.raises(WiringError, match="is no id of an order"):
        uow.orders.get(order_id)


def test_two_stores_for_one_application_are_refused(app):
    with pytest.raises(WiringError, match="two stores"):
        wire("data", store=app.store)
