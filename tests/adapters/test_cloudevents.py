"""What other services get of an event is a CloudEvent, and can be read back."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders import OrderCancelled, OrderCreated, OrderShipped, PlaceOrder
from orders.adapters.nats.cloudevents import decode, encode, source_of
from orders.application.store import Record
from orders.domain.events import BestsellerFound, OrderRejected
from orders.messaging.message import Event, UnknownMessage

TIMES = st.datetimes(timezones=st.just(UTC))
TEXTS = st.text(max_size=20)
ENVELOPE = {
    "id": st.uuids().map(str),
    "correlation_id": TEXTS,
    "causation_id": st.none() | TEXTS,
    "hops": st.integers(0, 100),
    "time": TIMES,
}


def made(kind, **fields):
    return st.builds(kind, **ENVELOPE, **fields)


EVENTS = st.one_of(
    made(OrderCreated, order_id=TEXTS, items=st.lists(TEXTS), customer=st.none() | TEXTS),
    made(OrderShipped, order_id=TEXTS),
    made(OrderCancelled, order_id=TEXTS, reason=st.none() | TEXTS),
    made(OrderRejected, reason=TEXTS),
    made(BestsellerFound, order_id=TEXTS, item=TEXTS, times=st.integers(0, 2**31)),
)


def record_of(*messages, number=1):
    return Record((number,), number, datetime(2026, 11, 21, tzinfo=UTC), messages, ())


def encoded(event, number=1, place=0):
    record = record_of(event, number=number)
    return encode(event, record, place, source_of(record))


@given(EVENTS, st.integers(1, 10**15 - 1))
def test_an_event_is_read_back_as_it_was_but_for_what_is_left_out(event, number):
    received = decode(encoded(event, number))
    assert received.event == msgspec.structs.replace(event, hops=0)
    assert (received.number, received.source) == (number, f"/orders/{event.id}")


def test_it_is_a_cloud_event_whose_fields_are_named_as_the_specification_wants_it():
    event = OrderCreated(
        id="e-1",
        correlation_id="c-1",
        causation_id="c-1",
        hops=7,
        time=datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        order_id="o-1",
        items=("rope",),
        customer="Zoë",
        key="secret",
    )
    assert json.loads(encoded(event, 17, 1)) == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/orders/e-1",
        "type": "OrderCreated",
        "subject": "o-1",
        "time": "2026-11-21T09:30:00Z",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
        "causationid": "c-1",
        "sequence": "000000000000017.00001",
        "data": {"order_id": "o-1", "items": ["rope"], "customer": "Zoë"},
    }


def test_events_compare_by_their_sequence_as_text():
    event = OrderShipped(order_id="o")
    places = [(1, 0), (1, 1), (2, 0), (10, 0), (10, 9), (10, 10), (99_999, 0), (100_000, 0)]
    sequences = [json.loads(encoded(event, *place))["sequence"] for place in places]
    assert sequences == sorted(sequences)


def test_an_event_of_a_class_that_is_unknown_here_is_read_as_one():
    sent = json.loads(encoded(OrderShipped(order_id="o-1")))
    received = decode(json.dumps({**sent, "type": "OrderEaten"}).encode())
    assert isinstance(received.event, UnknownMessage)
    assert (received.event.name, received.event.fields) == ("OrderEaten", {"order_id": "o-1"})


VALID = json.loads(encoded(OrderShipped(order_id="o-1", id="e-1")))


@pytest.mark.parametrize(
    "changed",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"id": None},
        {"source": ""},
        {"type": ""},
        {"type": "OrderShipped@7"},
        {"type": "PlaceOrder", "data": {"items": ["rope"]}},
        {"time": "yesterday"},
        {"time": "0001-01-01T00:00:00+14:00"},
        {"time": "9999-12-31T23:59:59-14:00"},
        {"data": "text"},
        {"data": {}},
        {"data": {"order_id": 7}},
        {"sequence": 7},
    ],
    ids=str,
)
def test_what_is_no_event_is_refused(changed):
    with pytest.raises(ValueError, match="it is no event"):
        decode(json.dumps({**VALID, **changed}).encode())


def test_nobody_can_pass_off_what_is_in_the_data_as_the_event_s_own():
    data = {"order_id": "o-1", "id": "forged", "type": "PlaceOrder", "hops": 99, "time": 7}
    event = decode(json.dumps({**VALID, "data": data}).encode()).event
    assert (type(event), event.id, event.hops) == (OrderShipped, "e-1", 0)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_refused(data):
    with pytest.raises(ValueError, match="it is no event"):
        decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(VALID)), JSON))
def test_whatever_stands_in_a_field_is_an_event_or_is_refused(changed):
    with suppress(ValueError):
        received = decode(json.dumps({**VALID, **changed}).encode())
        assert isinstance(received.event, Event | UnknownMessage)
        assert received.number >= 0


def test_json_that_is_nested_too_deeply_is_refused():
    with pytest.raises(ValueError, match="it is no event"):
        decode(b'{"data":' + b"[" * 100_000)


def test_a_store_is_called_after_its_first_message():
    command = PlaceOrder(items=("rope",), id="a b/c")
    assert source_of(record_of(command)) == "/orders/a%20b%2Fc"
