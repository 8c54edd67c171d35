"""Every subscriber gets every event, although each may raise."""

import pytest
from delivering import Bad, Failing, ShelfEmptied, outcomes, pending, state
from sending import messages, place, reporting_to

from orders import OrderCreated, OrderShipped, ShipOrder, bootstrap
from orders.adapters.memory import MemoryStore
from orders.application.deliveries import RETRIES, TRIES
from orders.application.store import Commit, Delivery
from orders.errors import NotStored, OrdersError, WiringError
from orders.messaging.bus import MessageBus


@pytest.fixture
def app(sales, failures):
    """The order system in memory, its notices kept by `sales`."""
    with bootstrap(":memory:", notifier=sales, on_failure=reporting_to(failures)) as app:
        yield app


def again(app, **wiring):
    """Return another application on the store of `app`."""
    return bootstrap(store=app.store, **wiring)


# In this process


def test_a_delivery_is_recorded_as_pending_with_the_event_and_as_done_after_it(app):
    app.bus.send(place())
    first, second = app.store.read()
    event = messages(app, OrderCreated)[0]
    assert first.deliveries == (Delivery(event.id, "order_created"),)
    done = second.deliveries[0]
    assert (done.key, done.status, done.attempts) == (first.deliveries[0].key, "done", 1)
    assert pending(app) == []


def test_an_event_that_nobody_hears_is_pending_for_nobody(app):
    app.uow().emit(ShelfEmptied())
    assert next(app.store.read()).deliveries == ()


def test_a_subscriber_is_tried_three_times_at_once_and_then_has_failed(app, failures):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    app.bus.send(place())
    assert failing.runs == TRIES == 3
    assert outcomes(app, "shipper") == [("failed", 3, "Bad: out of paper")]
    assert pending(app) == []


def test_a_failure_is_reported_once_with_its_cause(app, failures):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    app.bus.send(place())
    assert failures == [("shipper", messages(app, OrderCreated)[0], failing.error)]


def test_a_subscriber_that_fails_twice_and_then_succeeds_is_done(app, failures):
    app.bus.subscribe(OrderCreated, Failing(times=2), name="shipper")
    app.bus.send(place())
    assert outcomes(app, "shipper") == [("done", 3, None)]
    assert failures == []


def test_a_failed_try_undoes_what_it_stored_and_a_good_one_stores_it_once(app):
    app.bus.subscribe(OrderCreated, Failing(times=2), name="shipper")
    order_id = app.bus.send(place())
    assert app.orders.get(order_id).status == "shipped"
    assert len(messages(app, OrderShipped)) == len(messages(app, ShipOrder)) == 1
    assert [event.shelf for event in messages(app, ShelfEmptied)] == ["3"]


def test_a_subscriber_that_fails_leaves_the_order_and_nothing_of_its_own(app):
    app.bus.subscribe(OrderCreated, Failing(times=99), name="shipper")
    order_id = app.bus.send(place())
    assert app.orders.get(order_id).status == "placed"
    assert messages(app, OrderShipped) == messages(app, ShelfEmptied) == []


def test_what_a_subscriber_stores_and_that_it_has_run_are_one_record(app):
    app.bus.subscribe(OrderCreated, Failing(times=0), name="shipper")
    app.bus.send(place())
    record = next(
        record
        for record in app.store.read()
        if any(isinstance(message, OrderShipped) for message in record.messages)
    )
    done = [(delivery.subscriber, delivery.status) for delivery in record.deliveries]
    assert ("shipper", "done") in done


def test_a_failing_subscriber_does_not_stop_the_others(app, sales):
    heard = []
    app.bus.subscribe(OrderCreated, Failing(times=99), name="shipper", priority=-1)
    app.bus.subscribe(OrderCreated, heard.append, name="archive")
    order_id = app.bus.send(place())
    assert sales.order_ids == [event.order_id for event in heard] == [order_id]


def test_what_comes_after_a_poison_event_flows(app):
    def poisoned(event):
        if "poison" in event.items:
            raise Bad

    app.bus.subscribe(OrderCreated, poisoned, name="taster")
    for item in ("bread", "poison", "wine"):
        app.bus.send(place(item))
    assert [status for status, *_ in outcomes(app, "taster")] == ["done", "failed", "done"]


def test_the_recorded_error_is_short_and_harmless(app):
    error = Bad("\x1b[2J\u202e\ud800\n" + "x" * 10_000)
    app.bus.subscribe(OrderCreated, Failing(times=99, error=error), name="shipper")
    app.bus.send(place())
    recorded = outcomes(app, "shipper")[0][2]
    assert recorded.startswith(r"Bad: \x1b[2J\u202e\ud800\nxxx")
    assert len(recorded) <= 500


