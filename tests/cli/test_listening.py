"""`orders listen`: the events of another machine, each shown, whoever is killed."""

import json
import os
import signal

import pytest
from command_line import done, refused, rows
from other_service import send as send_all
from screens import plain

from orders import PlaceOrder, ShipOrder
from orders.adapters.nats import cloudevents, listener
from orders.adapters.nats.listener import Listener
from orders.messaging.message import Event

SOON = 0.3  # seconds after which an event is sent again, where a test waits for that
TO_THE_END = ["--until-idle", "0"]


@pytest.fixture
def relayed(app):
    """Return the events that the store has, as a relay sends them."""

    def relayed():
        return [
            cloudevents.encode(message, record, place, "/orders/here")
            for record in app.store.read()
            for place, message in enumerate(record.messages)
            if isinstance(message, Event)
        ]

    return relayed


def heard(url, stream, **options):
    """Return the ids of the events that a listener shows, up to the end of the stream."""
    ids = []
    options = {"on_event": lambda event, _number: ids.append(event.id), **options}
    Listener(url, stream=stream, name="here", **options).run(0)
    return ids


def test_the_lines_are_those_of_watch(tool, send, relayed, nats_url, stream):
    (order_id,) = send(PlaceOrder(("rope", "lamp")))
    send(ShipOrder(order_id))
    send_all(nats_url, relayed(), stream)
    arguments = ["listen", nats_url, "--stream", stream, *TO_THE_END]
    watched = rows(tool("watch", "--from", "start", "--until-idle", "0"))
    events = [row for row in watched if row[2] in {"OrderCreated", "OrderShipped"}]
    listened = rows(tool(*arguments, data="nowhere"))
    assert listened == events
    shown = done(tool(*arguments, "--name", "json", "--json", data="nowhere"))
    kinds = [json.loads(line)["type"] for line in shown.splitlines()]
    assert kinds == ["OrderCreated", "OrderShipped"]


@pytest.mark.engines
def test_what_a_relay_sends_is_shown_elsewhere_as_it_is_here(tool, send, nats_url, stream):
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    own = ["--stream", stream, "--subject-prefix", f"{stream}.", *TO_THE_END]
    assert tool("relay", nats_url, *own).returncode == 0
    listened = rows(tool("listen", nats_url, "--stream", stream, *TO_THE_END, data="nowhere"))
    assert [
        row for row in rows(tool("log")) if row[2] in {"OrderCreated", "OrderShipped"}
    ] == listened


def test_on_a_terminal_events_are_drawn(screen, send, relayed, nats_url, stream):
    send(PlaceOrder(("rope",)))
    send_all(nats_url, relayed(), stream)
    status, shown = screen("listen", nats_url, "--stream", stream, *TO_THE_END)
    assert status == 0
    for part in ("Listening to nats://", "● OrderCreated", "rope"):
        assert part in plain(shown)


def test_a_listener_goes_on_where_it_was_and_another_one_begins_with_the_first(
    tool, send, relayed, nats_url, stream
):
    arguments = ["listen", nats_url, "--stream", stream, *TO_THE_END]
    seen = []
    for number in range(2):
        send(PlaceOrder(("rope",)))
        send_all(nats_url, relayed()[number:], stream)
        seen += [row[3] for row in rows(tool(*arguments))]
    assert len(set(seen)) == len(seen) == 2
    assert [row[3] for row in rows(tool(*arguments, "--name", "other"))] == seen
    assert rows(tool(*arguments)) == []


def test_an_event_that_comes_again_is_shown_once(send, relayed, nats_url, stream):
    send(*(PlaceOrder((item,)) for item in "abc"))
    send_all(nats_url, [one for one in relayed() for _ in range(2)], stream)
    assert len(heard(nats_url, stream)) == 3


def test_what_was_not_acknowledged_is_shown_again_before_what_is_newer(
    send, relayed, nats_url, stream, fork, monkeypatch
):
    monkeypatch.setattr(listener, "ACK_WAIT", SOON)
    send(*(PlaceOrder((str(number),)) for number in range(5)))
    send_all(nats_url, relayed(), stream)
    first = []

    def show(event, _number):
        first.append(event.id)
        if len(first) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = fork(lambda: heard(nats_url, stream, on_event=show))
    assert child.wait() == -signal.SIGKILL
    send(*(PlaceOrder((str(number),)) for number in range(5)))
    send_all(nats_url, relayed()[5:], stream)
    again = heard(nats_url, stream)
    assert len(again) >= 8
    assert again == ids_of(relayed())[-len(again) :]


