"""Policies react once, whatever crashes and whoever else is at it."""

import os
import random
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from itertools import count, islice

import pytest
from following import RUNNERS, Restocker, Shipper, deliveries, place, reacted, settle, stored

from orders import OrderCreated, OrderShipped, PlaceOrder, Settings, ShipOrder, bootstrap
from orders.adapters.files.faults import POINTS
from orders.domain.commands import RecordBestseller
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import Bestseller

KILLED = -signal.SIGKILL
NEEDS_A_TORN_LOG = ("before-truncate", "after-truncate")


class FileSales:
    """A notifier whose notices outlive it: a line each in a file."""

    def __init__(self, path):
        self.path = path

    def notify(self, notice):
        with self.path.open("a") as file:
            file.write(f"{notice.title.partition(',')[0]} {notice.items}\n")

    def count(self, title="Bestseller"):
        text = self.path.read_text() if self.path.exists() else ""
        return sum(line.startswith(title) for line in text.splitlines())


# Killed


@contextmanager
def opened(data, fault=None):
    settings = Settings(data, fault=fault)
    with bootstrap(settings=settings, notifier=FileSales(data.with_suffix(".txt"))) as app:
        yield app


@pytest.fixture
def fresh_copy(tmp_path):
    """Return directories of stores that are alike: nine orders, and what the policies made."""
    template, numbers = tmp_path / "template", count()
    with opened(template) as app, SingleThreadedRunner(app, [Bestseller, Restocker]):
        for _ in range(9):
            place(app)

    def copy():
        data = tmp_path / f"store-{next(numbers)}"
        shutil.copytree(template, data)
        return data

    return copy


def place_the_tenth(data, kind, fault=None):
    with opened(data, fault) as app, kind(app, [Bestseller]):
        app.deliveries.recover()  # as every command does
        if app.orders.count() < 10:
            place(app)


def ship_the_first(data, kind, fault=None):
    """Ship an order, of which the policy makes another one."""
    with opened(data, fault) as app, kind(app, [Restocker]):
        if not stored(app, OrderShipped):
            app.bus.send(ShipOrder(app.orders.list()[-1].id))


def state(data, policy):
    """How many bestsellers sales heard of, how much paper was ordered, how many records."""
    with opened(data) as app:
        paper = sum(order.items == ("paper",) for order in app.orders.list())
        records = deliveries(app, policy.name)
        assert all(record.status == "done" for record in records)
        return FileSales(data.with_suffix(".txt")).count(), paper, len(records)


at_every_point = pytest.mark.parametrize(
    "point", [point for point in POINTS if point not in NEEDS_A_TORN_LOG]
)
# the runner that is killed, and the one that goes on, change places each time
by_turns = pytest.mark.parametrize("turn", [0, pytest.param(1, marks=pytest.mark.long)])


@by_turns
@at_every_point
@pytest.mark.sample(2)
def test_a_notice_is_given_and_recorded_once_whatever_point_it_is_killed_at(
    point, turn, fresh_copy, fork
):
    for nth in count(1):
        data, kind, other = fresh_copy(), RUNNERS[(nth + turn) % 2], RUNNERS[(nth + turn + 1) % 2]
        code = fork(place_the_tenth, data, kind, f"{point}@{nth}").wait()
        given, _, records = state(data, Bestseller)
        with opened(data) as app:
            heard = [d.status for d in deliveries(app, "bestseller_found")].count("done")
        assert heard <= given <= records <= 1, "what is said was decided before"
        assert fork(place_the_tenth, data, other).wait() == 0
        # who dies between the notice and its record has said what nobody knows of
        assert state(data, Bestseller) == (given + 1 - heard, 0, 1)
        if code == 0:
            break  # it is not reached so often
        assert code == KILLED
    assert nth > 1


@by_turns
@at_every_point
@pytest.mark.sample(2)
def test_what_a_policy_stores_is_stored_once_whatever_point_it_is_killed_at(
    point, turn, fresh_copy, fork
):
    for nth in count(1):
        data, kind, other = fresh_copy(), RUNNERS[(nth + turn) % 2], RUNNERS[(nth + turn + 1) % 2]
        code = fork(ship_the_first, data, kind, f"{point}@{nth}").wait()
        _, paper, records = state(data, Restocker)
        assert paper == records <= 1
        assert fork(ship_the_first, data, other).wait() == 0
        assert state(data, Restocker) == (0, 1, 1)
        if code == 0:
            break
        assert code == KILLED
    assert nth > 1


@pytest.mark.parametrize("kind", RUNNERS)
@pytest.mark.parametrize(
    ("policy", "act"), [(Bestseller, place_the_tenth), (Restocker, ship_the_first)]
)
@pytest.mark.sample(1)
def test_a_crash_at_every_point_one_after_the_other_repeats_no_reaction(
    policy, act, kind, fresh_copy, fork
):
    data = fresh_copy()
    codes = {fork(act, data, kind, point).wait() for point in POINTS}
    assert codes <= {0, KILLED}
    assert fork(act, data, kind).wait() == 0
    heard, paper, records = state(data, policy)
    assert records == 1
    assert (paper, heard >= 1) == ((1, False) if policy is Restocker else (0, True))


