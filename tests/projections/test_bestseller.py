"""Sales are notified once when an item is ordered for the tenth time."""

import shutil
from collections import Counter

import pytest
from following import RUNNERS, bestsellers, deliveries, place, settle, stored
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import CancelOrder, OrderCreated, bootstrap
from orders.projections.follower import Follower, waiting_for
from orders.projections.shipped import Bestseller


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


@limits(max_examples=30, deadline=None, database=None)
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
@pytest.mark.sample(3)
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
