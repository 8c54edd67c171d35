"""Who stops a runner keeps no half of an event, whoever else is at work."""

from contextlib import suppress
from threading import Event as Flag
from threading import Thread, current_thread

import pytest
from following import RUNNERS, TIMEOUT, Bad, Listed, Quiet, Shipper, open_app, place, reacted, sold

from orders import OrderCreated, bootstrap
from orders.errors import OrdersError
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import ItemSales


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
def two_apps(data):
    """Two applications, as if in two processes, whose orders are one commit each."""
    with open_app(data) as first, open_app(data) as second:
        for app in (first, second):
            app.bus.unsubscribe("order_created")
        yield first, second


# While others are at work


def test_a_reaction_inside_an_open_unit_of_work_is_not_undone_with_it(app, data):
    """In one thread, whoever waits processes; what he is in the midst of is not the policy's."""
    with open_app(data) as other, SingleThreadedRunner(app, [Shipper]) as runner:
        order_id = place(other)
        with suppress(Bad), app.uow():
            with suppress(TimeoutError):  # not to react before the unit's end is as good
                runner.wait(app.store.head(), 0)
            raise Bad
    with SingleThreadedRunner(app, [Shipper]):
        pass
    assert app.orders.get(order_id).status == "shipped"
    assert len(reacted(app, "shipper")) == 1


def test_a_runner_that_is_stopped_inside_an_open_unit_of_work_does_not_wait_for_ever(
    kind, app, data
):
    """In one thread nothing can be processed there: to say so is as good as to stop."""
    runner = kind(app, [ItemSales])
    runner.start()

    def stop():
        with suppress(OrdersError), app.uow():
            runner.stop()

    with open_app(data) as other:
        place(other)
    stopper = Thread(target=stop, daemon=True)
    stopper.start()
    stopper.join(TIMEOUT / 3)
    assert not stopper.is_alive()


def test_who_stops_a_runner_while_others_write_keeps_no_half_of_an_event(two_apps):
    """A writer comes to wake the runner when its snapshot is being made."""
    published, go, folding, finish = Flag(), Flag(), Flag(), Flag()

    class Slow(ItemSales):
        def apply(self, event):
            super().apply(event)
            if "lamp" in getattr(event, "items", ()):
                folding.set()
                assert finish.wait(TIMEOUT)

        def documents(self):
            place(other, "lamp")
            go.set()
            folding.wait(0.2)  # or until nobody can fold any more
            return super().documents()

    def gate():
        published.set()
        assert go.wait(TIMEOUT)

    app, other = two_apps
    app.unit_of_work.watchers.append(gate)
    runner = SingleThreadedRunner(app, [Slow])
    runner.start()
    writer = Thread(target=place, args=(app, "rope"))
    writer.start()
    assert published.wait(TIMEOUT)
    stopper = Thread(target=runner.stop)
    stopper.start()
    stopper.join(TIMEOUT)
    finish.set()
    writer.join(TIMEOUT)
    with SingleThreadedRunner(other, [ItemSales]) as runner:
        assert dict(runner.get(ItemSales).ranking()) == sold(other) == {"rope": 1, "lamp": 1}


def test_who_stops_a_runner_waits_for_the_thread_that_is_in_the_midst_of_it(two_apps):
    """A writer still processes, for a second event has come, when the first snapshot is made."""
    blocked, asked, go = Flag(), Flag(), Flag()
    at_last, folding, finish = Flag(), Flag(), Flag()

    class Asked(SingleThreadedRunner):
        def wake(self):
            super().wake()
            if current_thread() is stopper:
                asked.set()

    class First(ItemSales):
        def apply(self, event):
            super().apply(event)
            if "rope" in event.items:
                blocked.set()
                assert go.wait(TIMEOUT)
            else:
                folding.set()
                finish.wait(0.2)  # or until nobody keeps anything before we are through

        def documents(self):
            at_last.set()
            folding.wait(0.2)  # or until nobody can fold any more
            return super().documents()

    class Last(Listed):
        follow = (OrderCreated,)

        def apply(self, event):
            if "lamp" in event.items:
                at_last.wait(0.2)  # same
            super().apply(event)

    app, other = two_apps
    runner = Asked(app, [First, Last])
    writer = Thread(target=place, args=(app, "rope"))
    stopper = Thread(target=runner.stop)
    runner.start()
    writer.start()
    assert blocked.wait(TIMEOUT)
    stopper.start()
    assert asked.wait(TIMEOUT)
    place(other, "lamp")
    go.set()
    stopper.join(TIMEOUT)
    finish.set()
    writer.join(TIMEOUT)
    with SingleThreadedRunner(other, [ItemSales]) as runner:
        assert dict(runner.get(ItemSales).ranking()) == sold(other) == {"rope": 1, "lamp": 1}
