"""The projections and the policy that come with the package are pure folds of events."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders import OrderCancelled, OrderCreated, OrderShipped
from orders.projections.shipped import SHIPPED, ItemSales, OrdersADay

DAY = datetime(2026, 11, 21, tzinfo=UTC)


few = settings(max_examples=20, deadline=None, database=None)


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


def as_kept(projection):
    """What comes back of a projection that was kept as JSON."""
    return json.loads(json.dumps(projection.documents()))


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
