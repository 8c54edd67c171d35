"""Workers share what is to be delivered: each delivery is one's at a time, and none is lost."""

import fcntl
import os
import random
import signal
from collections import Counter
from typing import ClassVar

import pytest
from conftest import Sales

from orders import Event, OrderCreated, PlaceOrder, Policy, bootstrap
from orders.application.deliveries import DEATHS, RETRIES, TRIES
from orders.application.store import Match
from orders.domain.events import BestsellerFound, Committed
from orders.errors import StoreUnreachable
from orders.messaging.message import Command


class Wished(Event, frozen=True):
    topic: ClassVar[str] = "wished"

    number: int = 0


class Granted(Event, frozen=True):
    topic: ClassVar[str] = "granted"

    number: int = 0


class Remember(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "remember"

    number: int = 0


class EverySecond(Policy):
    name = "every-second"
    follow = (Wished,)
    columns: ClassVar = {"seen": ("number", "times")}

    def apply(self, event):
        self.tables["seen"][event.number] = 1

    def react(self, event):
        return [Remember(number=event.number)] if event.number % 2 else []


def quiet(*_):
    """Report nothing: the log says it."""


def events_of(app, kind):
    records = app.store.read(match=Match(types=[kind]))
    return [m for record in records for m in record.messages if isinstance(m, kind)]


def statuses(app):
    return Counter(account.delivery.status for account in app.store.deliveries())


def wish(app, wishes):
    """Store so many wishes, ten to a commit, and leave their deliveries to workers."""
    for start in range(0, wishes, 10):
        with app.uow() as uow:
            for number in range(start, min(start + 10, wishes)):
                uow.emit(Wished(number))


@pytest.fixture
def deferring(sales):
    with bootstrap(":memory:", deliver="worker", notifier=sales, on_failure=quiet) as app:
        yield app


# Deferring


def test_what_is_left_to_workers_is_delivered_by_one_and_not_before(deferring, sales):
    order_id = deferring.bus.send(PlaceOrder(("rope",)))
    assert sales.order_ids == []
    assert deferring.orders.get(order_id).status == "placed"
    (pending,) = deferring.store.pending()
    assert (pending.is_abandoned, pending.is_deferred) == (True, True)
    assert deferring.deliveries.recover() == 0  # which is a worker's
    deferring.worker().run(until_idle=0)
    assert sales.order_ids == [order_id]
    (account,) = deferring.store.deliveries()
    assert (account.delivery.status, account.delivery.attempts) == ("done", 1)
    assert account.delivery.deaths == 0


def test_what_is_not_stored_is_published_all_the_same(deferring):
    heard = []
    deferring.bus.subscribe(Committed, heard.append, name="heard")
    order_id = deferring.bus.send(PlaceOrder(("rope",)))
    assert [event.order_id for event in heard] == [order_id]


def test_who_does_not_leave_it_to_workers_delivers_what_others_have_left_to_them(deferring, sales):
    order_id = deferring.bus.send(PlaceOrder(("rope",)))
    with bootstrap(store=deferring.store, notifier=sales) as app:
        assert app.deliveries.recover() == 1
    assert sales.order_ids == [order_id]


def test_what_a_workers_subscribers_store_is_left_to_workers_too(deferring):
    def wish_for_more(event, *, uow):
        uow.emit(Granted(number=1))

    granted = []
    deferring.bus.subscribe(OrderCreated, wish_for_more, name="more")
    deferring.bus.subscribe(Granted, granted.append, name="granted")
    deferring.bus.send(PlaceOrder(("rope",)))
    deferring.worker(["more"]).run(until_idle=0)
    assert granted == []
    deferring.worker(["granted"]).run(until_idle=0)
    assert [event.number for event in granted] == [1]
    assert [found.delivery.subscriber for found in deferring.store.pending()] == ["order_created"]


def test_a_worker_is_not_idle_before_policies_have_reacted_to_what_it_has_stored(deferring):
    remembered = []
    deferring.bus.register(Remember, remembered.append)
    deferring.bus.subscribe(
        OrderCreated, lambda _event, *, uow: uow.emit(Wished(number=1)), name="wishing"
    )
    deferring.follow(EverySecond)
    deferring.bus.send(PlaceOrder(("rope",)))
    deferring.worker().run(until_idle=0)
    assert [command.number for command in remembered] == [1]
    assert statuses(deferring) == {"done": 3}


def test_what_this_process_does_not_know_waits_and_keeps_nothing_else_waiting(deferring, sales):
    deferring.bus.subscribe(OrderCreated, quiet, name="stranger", priority=-1)
    for number in range(60):  # more than are looked up together
        deferring.bus.send(PlaceOrder((f"rope {number}",)))
    deferring.bus.unsubscribe("stranger")
    deferring.worker().run(until_idle=0)
    assert len(sales.notices) == 60
    waiting = [found.delivery.subscriber for found in deferring.store.pending()]
    assert waiting == ["stranger"] * 60


# Failing


def test_a_poison_event_ends_as_a_dead_letter_and_what_comes_after_it_flows(deferring, sales):
    runs = []

    def poison(event):
        runs.append(event)
        raise ValueError("poison")

    def stop_when_dead(record):
        if any(delivery.status == "dead" for delivery in record.deliveries):
            worker.stop()

    deferring.bus.subscribe(OrderCreated, poison, name="poison", priority=-1)
    order_id = deferring.bus.send(PlaceOrder(("rope",)))
    worker = deferring.worker(back_off=0, on_record=stop_when_dead)
    worker.run(until_idle=20)
    assert sales.order_ids == [order_id]
    (dead,) = (account.delivery for account in deferring.store.deliveries("dead"))
    assert (dead.subscriber, dead.retries) == ("poison", RETRIES)
    assert len(runs) == dead.attempts == TRIES + RETRIES
    assert worker.tally["failed", "poison"] == worker.tally["retried", "poison"] == RETRIES
    assert worker.tally["dead", "poison"] == worker.tally["done", "order_created"] == 1


def test_a_worker_that_is_started_later_makes_again_what_had_failed(deferring, sales):
    is_down = True

    def mail(event):
        if is_down:
            raise ConnectionError

    deferring.bus.subscribe(OrderCreated, mail, name="mail")
    deferring.bus.send(PlaceOrder(("rope",)))
    deferring.worker(back_off=3600).run(until_idle=0)  # the pause is long, so it fails once
    assert statuses(deferring) == {"done": 1, "failed": 1}
    is_down = False
    deferring.worker(back_off=3600).run(until_idle=0)
    assert statuses(deferring) == {"done": 1, "failed": 1}
    deferring.worker(back_off=0).run(until_idle=0)
    assert statuses(deferring) == {"done": 2}


def test_a_policy_that_fails_is_reported_and_keeps_nothing_else_from_being_done(deferring, sales):
    class Broken(EverySecond):
        name = "broken"

        def apply(self, event):
            raise ValueError("broken")

    deferring.follow(Broken)
    wish(deferring, 1)
    deferring.bus.send(PlaceOrder(("rope",)))
    warnings = []
    deferring.worker(warn=warnings.append).run(until_idle=0)
    assert [warning.follower for warning in warnings] == ["broken"]
    assert len(sales.notices) == 1


def test_a_worker_does_not_go_on_without_its_policies_because_the_store_was_out_of_reach(deferring):
    class Unlucky(EverySecond):
        def apply(self, event):
            raise StoreUnreachable("elsewhere", "away for a moment")

    deferring.follow(Unlucky)
    wish(deferring, 1)
    with pytest.raises(StoreUnreachable):
        deferring.worker().run(until_idle=0)


# Stopping


def test_a_worker_that_is_stopped_finishes_what_it_is_at_and_begins_nothing_else(deferring):
    ran = []

    def stop(event):
        worker.stop()
        ran.append(event.number)

    deferring.bus.subscribe(Wished, stop, name="stop")
    wish(deferring, 3)
    worker = deferring.worker()
    worker.run()
    assert ran == [0]
    assert statuses(deferring) == {"done": 1, "pending": 2}
    assert worker.tally["done", "stop"] == 1


def test_a_strict_application_raises_what_fails_in_its_worker(sales):
    def fail(_):
        raise ValueError("no")

    with bootstrap(":memory:", deliver="worker", strict=True, notifier=sales) as app:
        app.bus.subscribe(Wished, fail, name="failing")
        wish(app, 1)
        with pytest.raises(ValueError, match="no"):
            app.worker().run(until_idle=0)
        (account,) = app.store.deliveries("failed")
        assert account.delivery.attempts == 1


def test_a_policy_stops_after_the_commit_that_it_reacts_to(deferring):
    def remember(command):
        worker.stop()

    deferring.bus.register(Remember, remember)
    deferring.bus.subscribe(Wished, quiet, name="quiet")
    deferring.follow(EverySecond)
    wish(deferring, 30)  # three commits, five reactions to each
    worker = deferring.worker()
    worker.run()
    assert statuses(deferring) == {"done": 5, "pending": 30}
    deferring.worker().run(until_idle=0)
    assert statuses(deferring) == {"done": 45}


# Many at once


class Granting:
    """A subscriber that stores its effect; of its wishes some fail at first, too often for a try.

    It notes when another process is at the same wish.
    """

    def __init__(self, directory, progress):
        self.directory, self.progress = directory, progress

    def __call__(self, event, *, uow):
        with (self.directory / str(event.number)).open("ab", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                (self.directory / f"two at {event.number}").touch()
            uow.emit(Granted(number=event.number))
            os.write(self.progress, b".")
            if event.number % 20 == 3 and file.tell() < TRIES + 1:
                file.write(b"!")
                raise OSError("not now")


def open_app(data, directory, progress=None):
    app = bootstrap(data, deliver="worker", notifier=Sales(), on_failure=quiet)
    app.bus.subscribe(Wished, Granting(directory, progress), name="granting")
    return app


def work(data, directory, progress, begun=()):
    """Work until SIGTERM comes; say so to `begun`, descriptors, when the store was reached."""
    waiting = [*begun]

    def tell():
        while waiting:
            os.write(waiting.pop(), b".")

    with open_app(data, directory, progress) as app:
        worker = app.worker(back_off=0.01, on_turn=tell)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()


def wait_until(app, is_so):
    """Look at the store at each of its records, until it is as wanted."""
    head = app.store.head()
    while not is_so():
        assert app.store.wait(head, 60), "nothing happens any more"
        head = app.store.head()


@pytest.mark.engines
@pytest.mark.parametrize(
    ("wishes", "kills"), [(60, 2), pytest.param(2_000, 4, marks=pytest.mark.long)]
)
def test_four_workers_deliver_everything_once_whatever_fails_and_whoever_is_killed(
    wishes, kills, data, fork, tmp_path
):
    directory = tmp_path / "wishes"
    directory.mkdir()
    reading, progress = os.pipe()
    with open_app(data, directory) as app:
        wish(app, wishes)
        workers = [fork(work, data, directory, progress) for _ in range(4)]
        chance = random.Random(20261121)
        for _ in range(kills):
            for _ in range(chance.randint(1, wishes // kills // 2)):
                assert os.read(reading, 1)
            me = chance.randrange(4)
            workers[me].kill()
            workers[me].wait()
            workers[me] = fork(work, data, directory, progress)
        wait_until(app, lambda: statuses(app) == {"done": wishes})
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0] * 4
        numbers = [event.number for event in events_of(app, Granted)]
        assert sorted(numbers) == [*range(wishes)]
        assert list(directory.glob("two at *")) == []
        retried = [a for a in app.store.deliveries() if a.delivery.retries]
        failed_at_first = len(
            range(3, wishes, 20)
        )  # perhaps in a process that died of something else
        assert failed_at_first - kills <= len(retried) <= failed_at_first
    os.close(reading)
    os.close(progress)


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.long
def test_workers_outlive_a_server_that_is_killed_and_store_each_effect_once(
    kills, server, fork, tmp_path
):
    wishes, chance = 40 * kills, random.Random(13)
    reading, progress = os.pipe()
    with open_app(server.url(), tmp_path) as app:
        workers = [fork(work, server.url(), tmp_path, progress, [progress]) for _ in range(3)]
        for _ in workers:
            assert os.read(reading, 1)
        wish(app, wishes)
        for _ in range(kills):
            for _ in range(chance.randint(1, 20)):
                assert os.read(reading, 1)
            server.kill()
            server.start()
        wait_until(app, lambda: statuses(app) == {"done": wishes})
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0] * 3
        assert sorted(event.number for event in events_of(app, Granted)) == [*range(wishes)]
        assert [finding for finding in app.store.check() if not finding.is_well] == []
    os.close(reading)
    os.close(progress)


@pytest.mark.engines
def test_what_a_killed_worker_was_at_another_one_takes_over(data, fork):
    reading, progress = os.pipe()

    def hang(_event):
        os.write(progress, b".")
        signal.pause()

    def open_with(subscriber):
        app = bootstrap(data, deliver="worker", on_failure=quiet)
        app.bus.subscribe(Wished, subscriber, name="hang")
        return app

    def be_at_it():
        with open_with(hang) as app:
            app.worker().run()

    with open_with(quiet) as app:
        wish(app, 1)
        first = fork(be_at_it)
        assert os.read(reading, 1)
        worker = app.worker(on_turn=first.kill, on_record=lambda _record: worker.stop())
        worker.run(until_idle=20)
        assert worker.tally["taken over", "hang"] == 1
        wait_until(app, lambda: statuses(app) == {"done": 1})
        (account,) = app.store.deliveries()
        assert (account.delivery.deaths, account.delivery.attempts) == (1, 2)
    os.close(reading)
    os.close(progress)


@pytest.mark.engines
def test_workers_share_the_reactions_of_policies_and_take_them_over(data, fork, tool):
    def help_out():
        with bootstrap(data, notifier=Sales()) as app:
            worker = app.worker()
            signal.signal(signal.SIGTERM, lambda *_: worker.stop())
            worker.run()

    with bootstrap(data, deliver="worker") as app:
        for number in range(30):
            app.bus.send(PlaceOrder((f"item {number % 3}",)))
        killed = tool(
            "worker", "--subscriber", "bestseller", env={"ORDERS_FAULT": "before-delivery"}
        )
        assert killed.returncode == -9
        workers = [fork(help_out) for _ in range(3)]
        wait_until(app, lambda: statuses(app) == {"done": 30 + 2 * 3})
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        assert [worker.wait() for worker in workers] == [0] * 3
        found = sorted(event.item for event in events_of(app, BestsellerFound))
        assert found == ["item 0", "item 1", "item 2"]
        deaths = [one.delivery.deaths for one in app.store.deliveries()]
        assert sorted(deaths) == [0] * 35 + [1]


@pytest.mark.engines
def test_a_delivery_that_kills_every_worker_is_given_up_and_can_be_retried_by_hand(data, fork):
    def die():
        with bootstrap(data, deliver="worker") as app:
            app.bus.subscribe(
                Wished, lambda _event: os.kill(os.getpid(), signal.SIGKILL), name="deadly"
            )
            app.worker(back_off=3600).run(until_idle=0)

    with bootstrap(data, deliver="worker") as app:
        app.bus.subscribe(Wished, quiet, name="deadly")
        wish(app, 1)
        for _ in range(DEATHS + 1):
            assert fork(die).wait() == -9
        assert fork(die).wait() == 0
        (given_up,) = (account.delivery for account in app.store.deliveries("failed"))
        assert given_up.error == f"{DEATHS} processes died of it"
        assert app.deliveries.retry() == (1, 1)
        assert statuses(app) == {"done": 1}