def test_an_error_that_cannot_say_what_it_is_harms_nobody(app, sales):
    class Mute(Exception):
        def __str__(self):
            raise Bad

    failing = Failing(times=99, error=Mute())
    app.bus.subscribe(OrderCreated, failing, name="shipper", priority=-1)
    order_id = app.bus.send(place())
    assert sales.order_ids == [order_id]
    assert outcomes(app, "shipper")[0][0] == "failed"


def test_an_event_published_past_the_log_is_heard_and_not_recorded(app, failures):
    heard = []
    app.bus.subscribe(ShelfEmptied, heard.append, name="archive")
    app.bus.subscribe(ShelfEmptied, lambda event: 1 / 0, name="divider")
    app.bus.publish(ShelfEmptied())
    assert len(heard) == len(failures) == 1
    assert app.store.commits == 0


def test_a_subscriber_of_what_is_not_recorded_cannot_leave_a_unit_open(app, failures):
    app.bus.subscribe(ShelfEmptied, lambda event: app.uow().__enter__(), name="leak")
    app.bus.publish(ShelfEmptied())
    assert app.bus.send(place()) in app.orders
    assert [(name, type(error)) for name, _, error in failures] == [("leak", WiringError)]


def test_ctrl_c_in_a_subscriber_of_what_is_not_recorded_leaves_the_rest_to_whoever_comes(
    app, sales
):
    def order_more(event, *, bus):
        bus.send(place(event.shelf))

    def interrupt(event):
        raise KeyboardInterrupt

    app.bus.subscribe(ShelfEmptied, order_more, name="order_more")
    app.bus.subscribe(ShelfEmptied, interrupt, name="interrupt")
    with pytest.raises(KeyboardInterrupt):
        app.bus.publish(ShelfEmptied("carpets"))
    assert (app.orders.count(), sales.notices) == (1, [])
    assert app.deliveries.recover() == len(sales.notices) == 1


def test_what_a_subscriber_of_what_is_not_recorded_stores_is_stored_whole_or_not(app, failures):
    def fill(event, *, uow):
        uow.emit(ShelfEmptied("half"))
        raise Bad

    app.bus.subscribe(ShelfEmptied, fill, name="filler")
    app.bus.publish(ShelfEmptied())
    assert [name for name, *_ in failures] == ["filler"]
    assert app.store.commits == 0


def test_the_events_of_a_subscriber_are_delivered_after_the_event_it_heard(app):
    heard = []
    app.bus.subscribe(OrderCreated, Failing(times=1), name="shipper")
    app.bus.subscribe(OrderCreated, lambda event: heard.append("created"), name="created")
    app.bus.subscribe(ShelfEmptied, lambda event: heard.append("emptied"), name="emptied")
    app.bus.send(place())
    assert heard == ["created", "emptied"]
    assert pending(app) == []


def test_what_a_subscriber_sends_has_the_event_as_its_cause(app):
    app.bus.subscribe(OrderCreated, Failing(times=1), name="shipper")
    app.bus.send(place())
    created, shipping = messages(app, OrderCreated)[0], messages(app, ShipOrder)[0]
    shipped, emptied = messages(app, OrderShipped)[0], messages(app, ShelfEmptied)[0]
    assert shipping.causation_id == created.id
    assert shipped.causation_id == shipping.id
    assert emptied.causation_id == created.id
    assert {message.correlation_id for message in messages(app)} == {created.correlation_id}


def test_what_somebody_else_settled_meanwhile_has_no_effect(app, failures):
    def slow(event, *, bus):
        app.store.commit(Commit(outcomes=(Delivery(event.id, "slow", "done", 1),)))
        bus.send(ShipOrder(order_id=event.order_id))

    app.bus.subscribe(OrderCreated, slow, name="slow")
    order_id = app.bus.send(place())
    assert app.orders.get(order_id).status == "placed"
    assert outcomes(app, "slow") == [("done", 1, None)]
    assert failures == []


class FullStore(MemoryStore):
    """A store that may be full."""

    is_full = False

    def commit(self, commit):
        if self.is_full:
            raise NotStored(self.location, "no space left on device")
        return super().commit(commit)


def test_an_outcome_that_cannot_be_recorded_stays_pending(failures):
    store, runs = FullStore(), []

    def fill(event):
        runs.append(event.order_id)
        store.is_full = True

    with bootstrap(store=store, on_failure=reporting_to(failures)) as app:
        app.bus.subscribe(OrderCreated, fill, name="filler")
        order_id = app.bus.send(place())
        store.is_full = False
        assert runs == [order_id]
        assert [(name, type(error)) for name, _, error in failures] == [("filler", NotStored)]
        assert pending(app) == ["filler"]
    with bootstrap(store=store) as later:
        later.bus.subscribe(OrderCreated, lambda event: runs.append(event.order_id), name="filler")
        assert later.deliveries.recover() == 1
        assert pending(later) == []
    assert runs == [order_id] * 2