def test_who_is_killed_right_before_it_saves_does_not_repeat_what_it_did(fresh_copy, fork):
    def die(data):
        with opened(data) as app:
            runner = SingleThreadedRunner(app, [Restocker])
            runner.start()
            app.bus.send(ShipOrder(app.orders.list()[-1].id))
            assert state(data, Restocker) == (0, 1, 1)
            os.kill(os.getpid(), signal.SIGKILL)

    data = fresh_copy()
    assert fork(die, data).wait() == KILLED
    assert fork(ship_the_first, data, SingleThreadedRunner).wait() == 0
    assert state(data, Restocker) == (0, 1, 1)


def keep_ordering(data, acknowledgements, kind):
    with opened(data) as app, kind(app, [Bestseller, Shipper, Restocker]):
        for number in count():
            order_id = place(app, f"item {number % 3}")
            os.write(acknowledgements, f"{order_id}\n".encode())


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.long)])
def test_followers_killed_at_random_moments_react_to_every_event_once(rounds, tmp_path, fork):
    chance = random.Random(20261121)
    data = tmp_path / "store"

    def carry_on():
        with opened(data) as app, SingleThreadedRunner(app, [Bestseller, Shipper, Restocker]):
            pass

    for round_ in range(rounds):
        reading, writing = os.pipe()
        child = fork(keep_ordering, data, writing, RUNNERS[round_ % 2])
        os.close(writing)
        with os.fdopen(reading, encoding="ascii") as lines:
            assert len([*islice(lines, chance.randint(1, 12))]) >= 1
            child.kill()
            assert child.wait() == KILLED
    assert fork(carry_on).wait() == 0
    with opened(data) as app:
        created = stored(app, OrderCreated)
        asked = {event.id for event in created if event.items != ("paper",)}
        assert sorted(reacted(app, "shipper")) == sorted(asked)
        shipped = {event.id for event in stored(app, OrderShipped)}
        assert sorted(reacted(app, "restocker")) == sorted(shipped)
        assert len(created) - len(asked) == len(shipped) == len(asked)
        ordered = Counter(item for event in created for item in event.items)
        famous = sorted(item for item, times in ordered.items() if times >= 10)
        assert sorted(c.item for c in stored(app, RecordBestseller)) == famous
        assert len(reacted(app, "bestseller")) == len(famous) >= 1


# Two at once


def meet(ready, go):
    """Say that we are here, and wait until the others are."""
    os.write(ready, b".")
    assert os.read(go, 1) == b"."


@pytest.fixture
def together(fork):
    """Run a function in two processes that meet in its midst; returns their statuses."""

    def run(function, *arguments):
        (arrived, ready), (go, started) = os.pipe(), os.pipe()
        children = [fork(function, *arguments, ready, go) for _ in range(2)]
        os.close(ready)
        both = os.read(arrived, 1) + os.read(arrived, 1)
        os.write(started, b"..")
        statuses = [child.wait() for child in children]
        for end in (arrived, go, started):
            os.close(end)
        assert both == b".."
        return statuses

    return run


def test_two_processes_with_one_policy_at_one_event_give_one_notice(together, data, send):
    class Meeting(Bestseller):
        def react(self, event):
            for command in super().react(event):
                meet(*ends)
                yield command

    def react(ready, go):
        ends[:] = ready, go
        with opened(data) as app, SingleThreadedRunner(app, [Meeting]):
            pass

    ends = []
    send(*[PlaceOrder(("rope",))] * 12)
    assert together(react) == [0, 0]
    assert state(data, Bestseller)[0] == 1
    with bootstrap(data) as app:
        (record,) = deliveries(app, "bestseller")
        assert record.status == "done"
        assert len(stored(app, RecordBestseller)) == 1


@pytest.mark.parametrize("policy", [Restocker, Shipper])
def test_what_two_processes_make_of_one_event_is_stored_once(policy, together, data, send):
    """The reaction of the second is taken back, or refused, for the first has reacted."""

    class Meeting(policy):
        def react(self, event):
            meet(*ends)
            return super().react(event)

    def react(ready, go):
        ends[:] = ready, go
        with bootstrap(data) as app, SingleThreadedRunner(app, [Meeting]):
            pass

    ends = []
    (order_id,) = send(PlaceOrder(("rope",)))
    if policy is Restocker:
        send(ShipOrder(order_id))
    assert together(react) == [0, 0]
    with bootstrap(data) as app:
        assert len(deliveries(app, policy.name)) == 1
        assert len(stored(app, OrderShipped)) == 1
        assert len(app.orders.list()) == (2 if policy is Restocker else 1)


def order_and_follow(data, number, kind, ready, go):
    with opened(data) as app, kind(app, [Bestseller, Shipper]) as runner:
        meet(ready, go)
        for n in range(12):
            place(app, f"{number} {n}", "rope")
        settle(app, runner)


def test_processes_that_follow_what_all_of_them_order_react_once_each_event(data, fork):
    (arrived, ready), (go, started) = os.pipe(), os.pipe()
    children = [
        fork(order_and_follow, data, number, RUNNERS[number % 2], ready, go) for number in range(4)
    ]
    for _ in children:
        assert os.read(arrived, 1) == b"."
    os.write(started, b"....")
    assert [child.wait() for child in children] == [0] * 4
    for end in (arrived, ready, go, started):
        os.close(end)
    with opened(data) as app:
        created = {event.id for event in stored(app, OrderCreated)}
        assert len(created) == 48
        assert sorted(reacted(app, "shipper")) == sorted(created)
        assert {order.status for order in app.orders.list()} == {"shipped"}
        assert len(reacted(app, "bestseller")) == len(stored(app, RecordBestseller)) == 1
