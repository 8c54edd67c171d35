"""Both runners keep followers up to date, name what fails, and resume where it was."""

import asyncio
import errno
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Event as Flag
from threading import Thread, current_thread
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import (
    CancelOrder,
    Command,
    Event,
    Order,
    OrderCreated,
    OrderEvent,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.adapters.files.faults import Fault, FaultyDisk
from orders.adapters.files.store import FilesStore
from orders.application.store import START
from orders.domain.commands import RecordBestseller
from orders.errors import FollowerError, ForeignFile, LogDamaged, OrdersError, WiringError
from orders.projections.policy import Policy
from orders.projections.projection import Projection
from orders.projections.runners import MultiThreadedRunner, SingleThreadedRunner
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay

RUNNERS = (SingleThreadedRunner, MultiThreadedRunner)
TIMEOUT = 60  # seconds, for what takes a few milliseconds


class BellRung(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "bell-rung"

    times: int = 1


class JobAsked(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-asked"

    text: str


class JobEnded(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-ended"

    text: str
    error: str | None = None


class JobFiled(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-filed"

    text: str


class DoJob(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "do-job"

    text: str


class FileJob(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "file-job"

    text: str


class Quiet:
    def notify(self, notice):
        pass


class Bad(Exception):
    pass


class Seeing(Policy):
    """Keeps the ids of the events that it was given, in order; reacts to none."""

    columns: ClassVar = {"seen": ("event", "number")}

    def apply(self, event):
        seen = self.tables["seen"]
        assert event.id not in seen
        seen[event.id] = len(seen)

    def react(self, event):
        return ()

    @property
    def ids(self):
        return [*self.tables["seen"]]


class Listed(Seeing):
    name = "listed"
    follow = (Event,)


class Shipper(Seeing):
    """Ships what is placed."""

    name = "shipper"
    follow = (OrderCreated,)

    def react(self, event):
        yield ShipOrder(event.order_id)


class Ringer(Seeing):
    """Has a bell rung for what is shipped."""

    name = "ringer"
    follow = (OrderShipped,)

    def react(self, event):
        yield DoJob(text=f"ring for {event.order_id}")


class Worker(Seeing):
    name = "worker"
    follow = (JobAsked,)

    def react(self, event):
        yield DoJob(text=event.text)


class Clerk(Seeing):
    name = "clerk"
    follow = ("job-ended",)

    def react(self, event):
        if event.error is None:
            yield FileJob(text=event.text)


def do_job(command, *, uow):
    number = command.text.partition(" ")[0]
    error = None if number.isdecimal() else f"{number} is no number"
    uow.emit(JobEnded(text=command.text, error=error))


def file_job(command, *, uow):
    uow.emit(JobFiled(text=command.text))
    _, _, rest = command.text.partition(" ")
    if rest:
        uow.emit(JobAsked(text=rest))


class Failing(ItemSales):
    """Fails in the midst of an order with a bone, as long as its class says so."""

    fails = False

    def apply(self, event):
        if self.fails and isinstance(event, OrderCreated) and "bone" in event.items:
            self.tables["sold"]["rope"] = 1 + self.times("rope")
            raise Bad("choked")
        super().apply(event)


def open_app(data, disk=None):
    return bootstrap(store=FilesStore(data, disk=disk), notifier=Quiet())


@pytest.fixture
def two_apps(data):
    """Two applications, as if in two processes, whose orders are one commit each."""
    with open_app(data) as first, open_app(data) as second:
        for app in (first, second):
            app.bus.unsubscribe("order_created")
        yield first, second


def place(app, *items):
    return app.bus.send(PlaceOrder(items or ("rope",)))


def stored(app, kind=Event):
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def ids(app, kind=Event):
    return [event.id for event in stored(app, kind)]


def reacted(app, name):
    """The ids of the events that a policy has reacted to, each as often as the log says so."""
    found = (delivery for record in app.store.read() for delivery in record.deliveries)
    return [delivery.event for delivery in found if delivery.subscriber == name]


def sold(app):
    """What the orders say was sold."""
    orders = (order for order in app.orders.list() if order.status != "cancelled")
    return Counter(item for order in orders for item in order.items)


def settle(app, runner):
    """Wait until the followers have processed what is stored, and what they store in turn."""
    end = None
    while end != (now := app.store.head()):
        runner.wait(end := now, TIMEOUT)


def damage(log):
    """Add a line that is none; return what was there."""
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"format":1,"seq":0}\n')
    return whole


@pytest.fixture(params=RUNNERS)
def kind(request):
    return request.param


@pytest.fixture
def app(request):
    """The order system in memory; on files where the test looks at those."""
    where = request.getfixturevalue("data") if "data" in request.fixturenames else ":memory:"
    with bootstrap(where, notifier=Quiet()) as app:
        yield app


@pytest.fixture
def failing(monkeypatch):
    """A projection that fails until its `fails` is False."""
    monkeypatch.setattr(Failing, "fails", True)
    return Failing


@pytest.fixture
def jobs(app):
    app.bus.register(DoJob, do_job)
    app.bus.register(FileJob, file_job)
    return app


# Starting and stopping


def test_a_runner_says_whether_it_is_started_and_where_its_followers_are(kind, app):
    runner = kind(app, [ItemSales, Shipper])
    assert not runner.is_started
    assert runner.cursors == {}
    with runner:
        assert runner.is_started
        place(app)
        settle(app, runner)
        assert runner.cursors == dict.fromkeys(["item-sales", "shipper"], app.store.head())
    assert not runner.is_started
    place(app)
    assert max(runner.cursors.values()) < app.store.head()


def test_an_application_alone_runs_too(kind, app):
    with kind(app, []) as runner:
        place(app)
        runner.wait(app.store.head(), TIMEOUT)
        runner.watch_for_errors(0)
        runner.wake()
    assert sold(app) == {"rope": 1}


def test_a_runner_on_an_empty_store_makes_no_file(kind, app, data):
    with kind(app, [ItemSales, Bestseller]) as runner:
        runner.wait(START, 0)
        assert runner.get(ItemSales).ranking() == []
    assert not data.exists()


def test_starting_twice_is_refused_and_changes_nothing(kind, app):
    with kind(app, [ItemSales]) as runner:
        with pytest.raises(WiringError, match="started already"):
            runner.start()
        place(app)
        settle(app, runner)
        assert runner.get(ItemSales).times("rope") == 1


def test_stopping_twice_or_before_the_start_is_harmless(kind, app):
    runner = kind(app, [ItemSales])
    runner.stop()
    runner.start()
    runner.stop()
    runner.stop()


def test_two_followers_of_one_name_are_refused(kind, app):
    runner = kind(app, [ItemSales, OrdersADay, Failing])
    with pytest.raises(WiringError, match="two followers are named item-sales"):
        runner.start()
    place(app)
    with kind(app, [ItemSales]) as other:
        settle(app, other)
        assert other.get(ItemSales).times("rope") == 1


def test_a_runner_can_be_started_again(kind, app):
    runner = kind(app, [Listed])
    for number in range(3):
        with runner:
            place(app)
            settle(app, runner)
            assert runner.get(Listed).ids == ids(app)
            assert len(runner.get(Listed).ids) == 2 * number + 1
        place(app)


def test_after_it_has_stopped_a_runner_hears_nothing(kind, app):
    with kind(app, [ItemSales]) as runner:
        place(app)
    place(app)
    runner.wake()
    assert runner.get(ItemSales).times("rope") == 1
    with kind(app, [ItemSales]) as other:
        settle(app, other)
        assert other.get(ItemSales).times("rope") == 2


def test_stopping_processes_all_there_is(kind, app):
    with kind(app, [ItemSales, Shipper]) as runner:
        for _ in range(30):
            place(app)
    assert runner.get(ItemSales).tables == {"sold": {"rope": 30}, "open": {}}
    assert sorted(reacted(app, "shipper")) == sorted(ids(app, OrderCreated))


def test_a_kind_that_nobody_follows_is_an_error(kind, app):
    runner = kind(app, [OrdersADay])
    with pytest.raises(OrdersError, match="no OrdersADay runs here"):
        runner.get(OrdersADay)
    with runner:
        assert runner.get(Projection) is runner.get(OrdersADay)
        with pytest.raises(OrdersError, match="no ItemSales runs here"):
            runner.get(ItemSales)


def test_a_function_may_make_a_follower(kind, app):
    made = []

    def make():
        made.append(ItemSales())
        return made[-1]

    with kind(app, [make]) as runner:
        place(app)
        settle(app, runner)
        assert runner.get(ItemSales) is made[-1]
        assert made[-1].times("rope") == 1


# Edges


def test_what_a_follower_stores_another_one_reacts_to(kind, jobs):
    with kind(jobs, [Ringer, Shipper, Listed]) as runner:
        order_ids = [place(jobs) for _ in range(10)]
        settle(jobs, runner)
        assert runner.get(Listed).ids == ids(jobs)
    rung = [event.text for event in stored(jobs, JobEnded)]
    assert sorted(rung) == sorted(f"ring for {order_id}" for order_id in order_ids)
    assert {order.status for order in jobs.orders.list()} == {"shipped"}


def test_a_loop_of_commands_and_results_goes_on_until_it_ends_though_a_command_fails(kind, jobs):
    with kind(jobs, [Clerk, Worker]) as runner:
        jobs.uow().emit(JobAsked(text="1 2 3"))
        jobs.uow().emit(JobAsked(text="4 five 6"))
        settle(jobs, runner)
    assert sorted((event.text, event.error) for event in stored(jobs, JobEnded)) == [
        ("1 2 3", None),
        ("2 3", None),
        ("3", None),
        ("4 five 6", None),
        ("five 6", "five is no number"),
    ]
    assert sorted(event.text for event in stored(jobs, JobFiled)) == [
        "1 2 3",
        "2 3",
        "3",
        "4 five 6",
    ]
    assert sorted(reacted(jobs, "worker")) == sorted(ids(jobs, JobAsked))


def test_a_follower_catches_up_with_what_was_before_the_start(kind, jobs):
    for _ in range(5):
        place(jobs)
    with kind(jobs, [Shipper, Ringer]) as runner:
        settle(jobs, runner)
        assert len(stored(jobs, JobEnded)) == 5
        place(jobs)
        settle(jobs, runner)
    assert len(stored(jobs, JobEnded)) == 6


def test_a_follower_gets_the_topics_it_follows_and_no_other(kind, jobs):
    class Jobs(Seeing):
        name = "jobs"
        follow = ("job-*", OrderShipped)

    with kind(jobs, [Jobs, Shipper, Worker]) as runner:
        place(jobs)
        jobs.uow().emit(JobAsked(text="1"))
        settle(jobs, runner)
        assert sorted(runner.get(Jobs).ids) == sorted(ids(jobs, (JobAsked, JobEnded, OrderShipped)))


def test_what_a_subscriber_stores_in_the_same_runner_is_followed_too(kind, app):
    def ring(event, *, uow):
        uow.emit(BellRung(times=len(event.items)))

    app.bus.subscribe(OrderCreated, ring, name="ring")
    with kind(app, [Listed, Shipper]) as runner:
        place(app, "rope", "rope")
        settle(app, runner)
        assert runner.get(Listed).ids == ids(app)
    assert [event.times for event in stored(app, BellRung)] == [2]


def test_a_subscriber_hears_what_a_follower_stores(kind, app):
    heard = []
    app.bus.subscribe(OrderShipped, heard.append)
    with kind(app, [Shipper]) as runner:
        order_id = place(app)
        settle(app, runner)
    assert [event.order_id for event in heard] == [order_id]


def test_the_settings_and_dependencies_of_the_app_reach_what_followers_do(kind, data):
    class Courier:
        def __init__(self):
            self.jobs = []

    def carry(command, *, courier, notifier, uow):
        courier.jobs.append((command.text, notifier, uow))

    courier, notifier = Courier(), Quiet()
    with bootstrap(data, notifier=notifier, courier=courier) as app:
        app.bus.register(DoJob, carry)
        with kind(app, [Worker, Shipper, Ringer]) as runner:
            app.uow().emit(JobAsked(text="letter"))
            order_id = place(app)
            settle(app, runner)
        assert sorted(courier.jobs, key=str) == sorted(
            [
                ("letter", notifier, app.unit_of_work),
                (f"ring for {order_id}", notifier, app.unit_of_work),
            ],
            key=str,
        )
    kept = {file.name for file in data.glob("projections/*")}
    assert kept == {"worker.json", "shipper.json", "ringer.json"}


# Order


def test_when_a_command_returns_the_followers_in_one_thread_have_processed_in_declared_order(app):
    done = []

    def noting(letter):
        def apply(self, event):
            done.append((letter, type(event).__name__))

        return type("Noting", (Listed,), {"name": letter, "apply": apply})

    with SingleThreadedRunner(app, [noting("b"), noting("a"), noting("c")]):
        order_id = place(app)
        assert done == [(letter, "OrderCreated") for letter in "bac"]
        done.clear()
        app.bus.send(ShipOrder(order_id))
        assert done == [(letter, "OrderShipped") for letter in "bac"]


def test_in_one_thread_all_have_processed_what_a_follower_stores_when_a_command_returns(app):
    class Last(Listed):
        name = "last"

    with SingleThreadedRunner(app, [Listed, Shipper, Last]) as runner:
        order_id = place(app)
        assert app.orders.get(order_id).status == "shipped"
        assert runner.get(Listed).ids == runner.get(Last).ids == ids(app, OrderEvent)
        assert len(runner.get(Last).ids) == 2


def test_each_follower_gets_the_events_in_the_order_of_the_log(kind, app):
    others = [type("Other", (Listed,), {"name": f"other-{n}"}) for n in range(4)]
    with kind(app, [*others, Shipper]) as runner:
        for _ in range(20):
            place(app)
        settle(app, runner)
        assert [runner.get(other).ids for other in others] == [ids(app)] * 4


def test_what_an_event_published_past_the_log_leads_to_is_followed_at_once(app):
    app.bus.subscribe(BellRung, lambda _event: place(app), name="door")
    with SingleThreadedRunner(app, [ItemSales]) as runner:
        app.bus.publish(BellRung())
        assert sold(app) == {"rope": 1}
        assert runner.get(ItemSales).times("rope") == 1


def test_to_be_woken_without_news_does_nothing(kind, app, data):
    with kind(app, [Listed]) as runner:
        place(app)
    kept = data / "projections" / "listed.json"
    before, size = kept.stat().st_ino, (data / "events.jsonl").stat().st_size
    with kind(app, [Listed]) as runner:
        for _ in range(20):
            runner.wake()
        settle(app, runner)
        assert runner.get(Listed).ids == ids(app)  # which refuses an event that it has seen
    assert kept.stat().st_ino == before
    assert (data / "events.jsonl").stat().st_size == size


# Others


def test_what_another_process_stores_is_processed_while_somebody_waits(kind, app, orders):
    with kind(app, [ItemSales]) as runner:
        place(app)
        assert orders("place", "rope", "lamp").returncode == 0
        runner.wait(app.store.head(), TIMEOUT)
        assert runner.get(ItemSales).ranking() == [("rope", 2), ("lamp", 1)]


def test_what_another_process_stores_is_processed_while_errors_are_watched_for(kind, app, orders):
    class Anvil(Listed):
        name = "anvil"

        def apply(self, event):
            raise Bad("heard")

    with pytest.raises(FollowerError, match="heard"), kind(app, [Anvil]) as runner:
        assert orders("place", "rope").returncode == 0
        runner.watch_for_errors(TIMEOUT)


def test_what_another_process_stores_is_processed_in_a_thread_without_being_asked(app, orders):
    processed = Flag()

    class Ear(Listed):
        name = "ear"

        def apply(self, event):
            processed.set()

    with MultiThreadedRunner(app, [Ear]):
        assert orders("place", "rope").returncode == 0
        assert processed.wait(TIMEOUT)


def test_what_another_process_has_stored_is_processed_before_the_runner_stops(kind, app, orders):
    with kind(app, [ItemSales]) as runner:
        assert orders("place", "rope").returncode == 0
    assert runner.get(ItemSales).times("rope") == 1


def test_two_runners_on_one_application_do_not_disturb_each_other(app):
    with MultiThreadedRunner(app, [ItemSales, Shipper]) as first:
        with SingleThreadedRunner(app, [OrdersADay, Listed]) as second:
            for _ in range(10):
                place(app)
            settle(app, first)
            settle(app, second)
            assert second.get(Listed).ids == ids(app)
        place(app)
        settle(app, first)
        assert first.get(ItemSales).times("rope") == 11


def test_any_number_of_threads_may_write(kind, app):
    with kind(app, [ItemSales, Listed]) as runner:
        with ThreadPoolExecutor(8) as pool:
            assert len({*pool.map(lambda _: place(app), range(80))}) == 80
        settle(app, runner)
        assert runner.get(ItemSales).times("rope") == 80
        assert runner.get(Listed).ids == ids(app)


def test_a_blocked_follower_blocks_no_writer_and_no_other_follower(app):
    gate, blocked = Flag(), Flag()

    class Slow(ItemSales):
        name = "slow"

        def apply(self, event):
            blocked.set()
            assert gate.wait(TIMEOUT)
            super().apply(event)

    with MultiThreadedRunner(app, [Slow, OrdersADay]) as runner:
        place(app)
        assert blocked.wait(TIMEOUT)
        for _ in range(99):
            place(app)
        assert app.orders.count() == 100
        while sum(number for _, number in runner.get(OrdersADay).days()) < 100:
            with pytest.raises(TimeoutError, match=r"not caught up in 0.01 s: slow"):
                runner.wait(app.store.head(), 0.01)
        assert runner.get(Slow).times("rope") == 0
        gate.set()
        settle(app, runner)
        assert runner.get(Slow).times("rope") == 100


def test_a_follower_that_blocks_in_its_command_blocks_no_writer(app):
    gate, blocked = Flag(), Flag()

    def dawdle(command):
        blocked.set()
        assert gate.wait(TIMEOUT)

    app.bus.register(DoJob, dawdle)
    with MultiThreadedRunner(app, [Worker, ItemSales]) as runner:
        app.uow().emit(JobAsked(text="slow"))
        assert blocked.wait(TIMEOUT)
        for _ in range(100):
            place(app)
        assert sold(app) == {"rope": 100}
        gate.set()
        settle(app, runner)
        assert runner.get(ItemSales).times("rope") == 100
    assert reacted(app, "worker") == ids(app, JobAsked)


# Waiting


def test_waiting_in_vain_names_who_is_late(kind, app):
    place(app)
    with kind(app, [ItemSales, OrdersADay]) as runner:
        settle(app, runner)
        end = app.store.head()
        never = (end[0] + 1, *end[1:])
        with pytest.raises(TimeoutError, match=r"not caught up in 0 s: item-sales, orders-a-day"):
            runner.wait(never, 0)
        runner.wait(end, 0)


def test_watching_for_errors_ends_without_one_when_its_time_is_over(kind, app):
    with kind(app, [ItemSales]) as runner:
        place(app)
        runner.watch_for_errors(0.01)
        runner.watch_for_errors(0)
        settle(app, runner)


def test_watching_for_errors_for_ever_ends_when_the_runner_is_stopped(kind, app):
    runner = kind(app, [ItemSales])
    runner.start()
    watcher = Thread(target=runner.watch_for_errors)
    watcher.start()
    runner.stop()
    watcher.join(TIMEOUT)
    assert not watcher.is_alive()


def test_watching_for_errors_for_ever_ends_with_the_first(kind, app, failing):
    runner = kind(app, [failing])
    runner.start()
    writer = Thread(target=place, args=(app, "bone"))
    writer.start()
    with pytest.raises(FollowerError, match="choked"):
        runner.watch_for_errors()
    writer.join()
    with pytest.raises(FollowerError):
        runner.stop()


# Errors while starting


def check_surfaces(runner, app, stage, match):
    """See that all ways of asking for the error give it; return it."""
    with pytest.raises(FollowerError, match=match):
        runner.watch_for_errors(TIMEOUT)
    with pytest.raises(FollowerError, match=match):
        runner.wait(app.store.head(), TIMEOUT)
    with pytest.raises(FollowerError, match=match) as caught:
        runner.stop()
    error = caught.value
    assert error.stage == stage
    assert runner.errors[0] is error
    runner.stop()
    return error


def test_a_follower_whose_making_fails_is_named_and_the_others_run(kind, app):
    class Unmade(ItemSales):
        name = "unmade"

        def __init__(self):
            raise Bad("no wood")

    runner = kind(app, [Unmade, OrdersADay])
    runner.start()
    place(app)
    error = check_surfaces(runner, app, "starting", "unmade failed starting: Bad: no wood")
    assert (error.follower, error.event) == ("unmade", None)
    assert sum(orders for _, orders in runner.get(OrdersADay).days()) == 1


class Nameless(Projection):
    follow = (OrderCreated,)
    columns: ClassVar = {}

    def apply(self, event):
        pass


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (Nameless, "None is no name of Nameless"),
        (type("Deaf", (ItemSales,), {"follow": ("order-creatd",)}), "no event has the topic"),
        (type("Deaf", (ItemSales,), {"follow": (PlaceOrder,)}), "is no event"),
    ],
)
def test_a_follower_that_is_wired_wrongly_is_refused_at_the_start(wrong, match, kind, app):
    runner = kind(app, [OrdersADay, wrong])
    with pytest.raises(WiringError, match=match), runner:
        runner.get(wrong)
    assert not runner.is_started
    place(app)
    assert [number for _, number in runner.get(OrdersADay).days()] == []


def test_a_follower_that_cannot_be_started_says_why_to_who_asks_for_it(kind, app):
    class Unmade(ItemSales):
        def __init__(self):
            raise Bad("no wood")

    with pytest.raises(FollowerError, match="no wood"), kind(app, [Unmade, OrdersADay]) as runner:
        runner.get(Unmade)


def test_a_foreign_file_in_place_of_a_state_is_named_and_left_alone(kind, app, data):
    with kind(app, [ItemSales, OrdersADay]):
        place(app)
    state = data / "projections" / "item-sales.json"
    state.write_text('{"shopping": ["milk"]}')
    runner = kind(app, [ItemSales, OrdersADay])
    runner.start()
    place(app)
    error = check_surfaces(runner, app, "starting", "item-sales failed starting: ForeignFile")
    assert isinstance(error.error, ForeignFile)
    assert state.read_text() == '{"shopping": ["milk"]}'
    assert sum(orders for _, orders in runner.get(OrdersADay).days()) == 2
    state.unlink()
    with runner:
        assert runner.errors == []
        settle(app, runner)
        assert runner.get(ItemSales).times("rope") == 2


def test_a_follower_that_cannot_be_made_does_not_stop_one_of_its_name(kind, app):
    class Unmade(ItemSales):
        def __init__(self):
            raise Bad("no wood")

    place(app)
    runner = kind(app, [Unmade, ItemSales])
    with suppress(WiringError):  # to refuse two of one name is as good
        runner.start()
        with pytest.raises(FollowerError, match="no wood"):
            runner.stop()
        assert runner.get(ItemSales).times("rope") == 1


# Errors while pulling


def test_a_damaged_log_is_named_and_resumed_at_once_it_is_repaired(kind, data):
    with open_app(data) as app:
        place(app)
        with kind(app, [ItemSales, OrdersADay]):
            place(app)
    whole = damage(data / "events.jsonl")
    with open_app(data) as app:
        runner = kind(app, [ItemSales, OrdersADay])
        runner.start()
        with pytest.raises(FollowerError, match="failed pulling: LogDamaged"):
            runner.watch_for_errors(TIMEOUT)
        with pytest.raises(FollowerError, match="failed pulling: LogDamaged") as caught:
            runner.stop()
        error = caught.value
        assert (error.stage, error.event) == ("pulling", None)
        assert isinstance(error.error, LogDamaged)
        assert {error.follower for error in runner.errors} == {"item-sales", "orders-a-day"}
    (data / "events.jsonl").write_bytes(whole)
    with open_app(data) as app, kind(app, [ItemSales]) as runner:
        place(app)
        settle(app, runner)
        assert runner.get(ItemSales).ranking() == [("rope", 3)]


def test_a_log_that_is_damaged_meanwhile_stops_the_followers_and_the_runner_can_stop(
    kind, app, data
):
    runner = kind(app, [ItemSales])
    runner.start()
    place(app)
    settle(app, runner)
    whole = damage(data / "events.jsonl")
    with pytest.raises(FollowerError, match="failed pulling: LogDamaged"):
        runner.watch_for_errors(TIMEOUT)
    with pytest.raises(FollowerError, match="failed pulling: LogDamaged"):
        runner.stop()
    (data / "events.jsonl").write_bytes(whole)
    with runner:
        place(app)
        settle(app, runner)
        assert runner.get(ItemSales).times("rope") == 2


# Errors while processing


def test_an_apply_that_fails_is_named_with_its_event_and_the_others_go_on(kind, app, failing):
    runner = kind(app, [failing, OrdersADay])
    runner.start()
    place(app)
    order_id = place(app, "rope", "bone")
    place(app)
    error = check_surfaces(runner, app, "processing", "item-sales failed processing OrderCreated")
    assert error.event.order_id == order_id
    assert isinstance(error.error, Bad)
    assert sum(orders for _, orders in runner.get(OrdersADay).days()) == 3
    assert app.orders.count() == 3


def test_a_thread_that_dies_of_whatever_is_an_error_of_its_follower(app):
    class Cancelled(ItemSales):
        name = "cancelled"

        def apply(self, event):
            raise asyncio.CancelledError

    runner = MultiThreadedRunner(app, [Cancelled, OrdersADay])
    runner.start()
    place(app)
    with pytest.raises(FollowerError, match=r"cancelled failed processing .*: CancelledError"):
        runner.watch_for_errors(TIMEOUT)
    with pytest.raises(FollowerError, match="cancelled"):
        runner.stop()
    assert [number for _, number in runner.get(OrdersADay).days()] == [1]


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_log_that_is_taken_away_is_an_error_of_those_who_follow_it(harm, kind, app, data):
    runner = kind(app, [ItemSales])
    runner.start()
    place(app)
    settle(app, runner)
    log = data / "events.jsonl"
    log.unlink() if harm == "removed" else os.truncate(log, 300)
    with pytest.raises(FollowerError, match="item-sales failed pulling"):
        runner.watch_for_errors(TIMEOUT)
    with pytest.raises(FollowerError, match="pulling"):
        runner.stop()


def test_a_command_of_a_policy_that_fails_is_a_failed_delivery_and_all_go_on(kind, app):
    order_id = place(app)
    app.bus.send(CancelOrder(order_id))
    with kind(app, [Shipper, Listed]) as runner:
        other_id = place(app)
    assert app.orders.get(other_id).status == "shipped"
    assert runner.get(Listed).ids == ids(app)
    (failed,) = app.store.deliveries("failed")
    assert failed.delivery.key == (ids(app, OrderCreated)[0], "shipper")
    assert failed.delivery.error.startswith(f"ForbiddenMove: order {order_id} cannot be shipped")


def test_an_error_that_cannot_say_what_it_is_stops_its_follower_and_nothing_else(data, tmp_path):
    """In a process of its own, for what goes wrong here goes on for ever."""
    script = tmp_path / "mute.py"
    script.write_text(MUTE)
    for name in ("SingleThreadedRunner", "MultiThreadedRunner"):
        command = [sys.executable, str(script), str(data / name), name]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        assert (ended.stdout, ended.stderr) == ("silent processing OrderCreated, 1 day\n", "")


MUTE = """
import faulthandler, sys
from orders import PlaceOrder, bootstrap
from orders.errors import FollowerError
from orders.projections import runners
from orders.projections.shipped import ItemSales, OrdersADay

faulthandler.dump_traceback_later(20, exit=True)

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not a word")

class Silent(ItemSales):
    name = "silent"
    def apply(self, event):
        raise Mute

class Quiet:
    def notify(self, notice):
        pass

with bootstrap(sys.argv[1], notifier=Quiet()) as app:
    runner = getattr(runners, sys.argv[2])(app, [Silent, OrdersADay])
    runner.start()
    app.bus.send(PlaceOrder(("rope",)))
    try:
        runner.stop()
    except FollowerError as error:
        days = len(runner.get(OrdersADay).days())
        print(error.follower, error.stage, type(error.event).__name__ + ",", days, "day")
"""


def test_once_the_cause_is_gone_a_follower_resumes_and_folds_nothing_twice(kind, app, failing):
    runner = kind(app, [failing, Listed])
    failing.fails = False
    with runner:
        place(app)
        place(app, "bone", "rope")
    failing.fails = True
    runner.start()
    app.bus.send(CancelOrder(place(app, "lamp")))
    place(app, "rope", "bone", "rope")
    place(app, "lamp")
    with pytest.raises(FollowerError):
        runner.stop()
    for _ in range(2):  # nor does failing again change anything
        with pytest.raises(FollowerError), kind(app, [failing]):
            place(app, "rope")
    failing.fails = False
    with runner:
        settle(app, runner)
        assert dict(runner.get(failing).ranking()) == sold(app)
        assert runner.get(Listed).ids == ids(app)
    with kind(app, [ItemSales]) as other:
        assert dict(other.get(ItemSales).ranking()) == sold(app)


def test_a_policy_goes_on_past_what_fails_and_repeats_nothing(kind, app):
    refused = {"third"}
    done = []

    def work(command, *, uow):
        if command.text in refused:
            raise Bad(command.text)
        done.append(command.text)
        uow.emit(JobEnded(text=command.text))

    app.bus.register(DoJob, work)
    app.follow(Worker)
    words = ["first", "second", "third", "fourth", "fifth"]
    with app.uow() as uow:
        for text in words:
            uow.emit(JobAsked(text=text))
    for _ in range(2):
        with kind(app, [Worker]):
            pass
        assert done == ["first", "second", "fourth", "fifth"]
    refused.clear()
    assert app.deliveries.retry() == (1, 1)
    with kind(app, [Worker]) as runner:
        app.uow().emit(JobAsked(text="sixth"))
        settle(app, runner)
    assert done == ["first", "second", "fourth", "fifth", "third", "sixth"]
    assert [event.text for event in stored(app, JobEnded)] == done


def test_a_state_that_cannot_be_kept_is_named_and_the_others_are_kept(kind, data):
    disk = FaultyDisk(Fault("before-state-write", 1, "ENOSPC"))
    with open_app(data, disk=disk) as app:
        runner = kind(app, [ItemSales, OrdersADay])
        runner.start()
        place(app)
        with pytest.raises(FollowerError, match="item-sales failed saving") as caught:
            runner.stop()
        assert caught.value.stage == "saving"
        assert caught.value.error.__cause__.errno == errno.ENOSPC
        assert [file.name for file in data.glob("projections/*")] == ["orders-a-day.json"]
        with kind(app, [ItemSales]) as other:
            settle(app, other)
            assert other.get(ItemSales).times("rope") == 1


def test_a_state_that_is_no_json_is_named_and_the_others_are_kept(kind, app, data):
    class Odd(ItemSales):
        name = "odd"

        def apply(self, event):
            self.tables["sold"]["rope"] = object()

    runner = kind(app, [Odd, OrdersADay])
    runner.start()
    place(app)
    with pytest.raises(FollowerError, match="odd failed saving"):
        runner.stop()
    assert [file.name for file in data.glob("projections/*")] == ["orders-a-day.json"]


def test_the_errors_of_the_others_are_notes_of_the_first_each_once(kind, app, failing):
    class Also(Failing):
        name = "also"

    class AndAlso(Failing):
        name = "and-also"

    runner = kind(app, [Failing, Also, AndAlso])
    runner.start()
    place(app, "bone")
    while len(runner.errors) < 3:
        with suppress(FollowerError):
            runner.watch_for_errors(0)
    for ask in (lambda: runner.watch_for_errors(0), lambda: runner.wait(START, 0), runner.stop):
        with pytest.raises(FollowerError) as caught:
            ask()
    names = {error.follower for error in runner.errors}
    assert names == {"item-sales", "also", "and-also"}
    assert caught.value is runner.errors[0]
    assert caught.value.__notes__ == [str(error) for error in runner.errors[1:]]


def test_what_the_block_raised_wins_over_the_errors_of_followers(kind, app, failing):
    with pytest.raises(Bad, match="mine") as caught, kind(app, [failing]) as runner:
        place(app, "bone")
        raise Bad("mine")
    assert "choked" in caught.value.__notes__[0]
    assert [error.follower for error in runner.errors] == ["item-sales"]
    with kind(app, [OrdersADay]):
        pass


def test_what_the_block_raised_wins_over_a_damaged_log(kind, app, data):
    with pytest.raises(Bad, match="mine"), kind(app, [ItemSales]):
        place(app)
        damage(data / "events.jsonl")
        raise Bad("mine")


def test_the_errors_of_followers_are_raised_where_the_block_ends(kind, app, failing):
    with pytest.raises(FollowerError, match="choked"), kind(app, [failing]):
        place(app, "bone")


def test_a_reaction_inside_an_open_unit_of_work_is_not_undone_with_it(app, data):
    """In one thread, whoever waits processes; what he is in the midst of is not the policy's."""
    with open_app(data) as other, SingleThreadedRunner(app, [Shipper]) as runner:
        order_id = place(other)
        with suppress(Bad), app.uow():
            with suppress(TimeoutError):  # not to react before the unit's end is as good
                runner.wait(app.store.head(), 0)
            raise Bad
    with SingleThreadedRunner(app, [Shipper]):
        pass
    assert app.orders.get(order_id).status == "shipped"
    assert len(reacted(app, "shipper")) == 1


def test_a_runner_that_is_stopped_inside_an_open_unit_of_work_does_not_wait_for_ever(
    kind, app, data
):
    """In one thread nothing can be processed there: to say so is as good as to stop."""
    runner = kind(app, [ItemSales])
    runner.start()

    def stop():
        with suppress(OrdersError), app.uow():
            runner.stop()

    with open_app(data) as other:
        place(other)
    stopper = Thread(target=stop, daemon=True)
    stopper.start()
    stopper.join(TIMEOUT / 3)
    assert not stopper.is_alive()


def test_who_stops_a_runner_while_others_write_keeps_no_half_of_an_event(two_apps):
    """A writer comes to wake the runner when its snapshot is being made."""
    published, go, folding, finish = Flag(), Flag(), Flag(), Flag()

    class Slow(ItemSales):
        def apply(self, event):
            super().apply(event)
            if "lamp" in getattr(event, "items", ()):
                folding.set()
                assert finish.wait(TIMEOUT)

        def documents(self):
            place(other, "lamp")
            go.set()
            folding.wait(0.2)  # or until nobody can fold any more
            return super().documents()

    def gate():
        published.set()
        assert go.wait(TIMEOUT)

    app, other = two_apps
    app.unit_of_work.watchers.append(gate)
    runner = SingleThreadedRunner(app, [Slow])
    runner.start()
    writer = Thread(target=place, args=(app, "rope"))
    writer.start()
    assert published.wait(TIMEOUT)
    stopper = Thread(target=runner.stop)
    stopper.start()
    stopper.join(TIMEOUT)
    finish.set()
    writer.join(TIMEOUT)
    with SingleThreadedRunner(other, [ItemSales]) as runner:
        assert dict(runner.get(ItemSales).ranking()) == sold(other) == {"rope": 1, "lamp": 1}


def test_who_stops_a_runner_waits_for_the_thread_that_is_in_the_midst_of_it(two_apps):
    """A writer still processes, for a second event has come, when the first snapshot is made."""
    blocked, asked, go = Flag(), Flag(), Flag()
    at_last, folding, finish = Flag(), Flag(), Flag()

    class Asked(SingleThreadedRunner):
        def wake(self):
            super().wake()
            if current_thread() is stopper:
                asked.set()

    class First(ItemSales):
        def apply(self, event):
            super().apply(event)
            if "rope" in event.items:
                blocked.set()
                assert go.wait(TIMEOUT)
            else:
                folding.set()
                finish.wait(0.2)  # or until nobody keeps anything before we are through

        def documents(self):
            at_last.set()
            folding.wait(0.2)  # or until nobody can fold any more
            return super().documents()

    class Last(Listed):
        follow = (OrderCreated,)

        def apply(self, event):
            if "lamp" in event.items:
                at_last.wait(0.2)  # same
            super().apply(event)

    app, other = two_apps
    runner = Asked(app, [First, Last])
    writer = Thread(target=place, args=(app, "rope"))
    stopper = Thread(target=runner.stop)
    runner.start()
    writer.start()
    assert blocked.wait(TIMEOUT)
    stopper.start()
    assert asked.wait(TIMEOUT)
    place(other, "lamp")
    go.set()
    stopper.join(TIMEOUT)
    finish.set()
    writer.join(TIMEOUT)
    with SingleThreadedRunner(other, [ItemSales]) as runner:
        assert dict(runner.get(ItemSales).ranking()) == sold(other) == {"rope": 1, "lamp": 1}


# Many events, and any


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with more than 20,000 events, whose notices are still pending."""
    data = tmp_path_factory.mktemp("many") / "store"
    chance, events = random.Random(20261121), 0
    with open_app(data) as app:
        app.bus.deliver = lambda _subscriber, _event: None
        while events < 20_000:
            with app.uow() as uow:
                for _ in range(1000):
                    order = random_order(chance)
                    events += order.version
                    uow.orders.add(order)
    return data


def random_order(chance):
    order = Order.place(f"item {chance.randrange(60)}" for _ in range(chance.randint(1, 3)))
    chance.choice([order.ship, order.cancel, lambda: None])()
    return order


def days_by_hand(app):
    return Counter(order.placed_at.date() for order in app.orders.list())


def ordered_by_hand(app):
    return Counter(item for order in app.orders.list() for item in order.items)


def check_by_hand(app, runner):
    """See that the three followers are what the orders say."""
    assert dict(runner.get(ItemSales).ranking()) == sold(app)
    assert dict(runner.get(OrdersADay).days()) == days_by_hand(app)
    ordered = ordered_by_hand(app)
    assert runner.get(Bestseller).tables == {"ordered": ordered}
    still_open = {order.id: [*order.items] for order in app.orders.list() if order.version == 1}
    assert runner.get(ItemSales).tables["open"] == still_open
    famous = [item for item, times in ordered.items() if times >= 10]
    assert len(reacted(app, "bestseller")) == len({*reacted(app, "bestseller")}) <= len(famous)
    return famous


def tables(runner):
    return [runner.get(kind).tables for kind in THREE]


THREE = (ItemSales, OrdersADay, Bestseller)


@pytest.mark.long
def test_both_runners_make_the_same_of_20_000_events_as_a_fold_by_hand(template, tmp_path):
    made = []
    for kind in RUNNERS:
        data = tmp_path / kind.__name__
        shutil.copytree(template, data)
        with open_app(data) as app:
            with kind(app, THREE) as runner:
                settle(app, runner)
                assert len(check_by_hand(app, runner)) == 60
                place(app)
                settle(app, runner)
                made.append(tables(runner))
            assert ordered_by_hand(app).total() > 20_000
            with kind(app, THREE) as runner:
                check_by_hand(app, runner)
                made[-1][0]["open"].popitem()  # the order of this runner's own
    assert len(made[0][0]["open"]) > 1000
    assert made[0] == made[1]


STEPS = st.lists(
    st.tuples(st.just("place"), st.lists(st.sampled_from("ab"), min_size=1, max_size=5))
    | st.tuples(st.sampled_from(["ship", "cancel"]), st.integers(0, 9))
    | st.tuples(st.sampled_from(["restart", "forget"]), st.none()),
    max_size=18,
)


def step(app, what, how):
    placed = [order.id for order in app.orders.list() if order.status == "placed"]
    if what == "place":
        place(app, *how)
    elif placed and what in {"ship", "cancel"}:
        order_id = placed[how % len(placed)]
        app.bus.send(ShipOrder(order_id) if what == "ship" else CancelOrder(order_id))


def forget(app):
    shutil.rmtree(app.store.directory / "projections", ignore_errors=True)


def run_steps(app, kind, steps):
    """Do it all with a runner that is stopped and started, and forgets, as the steps say."""
    runner = kind(app, THREE)
    runner.start()
    for what, how in steps:
        step(app, what, how)
        if what in {"restart", "forget"}:
            runner.stop()
            if what == "forget":
                forget(app)
            runner.start()
    settle(app, runner)
    famous = check_by_hand(app, runner)
    runner.stop()
    assert len(stored(app, RecordBestseller)) == len(famous)
    return tables(runner)


@pytest.mark.parametrize("kind", RUNNERS)
@limits(max_examples=12, deadline=None, database=None)
@given(steps=STEPS)
def test_whatever_is_ordered_followers_are_the_fold_of_it_however_they_run(kind, steps):
    with TemporaryDirectory() as directory, open_app(f"{directory}/store") as app:
        made = run_steps(app, kind, steps)
        for other in RUNNERS:
            forget(app)
            with other(app, THREE) as runner:
                settle(app, runner)
                assert tables(runner) == made