def test_a_bus_without_a_log_delivers_too():
    heard = []
    bus = MessageBus()
    bus.subscribe(ShelfEmptied, heard.append)
    bus.publish(ShelfEmptied())
    assert len(heard) == 1


def test_what_is_for_a_missing_subscriber_waits_for_it_for_ever(app, sales):
    heard = []
    app.bus.subscribe(OrderCreated, heard.append, name="archive")
    deliver = app.bus.deliver
    app.bus.deliver = lambda subscriber, event: None  # it dies before it delivers
    app.bus.send(place("rope"))
    app.bus.deliver = deliver
    app.store.release()
    other = again(app, notifier=sales)
    for number in range(30):
        other.bus.send(place(f"item {number}"))
        other.deliveries.recover()
    assert pending(other) == ["archive"]
    other.bus.subscribe(OrderCreated, heard.append, name="archive")
    assert other.deliveries.recover() == 1
    assert [event.items for event in heard] == [("rope",)]


# Trying again by hand


def test_a_failed_delivery_is_done_when_it_is_tried_again_and_succeeds(app):
    failing = Failing(times=3)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    order_id = app.bus.send(place())
    assert app.deliveries.retry() == (1, 1)
    assert app.orders.get(order_id).status == "shipped"
    delivery = state(app, "shipper")
    assert (delivery.status, delivery.attempts, delivery.retries) == ("done", 4, 1)


def test_a_retry_is_one_attempt(app):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    app.bus.send(place())
    assert app.deliveries.retry() == (0, 1)
    assert failing.runs == TRIES + 1


def test_a_delivery_that_is_done_is_not_made_again(app, sales):
    app.bus.send(place())
    assert app.deliveries.retry() == (0, 0)
    with pytest.raises(OrdersError, match="no failed delivery of an event"):
        app.deliveries.retry([state(app, "order_created").event])
    assert len(sales.notices) == 1


def test_deliveries_are_retried_by_the_beginnings_of_event_ids(app):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    order_ids = [app.bus.send(place()) for _ in range(3)]
    failing.times = 0
    first, _, last = (event.id for event in messages(app, OrderCreated))
    assert app.deliveries.retry([last, first, first[:35]]) == (2, 2)
    assert [app.orders.get(found).status for found in order_ids] == ["shipped", "placed", "shipped"]


@pytest.mark.parametrize("beginning", ["", "of nobody"])
def test_an_id_that_no_failed_delivery_has_is_refused_before_anything_is_tried(app, beginning):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    app.bus.send(place())
    with pytest.raises(OrdersError, match=f"no failed delivery of an event '{beginning}'"):
        app.deliveries.retry([state(app, "shipper").event, beginning])
    assert failing.runs == TRIES


def test_a_delivery_retried_in_vain_has_failed_again_and_at_last_is_a_dead_letter(app, failures):
    app.bus.subscribe(OrderCreated, Failing(times=99), name="shipper")
    app.bus.send(place())
    statuses = []
    for _ in range(RETRIES):
        assert app.deliveries.retry() == (0, 1)
        statuses.append(state(app, "shipper").status)
    assert statuses == ["failed", "failed", "failed", "failed", "dead"]
    assert len(failures) == 1 + RETRIES
    assert pending(app) == []


def test_a_dead_letter_is_delivered_by_name_only(app):
    failing = Failing(times=99)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    app.bus.send(place())
    for _ in range(RETRIES):
        app.deliveries.retry()
    failing.times = 0
    assert app.deliveries.retry() == (0, 0)
    assert app.deliveries.retry([state(app, "shipper").event]) == (1, 1)
    assert state(app, "shipper").status == "done"


def test_a_delivery_to_a_subscriber_that_is_not_here_cannot_be_retried(app):
    app.bus.subscribe(OrderCreated, Failing(times=99), name="shipper")
    app.bus.send(place())
    event = state(app, "shipper").event
    other = again(app)
    assert other.deliveries.retry() == (0, 1)
    with pytest.raises(OrdersError, match=r"to shipper: its subscriber, .* is not known"):
        other.deliveries.retry([event])
    assert state(app, "shipper").retries == 0


def test_many_failed_deliveries_are_retried_with_one_look_for_their_events(app, monkeypatch):
    failing = Failing(times=10**6)
    app.bus.subscribe(OrderCreated, failing, name="shipper")
    with app.uow():
        for number in range(30):
            app.bus.send(place(f"item {number}"))
    failing.times = 0
    looks, look = [], app.store.messages
    monkeypatch.setattr(app.store, "messages", lambda ids: looks.append(len(ids)) or look(ids))
    assert app.deliveries.retry() == (30, 30)
    assert looks == [30]
