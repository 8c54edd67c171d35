"""What a process was to deliver: another does it if that one is dead, and leaves it if it lives."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier

import pytest
from delivering import Failing, outcomes, pending, state
from sending import messages, place, reporting_to

from orders import Event, NotifySales, OrderCreated, bootstrap
from orders.adapters.files.line import FORMAT, Line, encode
from orders.application.deliveries import DEATHS
from orders.application.store import Delivery
from orders.errors import OrdersError
from orders.messaging.message import now

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
    """Run a process to its end, and wait until the store knows of that: a server is told of it."""
    ended = subprocess.run(program(data, notify, then), capture_output=True, text=True, timeout=120)
    deadline = time.monotonic() + 60
    with bootstrap(data) as app:
        while not all(found.is_abandoned for found in app.store.pending()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return ended


@pytest.fixture
def later(data, sales, failures):
    """The store, opened by somebody who comes later; its notices kept by `sales`."""

    with bootstrap(data, notifier=sales, on_failure=reporting_to(failures)) as later:
        yield later


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
