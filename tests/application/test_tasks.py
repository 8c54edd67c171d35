"""Units of work and causes in asyncio tasks, generators and threads; units that are left open."""

import asyncio
import threading

import pytest

from orders import InvalidOrder, Order, OrderCreated, OrderShipped, PlaceOrder, WiringError
from orders import bootstrap as wire
from orders.domain.commands import ShipOrder
from orders.messaging.message import Command


@pytest.fixture
def app(sales):
    with wire(":memory:", notifier=sales) as app:
        yield app


class OutOfStock(Exception):
    pass


def test_tasks_that_interleave_have_units_of_their_own(app):
    good, bad = Order.place(["kept"]), Order.place(["dropped"])

    async def complete(started, other):
        with app.uow() as uow:
            uow.orders.add(good)
            started.set()
            await other.wait()

    async def fail(started, other):
        with app.uow() as uow:
            uow.orders.add(bad)
            started.set()
            await other.wait()
            raise OutOfStock

    async def main():
        first, second = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(
            complete(first, second), fail(second, first), return_exceptions=True
        )

    assert [type(result) for result in asyncio.run(main())] == [type(None), OutOfStock]
    assert good.id in app.orders
    assert bad.id not in app.orders


def test_a_task_made_inside_a_unit_that_outlives_it_has_one_of_its_own(app):
    order = Order.place(["late"])

    async def late(over):
        await over.wait()
        with app.uow() as uow:
            uow.orders.add(order)

    async def main():
        over = asyncio.Event()
        with app.uow():
            task = asyncio.create_task(late(over))
            await asyncio.sleep(0)
        over.set()
        await task

    asyncio.run(main())
    assert order.id in app.orders


def test_a_task_made_by_a_subscriber_publishes_by_itself_once_that_is_over(app, sales):
    tasks = []

    async def place():
        app.bus.send(PlaceOrder(("later",)))

    def start(_event):
        tasks.append(asyncio.get_running_loop().create_task(place()))

    app.bus.subscribe(OrderCreated, start, name="start")

    async def main():
        app.bus.send(PlaceOrder(("first",)))
        app.bus.unsubscribe("start")
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [notice.items for notice in sales.notices] == [("first",), ("later",)]
    assert not list(app.store.pending())


def test_an_exit_that_is_not_the_innermost_is_refused_and_nothing_is_stored(app):
    outer, inner = app.uow(), app.uow()
    outer.__enter__().orders.add(Order.place(["outer"]))
    inner.__enter__().orders.add(Order.place(["inner"]))
    with pytest.raises(WiringError, match="before those around it"):
        outer.__exit__(None, None, None)
    with pytest.raises(WiringError, match="before those around it"):
        inner.__exit__(None, None, None)
    assert app.orders.count() == 0
    assert not app.unit_of_work.is_open


def test_a_generator_that_ends_its_unit_too_late_stores_nothing_in_silence(app):
    def units():
        with app.uow() as uow:
            uow.orders.add(Order.place(["generated"]))
            yield

    generator = units()
    next(generator)
    with pytest.raises(WiringError), app.uow():
        generator.close()
    assert app.orders.count() == 0


def test_a_subscriber_that_leaves_a_unit_open_has_failed_and_later_orders_are_stored(app, sales):
    def leak(_event):
        app.uow().__enter__()

    app.bus.subscribe(OrderCreated, leak, name="leak")
    ids = [app.bus.send(PlaceOrder((f"{number}",))) for number in range(5)]
    assert all(order_id in app.orders for order_id in ids)
    assert sales.order_ids == ids
    failed = [account.delivery for account in app.store.deliveries("failed")]
    assert [(delivery.subscriber, "WiringError" in delivery.error) for delivery in failed] == [
        ("leak", True)
    ] * 5


def test_a_handler_that_leaves_a_unit_open_is_refused(app):
    class LeakUnit(Command, frozen=True):
        topic = "leak-unit"

    app.bus.register(LeakUnit, lambda _command: app.uow().__enter__())
    with pytest.raises(WiringError, match="left a unit of work open"):
        app.bus.send(LeakUnit())
    order_id = app.bus.send(PlaceOrder(("next",)))
    assert order_id in app.orders


def test_what_an_inner_unit_took_back_does_not_spoil_the_outer_one(app):
    order_id = app.bus.send(PlaceOrder(("rope",)))
    with app.uow() as outer:
        try:
            with app.uow() as inner:
                inner.orders.get(order_id).ship()
                with app.uow() as innermost:
                    innermost.orders.get(order_id)
                raise OutOfStock
        except OutOfStock:
            pass
        outer.orders.get(order_id).cancel()
    assert app.orders.get(order_id).status == "cancelled"


def test_each_event_of_a_nested_unit_has_the_cause_that_was_handled_when_it_happened(app):
    order_id = app.bus.send(PlaceOrder(("rope",)))
    with app.uow() as uow:
        other = uow.orders.get(app.bus.send(PlaceOrder(("hemp",))))
        app.bus.send(ShipOrder(order_id))
        other.ship()
    messages = [message for record in app.store.read() for message in record.messages]
    by_id = {message.id: message for message in messages}
    shipped = [message for message in messages if isinstance(message, OrderShipped)]
    causes = [type(by_id[m.causation_id]) if m.causation_id else None for m in shipped]
    assert causes == [ShipOrder, None]


def test_a_thread_has_a_unit_of_its_own(app):
    inside = []
    with app.uow():
        thread = threading.Thread(target=lambda: inside.append(app.unit_of_work.is_open))
        thread.start()
        thread.join()
    assert inside == [False]


def test_orders_are_found_in_a_unit_and_outside(app):
    order_id = app.bus.send(PlaceOrder(("rope",)))
    assert order_id in app.orders
    assert "unknown" not in app.orders
    with app.uow() as uow:
        assert order_id in uow.orders
        new = Order.place(["new"])
        assert new.id not in uow.orders
        uow.orders.add(new)
        assert new.id in uow.orders


def test_a_refused_order_in_a_unit_leaves_the_rest_of_it(app):
    with app.uow():
        kept = app.bus.send(PlaceOrder(("kept",)))
        with pytest.raises(InvalidOrder):
            app.bus.send(PlaceOrder((" ",)))
    assert [order.id for order in app.orders.list()] == [kept]
