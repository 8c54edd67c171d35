"""What the tests of the relay share: a log that is full at once, and what a stream has of it."""

from datetime import UTC, datetime

import nats_server

from orders import OrderCreated, bootstrap
from orders.adapters.nats.cloudevents import decode
from orders.adapters.nats.relay import Relay
from orders.application.store import Record
from orders.messaging.message import Event, new_id

TIME = datetime(2026, 11, 21, tzinfo=UTC)


def fill(store, records, number=0, each=1):
    """Append records of orders to a log that has `number` of them; return the ids of the events."""
    made = [
        Record((), number, TIME, tuple(placed() for _ in range(each)), ())
        for number in range(number + 1, number + records + 1)
    ]
    store.restore(made)
    return [message.id for record in made for message in record.messages]


def placed():
    return OrderCreated(order_id=new_id(), items=("rope",))


def events_of(data):
    """Return the ids of the events of a store, in the order of its log."""
    with bootstrap(data) as app:
        messages = [message for record in app.store.read() for message in record.messages]
    return [message.id for message in messages if isinstance(message, Event)]


def relay(data, url, until_idle=0, **options):
    """Relay until all is relayed; return the relay."""
    with bootstrap(data) as app:
        one = Relay(app.store, url, **options)
        one.run(until_idle)
    return one


def relayed(url, stream):
    """Return the ids of the events that a stream has, in its order."""
    return [decode(message.data).event.id for message in nats_server.messages(url, stream)]
