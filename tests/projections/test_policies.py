"""Policies react once to what they have seen, and are stopped by no failure."""

from asyncio import CancelledError
from typing import ClassVar

import pytest
from following import (
    RUNNERS,
    Restocker,
    Seeing,
    Shipper,
    bestsellers,
    deliveries,
    place,
    reacted,
    settle,
    stored,
)

from orders import (
    CancelOrder,
    Command,
    Event,
    OrderCreated,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.adapters.memory import MemoryStore
from orders.application.deliveries import RETRIES
from orders.errors import EndlessLoop, FollowerError, NotStored
from orders.messaging.message import MAX_HOPS
from orders.projections.shipped import Bestseller


class BallHit(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "ball-hit"

    by: str
    left: int | None = None  # hits until it is out; None: it never is


class HitBall(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "hit-ball"

    by: str
    left: int | None = None


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


class RestockAndShip(Seeing):
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


# Loops


def play(command, *, uow):
    assert command.hops <= 2 * MAX_HOPS, "this never ends"
    uow.emit(BallHit(by=command.by, left=command.left))


class Player(Seeing):
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


def test_a_policy_that_keeps_up_reacts_to_what_it_causes_itself_at_once(app):
    class Alone(Player):
        name = other = "alone"

    app.bus.register(HitBall, play)
    app.follow(Alone)
    app.uow().emit(BallHit(by="alone", left=5))
    assert app.react() == []
    assert [event.left for event in stored(app, BallHit)] == [5, 4, 3, 2, 1, 0]


def test_stopping_waits_for_a_loop_to_end(kind, app):
    app.bus.register(HitBall, play)
    with kind(app, [Left, Right]):
        app.bus.send(HitBall(by="left", left=31))
    assert hits(app) == ["left", "right"] * 16


def test_an_endless_loop_between_followers_is_ended_and_others_see_all_of_it(kind, app):
    class Umpire(Seeing):
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
