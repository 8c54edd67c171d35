"""The server is killed under load, and started again: nothing acknowledged is lost or repeated."""

import os
import random
from contextlib import closing

import pytest
from conftest import Sales

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.adapters.postgres.store import PostgresStore
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
