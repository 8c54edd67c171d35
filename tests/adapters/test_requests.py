"""Requests from other services: what is asked for is done once, and everything is answered."""

import json
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orders import PlaceOrder, ShipOrder, bootstrap
from orders.adapters.nats.requests import answer, encode
from orders.domain.events import Added
from orders.domain.order import MAX_TEXT
from orders.domain.text import shorten, unsafe_character
from orders.errors import StoreBusy

LIMIT = 1 << 20  # bytes that a server lets pass


@pytest.fixture
def ask(app):
    """Ask for something; returns the answer."""

    def ask(topic, request_id="1", app=app, **fields):
        return answer(topic, request_id, json.dumps(fields).encode(), app.bus, app.store)

    return ask


def messages(app, kind):
    return [m for record in app.store.read() for m in record.messages if isinstance(m, kind)]


# Once


def test_an_order_is_placed_once_however_often_it_is_asked_for(ask, app, sales):
    first = ask("place-order", items=["rope"], customer="Ada")
    assert first["request"] == "1"
    assert first["order"]["items"] == ("rope",)
    assert first["order"]["status"] == "placed"
    assert ask("place-order", items=["rope"], customer="Ada") == first
    assert ask("place-order", "2", items=["rope"], customer="Ada") != first
    assert app.orders.count() == 2
    assert len(sales.notices) == 2


@pytest.mark.engines
@pytest.mark.parametrize(
    ("topic", "status"), [("ship-order", "shipped"), ("cancel-order", "cancelled")]
)
def test_a_move_that_is_asked_for_again_is_answered_as_the_first_time(ask, app, topic, status):
    order_id = ask("place-order", items=["rope"])["order"]["id"]
    first = ask(topic, "2", order_id=order_id)
    assert first["order"]["status"] == status
    assert ask(topic, "2", order_id=order_id) == first
    assert app.orders.get(order_id).version == 2
    other = ask(topic, "3", order_id=order_id)
    assert set(other) == {"request", "error"}
    assert f"it is {status}" in other["error"]


def test_an_id_that_was_used_for_something_else_does_not_pass_for_done(ask, app):
    one, two = (ask("place-order", key, items=["rope"])["order"]["id"] for key in "ab")
    assert ask("ship-order", "c", order_id=one)["order"]["status"] == "shipped"
    assert "error" in ask("cancel-order", "c", order_id=one)
    assert ask("ship-order", "c", order_id=two)["order"]["id"] == two
    created = app.store.read().__next__().messages[-1]
    assert "error" in ask("ship-order", created.id, order_id=one)


@pytest.mark.engines
def test_two_servers_that_have_one_request_at_the_same_time_both_say_that_it_is_done(
    ask, app, data, sales
):
    order_id = ask("place-order", items=["rope"])["order"]["id"]
    answers = []
    with bootstrap(data, notifier=sales) as elsewhere:

        def meanwhile(_event):
            if not answers:
                answers.append(None)
                answers.append(ask("ship-order", "2", elsewhere, order_id=order_id))

        app.bus.subscribe(Added, meanwhile, name="meanwhile")
        answers.append(ask("ship-order", "2", order_id=order_id))
    assert answers[1]["order"]["status"] == "shipped"
    assert answers[2] == answers[1]
    assert len(messages(app, ShipOrder)) == 1


