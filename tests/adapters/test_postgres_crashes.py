"""The server is killed under load, and started again: nothing acknowledged is lost or repeated."""

import os
import random
from contextlib import ExitStack, closing

import pytest
from conftest import Sales
from storing import commit_of

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.adapters.postgres.store import PostgresStore
from orders.application.store import Commit, Delivery
from orders.domain.order import Order
from orders.errors import OrdersError
from orders.settings import Settings

PLACING = 4  # processes


def place_orders(url, acknowledged, stop):
    """Place orders until told to stop; write the id of each that is acknowledged."""
    settings = Settings(data=url, lock_timeout=60)
    with bootstrap(settings=settings, notifier=Sales(), on_failure=lambda *_: None) as app:
        while not stop.exists():
            try:
                order_id = app.bus.send(PlaceOrder(items=("rope",)))
            except OrdersError as error:  # said to be uncertain: it may be there
                os.write(acknowledged, f"? {error}\n".encode())
            else:
                os.write(acknowledged, f"{order_id}\n".encode())


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.sample(1)
def test_what_was_acknowledged_survives_the_server_and_is_stored_once(
    kills, server, fork, tmp_path
):
    stop, chance = tmp_path / "stop", random.Random(13)
    reading, writing = os.pipe()
    with closing(PostgresStore(server.url())) as store:
        store.head()
    placing = [fork(place_orders, server.url(), writing, stop) for _ in range(PLACING)]
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = []
        for _ in range(kills):
            said += [lines.readline() for _ in range(chance.randint(20, 60))]
            server.kill()
            server.start()
        said += [lines.readline() for _ in range(20)]
        stop.touch()
        said += lines
    assert [one.wait() for one in placing] == [0] * PLACING
    unknown = [line for line in said if line.startswith("?")]
    placed = {line.strip() for line in said} - {line.strip() for line in unknown}
    with bootstrap(server.url(), notifier=Sales()) as app:
        app.deliveries.recover()
        stored = [order.id for order in app.orders.list()]
        assert placed <= set(stored)
        assert len(stored) == len(set(stored)) == len(said)
        assert unknown == []  # who was cut off has found out
        records = list(app.store.read())
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        messages = [message for record in records for message in record.messages]
        created = [event.order_id for event in messages if isinstance(event, OrderCreated)]
        assert sorted(created) == sorted(stored)
        assert {account.delivery.status for account in app.store.deliveries()} == {"done"}
        assert len(list(app.store.deliveries())) == len(stored)
        assert [finding for finding in app.store.check() if not finding.is_well] == []
    print(f"{len(placed)} acknowledged, {kills} kills, {len(unknown)} uncertain")


def test_a_delivery_that_was_made_stays_made_when_the_server_is_killed(server):
    with bootstrap(server.url(), notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        server.kill()
        server.start()
        assert app.orders.count() == 1  # it has found the server, and is alive: nobody takes over
        assert [one.delivery.status for one in app.store.deliveries()] == ["done"]


def test_what_is_stored_after_the_server_was_killed_follows_what_was_read_before(server):
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(PostgresStore(server.url()))) for _ in range(4)]
        for number, store in enumerate(stores):
            outcome = Delivery(f"event {number}", "subscriber", status="done")
            store.commit(Commit(reactions=(outcome,), is_durable=False))
        read = stores[0].head()
        server.kill()
        server.start()
        orders = [Order.place(["rope"]) for _ in stores]
        for store, order in zip(stores, orders, strict=True):
            store.commit(commit_of(order))
        after = [message.order_id for one in stores[0].read(read) for message in one.messages]
        assert after == [order.id for order in orders]
