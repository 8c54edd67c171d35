"""Projections are kept in TinyDB with their cursor, and get the events that they follow."""

from typing import ClassVar

import pytest
from following import Heard, heard_by
from tinydb import TinyDB

from orders import (
    CancelOrder,
    Event,
    OrderCreated,
    OrderEvent,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.domain.events import OrderRejected
from orders.errors import DuplicateSubscriber, UnknownTopic, WiringError, WrongPayload
from orders.projections.follower import Follower
from orders.projections.projection import Projection
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay


class BasketEvent(Event, frozen=True, kw_only=True):
    basket: str


class BasketWoven(BasketEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "basket-woven"


class BasketSold(BasketEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "basket-sold"


def following(*targets):
    return type("HeardSome", (Heard,), {"follow": targets})


@pytest.fixture
def in_memory(sales):
    with bootstrap(":memory:", notifier=sales) as app:
        yield app


# Kept


def test_state_and_position_are_one_file_that_stock_tinydb_opens(app, data):
    with SingleThreadedRunner(app, [ItemSales, OrdersADay, Bestseller]):
        kept = app.bus.send(PlaceOrder(("rope", "carpet")))
        app.bus.send(CancelOrder(app.bus.send(PlaceOrder(("rope", "rope")))))
    end = app.store.head()
    with TinyDB(data / "projections" / "item-sales.json") as stock:
        sold = stock.table("sold").all()
        assert {row["item"]: row["times"] for row in sold} == {"rope": 1, "carpet": 1}
        assert stock.table("open").all() == [{"order_id": kept, "items": ["rope", "carpet"]}]
        (head,) = stock.table("log").all()
        assert (head["offset"], head["seq"]) == end
    with TinyDB(data / "projections" / "orders-a-day.json") as stock:
        (day,) = stock.table("days").all()
        assert day["orders"] == 2
    with TinyDB(data / "projections" / "bestseller.json") as stock:
        ordered = stock.table("ordered").all()
        assert {row["item"]: row["times"] for row in ordered} == {"rope": 3, "carpet": 1}
    assert {file.name for file in (data / "projections").iterdir()} == {
        *("item-sales.json", "orders-a-day.json", "bestseller.json")
    }


def test_a_projection_added_later_catches_up_from_the_first_event(in_memory):
    with SingleThreadedRunner(in_memory, [ItemSales]):
        for item in ("rope", "lamp", "rope"):
            in_memory.bus.send(PlaceOrder((item,)))
    with SingleThreadedRunner(in_memory, [ItemSales, OrdersADay]) as runner:
        assert sum(orders for _, orders in runner.get(OrdersADay).days()) == 3
        assert runner.get(ItemSales).ranking() == [("rope", 2), ("lamp", 1)]


# What is followed


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([OrderCreated], ["OrderCreated"]),
        ([OrderEvent], ["OrderCreated", "OrderShipped"]),
        ([Event], ["BasketWoven", "OrderCreated", "OrderShipped", "BasketSold", "OrderRejected"]),
        ([BasketEvent], ["BasketWoven", "BasketSold"]),
        (["basket-sold"], ["BasketSold"]),
        (["order-*"], ["OrderCreated", "OrderShipped", "OrderRejected"]),
        (["*-[sw]o*"], ["BasketWoven", "BasketSold"]),
        ([OrderShipped, "basket-woven"], ["BasketWoven", "OrderShipped"]),
        ([OrderEvent, OrderCreated, "order-created"], ["OrderCreated", "OrderShipped"]),
        (["order-cancelled"], []),
        ([], []),
    ],
)
def test_a_projection_gets_what_it_follows_each_event_once_in_order(targets, expected, in_memory):
    in_memory.uow().emit(BasketWoven(basket="b"))
    in_memory.bus.send(ShipOrder(in_memory.bus.send(PlaceOrder(("rope",)))))
    with in_memory.uow() as uow:
        uow.emit(BasketSold(basket="b"))
        uow.emit(OrderRejected(reason="no"))
    assert heard_by(in_memory, *targets) == expected


def test_commands_are_not_folded(in_memory):
    in_memory.bus.send(PlaceOrder(("rope",)))
    heard = heard_by(in_memory, Event)
    assert heard == ["OrderCreated"]


@pytest.mark.parametrize("target", ["order-creatd", "place-order", "*-nothing", "", "Order*"])
def test_a_topic_or_glob_that_matches_no_event_is_refused(target, in_memory):
    with pytest.raises(UnknownTopic, match="known are"):
        Follower(in_memory.store, following(OrderCreated, target))


@pytest.mark.parametrize("target", [PlaceOrder, OrderCreated(order_id="1", items=()), None, str])
def test_what_is_no_event_cannot_be_followed(target, in_memory):
    with pytest.raises(WrongPayload):
        Follower(in_memory.store, following(target))


@pytest.mark.parametrize(
    "name",
    [
        None,
        7,
        "",
        "Item-Sales",
        "item sales",
        "../item",
        "item.json",
        "-item",
        "item-",
        "i--s",
        "a/b",
    ],
)
def test_a_name_that_is_none_is_refused(name, app, data):
    with pytest.raises(WiringError, match="is no name"):
        Follower(app.store, type("Misnamed", (ItemSales,), {"name": name}))
    assert not data.exists()


@pytest.mark.parametrize("follow", [None, OrderCreated, "order-created"])
def test_what_is_no_list_of_events_is_refused(follow, in_memory):
    with pytest.raises(WiringError, match=r"cannot follow .*\ntry: write it like"):
        Follower(in_memory.store, type("Vague", (Heard,), {"follow": follow}))


def test_a_projection_that_does_not_say_its_name_or_what_it_follows_is_refused(in_memory):
    class Nameless(Projection):
        columns: ClassVar = {}

        def apply(self, event):
            pass

    class Deaf(Nameless):
        name = "deaf"

    with pytest.raises(WiringError, match="None is no name of Nameless"):
        Follower(in_memory.store, Nameless)
    with pytest.raises(WiringError, match="Deaf cannot follow None"):
        in_memory.follow(Deaf)


def test_a_policy_whose_deliveries_would_be_taken_for_a_subscribers_is_refused(app, data):
    app.bus.subscribe(OrderCreated, repr, name="bestseller")
    with pytest.raises(DuplicateSubscriber, match="'bestseller' exists"):
        Follower(app.store, Bestseller, app.deliveries)
    assert not data.exists()