def ids_of(payloads):
    return [json.loads(payload)["id"] for payload in payloads]


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.long)])
def test_whatever_happens_to_the_server_events_are_shown_once_and_in_order(
    kills, send, relayed, start_nats, monkeypatch
):
    monkeypatch.setattr(listener, "ACK_WAIT", SOON)
    nats = start_nats()
    send(*(PlaceOrder((str(number),)) for number in range(100 * kills)))
    payloads = relayed()
    losses, ids = [], []
    send_all(nats.url(), payloads)

    def show(event, _number):
        ids.append(event.id)
        if len(ids) % 90 == 0 and len(losses) < kills:
            losses.append(None)
            nats.restart()

    heard(nats.url(), "ORDERS", on_event=show, on_lost=losses.append)
    assert len(losses) >= kills
    assert ids == ids_of(payloads)


def test_a_listener_whose_server_is_gone_can_be_stopped_when_it_takes_a_turn(
    send, relayed, start_nats
):
    nats = start_nats()
    send(PlaceOrder(("rope",)))
    send_all(nats.url(), relayed())
    losses = []

    def on_lost(error):
        losses.append(error)
        assert len(losses) < 5

    def on_turn():
        if losses:
            one.stop()

    options = {"on_event": lambda *_: nats.kill(), "on_turn": on_turn, "on_lost": on_lost}
    one = Listener(nats.url(), stream="ORDERS", name="here", **options)
    one.run()
    assert len(losses) == 1


def test_what_is_unknown_here_is_shown_and_what_is_no_event_is_passed_over(
    tool, send, relayed, nats_url, stream
):
    send(PlaceOrder(("rope",)))
    (known,) = relayed()
    payload = {**json.loads(known), "id": "2", "type": "OrderPraised", "data": {"by": "\x1b[1mme"}}
    unknown = json.dumps(payload).encode()
    early = json.dumps({**payload, "time": "0001-01-01T00:00:00+14:00"}).encode()  # no UTC time
    send_all(nats_url, [b"{}", unknown, b"\xff", early], stream)
    send_all(nats_url, [known], stream, headers={"Status": "503"})
    listened = tool("listen", nats_url, "--stream", stream, *TO_THE_END)
    shown = [line.split("\t") for line in listened.stdout.splitlines()]
    assert [row[2] for row in shown] == ["OrderPraised", "OrderCreated"]
    assert shown[0][4] == r'by="\u001b[1mme"'
    warnings = listened.stderr.splitlines()
    assert [line.partition(": it is no event")[0] for line in warnings] == [
        f"warning: message {place} of {stream} was passed over" for place in (1, 3, 4)
    ]


def test_a_listener_says_that_it_shares_the_events_with_another_one(
    tool, send, relayed, nats_url, stream, fork
):
    send(PlaceOrder(("rope",)))
    send_all(nats_url, relayed(), stream)
    ours, theirs = os.pipe()
    other = Listener(
        nats_url, stream=stream, name="here", on_event=lambda *_: os.write(theirs, b".")
    )
    fork(other.run)
    os.read(ours, 1)
    listen = ["listen", nats_url, "--stream", stream, "--name", "here", *TO_THE_END]
    tries = (tool(*listen).stderr for _ in range(100))
    said = next(filter(None, tries))  # once the other one waits for the next event
    assert said == "warning: somebody else listens as here: each event goes to one of you\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.sample(1)
def test_a_listener_ends_when_it_is_told_to_or_nobody_reads(
    number, status, terminal, send, relayed, nats_url, stream
):
    send(PlaceOrder(("rope",)))
    send_all(nats_url, relayed(), stream)
    child = terminal("listen", nats_url, "--stream", stream)
    child.expect("rope")
    child.kill(number)
    child.expect_exact("\r\n")
    child.wait()
    assert child.exitstatus == status


def test_what_keeps_a_listener_from_listening_is_said(tool, nats_url):
    assert refused(tool("listen", nats_url, "--stream", "NONE"), "stream not found")
    assert refused(tool("listen", "nats://127.0.0.1:1"), "connection refused")
    assert refused(tool("listen", "http://x"), "no URL of a NATS server")
    for option, name in [("--name", "a.b"), ("--name", ""), ("--stream", "*"), ("--stream", "a.b")]:
        assert refused(tool("listen", nats_url, option, name), repr(name), "letters", status=2)


@pytest.mark.long
def test_the_end_of_the_stream_is_not_taken_for_reached_while_the_server_is_slow(
    send, relayed, start_nats, monkeypatch
):
    nats = start_nats()
    send(*(PlaceOrder((item,)) for item in "abc"))
    send_all(nats.url(), relayed())
    monkeypatch.setattr(listener, "BATCH", 1)
    ids, turns = [], []

    def show(event, _number):
        ids.append(event.id)
        nats.pause()

    def on_turn():
        turns.append(len(ids))
        if turns[-2:] == [len(ids)] * 2:
            nats.resume()

    heard(nats.url(), "ORDERS", on_event=show, on_turn=on_turn)
    assert ids == ids_of(relayed())
