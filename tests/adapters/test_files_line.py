"""A line of the log: what goes in comes out, and what was not written is refused."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_files import checksum

from orders import OrderCreated, PlaceOrder
from orders.adapters.files.line import (
    FORMAT,
    Line,
    Outstanding,
    UnreadableLineError,
    as_written,
    check,
    decode,
    decode_frame,
    decode_summary,
    encode,
    encode_messages,
    is_sound,
    is_torn,
)
from orders.application.store import Delivery, Failure
from orders.domain.order import OrderState
from orders.messaging.message import UnknownMessage, message_classes
from orders.queries.wording import name_of

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

FAILED = Delivery("e", "order_created", "failed", attempts=3, seconds=0.25, error="OSError: \\ no")

SAMPLE = Line(
    FORMAT,
    seq=7,
    time=NOW,
    messages=(
        PlaceOrder(items=("100 inch TV", 'a "quoted" name'), customer="Zoë"),
        OrderCreated(order_id="1", items=("100 inch TV", "🧞 carpet"), key="k"),
    ),
    deliveries=(FAILED,),
    owner="lease",
    settled=812,
    synced=1340,
    outstanding=(Outstanding(Delivery("f", "order_created"), "lease", 812, 5),),
    states=(OrderState("1", ("100 inch TV",), "Zoë", "refunded", NOW, 3),),
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.datetimes(timezones=st.just(UTC))
values = {
    str: texts,
    int: st.integers(-(2**63), 2**63 - 1),
    str | None: st.none() | texts,
    tuple[str, ...]: st.lists(texts).map(tuple),
    datetime: times,
}


def messages_of(kind):
    fields = {field.name: values[field.type] for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


messages = st.one_of(
    messages_of(kind) for kind in message_classes().values() if kind.__module__.startswith("orders")
)
deliveries = st.builds(
    Delivery,
    event=texts,
    subscriber=texts,
    status=st.sampled_from(["pending", "done", "failed", "dead"]),
    retries=st.integers(0, 9),
    attempts=st.integers(0, 2**63 - 1),
    seconds=st.floats(0, allow_infinity=False),
    error=st.none() | texts,
    failures=st.lists(st.builds(Failure, seconds=st.floats(0, 9), error=texts), max_size=2).map(
        tuple
    ),
)
outstanding = st.builds(
    Outstanding,
    delivery=deliveries,
    owner=st.none() | texts,
    offset=st.integers(0, 2**63 - 1),
    seq=st.integers(0, 2**63 - 1),
)
states = st.builds(
    OrderState,
    id=texts,
    items=values[tuple[str, ...]],
    customer=st.none() | texts,
    status=texts,
    placed_at=times,
    version=st.integers(0, 2**63 - 1),
)
lines = st.builds(
    Line,
    format=st.just(FORMAT),
    seq=st.integers(1, 2**63 - 1),
    time=times,
    messages=st.lists(messages, max_size=4).map(tuple),
    deliveries=st.lists(deliveries, max_size=4).map(tuple),
    owner=st.none() | texts,
    settled=st.integers(0, 2**63 - 1),
    synced=st.integers(0, 2**63 - 1),
    outstanding=st.lists(outstanding, max_size=2).map(tuple),
    states=st.lists(states, max_size=2).map(tuple),
)


@given(lines)
@settings(deadline=None, database=None, max_examples=50)
def test_a_decoded_line_equals_the_encoded_one(line):
    raw = encode(line)
    assert decode(raw) == line
    assert encode(line, encode_messages(line.messages).json) == raw
    for frame in (decode_frame(raw), decode_summary(raw)):
        assert (frame.seq, frame.time) == (line.seq, line.time)
        assert (frame.settled, frame.synced) == (line.settled, line.synced)
        assert frame.proven == max(line.settled, line.synced)
    assert (frame.deliveries, frame.owner) == (line.deliveries, line.owner)
    assert (frame.outstanding, frame.claimed) == (line.outstanding, line.claimed)


@given(lines)
@settings(deadline=None, database=None, max_examples=50)
def test_an_encoded_line_is_one_line_of_utf_8_that_any_json_reader_understands(line):
    raw = encode(line)
    assert b"\n" not in raw
    assert b"\0" not in raw, "zeros are what the disk never wrote"
    assert msgspec.json.decode(raw.decode("utf-8"))["crc"] == checksum(raw)


@given(lines, st.data())
@settings(deadline=None, database=None, max_examples=50)
def test_a_line_cut_short_anywhere_is_torn(line, data):
    raw = encode(line)
    cut = data.draw(st.integers(0, len(raw) - 1))
    assert is_torn(raw[:cut], line.seq)
    assert not is_torn(raw, line.seq)


@given(lines, st.data())
@settings(deadline=None, database=None, max_examples=50)
def test_a_changed_byte_anywhere_is_refused(line, data):
    raw = bytearray(encode(line))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError):
        decode(bytes(raw))


def test_every_changed_byte_of_a_line_is_refused():
    raw = encode(SAMPLE)
    for position, change in product(range(len(raw)), (0x01, 0x20, 0x80, 0xFF)):
        changed = bytearray(raw)
        changed[position] ^= change
        for look in (decode, decode_summary, decode_frame, check):
            with pytest.raises(ValueError):
                look(bytes(changed))


def test_every_proper_prefix_of_a_line_is_torn():
    raw = encode(SAMPLE)
    assert [cut for cut in range(len(raw)) if not is_torn(raw[:cut], SAMPLE.seq)] == []
    assert not is_torn(raw, SAMPLE.seq)


@pytest.mark.parametrize("extra", [b"x", b"\x00", b"}", b" ", b","])
def test_a_whole_line_with_a_byte_after_it_is_not_torn(extra):
    assert not is_torn(encode(SAMPLE) + extra, SAMPLE.seq)


def test_the_beginning_of_another_line_number_is_not_torn():
    assert not is_torn(encode(SAMPLE)[:100], SAMPLE.seq + 1)


@pytest.mark.parametrize(
    "foreign",
    [
        b"hello",
        b'{"foo": 1}',
        b'{"format": 1, "seq": 7',
        b'{"format":2,"seq":7,',
        b"[1, 2]",
        bytes(100),
        bytes(range(256)),
        Path(__file__).read_bytes(),
    ],
    ids=["text", "json", "spaced", "newer", "list", "zeros", "binary", "python"],
)
def test_a_foreign_text_is_neither_torn_nor_a_line(foreign):
    assert not is_torn(foreign, 7)
    with pytest.raises(ValueError, match=r"this is no line of a log|the checksum does not match"):
        decode(foreign)


def test_a_line_of_a_newer_format_is_refused_as_such():
    newer = encode(msgspec.structs.replace(SAMPLE, format=FORMAT + 1))
    for look in (decode, decode_summary):
        with pytest.raises(UnreadableLineError, match=r"format 2, of a newer version of orders"):
            look(newer)
    assert decode_frame(newer).seq == SAMPLE.seq


def test_a_line_of_a_newer_format_and_another_shape_is_refused_as_such():
    class NewerLine(msgspec.Struct):
        format: int = FORMAT + 1
        commits: dict[str, int] = {}
        seq: str = "seven"
        messages: tuple = ()

    with pytest.raises(UnreadableLineError, match=r"format 2, of a newer version of orders"):
        decode(encode(NewerLine()))


def test_a_message_of_a_class_unknown_here_is_kept_beside_the_known_ones():
    class OrderFramed(msgspec.Struct, tag_field="type", tag="OrderFramed"):
        id: str = "m1"
        correlation_id: str = "c1"
        time: datetime = NOW
        name: str = "gold"
        sizes: tuple[int, ...] = (1, 2)

    known = SAMPLE.messages[0]
    line = msgspec.structs.replace(SAMPLE, messages=(OrderFramed(), known))
    raw = encode(line)
    unknown, other = decode(raw).messages
    assert other == known
    assert encode(decode(raw)) == raw
    assert isinstance(unknown, UnknownMessage)
    assert name_of(unknown) == "OrderFramed"
    assert (unknown.id, unknown.correlation_id, unknown.time) == ("m1", "c1", NOW)
    assert (unknown.fields["name"], unknown.fields["sizes"]) == ("gold", [1, 2])


def test_a_known_message_with_a_wrong_field_is_refused_with_advice():
    class Wrong(msgspec.Struct, tag_field="type", tag="PlaceOrder"):
        items: int = 3

    with pytest.raises(UnreadableLineError, match=r"PlaceOrder .*items.* revision and an upcast"):
        decode(encode(msgspec.structs.replace(SAMPLE, messages=(Wrong(),))))


def test_a_line_is_sound_as_the_number_that_it_has_and_as_it_was_written():
    raw = encode(SAMPLE)
    assert check(raw) == raw
    assert is_sound(raw, 7)
    assert not is_sound(raw, 8)
    assert not is_sound(raw.replace(b"Zo", b"zo"), 7)
    assert not is_sound(encode(msgspec.structs.replace(SAMPLE, format=FORMAT + 1)), 7)


@given(texts, texts, texts)
@settings(deadline=None, database=None, max_examples=50)
def test_a_line_contains_each_text_as_it_is_written(before, text, after):
    event = OrderCreated(order_id=f"{before}{text}{after}", items=("TV",))
    assert as_written(text) in encode(msgspec.structs.replace(SAMPLE, messages=(event,)))
