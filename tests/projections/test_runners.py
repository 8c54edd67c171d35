"""Both runners keep followers up to date, from their start until they are stopped."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event as Flag
from threading import Thread

import pytest
from following import (
    RUNNERS,
    TIMEOUT,
    Bad,
    DoJob,
    Failing,
    JobAsked,
    Listed,
    Quiet,
    Shipper,
    Worker,
    damage,
    ids,
    place,
    reacted,
    settle,
    sold,
)

from orders import OrderCreated, bootstrap
from orders.application.store import START
from orders.errors import FollowerError, OrdersError, WiringError
from orders.projections.projection import Projection
from orders.projections.runners import MultiThreadedRunner, SingleThreadedRunner
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay


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


# Where the errors of followers are raised


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
