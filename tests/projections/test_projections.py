"""Read models: pure folds, kept in TinyDB with their position, of old events as of new ones."""

import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinydb import TinyDB

from orders import (
    CancelOrder,
    Event,
    OrderCancelled,
    OrderCreated,
    OrderEvent,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
    bootstrap,
)
from orders.application.store import START
from orders.domain.events import OrderRejected
from orders.errors import (
    DuplicateSubscriber,
    FollowerError,
    UnknownTopic,
    UnreadableMessage,
    WiringError,
    WrongPayload,
)
from orders.messaging.message import name_of
from orders.projections.follower import Follower
from orders.projections.projection import Projection
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import SHIPPED, Bestseller, ItemSales, OrdersADay

DAY = datetime(2026, 11, 21, tzinfo=UTC)

few = settings(max_examples=40, deadline=None, database=None)


class BasketEvent(Event, frozen=True, kw_only=True):
    basket: str


class BasketWoven(BasketEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "basket-woven"


class BasketSold(BasketEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "basket-sold"


class KettleBoiled(Event, frozen=True, kw_only=True, tag="KettleBoiled@3"):
    """Stored once as a text `temperature`, then as a number of degrees Fahrenheit."""

    topic: ClassVar[str] = "kettle-boiled"

    celsius: int
    since: datetime

    @classmethod
    def upcast(cls, fields, revision):
        if revision == 1:
            temperature = fields.pop("temperature")
            if not temperature.endswith(" F"):
                raise ValueError(f"no temperature is {temperature!r}")
            fields["fahrenheit"] = int(temperature.removesuffix(" F"))
        celsius = (fields.pop("fahrenheit") - 32) * 5 // 9
        return {"since": fields["time"], **fields, "celsius": celsius}


class PotBoiled(Event, frozen=True, kw_only=True, tag="PotBoiled@2"):
    """Has nothing to say about its first revision."""

    topic: ClassVar[str] = "pot-boiled"


class Heard(Projection):
    """Keeps the names of the events that it was given."""

    name = "heard"
    columns: ClassVar = {"heard": ("number", "event")}

    def apply(self, event):
        heard = self.tables["heard"]
        heard[str(len(heard))] = name_of(event)

    @property
    def names(self):
        return [*self.tables["heard"].values()]


def following(*targets):
    return type("HeardSome", (Heard,), {"follow": targets})


def created(order_id="1", items=("rope",), time=DAY):
    return OrderCreated(order_id=order_id, items=tuple(items), time=time)


def shipped(order_id="1"):
    return OrderShipped(order_id=order_id)


def cancelled(order_id="1"):
    return OrderCancelled(order_id=order_id)


def fold(projection, events):
    for event in events:
        projection.apply(event)
    return projection


def caught_up(app, make):
    follower = Follower(app.store, make)
    follower.load()
    follower.catch_up()
    return follower.projection


def messages(app):
    return [message for record in app.store.read() for message in record.messages]


def as_kept(projection):
    """What comes back of a projection that was kept as JSON."""
    return json.loads(json.dumps(projection.documents()))


@pytest.fixture
def in_memory(sales):
    with bootstrap(":memory:", notifier=sales) as app:
        yield app


@st.composite
def histories(draw):
    """Draw histories that orders can have: each placed, some then shipped or cancelled."""
    events, still_open = [], []
    for number in range(draw(st.integers(0, 12))):
        items = draw(st.lists(st.sampled_from(["rope", "carpet", "lamp"]), min_size=1, max_size=4))
        events.append(created(str(number), items, DAY + timedelta(hours=7 * number)))
        still_open.append(str(number))
        for move in draw(st.lists(st.sampled_from([shipped, cancelled]), max_size=2)):
            if still_open:
                order_id = still_open.pop(draw(st.integers(0, len(still_open) - 1)))
                events.append(move(order_id))
    return events


def sold_by_hand(events):
    gone = {event.order_id for event in events if isinstance(event, OrderCancelled)}
    placed = [event for event in events if isinstance(event, OrderCreated)]
    return Counter(item for event in placed if event.order_id not in gone for item in event.items)


# Item sales


def test_nothing_was_ordered_before_the_first_event():
    sales = ItemSales()
    assert (sales.times("rope"), sales.ranking()) == (0, [])


def test_item_sales_count_how_often_each_item_was_ordered():
    sales = fold(ItemSales(), [created("1", ["rope", "carpet", "rope"]), created("2", ["rope"])])
    assert sales.times("rope") == 3
    assert sales.ranking() == [("rope", 3), ("carpet", 1)]


def test_what_was_ordered_equally_often_is_ranked_by_name():
    sales = fold(ItemSales(), [created(items=["b", "c", "a"])])
    assert sales.ranking() == [("a", 1), ("b", 1), ("c", 1)]


def test_a_cancelled_order_is_taken_off_again():
    events = [created("1", ["rope", "rope"]), created("2", ["rope", "lamp"]), cancelled("1")]
    assert fold(ItemSales(), events).ranking() == [("lamp", 1), ("rope", 1)]


def test_an_item_of_cancelled_orders_alone_was_never_sold():
    sales = fold(ItemSales(), [created(), cancelled()])
    assert (sales.times("rope"), sales.ranking()) == (0, [])
    assert sales.tables == ItemSales().tables


def test_a_shipped_order_still_counts():
    sales = fold(ItemSales(), [created(), shipped()])
    assert sales.times("rope") == 1


def test_an_order_that_is_not_open_any_more_is_forgotten():
    sales = fold(ItemSales(), [created("1"), created("2"), shipped("1"), cancelled("2")])
    assert sales.tables == {"sold": {"rope": 1}, "open": {}}


def test_the_end_of_an_order_that_was_never_placed_harms_nobody():
    sales = fold(ItemSales(), [cancelled("7"), shipped("8")])
    assert sales.tables == ItemSales().tables


@few
@given(histories())
def test_item_sales_of_any_history_are_what_was_ordered_without_what_was_cancelled(events):
    sales = fold(ItemSales(), events)
    expected = sold_by_hand(events)
    assert dict(sales.ranking()) == expected
    assert [times for _, times in sales.ranking()] == sorted(expected.values(), reverse=True)


# Orders a day


def test_orders_are_counted_on_the_day_they_were_placed_oldest_day_first():
    noon, evening = DAY + timedelta(hours=12), DAY + timedelta(hours=23, minutes=59)
    times = [DAY + timedelta(days=1), DAY, noon, evening, DAY - timedelta(days=400)]
    days = fold(OrdersADay(), [created(time=time) for time in times]).days()
    assert days == [(date(2025, 10, 17), 1), (date(2026, 11, 21), 3), (date(2026, 11, 22), 1)]


def test_a_day_begins_at_midnight_utc():
    new_york = datetime.fromisoformat("2026-11-21T20:00:00-05:00")
    assert fold(OrdersADay(), [created(time=new_york)]).days() == [(date(2026, 11, 22), 1)]


@few
@given(histories())
def test_orders_a_day_of_any_history_are_its_placings(events):
    placed = [event for event in events if isinstance(event, OrderCreated)]
    days = fold(OrdersADay(), placed).days()
    assert dict(days) == Counter(event.time.date() for event in placed)
    assert days == sorted(days)


# Folds, whatever they count


@pytest.mark.parametrize("kind", SHIPPED)
@few
@given(events=histories(), data=st.data())
def test_a_fold_that_was_kept_and_restored_anywhere_goes_on_as_if_it_were_not(kind, events, data):
    events = [event for event in events if isinstance(event, tuple(kind.follow))]
    first = data.draw(st.integers(0, len(events)))
    restored = kind()
    restored.restore(as_kept(fold(kind(), events[:first])))
    assert fold(restored, events[first:]).tables == fold(kind(), events).tables


@pytest.mark.parametrize("kind", SHIPPED)
@few
@given(events=histories())
def test_the_same_events_make_the_same_tables_and_are_not_changed(kind, events):
    events = [event for event in events if isinstance(event, tuple(kind.follow))]
    before = [repr(event) for event in events]
    first, second = fold(kind(), events), fold(kind(), events)
    assert first.tables == second.tables
    assert [repr(event) for event in events] == before
    second.clear()
    assert second.tables == kind().tables


@pytest.mark.parametrize("kind", SHIPPED)
def test_what_is_of_other_tables_is_not_restored(kind):
    projection = fold(kind(), [created()])
    before = dict(projection.tables)
    with pytest.raises(KeyError):
        projection.restore({"others": {"1": {"a": 1, "b": 2}}})
    assert projection.tables == before


def test_the_projections_and_policies_have_names_of_their_own():
    names = [kind.name for kind in SHIPPED]
    assert names == ["item-sales", "orders-a-day", "bestseller"]


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
    assert caught_up(in_memory, following(*targets)).names == expected


def test_commands_are_not_folded(in_memory):
    in_memory.bus.send(PlaceOrder(("rope",)))
    heard = caught_up(in_memory, following(Event)).names
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
    with pytest.raises(WiringError, match=r"cannot follow .*; write it like"):
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


# Events of an older version


OLDER = """
import sys
from datetime import datetime
from typing import ClassVar
from orders import Event, OrderCreated, bootstrap

class KettleBoiled(Event, frozen=True, kw_only=True, tag=sys.argv[2]):
    topic: ClassVar[str] = "kettle-boiled"
    temperature: str | None = None
    fahrenheit: int | None = None
    pressure: int | None = None
    since: str | None = None

    @classmethod
    def upcast(cls, fields, revision):
        return fields

class PotBoiled(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "pot-boiled"

class Unheard(Event, frozen=True):
    topic: ClassVar[str] = "unheard"

with bootstrap(sys.argv[1]) as app:
    with app.uow() as uow:
        for event in eval(sys.argv[3]):
            uow.emit(event)
"""


@pytest.fixture
def older(data):
    """Store events, in one line, in a process where their class is as it was, or will be."""

    def store(tag, *events):
        listed = f"[{', '.join(events)}]"
        command = [sys.executable, "-c", OLDER, str(data), tag, listed]
        subprocess.run(command, check=True, timeout=60)

    return store


@pytest.mark.parametrize(
    ("tag", "event"),
    [
        ("KettleBoiled", "KettleBoiled(temperature='212 F')"),
        ("KettleBoiled@2", "KettleBoiled(fahrenheit=212)"),
    ],
)
def test_a_stored_event_of_an_older_version_is_read_as_one_of_today(tag, event, older, app):
    older(tag, event)
    (stored,) = messages(app)
    assert type(stored) is KettleBoiled
    assert (stored.celsius, stored.since) == (100, stored.time)
    assert stored.correlation_id == stored.id
    assert app.store.messages([stored.id]) == {stored.id: stored}
    assert b"celsius" not in app.store.log_path.read_bytes()


def test_whoever_reads_the_log_sees_old_and_new_events_alike(older, app):
    older("KettleBoiled", "KettleBoiled(temperature='50 F')")
    older("KettleBoiled@2", "KettleBoiled(fahrenheit=212)")
    app.uow().emit(KettleBoiled(celsius=37, since=DAY))

    class Temperatures(Heard):
        follow = (KettleBoiled,)

        def apply(self, event):
            self.tables["heard"][event.id] = event.celsius

    assert caught_up(app, Temperatures).names == [10, 100, 37]
    with SingleThreadedRunner(app, [Temperatures]) as runner:
        app.uow().emit(KettleBoiled(celsius=38, since=DAY))
        assert runner.get(Temperatures).names == [10, 100, 37, 38]


def test_an_older_event_beside_others_in_one_line_leaves_them_as_they_are(older, app):
    kettle = "KettleBoiled(temperature='212 F')"
    older("KettleBoiled", "OrderCreated(order_id='1', items=('rope',))", kettle, "Unheard()")
    names = [name_of(message) for message in messages(app)]
    assert names[:3] == ["OrderCreated", "KettleBoiled", "Unheard"]
    assert caught_up(app, following(Event)).names == ["OrderCreated", "KettleBoiled"]
    assert [order.items for order in app.orders.list()] == [("rope",)]


def test_an_event_of_a_newer_revision_is_refused_for_to_pass_over_it_would_be_to_forget(older, app):
    older("KettleBoiled@4", "KettleBoiled(pressure=3)")
    with pytest.raises(UnreadableMessage, match="KettleBoiled@4 is of a newer version of orders"):
        messages(app)
    with pytest.raises(FollowerError, match="KettleBoiled@4 is of a newer version of orders"):
        caught_up(app, following(KettleBoiled))


def test_an_older_event_that_no_way_leads_from_is_an_error_that_names_the_line(older, app):
    app.bus.send(PlaceOrder(("rope",)))
    older("KettleBoiled", "KettleBoiled(temperature='hot')")
    with pytest.raises(UnreadableMessage, match=r"jsonl:3: .* no temperature is 'hot'"):
        messages(app)


def test_a_class_that_does_not_say_how_to_read_its_older_events_says_so(older, app):
    older("KettleBoiled@2", "PotBoiled()")
    with pytest.raises(
        UnreadableMessage, match="PotBoiled does not say how to read its revision 1"
    ):
        messages(app)


def test_an_upcast_event_that_its_class_refuses_is_an_error_that_names_the_line(older, app):
    older("KettleBoiled@2", "KettleBoiled(fahrenheit=212, since='yesterday')")
    with pytest.raises(UnreadableMessage, match=r"jsonl:1: .*since"):
        messages(app)


def test_a_reader_goes_on_at_any_cursor_past_an_old_event(older, app):
    older("KettleBoiled", "KettleBoiled(temperature='212 F')")
    app.uow().emit(KettleBoiled(celsius=37, since=DAY))
    first, second = app.store.read()
    assert list(app.store.read(first.cursor)) == [second]
    assert list(app.store.read(START)) == [first, second]


def test_an_event_of_today_is_stored_under_its_revision_and_read_back(app, data):
    emitted = KettleBoiled(celsius=37, since=DAY)
    app.uow().emit(emitted)
    assert b'"type":"KettleBoiled@3"' in app.store.log_path.read_bytes()
    with bootstrap(data) as other:
        stored = other.store.messages([emitted.id])[emitted.id]
    assert (stored.celsius, stored.since, stored.time) == (37, DAY, emitted.time)
