"""Runners name what fails, go on with the others, and resume where they were."""

import asyncio
import errno
import os
import subprocess
import sys
from contextlib import suppress
from typing import ClassVar

import pytest
from following import (
    RUNNERS,
    TIMEOUT,
    Bad,
    DoJob,
    Failing,
    JobAsked,
    JobEnded,
    Listed,
    Quiet,
    Shipper,
    Worker,
    damage,
    ids,
    open_app,
    place,
    settle,
    sold,
    stored,
)

from orders import CancelOrder, OrderCreated, PlaceOrder, bootstrap
from orders.adapters.files.faults import Fault, FaultyDisk
from orders.errors import FollowerError, ForeignFile, LogDamaged, WiringError
from orders.projections.projection import Projection
from orders.projections.runners import MultiThreadedRunner
from orders.projections.shipped import ItemSales, OrdersADay


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
