"""Policies react once to what they have seen, whatever crashes and whoever else is at it."""

import os
import random
import shutil
import signal
from asyncio import CancelledError
from collections import Counter
from contextlib import contextmanager
from itertools import count, islice
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import (
    CancelOrder,
    Command,
    Event,
    OrderCreated,
    OrderShipped,
    PlaceOrder,
    Settings,
    ShipOrder,
    bootstrap,
)
from orders.adapters.files.faults import POINTS
from orders.adapters.memory import MemoryStore
from orders.application.deliveries import RETRIES
from orders.domain.commands import RecordBestseller
from orders.errors import EndlessLoop, FollowerError, NotStored
from orders.messaging.message import MAX_HOPS
from orders.projections.follower import Follower, waiting_for
from orders.projections.policy import Policy
from orders.projections.runners import MultiThreadedRunner, SingleThreadedRunner
from orders.projections.shipped import Bestseller

KILLED = -signal.SIGKILL
RUNNERS = (SingleThreadedRunner, MultiThreadedRunner)
NEEDS_A_TORN_LOG = ("before-truncate", "after-truncate")


class BallHit(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "ball-hit"

    by: str
    left: int | None = None  # hits until it is out; None: it never is


class HitBall(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "hit-ball"

    by: str
    left: int | None = None


class Listed(Policy):
    """Notes the events that it was given."""

    columns: ClassVar = {"seen": ("event", "number")}

    def apply(self, event):
        seen = self.tables["seen"]
        seen[event.id] = len(seen)


class Shipper(Listed):
    """Ships every order as it comes, but for paper; none can be shipped twice."""

    name = "shipper"
    follow = (OrderCreated,)

    def react(self, event):
        if event.items != ("paper",):
            yield ShipOrder(event.order_id)


class Restocker(Listed):
    """Orders paper, without a key, whenever something is shipped."""

    name = "restocker"
    follow = (OrderShipped,)

    def react(self, event):
        yield PlaceOrder(("paper",))


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


def place(app, *items):
    return app.bus.send(PlaceOrder(items or ("rope",)))


def bestsellers(sales):
    return [notice for notice in sales.notices if notice.title.startswith("Bestseller")]


def deliveries(app, name):
    """What the log says of a policy's reactions."""
    found = (delivery for record in app.store.read() for delivery in record.deliveries)
    return [delivery for delivery in found if delivery.subscriber == name]


def reacted(app, name):
    """The ids of the events that a policy has reacted to, each as often as the log says so."""
    return [delivery.event for delivery in deliveries(app, name)]


def stored(app, kind):
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def settle(app, runner):
    """Wait until the followers have processed what is stored, and what they store in turn."""
    end = None
    while end != (now := app.store.head()):
        runner.wait(end := now, 60)


@pytest.fixture(params=RUNNERS)
def kind(request):
    return request.param


@pytest.fixture
def app(sales, failures):
    """The order system in memory: only a crash or another process needs files."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    with bootstrap(":memory:", notifier=sales, on_failure=note) as app:
        yield app


# Bestseller, without a log


def news(*orders):
    """What the policy makes of orders of these items: (number of the order, item, times)."""
    policy, found = Bestseller(), []
    for number, items in enumerate(orders, start=1):
        event = OrderCreated(order_id=str(number), items=tuple(items))
        policy.apply(event)
        found += [(int(c.order_id), c.item, c.times) for c in policy.react(event)]
    return found


def test_the_tenth_order_of_an_item_is_news_and_no_other():
    assert news(*[["rope"]] * 40) == [(10, "rope", 10)]


def test_nine_orders_are_no_news():
    assert news(*[["rope"]] * 9) == []


def test_an_order_that_takes_an_item_from_nine_past_ten_is_news_once():
    assert news(*[["rope"]] * 9, ["rope", "rope"], ["rope"]) == [(10, "rope", 11)]


def test_one_order_may_make_several_bestsellers_each_of_them_once():
    assert news(["rope"] * 12 + ["lamp"] * 9 + ["carpet"] * 10) == [
        (1, "rope", 12),
        (1, "carpet", 10),
    ]


@limits(max_examples=60, deadline=None, database=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), max_size=25))
def test_whatever_is_ordered_an_item_is_news_once_and_when_it_reaches_ten(orders):
    total = Counter(item for items in orders for item in items)
    found = news(*orders)
    assert Counter(item for _, item, _ in found) == {i: 1 for i, n in total.items() if n >= 10}
    for number, item, times in found:
        until = sum(items.count(item) for items in orders[:number])
        assert until == times
        assert until - orders[number - 1].count(item) < 10 <= until


# Bestseller, with a log


def test_sales_get_one_notice_when_an_item_is_ordered_for_the_tenth_time(kind, app, sales):
    with kind(app, [Bestseller]) as runner:
        ids = [place(app, "lamp", "rope") if n == 9 else place(app, "rope") for n in range(25)]
        settle(app, runner)
    (notice,) = bestsellers(sales)
    assert (notice.order_id, notice.items) == (ids[9], ("rope",))
    assert notice.title == "Bestseller, ordered 10 times"
    assert len(sales.notices) == 26


def test_cancelled_orders_do_not_count_back(kind, app, sales):
    with kind(app, [Bestseller]) as runner:
        for _ in range(12):
            app.bus.send(CancelOrder(place(app)))
        settle(app, runner)
    assert len(bestsellers(sales)) == 1


def test_a_policy_that_is_added_later_reacts_to_what_was_before_once(kind, app, sales):
    for _ in range(12):
        place(app)
    for _ in range(2):
        with kind(app, [Bestseller]) as runner:
            settle(app, runner)
        assert len(bestsellers(sales)) == 1


@pytest.mark.parametrize("times", [9, 10, 25])
def test_the_snapshots_deletion_does_not_repeat_a_notice(times, kind, sales, data):
    with bootstrap(data, notifier=sales) as app:
        for number in range(times):
            with kind(app, [Bestseller]):
                place(app)
            if number % 3 == 2:
                shutil.rmtree(data / "projections")
        assert len(bestsellers(sales)) == (times >= 10)
        assert len(deliveries(app, "bestseller")) == (times >= 10)


def test_an_older_snapshot_put_back_does_not_repeat_a_notice(kind, app, sales):
    with kind(app, [Bestseller]):
        for _ in range(9):
            place(app)
    older = app.store.load("bestseller")
    for _ in range(3):
        with kind(app, [Bestseller]):
            place(app)
        app.store.save("bestseller", older)
    assert len(bestsellers(sales)) == 1


def test_a_follower_that_does_not_react_only_folds(app, sales):
    for _ in range(10):
        place(app)
    follower = Follower(app.store, Bestseller)
    follower.load()
    follower.catch_up()
    assert follower.projection.tables == {"ordered": {"rope": 10}}
    assert follower.waiting == waiting_for(app.store, Bestseller) == stored(app, OrderCreated)[9:]
    assert bestsellers(sales) == deliveries(app, "bestseller") == []


def test_the_command_line_tells_of_a_bestseller_once(tool, data):
    said = []
    for number in range(14):
        run = tool("place", "rope")
        assert run.returncode == 0
        said.append("Bestseller" in run.stdout + run.stderr)
        if number % 4 == 3:
            shutil.rmtree(data / "projections", ignore_errors=True)
    assert said == [number == 9 for number in range(14)]


# The reaction and its record


def test_what_a_reaction_stores_and_its_record_are_one_commit(kind, app):
    with kind(app, [Shipper]) as runner:
        order_id = place(app)
        settle(app, runner)
    (record,) = (
        record
        for record in app.store.read()
        if any(isinstance(message, OrderShipped) for message in record.messages)
    )
    (done,) = (d for d in record.deliveries if d.subscriber == "shipper")
    (created,) = stored(app, OrderCreated)
    assert (done.event, done.status, done.attempts, done.error) == (created.id, "done", 1, None)
    assert app.orders.get(order_id).status == "shipped"
    assert not list(app.store.pending())


def test_a_reaction_belongs_to_the_conversation_and_its_cause_is_the_event(kind, app):
    with kind(app, [Shipper, Restocker]) as runner:
        place(app)
        settle(app, runner)
        place_order, restock = stored(app, PlaceOrder)[:2]
    (created, *_), (shipped, *_) = stored(app, OrderCreated), stored(app, OrderShipped)
    ship = stored(app, ShipOrder)[0]
    conversation = [place_order, created, ship, shipped, restock]
    assert {message.correlation_id for message in conversation} == {place_order.id}
    assert [message.causation_id for message in conversation] == [
        None,
        *(message.id for message in conversation[:-1]),
    ]


def test_an_event_that_calls_for_nothing_is_not_recorded(kind, app):
    with kind(app, [Bestseller]) as runner:
        place(app)
        settle(app, runner)
    assert deliveries(app, "bestseller") == []


class RestockAndShip(Listed):
    """Places an order, then ships one: where the latter is refused, nothing is placed."""

    name = "restock-and-ship"
    follow = (OrderCreated,)

    def react(self, event):
        yield PlaceOrder(("paper",))
        yield ShipOrder(event.order_id)


def test_a_reaction_of_several_commands_is_stored_whole_or_not_at_all(kind, app):
    order_id = place(app)
    app.bus.send(CancelOrder(order_id))
    for _ in range(2):
        with kind(app, [RestockAndShip]):
            pass
    assert [order.id for order in app.orders.list()] == [order_id]
    (failed,) = deliveries(app, "restock-and-ship")
    assert (failed.status, failed.attempts) == ("failed", 3)
    assert "it is cancelled" in failed.error


def test_a_notice_that_fails_is_delivered_again_once_the_cause_is_gone(kind, sales):
    class Phone:
        is_dead = True

        def notify(self, notice):
            if self.is_dead and notice.title.startswith("Bestseller"):
                raise OSError("no line")
            sales.notify(notice)

    phone = Phone()
    with bootstrap(":memory:", notifier=phone) as app:
        runner = kind(app, [Bestseller])
        runner.start()
        for _ in range(12):
            place(app)
        runner.stop()  # a subscriber's failure is not the policy's
        assert deliveries(app, "bestseller_found")[-1].status == "failed"
        phone.is_dead = False
        assert app.deliveries.retry() == (1, 1)
        assert [notice.items for notice in bestsellers(sales)] == [("rope",)]
        assert bestsellers(sales)[0].title == "Bestseller, ordered 10 times"
        assert len(deliveries(app, "bestseller")) == 1


class Troubled(Shipper):
    """Cannot make up its mind, as long as there is an `error`."""

    name = "troubled"
    error = None

    def react(self, event):
        if self.error is not None and "anvil" in event.items:
            raise self.error
        return super().react(event)


@pytest.mark.parametrize("error", [LookupError("where"), SystemExit(3), CancelledError("off")])
def test_whatever_a_policy_raises_is_a_failed_delivery_and_it_goes_on(error, kind, app):
    troubled = type("Troubled", (Troubled,), {"error": error})
    with kind(app, [troubled]):
        for item in ("rope", "anvil", "lamp"):
            place(app, item)
    statuses = {order.items[0]: order.status for order in app.orders.list()}
    assert statuses == {"rope": "shipped", "anvil": "placed", "lamp": "shipped"}
    (failed,) = app.store.deliveries("failed")
    assert failed.delivery.error == f"{type(error).__name__}: {error}"


def test_a_policy_that_raises_again_fails_again_and_keeps_nobody_from_their_retry(app):
    troubled = type("Troubled", (Troubled,), {"error": LookupError("where")})
    broken = [True]

    def ring(event):
        if broken:
            raise OSError("no line")

    app.bus.subscribe(OrderShipped, ring, name="ring")
    app.follow(troubled)
    for item in ("anvil", "rope"):
        place(app, item)
    assert app.react() == []
    assert [a.delivery.subscriber for a in app.store.deliveries("failed")] == ["troubled", "ring"]
    broken.clear()
    assert app.deliveries.retry() == (1, 2)
    for _ in range(RETRIES - 1):
        assert app.deliveries.retry() == (0, 1)
    assert [a.delivery.subscriber for a in app.store.deliveries("dead")] == ["troubled"]
    troubled.error = None
    (dead,) = app.store.deliveries("dead")
    assert app.deliveries.retry([dead.delivery.event]) == (1, 1)
    assert {order.status for order in app.orders.list()} == {"shipped"}


def test_a_retry_that_cannot_fold_what_the_policy_knew_fails_again(app):
    troubled = type("Troubled", (Troubled,), {"error": LookupError("where")})

    def choke(self, event):
        raise KeyError("bone")

    app.follow(troubled)
    place(app, "anvil")
    assert app.react() == []
    apply = troubled.apply
    troubled.apply, troubled.error = choke, None
    assert app.deliveries.retry() == (0, 1)
    (failed,) = app.store.deliveries("failed")
    assert failed.delivery.error == "KeyError: 'bone'"
    troubled.apply = apply
    assert app.deliveries.retry() == (1, 1)


class Refusing(MemoryStore):
    """Has no space left for reactions."""

    def commit(self, commit):
        if commit.reactions:
            raise NotStored(self.location, "no space left")
        return super().commit(commit)


def test_a_reaction_that_cannot_be_recorded_stops_the_policy_and_not_the_order(kind, sales):
    with bootstrap(store=Refusing(), notifier=sales) as app:
        runner = kind(app, [Shipper])
        runner.start()
        order_id = place(app)
        with pytest.raises(FollowerError, match=r"shipper failed processing.* no space left"):
            runner.stop()
        assert app.orders.get(order_id).status == "placed"
        assert sales.order_ids == [order_id]


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


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
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


# Loops


def play(command, *, uow):
    assert command.hops <= 2 * MAX_HOPS, "this never ends"
    uow.emit(BallHit(by=command.by, left=command.left))


class Player(Listed):
    follow = (BallHit,)
    other = ""

    def react(self, event):
        if event.by == self.other and event.left != 0:
            yield HitBall(by=self.name, left=None if event.left is None else event.left - 1)


class Left(Player):
    name, other = "left", "right"


class Right(Player):
    name, other = "right", "left"


def hits(app):
    return [event.by for event in stored(app, BallHit)]


def test_a_loop_of_commands_and_events_between_followers_goes_on_until_it_ends(kind, app):
    app.bus.register(HitBall, play)
    with kind(app, [Left, Right]) as runner:
        app.bus.send(HitBall(by="left", left=31))
        settle(app, runner)
        assert hits(app) == ["left", "right"] * 16
        assert len(runner.get(Left).tables["seen"]) == 32
    assert len(stored(app, HitBall)) == 32
    assert len(reacted(app, "left")) == 15
    assert len(reacted(app, "right")) == 16


def test_stopping_waits_for_a_loop_to_end(kind, app):
    app.bus.register(HitBall, play)
    with kind(app, [Left, Right]):
        app.bus.send(HitBall(by="left", left=31))
    assert hits(app) == ["left", "right"] * 16


def test_an_endless_loop_between_followers_is_ended_and_others_see_all_of_it(kind, app):
    class Umpire(Listed):
        name = "umpire"
        follow = (BallHit,)

        def react(self, event):
            return ()

    app.bus.register(HitBall, play)
    with kind(app, [Left, Right, Umpire]) as runner:
        app.bus.send(HitBall(by="left"))
        settle(app, runner)
    (failed,) = app.store.deliveries("failed")
    last = stored(app, BallHit)[-1]
    assert (failed.delivery.event, last.hops) == (last.id, MAX_HOPS - 1)
    assert failed.delivery.subscriber in {"left", "right"}
    assert failed.delivery.error.startswith("EndlessLoop")
    assert str(MAX_HOPS) in failed.delivery.error
    assert [event.hops for event in stored(app, BallHit)] == [*range(MAX_HOPS)]
    assert len(runner.get(Umpire).tables["seen"]) == MAX_HOPS


def test_an_endless_loop_among_subscribers_is_ended(app, failures):
    def hit_back(event, *, uow):
        assert event.hops <= 2 * MAX_HOPS, "this never ends"
        uow.emit(BallHit(by="both"))

    app.bus.subscribe(BallHit, hit_back, name="hit_back")
    app.uow().emit(BallHit(by="left"))
    ((_, event, error),) = failures
    assert isinstance(error, EndlessLoop)
    assert event.hops == MAX_HOPS - 1
    assert len(hits(app)) == MAX_HOPS
    assert not list(app.store.pending())


def test_an_endless_loop_between_a_follower_and_a_subscriber_is_ended(kind, app):
    def hit_back(event, *, bus):
        if event.by == "left":
            bus.send(HitBall(by="right"))

    app.bus.register(HitBall, play)
    app.bus.subscribe(BallHit, hit_back, name="hit_back")
    with kind(app, [Left]):
        app.bus.send(HitBall(by="left"))
    (failed,) = app.store.deliveries("failed")
    assert failed.delivery.subscriber in {"left", "hit_back"}
    assert failed.delivery.error.startswith("EndlessLoop")
    assert len(hits(app)) == MAX_HOPS


def test_a_long_conversation_of_commands_that_ends_is_no_loop(app):
    """Messages that one cause has side by side are no chain."""
    app.bus.register(HitBall, play)
    with app.uow():
        for _ in range(3 * MAX_HOPS):
            app.bus.send(HitBall(by="left", left=0))
    assert {event.hops for event in stored(app, BallHit)} == {0}