def test_what_another_server_is_still_storing_is_synced_before_it_is_answered(
    ask, app, data, sales, monkeypatch
):
    order_id = ask("place-order", items=["rope"])["order"]["id"]
    with bootstrap(data, notifier=sales) as elsewhere:
        elsewhere.store.log.confirm = lambda _entry: None  # it is not yet there
        ask("ship-order", "2", elsewhere, order_id=order_id)
        synced = []
        fsync = os.fsync

        def note(descriptor):
            synced.append(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", note)
        assert "order" in ask("ship-order", "2", order_id=order_id)
        assert (data / "events.jsonl").stat().st_ino in synced


# Refused


@pytest.mark.parametrize(
    ("topic", "request_id", "body", "why"),
    [
        ("place-order", "1", b"", "no PlaceOrder"),
        ("place-order", "1", b"[]", "no PlaceOrder"),
        ("place-order", "1", b'{"items": "rope"}', "$.items"),
        ("place-order", "1", b'{"items": []}', "at least one item"),
        ("place-order", "1", b'{"items": ["a\\u0007"]}', "control character"),
        ("place-order", "1", b'{"items": ["a"], "costumer": "b"}', "no 'costumer'"),
        ("place-order", "1", b'{"items": ["a"], "key": "b"}', "no 'key'"),
        ("place-order", "1", b'{"items": ["a"], "id": "b"}', "no 'id'"),
        ("place-order", None, b'{"items": ["a"]}', "has no id"),
        ("place-order", " ", b'{"items": ["a"]}', "blank"),
        ("place-order", "1\x1b", b'{"items": ["a"]}', "control character"),
        ("ship-order", "1", b"{}", "order_id"),
        ("ship-order", "1", b'{"order_id": "nobody"}', "no order 'nobody'"),
        ("notify-sales", "1", b"{}", "place-order, ship-order, cancel-order"),
    ],
)
def test_what_is_malformed_or_refused_is_answered_with_why(app, topic, request_id, body, why):
    found = answer(topic, request_id, body, app.bus, app.store)
    assert set(found) == {"request", "error"}
    assert found["request"] == (request_id and shorten(request_id, MAX_TEXT))
    assert why in found["error"]
    assert app.orders.count() == 0


def test_a_refusal_is_looked_at_again_when_it_is_repeated(ask):
    order_id = ask("place-order", items=["rope"])["order"]["id"]
    assert "error" in ask("cancel-order", "2", order_id=order_id, reason=" ")
    assert "order" in ask("cancel-order", "3", order_id=order_id, reason="late")


def test_a_handler_that_fails_is_answered_and_a_store_that_is_busy_is_not(ask, app):
    app.bus.dependencies.clear()
    raised = ValueError("odd")

    def odd(_event):
        raise raised

    app.bus.subscribe(Added, odd, name="odd")
    app.store.commit = odd
    assert ask("place-order", items=["rope"])["error"] == "ValueError: odd"
    raised = StoreBusy("here", 1, "somebody")
    with pytest.raises(StoreBusy):
        ask("place-order", items=["rope"])


# Hostile

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = PLAIN | st.lists(PLAIN) | st.dictionaries(st.text(), PLAIN | st.lists(PLAIN))
FIELDS = st.sampled_from(["items", "customer", "order_id", "reason", "key", "id", "time", "type"])
LIKELY = st.dictionaries(FIELDS, JSON | st.lists(st.text()))
BODIES = st.binary() | (JSON | LIKELY).map(lambda value: json.dumps(value).encode())
DEEP = b'{"items": ' + b"[" * 100_000


@pytest.fixture(scope="module")
def anywhere():
    with bootstrap(":memory:", notifier=None, on_failure=lambda *_: None) as app:
        yield app


@given(
    st.sampled_from(["place-order", "ship-order", "cancel-order"]) | st.text(),
    st.none() | st.text(),
    BODIES,
)
@example("place-order", "1", DEEP)
@example("place-order", "1", b'{"items": ' + b"9" * 10_000)
@example("place-order", "1", b'{"items": ["\\ud800"]}')
@settings(max_examples=100, deadline=None)
def test_whatever_is_asked_the_answer_is_one_line_of_json(anywhere, topic, request_id, body):
    line = encode(answer(topic, request_id, body, anywhere.bus, anywhere.store), LIMIT)
    assert unsafe_character(line.decode()) is None
    assert b"\n" not in line
    found = json.loads(line)
    assert found["request"] in {request_id, shorten(request_id or "", MAX_TEXT)}
    assert ("order" in found) != ("error" in found)
    assert len(found.get("error", "")) <= MAX_TEXT


def test_an_id_that_is_too_long_is_not_sent_back(ask):
    assert len(encode(ask("place-order", "\x01" * 1_000_000, items=["rope"]), LIMIT)) < 4_000


def test_an_answer_that_is_too_long_for_the_server_goes_without_the_items(app, ask):
    order_id = app.bus.send(PlaceOrder(("€" * 500,) * 1000))
    found = ask("ship-order", order_id=order_id)
    assert len(encode(found, 10_000_000)) > LIMIT
    short = json.loads(encode(found, LIMIT))
    assert short["order"] == {**found["order"], "items": None}


def test_an_answer_that_is_too_long_even_so_is_an_error_that_says_it(ask):
    found = ask("place-order", items=["rope"], customer="€" * 400)
    short = json.loads(encode(found, 1_000))
    assert short == {
        "request": found["request"],
        "error": "it is done, but the answer has more than the 1,000 bytes that the server takes",
    }
    refused = json.loads(encode({"request": "1", "error": "€" * 400}, 1_000))
    assert refused["error"] == "the answer has more than the 1,000 bytes that the server takes"
