"""Messages are frozen values with a name, a topic and a cause of their own."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders import (
    Command,
    Event,
    NotifySales,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
    OrderShipped,
    PlaceOrder,
    ShipOrder,
)
from orders.errors import DuplicateMessage, WiringError, WrongPayload
from orders.messaging.message import UnknownMessage, as_stored, decode_message, message_classes
from orders.queries.wording import name_of


class PackParcel(Command, frozen=True):
    topic: ClassVar[str] = "pack-parcel"

    contents: tuple[str, ...]


class ParcelEvent(Event, frozen=True, kw_only=True):
    parcel: str


class ParcelPacked(ParcelEvent, frozen=True, kw_only=True):
    topic: ClassVar[str] = "parcel-packed"


def placed(**fields):
    return PlaceOrder(items=("100 inch TV",), **fields)


@pytest.mark.parametrize("field", ["items", "id", "correlation_id", "time", "made_up"])
def test_a_message_is_frozen(field):
    with pytest.raises(AttributeError):
        setattr(placed(), field, "something else")


def test_a_message_with_equal_fields_is_equal_and_has_the_same_hash():
    message = placed()
    twin = msgspec.structs.replace(message)
    assert message == twin
    assert hash(message) == hash(twin)


def test_a_list_becomes_a_tuple():
    assert PlaceOrder(items=["100 inch TV", "magic carpet"]).items == (
        "100 inch TV",
        "magic carpet",
    )


@pytest.mark.parametrize("kind", [PlaceOrder, PackParcel])
def test_what_the_caller_does_to_his_list_later_changes_nothing(kind):
    mine = ["100 inch TV"]
    message = kind(mine)
    mine.append("magic carpet")
    assert message == msgspec.structs.replace(message, **{kind.__match_args__[0]: ("100 inch TV",)})


def test_every_message_has_a_random_id_of_its_own():
    first, second = placed(), placed()
    assert first.id != second.id
    assert UUID(first.id).version == UUID(second.id).version == 4


def test_a_message_has_the_utc_time_at_which_it_was_made():
    before = datetime.now(UTC)
    time = placed().time
    assert before <= time <= datetime.now(UTC)
    assert time.utcoffset() == timedelta(0)


def test_a_message_without_a_cause_begins_a_conversation():
    message = placed().caused_by(None)
    assert message.correlation_id == message.id
    assert message.causation_id is None


def test_a_message_with_a_cause_joins_its_conversation():
    command = placed().caused_by(None)
    event = OrderRejected(reason="no").caused_by(command)
    answer = placed().caused_by(event)
    assert event.causation_id == command.id
    assert answer.causation_id == event.id
    assert command.correlation_id == event.correlation_id == answer.correlation_id


def test_a_message_that_has_its_cause_keeps_it():
    message = placed().caused_by(placed().caused_by(None))
    assert message.caused_by(placed().caused_by(None)) is message
    assert message.caused_by(None) is message


def test_two_classes_of_one_name_are_refused_when_the_second_is_defined():
    with pytest.raises(
        DuplicateMessage, match=r"name of .*OrderCreated is taken by orders\.domain\.events"
    ):
        type("OrderCreated", (Event,), {"topic": "order-created-again"}, frozen=True)
    assert "order-created-again" not in message_classes()


def test_two_classes_of_one_topic_are_refused_when_the_second_is_defined():
    with pytest.raises(DuplicateMessage, match=r"topic of .*OrderMade is taken by .*OrderCreated"):
        type("OrderMade", (Event,), {"topic": "order-created"}, frozen=True)
    assert message_classes()["order-created"] is OrderCreated


def test_a_command_and_an_event_cannot_share_a_topic():
    with pytest.raises(DuplicateMessage):
        type("OrderPlaced", (Event,), {"topic": "place-order"}, frozen=True)


def test_two_families_of_one_name_are_refused():
    with pytest.raises(DuplicateMessage):
        type("ParcelEvent", (Event,), {}, frozen=True)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "Order-Created",
        "order created",
        "order.created",
        "-order",
        "order-",
        "o--o",
        3,
        b"a",
    ],
)
def test_a_topic_is_words_with_hyphens(topic):
    with pytest.raises(WiringError, match="is not a topic\ntry: write it like order-created"):
        type("BadlyNamed", (Event,), {"topic": topic}, frozen=True)
    assert topic not in message_classes()


FOREIGN_TAGS = ["OrderCreated", "OrderCreated@2", "Foreign@2", "0", "@", "@0", "@x", "", 3, False]


@pytest.mark.parametrize("number", range(len(FOREIGN_TAGS)))
def test_a_tag_is_the_name_of_its_class_or_that_with_a_revision(number):
    name, tag = f"BadlyTagged{number}", FOREIGN_TAGS[number]
    given = f"{name}{tag}" if str(tag).startswith("@") else tag
    kind = type(name, (Event,), {}, frozen=True, tag=given)
    with pytest.raises(WiringError, match=f"is not a tag of {name}\ntry: write {name}@2"):
        kind()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ShipOrder, {"order_id": ["x"]}),
        (ShipOrder, {"order_id": None}),
        (PlaceOrder, {"items": "TV"}),
        (PlaceOrder, {"items": {"TV": 1}}),
        (PlaceOrder, {"items": {"TV"}}),
        (PlaceOrder, {"items": None}),
        (PlaceOrder, {"items": ("TV",), "customer": 5}),
        (PlaceOrder, {"items": ("TV",), "time": None}),
        (PlaceOrder, {"items": ("TV",), "time": "2026-11-21T09:30:00Z"}),
        (PlaceOrder, {"items": ("TV",), "hops": "x"}),
        (PlaceOrder, {"items": ("TV",), "id": 5}),
        (PlaceOrder, {"items": ("TV",), "causation_id": b"x"}),
        (OrderRejected, {"reason": 5}),
        (PackParcel, {"contents": 5}),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_at_construction(kind, fields):
    wrong = list(fields)[-1]
    with pytest.raises(WrongPayload, match=f"{wrong} of {kind.__name__} must be "):
        kind(**fields)


def test_a_time_without_a_zone_is_utc_and_one_of_another_zone_is_taken_there():
    time = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    for local in (time.replace(tzinfo=None), time.astimezone(timezone(timedelta(hours=2)))):
        assert placed(time=local).time == time
        assert placed(time=local).time.tzinfo is UTC


def test_a_class_without_a_topic_is_a_family():
    assert ParcelEvent.topic is None
    assert ParcelEvent not in message_classes().values()
    assert message_classes()["parcel-packed"] is ParcelPacked
    assert issubclass(ParcelPacked, ParcelEvent)


def test_a_subclass_of_a_message_does_not_share_its_topic_unnoticed():
    with suppress(WiringError):
        kind = type("RushOrderCreated", (OrderCreated,), {}, frozen=True, kw_only=True)
        assert kind.topic is None


def test_a_member_of_a_family_has_the_fields_of_both():
    packed = ParcelPacked(parcel="P1")
    assert packed.parcel == "P1"
    assert decode_message(msgspec.json.encode(packed)) == packed


@pytest.mark.parametrize(
    ("kind", "topic"),
    [
        (PlaceOrder, "place-order"),
        (NotifySales, "notify-sales"),
        (OrderCreated, "order-created"),
        (OrderShipped, "order-shipped"),
        (OrderCancelled, "order-cancelled"),
        (OrderRejected, "order-rejected"),
    ],
)
def test_the_topics_are_the_articles_and_the_others_follow(kind, topic):
    assert kind.topic == topic
    assert message_classes()[topic] is kind


def test_the_json_of_a_message_names_its_class():
    assert msgspec.json.decode(msgspec.json.encode(placed()))["type"] == "PlaceOrder"


def test_a_message_of_an_unknown_class_is_readable():
    data = (
        b'{"type":"StockLow","id":"1","correlation_id":"2","causation_id":"3",'
        b'"time":"2026-11-21T09:30:00.123456Z","item":"carpet","left":[1,{"a":null}]}'
    )
    message = decode_message(data)
    assert isinstance(message, UnknownMessage)
    assert name_of(message) == message.name == "StockLow"
    assert message.fields["item"] == "carpet"
    assert message.fields["left"] == [1, {"a": None}]
    assert (message.id, message.correlation_id, message.causation_id) == ("1", "2", "3")
    assert message.time == datetime(2026, 11, 21, 9, 30, 0, 123456, UTC)


def test_a_message_in_the_name_of_a_family_is_unknown():
    message = decode_message(b'{"type":"ParcelEvent","id":"1","parcel":"P1"}')
    assert isinstance(message, UnknownMessage)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"5",
        b'{"id":"1"}',
        b'{"type":5}',
        b'{"type":"PlaceOrder"}',
        b'{"type":"PlaceOrder","items":"TV"}',
        b'{"type":"PlaceOrder","items":[1]}',
        b'{"type":"OrderRejected","reason":"r","time":"yesterday"}',
        b'{"type":"\xff"}',
    ],
)
def test_what_is_no_message_is_a_value_error(data):
    with pytest.raises(ValueError):
        decode_message(data)


texts = st.text(max_size=20)
optional = st.none() | texts
stamps = {
    "id": texts,
    "correlation_id": texts,
    "causation_id": optional,
    "time": st.datetimes(timezones=st.just(UTC)),
}
some_items = st.lists(texts, max_size=5).map(tuple)
place_orders = st.builds(PlaceOrder, items=some_items, customer=optional, key=optional, **stamps)
orders_created = st.builds(
    OrderCreated, order_id=texts, items=some_items, customer=optional, key=optional, **stamps
)


@given(place_orders | orders_created)
def test_any_message_survives_json_on_one_line(message):
    data = msgspec.json.encode(message)
    assert decode_message(data) == message
    assert b"\n" not in data


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
own_names = (texts | st.sampled_from(["name", "fields", "seq"])).filter(
    lambda name: name not in {"type", "id", "correlation_id", "causation_id", "hops", "time"}
)


@given(st.dictionaries(own_names, json_values, max_size=4), texts, st.integers(0, 3))
def test_a_message_of_an_unknown_class_is_stored_again_as_it_was(fields, tag, hops):
    stamps = {"id": "1", "correlation_id": "2"} | ({"hops": hops} if hops else {})
    stamps["time"] = "2026-11-21T09:30:00.123456Z"
    data = msgspec.json.encode({"type": f"?{tag}", **stamps, **fields})
    message = decode_message(data)
    assert isinstance(message, UnknownMessage)
    assert msgspec.json.encode(as_stored(message)) == data
    assert as_stored(placed := PlaceOrder(("TV",))) is placed
