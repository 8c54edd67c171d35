"""Every subscriber gets every event, although each may raise, hang or die."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier
from typing import ClassVar

import pytest

from orders import (
    Event,
    NotifySales,
    OrderCreated,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.adapters.files.line import FORMAT, Line, encode
from orders.adapters.memory import MemoryStore
from orders.application.deliveries import DEATHS, RETRIES, TRIES
from orders.application.store import Commit, Delivery
from orders.errors import NotStored, OrdersError, WiringError
from orders.messaging.bus import MessageBus
from orders.messaging.message import now


class ShelfEmptied(Event, frozen=True):
    topic: ClassVar[str] = "shelf-emptied"

    shelf: str = ""


class Bad(Exception):
    pass


def place(*items, **fields):
    return PlaceOrder(items=items or ("100 inch TV",), **fields)


def reporting_to(failures):
    """Return what notes (subscriber's name, event, error) for every failed delivery."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    return note


@pytest.fixture
def app(sales, failures):
    """The order system in memory, its notices kept by `sales`."""
    with bootstrap(":memory:", notifier=sales, on_failure=reporting_to(failures)) as app:
        yield app


def again(app, **wiring):
    """Return another application on the store of `app`."""
    return bootstrap(store=app.store, **wiring)


def messages(app, kind=object):
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def outcomes(app, subscriber):
    """What the log says came of a subscriber's deliveries: (status, attempts, error)."""
    deliveries = (delivery for record in app.store.read() for delivery in record.deliveries)
    return [
        (delivery.status, delivery.attempts, delivery.error)
        for delivery in deliveries
        if delivery.subscriber == subscriber and delivery.status != "pending"
    ]


def pending(app):
    """The names of the subscribers that a delivery is pending for."""
    return [found.delivery.subscriber for found in app.store.pending()]


OUT_OF_PAPER = Bad("out of paper")


class Failing:
    """A subscriber that ships the order and fails a number of times."""

    def __init__(self, times, error=OUT_OF_PAPER):
        self.times = times
        self.error = error
        self.runs = 0

    def __call__(self, event, *, uow, bus):
        self.runs += 1
        bus.send(ShipOrder(order_id=event.order_id))
        uow.emit(ShelfEmptied(str(self.runs)))
        if self.runs <= self.times:
            raise self.error


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


@pytest.mark.engines
def test_an_interrupted_delivery_stays_pending_and_another_application_completes_it(data, sales):
    class Interrupted:
        def notify(self, notice):
            raise KeyboardInterrupt

    with bootstrap(data, notifier=Interrupted()) as app:
        with pytest.raises(KeyboardInterrupt):
            app.bus.send(place())
        assert pending(app) == ["order_created"]
        assert app.orders.count() == 1
        assert messages(app, NotifySales) == []
    with bootstrap(data, notifier=sales) as later:
        assert later.deliveries.recover() == 1
        assert sales.order_ids == [state.id for state in later.orders.list()]


# Trying again by hand


def state(app, subscriber):
    """The delivery to a subscriber as it stands."""
    found = (account.delivery for account in app.store.deliveries())
    return next(delivery for delivery in found if delivery.subscriber == subscriber)


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


@pytest.mark.engines
def test_one_death_does_not_end_a_delivery_that_was_retried_before(data):
    failing = Failing(times=99)
    with bootstrap(data) as app:
        app.bus.subscribe(OrderCreated, failing, name="shipper")
        app.bus.send(place())
        app.deliveries.retry()
        failing.error = KeyboardInterrupt()
        with suppress(KeyboardInterrupt):
            app.deliveries.retry()
    failing.times = 0
    with bootstrap(data) as later:
        later.bus.subscribe(OrderCreated, failing, name="shipper")
        assert later.deliveries.recover() == 1
        assert state(later, "shipper").status == "done"


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


# Processes that die

PROGRAM = """
import os, sys
from orders import OrderCreated, PlaceOrder, bootstrap

def die():
    os.kill(os.getpid(), 9)

class Sales:
    def notify(self, notice):
        {notify}

with bootstrap(sys.argv[1], notifier=Sales()) as app:
    {then}
"""
BLOCKED = "print('blocked', flush=True); sys.stdin.read(); print(notice.order_id)"
PLACE = 'app.bus.send(PlaceOrder(items=("100 inch TV",)))'


def program(data, notify="pass", then=PLACE):
    return [sys.executable, "-c", PROGRAM.format(notify=notify, then=then), str(data)]


def run(data, notify="pass", then=PLACE):
    return subprocess.run(program(data, notify, then), capture_output=True, text=True, timeout=120)


@pytest.fixture
def later(data, sales, failures):
    """The store, opened by somebody who comes later; its notices kept by `sales`."""

    with bootstrap(data, notifier=sales, on_failure=reporting_to(failures)) as later:
        yield later


@pytest.mark.engines
@pytest.mark.parametrize(("death", "code"), [("die()", -9), ("os._exit(7)", 7)])
def test_what_a_dead_process_left_pending_is_delivered_once(data, later, sales, death, code):
    assert run(data, notify=death).returncode == code
    assert pending(later) == ["order_created"]
    assert later.deliveries.recover() == 1
    assert sales.order_ids == [state.id for state in later.orders.list()]
    assert pending(later) == []
    assert later.deliveries.recover() == 0
    assert len(sales.notices) == 1


@pytest.mark.engines
def test_what_is_delivered_later_belongs_to_the_same_conversation(data, later):
    run(data, notify="die()")
    later.deliveries.recover()
    placing, created, notifying = messages(later)
    assert notifying.causation_id == created.id
    assert notifying.correlation_id == placing.id


@pytest.mark.engines
def test_a_notice_whose_record_was_lost_is_repeated_with_the_same_id(data, later, sales):
    first = run(data, notify="print(notice.order_id, flush=True); die()")
    later.deliveries.recover()
    assert first.stdout.split() == sales.order_ids


@pytest.mark.engines
def test_nothing_is_pending_after_a_death_before_the_commit(data, later, sales):
    then = f"with app.uow():\n        {PLACE}\n        die()"
    assert run(data, then=then).returncode == -9
    assert later.deliveries.recover() == later.orders.count() == 0
    assert sales.notices == []


@pytest.mark.engines
def test_a_process_that_dies_recovering_leaves_the_rest_to_the_next(data, later, sales):
    run(data, notify="die()")
    assert run(data, notify="die()", then="app.deliveries.recover()").returncode == -9
    assert pending(later) == ["order_created"]
    assert later.deliveries.recover() == 1
    assert len(sales.notices) == 1


@pytest.mark.engines
def test_a_delivery_that_another_process_took_over_meanwhile_is_left_to_it(data):
    for _ in range(2):
        run(data, notify="die()")
    recovery = program(data, notify=BLOCKED, then="app.deliveries.recover()")
    others, notices = [], []

    class Slow:
        def notify(self, notice):
            notices.append(notice.order_id)
            pipe = subprocess.PIPE
            others.append(subprocess.Popen(recovery, stdin=pipe, stdout=pipe, text=True))
            assert others[0].stdout.readline() == "blocked\n"

    with bootstrap(data, notifier=Slow()) as later:
        assert later.deliveries.recover() == 1
        out, _ = others[0].communicate(timeout=120)
        assert {*notices, *out.split()} == {state.id for state in later.orders.list()}
        assert pending(later) == []


@pytest.mark.engines
def test_all_that_is_pending_is_delivered_oldest_first(data, later, sales):
    for _ in range(3):
        run(data, notify="die()")
    assert later.deliveries.recover() == 3
    assert sales.order_ids == [state.id for state in later.orders.list()][::-1]


@pytest.mark.engines
def test_an_event_that_kills_every_process_is_given_up(data, later, sales):
    run(data, notify="die()")
    for deaths in count():
        if not pending(later):
            break
        assert run(data, notify="die()", then="app.deliveries.recover()").returncode in {0, -9}
        assert deaths <= DEATHS
    given_up = state(later, "order_created")
    assert (given_up.status, given_up.error) == ("failed", f"{DEATHS} processes died of it")
    assert later.deliveries.recover() == 0
    assert sales.notices == []


@pytest.mark.engines
def test_a_failure_by_recovery_is_recorded_and_reported(data, later, failures):
    run(data, then="app.bus.subscribe(OrderCreated, lambda event: die(), name='shipper'); " + PLACE)
    later.bus.subscribe(OrderCreated, Failing(times=99), name="shipper")
    later.deliveries.recover()
    assert pending(later) == []
    assert [status for status, *_ in outcomes(later, "shipper")] == ["failed"]
    assert [name for name, *_ in failures] == ["shipper"]


# Processes that live


@pytest.mark.engines
def test_what_a_living_application_of_this_process_delivers_is_not_taken(data, sales):
    recovered = []

    def meanwhile(event):
        with bootstrap(data, notifier=sales) as other:
            assert len(pending(other)) == 2
            recovered.append(other.deliveries.recover())

    with bootstrap(data, notifier=sales) as app:
        app.bus.subscribe(OrderCreated, meanwhile, name="meanwhile", priority=-1)
        order_id = app.bus.send(place())
    assert recovered == [0]
    assert sales.order_ids == [order_id]


@pytest.fixture
def blocked(data):
    """A process in the midst of a delivery, until its standard input ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen(program(data, notify=BLOCKED), stdin=pipe, stdout=pipe, text=True) as it:
        assert it.stdout.readline() == "blocked\n"
        yield it
        it.kill()


@pytest.mark.engines
def test_what_a_living_process_set_out_to_deliver_is_left_to_it(blocked, later, sales):
    assert pending(later) == ["order_created"]
    assert later.deliveries.recover() == 0
    out, _ = blocked.communicate(timeout=120)
    assert out.split() == [state.id for state in later.orders.list()]
    assert pending(later) == []
    assert later.deliveries.recover() == 0
    assert sales.notices == []


@pytest.mark.engines
def test_a_hanging_subscriber_does_not_keep_others_from_placing_orders(blocked, later, sales):
    order_id = later.bus.send(place())
    assert sales.order_ids == [order_id]
    assert later.orders.count() == 2


def test_what_a_hanging_process_was_to_deliver_is_taken_when_it_dies(blocked, later, sales):
    assert later.deliveries.recover() == 0
    blocked.kill()
    blocked.wait()
    assert later.deliveries.recover() == 1
    assert len(sales.notices) == 1


# What cannot be delivered here

AUDIT = "app.bus.subscribe(OrderCreated, lambda event: die(), name='audit'); " + PLACE


@pytest.mark.engines
def test_what_is_for_a_missing_subscriber_stays_pending_and_harms_nobody(data, later, sales):
    assert run(data, then=AUDIT).returncode == -9
    assert later.deliveries.recover() == 0
    later.bus.send(place())
    assert pending(later) == ["audit"]
    assert len(sales.notices) == 1


@pytest.mark.engines
def test_a_subscriber_gets_what_was_pending_for_it_when_it_is_back(data, later):
    run(data, then=AUDIT)
    heard = []
    later.bus.subscribe(OrderCreated, heard.append, name="audit")
    assert later.deliveries.recover() == 1
    assert [event.order_id for event in heard] == [state.id for state in later.orders.list()]


STOCK = """
    from typing import ClassVar
    from orders import Event
    class StockSold(Event, frozen=True):
        topic: ClassVar[str] = "stock-sold"
    app.bus.subscribe(Event, lambda event: die(), name="audit")
    app.uow().emit(StockSold())
"""


@pytest.mark.engines
def test_a_pending_event_of_an_unknown_class_harms_nobody(data, later, sales):
    assert run(data, then=STOCK).returncode == -9
    run(data, notify="die()")
    later.bus.subscribe(Event, lambda event: None, name="audit")
    later.deliveries.recover()
    assert len(sales.notices) == 1
    assert pending(later) == ["audit"]


@pytest.mark.parametrize("lease", ["../precious", "..", "", "/", "\x00", "x" * 5000, "../.."])
def test_the_name_of_a_lease_in_a_foreign_log_touches_nothing_outside(data, sales, lease):
    data.mkdir()
    (data / "precious").touch()
    event = OrderCreated(order_id="1", items=("100 inch TV",))
    line = Line(FORMAT, 1, now(), (event,), (Delivery(event.id, "order_created"),), lease)
    (data / "events.jsonl").write_bytes(encode(line) + b"\n")
    with bootstrap(data, notifier=sales) as app, suppress(OrdersError):
        app.deliveries.recover()
        app.bus.send(place())
    ours = {"precious", "events.jsonl", "orders.json", "orders.lock", ".running"}
    assert {"precious"} <= {path.name for path in data.iterdir()} <= ours


@pytest.fixture
def hasty_threads():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_an_application_of_many_threads_has_one_lease_and_gives_it_up(tmp_path, sales):
    for number in range(10):
        together = Barrier(4, timeout=30)

        def place_one(together=together):
            together.wait()
            app.bus.send(place())

        with bootstrap(tmp_path / str(number), notifier=sales) as app:
            with ThreadPoolExecutor(4) as threads:
                for placing in [threads.submit(place_one) for _ in range(4)]:
                    placing.result()
            assert len(list((tmp_path / str(number) / ".running").iterdir())) == 1
        assert list((tmp_path / str(number) / ".running").iterdir()) == []


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
