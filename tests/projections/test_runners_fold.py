"""However they run, followers are the fold of the log."""

import random
import shutil
from collections import Counter
from tempfile import TemporaryDirectory

import pytest
from following import RUNNERS, open_app, place, reacted, settle, sold, stored
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import CancelOrder, Order, ShipOrder
from orders.domain.commands import RecordBestseller
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay

# Many events, and any


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with more than 20,000 events, whose notices are still pending."""
    data = tmp_path_factory.mktemp("many") / "store"
    chance, events = random.Random(20261121), 0
    with open_app(data) as app:
        app.bus.deliver = lambda _subscriber, _event: None
        while events < 20_000:
            with app.uow() as uow:
                for _ in range(1000):
                    order = random_order(chance)
                    events += order.version
                    uow.orders.add(order)
    return data


def random_order(chance):
    order = Order.place(f"item {chance.randrange(60)}" for _ in range(chance.randint(1, 3)))
    chance.choice([order.ship, order.cancel, lambda: None])()
    return order


def days_by_hand(app):
    return Counter(order.placed_at.date() for order in app.orders.list())


def ordered_by_hand(app):
    return Counter(item for order in app.orders.list() for item in order.items)


def check_by_hand(app, runner):
    """See that the three followers are what the orders say."""
    assert dict(runner.get(ItemSales).ranking()) == sold(app)
    assert dict(runner.get(OrdersADay).days()) == days_by_hand(app)
    ordered = ordered_by_hand(app)
    assert runner.get(Bestseller).tables == {"ordered": ordered}
    still_open = {order.id: [*order.items] for order in app.orders.list() if order.version == 1}
    assert runner.get(ItemSales).tables["open"] == still_open
    famous = [item for item, times in ordered.items() if times >= 10]
    assert len(reacted(app, "bestseller")) == len({*reacted(app, "bestseller")}) <= len(famous)
    return famous


def tables(runner):
    return [runner.get(kind).tables for kind in THREE]


THREE = (ItemSales, OrdersADay, Bestseller)


@pytest.mark.long
def test_both_runners_make_the_same_of_20_000_events_as_a_fold_by_hand(template, tmp_path):
    made = []
    for kind in RUNNERS:
        data = tmp_path / kind.__name__
        shutil.copytree(template, data)
        with open_app(data) as app:
            with kind(app, THREE) as runner:
                settle(app, runner)
                assert len(check_by_hand(app, runner)) == 60
                place(app)
                settle(app, runner)
                made.append(tables(runner))
            assert ordered_by_hand(app).total() > 20_000
            with kind(app, THREE) as runner:
                check_by_hand(app, runner)
                made[-1][0]["open"].popitem()  # the order of this runner's own
    assert len(made[0][0]["open"]) > 1000
    assert made[0] == made[1]


STEPS = st.lists(
    st.tuples(st.just("place"), st.lists(st.sampled_from("ab"), min_size=1, max_size=5))
    | st.tuples(st.sampled_from(["ship", "cancel"]), st.integers(0, 9))
    | st.tuples(st.sampled_from(["restart", "forget"]), st.none()),
    max_size=18,
)


def step(app, what, how):
    placed = [order.id for order in app.orders.list() if order.status == "placed"]
    if what == "place":
        place(app, *how)
    elif placed and what in {"ship", "cancel"}:
        order_id = placed[how % len(placed)]
        app.bus.send(ShipOrder(order_id) if what == "ship" else CancelOrder(order_id))


def forget(app):
    shutil.rmtree(app.store.directory / "projections", ignore_errors=True)


def run_steps(app, kind, steps):
    """Do it all with a runner that is stopped and started, and forgets, as the steps say."""
    runner = kind(app, THREE)
    runner.start()
    for what, how in steps:
        step(app, what, how)
        if what in {"restart", "forget"}:
            runner.stop()
            if what == "forget":
                forget(app)
            runner.start()
    settle(app, runner)
    famous = check_by_hand(app, runner)
    runner.stop()
    assert len(stored(app, RecordBestseller)) == len(famous)
    return tables(runner)


@pytest.mark.parametrize("kind", RUNNERS)
@limits(max_examples=12, deadline=None, database=None)
@given(steps=STEPS)
def test_whatever_is_ordered_followers_are_the_fold_of_it_however_they_run(kind, steps):
    with TemporaryDirectory() as directory, open_app(f"{directory}/store") as app:
        made = run_steps(app, kind, steps)
        for other in RUNNERS:
            forget(app)
            with other(app, THREE) as runner:
                settle(app, runner)
                assert tables(runner) == made
