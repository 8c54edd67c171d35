"""Every event of the log is in the stream, once and in order, whatever is killed or cut."""

import asyncio
import json
import random
import shutil
import threading
import time
from contextlib import suppress

import nats_server
import pytest
from conftest import Sales
from nats.errors import Error
from nats.js.api import RetentionPolicy
from nats_proxy import Proxy
from relaying import TIME, events_of, fill, relay, relayed

from orders import CancelOrder, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.nats import sender
from orders.adapters.nats.cloudevents import encode, source_of
from orders.adapters.nats.connection import Address, connected
from orders.adapters.nats.refusals import NatsRefused
from orders.adapters.nats.relay import Relay
from orders.adapters.nats.stream import Stream, Tail, matches
from orders.application import positions
from orders.application.store import Record
from orders.errors import NotStored, OrdersError
from orders.messaging.message import UnknownMessage


@pytest.mark.engines
def test_every_event_is_sent_in_the_order_of_the_log_on_its_topic(data, send, nats_url, stream):
    first, second = send(PlaceOrder(items=("rope",)), PlaceOrder(items=("tv",), key="k"))
    send(ShipOrder(order_id=first), CancelOrder(order_id=second, reason="lost"))
    prefix = f"{stream}.of."
    relay(data, nats_url, stream=stream, prefix=prefix)
    sent = nats_server.messages(nats_url, stream)
    topics = ["order-created", "order-created", "order-shipped", "order-cancelled"]
    assert [message.subject for message in sent] == [prefix + topic for topic in topics]
    assert [json.loads(message.data)["id"] for message in sent] == events_of(data)
    assert [json.loads(message.data)["subject"] for message in sent] == [first, second] * 2
    assert {message.headers["content-type"] for message in sent} == {"application/cloudevents+json"}


@pytest.mark.engines
def test_a_relay_goes_on_where_the_stream_ends(data, send, nats_url, stream):
    options = {"stream": stream, "prefix": f"{stream}."}
    for _ in range(3):
        send(PlaceOrder(items=("rope",)))
        assert relay(data, nats_url, **options).relayed == 1
    assert relay(data, nats_url, **options).relayed == 0
    assert relayed(nats_url, stream) == events_of(data)


def test_a_relay_that_was_killed_in_the_midst_of_a_record_goes_on_there(data, nats_url, stream):
    with bootstrap(data) as app:
        ids = fill(app.store, 3, each=3)
        first, *_ = records = [*app.store.read()]
    found = [
        encode(event, record, place, source_of(first))
        for record in records
        for place, event in enumerate(record.messages)
    ]

    async def store(jetstream):
        await jetstream.delete_stream(stream)
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"])
        for id_, event in zip(ids[:sent], found, strict=False):
            await jetstream.publish(f"{stream}.x", event, headers={"Nats-Msg-Id": id_})

    options = {"stream": stream, "prefix": f"{stream}."}
    relay(data, nats_url, **options)
    for sent in range(1, len(ids) + 1):
        nats_server.run(nats_url, store)
        assert relay(data, nats_url, **options).relayed == len(ids) - sent
        assert relayed(nats_url, stream) == ids


def test_an_event_that_is_not_on_the_disk_is_not_sent(data, send, nats_url, stream, monkeypatch):
    def refuse(_until):
        raise NotStored(data, "no space left")

    send(PlaceOrder(items=("rope",)))
    with bootstrap(data) as app:
        monkeypatch.setattr(app.store, "sync", refuse)
        with pytest.raises(NotStored):
            Relay(app.store, nats_url, stream=stream, prefix=f"{stream}.").run(0)
    assert nats_server.messages(nats_url, stream) == []


def test_what_comes_while_it_runs_is_sent_at_once(data, app, nats_url, stream):
    one = Relay(app.store, nats_url, stream=stream, prefix=f"{stream}.")
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        for number in range(3):
            app.bus.send(PlaceOrder(items=("rope",)))
            while one.relayed <= number:
                assert thread.is_alive()
                time.sleep(0.001)
    finally:
        one.stop()
        thread.join()
    assert relayed(nats_url, stream) == events_of(data)


def test_a_relay_of_an_empty_store_waits_and_makes_the_stream(data, nats_url, stream):
    assert relay(data, nats_url, stream=stream, prefix=f"{stream}.").relayed == 0
    assert nats_server.messages(nats_url, stream) == []


# What is killed or cut


def relay_on(data, url):
    """Relay for ever, as a service that is started again when it has failed."""
    while True:
        with suppress(NatsRefused):
            relay(data, url, until_idle=None)


def is_all_there(url, number):
    async def ask(jetstream):
        return (await jetstream.stream_info("ORDERS")).state.messages

    try:
        return nats_server.run(url, ask, missing=0) >= number
    except (Error, OSError, TimeoutError):  # the server is not there
        return False


@pytest.mark.engines("long")
@pytest.mark.parametrize(
    ("orders", "kills"), [(300, 2), pytest.param(20_000, 50, marks=pytest.mark.long)]
)
def test_kills_of_the_server_and_of_the_relay_lose_and_double_nothing(
    data, start_nats, fork, orders, kills
):
    server = start_nats()
    with bootstrap(data) as app:
        number, ids = 0, []
        child = fork(relay_on, data, server.url())
        for kill in range(2 * kills):
            more = fill(app.store, orders // (2 * kills), number)
            number, ids = number + len(more), ids + more
            time.sleep(random.uniform(0, 0.2))  # when it is killed is chance
            if kill % 2:
                child.kill()
                child.wait()
                child = fork(relay_on, data, server.url())
            else:
                server.restart()
        while not is_all_there(server.url(), len(ids)):
            time.sleep(0.05)
    assert relayed(server.url(), "ORDERS") == ids == events_of(data)


@pytest.mark.parametrize(
    ("orders", "cuts"), [(150, 3), pytest.param(20_000, 200, marks=pytest.mark.long)]
)
def test_a_connection_that_is_cut_at_any_byte_loses_and_doubles_nothing(
    data, start_nats, orders, cuts
):
    server = start_nats()
    chance = random.Random()
    limits = [chance.randrange(1, 2 * 600 * orders // cuts) for _ in range(cuts)]
    with bootstrap(data) as app:
        ids = fill(app.store, orders)
    with Proxy(server.port, [1 << 9, *limits]) as proxy:
        one = relay(data, f"nats://127.0.0.1:{proxy.port}")
        assert one.losses > 0
    assert relayed(server.url(), "ORDERS") == ids


def test_two_relays_of_one_store_double_nothing(data, start_nats, fork):
    server = start_nats()
    with bootstrap(data) as app:
        ids = fill(app.store, 600)
        children = [fork(relay_on, data, server.url()) for _ in range(2)]
        for number in (600, 700, 800):
            while not is_all_there(server.url(), number):
                time.sleep(0.01)
            ids += fill(app.store, 100, number)
        children[0].kill()  # the other one goes on
        ids += fill(app.store, 100, 900)
        while not is_all_there(server.url(), 1000):
            time.sleep(0.01)
    assert relayed(server.url(), "ORDERS") == ids


def test_a_connection_that_is_lost_while_nothing_happens_is_noticed(data, start_nats, monkeypatch):
    monkeypatch.setattr("orders.adapters.nats.relay.CHECK", 1e9)
    server, told = start_nats(), threading.Event()
    with bootstrap(data) as app:
        fill(app.store, 1)
        one = Relay(app.store, server.url(), warn=lambda _error: told.set())
        thread = threading.Thread(target=one.run)
        thread.start()
        try:
            while not one.relayed:
                time.sleep(0.01)
            server.kill()
            assert told.wait(30)
        finally:
            one.stop()
            thread.join()


# Streams that were emptied


def purge(jetstream, stream):
    return jetstream.purge_stream(stream)


def delete(jetstream, stream):
    return jetstream.delete_stream(stream)


async def age_out(jetstream, stream):
    config = (await jetstream.stream_info(stream)).config
    await jetstream.update_stream(config.evolve(max_age=0.2, duplicate_window=0.1))
    while (await jetstream.stream_info(stream)).state.messages:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0.05)
    await jetstream.update_stream(config.evolve(max_age=0, duplicate_window=0.1))


async def nothing(_jetstream, _stream):
    """Leave the stream as it is."""


async def delete_the_last(jetstream, stream):
    await jetstream.delete_msg(stream, (await jetstream.stream_info(stream)).state.last_seq)


EMPTIED = pytest.mark.parametrize("empty", [purge, delete, age_out, delete_the_last])


@pytest.fixture
def emptied(data, nats_url, stream):
    """Relay two events, empty the stream, and add two; returns ids, and what relays from there."""

    def empty_it(empty):
        with bootstrap(data) as app:
            number = sum(1 for _ in app.store.read())
            ids = fill(app.store, 2, number)
            relay(data, nats_url, **options)
            nats_server.run(nats_url, lambda jetstream: empty(jetstream, stream))
            return ids + fill(app.store, 2, number + 2)

    def go_on(**more):
        said = []
        relay(
            data,
            nats_url,
            say=said.append,
            warn=lambda error: said.append(str(error)),
            **options,
            **more,
        )
        return said, relayed(nats_url, stream)

    options = {"stream": stream, "prefix": f"{stream}."}
    return empty_it, go_on


@pytest.mark.sample(2)
@EMPTIED
def test_an_emptied_stream_goes_on_where_the_store_knows_it_was_and_that_is_said(emptied, empty):
    empty_it, go_on = emptied
    first, _, third, fourth = empty_it(empty)
    said, found = go_on()
    assert found == ([first] if empty is delete_the_last else []) + [third, fourth]
    assert "was purged or deleted, or its events aged out; going on after record 2" in said[-1]
    assert go_on() == ([], found)


@EMPTIED
@pytest.mark.sample(2)
def test_an_emptied_stream_has_everything_again_if_that_is_asked(emptied, empty):
    """The server takes events that it had before the purge for repeats, and drops them."""
    empty_it, go_on = emptied
    ids = empty_it(empty)
    said, found = go_on(begin="start")
    assert found == ([ids[0]] if empty is delete_the_last else []) + ids
    assert "everything is sent again" in said[-1]
    _, found_later = go_on()
    assert found_later == found


@pytest.mark.sample(2)
@EMPTIED
def test_an_emptied_stream_has_only_what_comes_if_that_is_asked(emptied, empty, data):
    empty_it, go_on = emptied
    first = empty_it(empty)[0]
    said, found = go_on(begin="now")
    assert found == ([first] if empty is delete_the_last else [])
    assert "what the store has is not sent" in said[-1]
    assert go_on() == ([], found)
    with bootstrap(data) as app:
        ids = fill(app.store, 1, 4)
    assert go_on()[1] == [*found, *ids]


def test_a_stream_that_is_emptied_again_before_anything_came_is_said_to_be(
    emptied, nats_url, stream
):
    empty_it, go_on = emptied
    empty_it(purge)
    go_on(begin="now")
    nats_server.run(nats_url, lambda jetstream: delete(jetstream, stream))
    said, found = go_on()
    assert found == []
    assert "going on after what was not to be sent, as the store remembers" in said[-1]


def test_an_emptied_stream_goes_on_though_a_relay_was_killed_while_it_sent_again(
    emptied, monkeypatch
):
    """What is sent after that must not be taken for a repeat of what was there before."""
    empty_it, go_on = emptied
    ids = empty_it(nothing)
    go_on()  # all four, and the server remembers their ids
    empty_it(purge)
    own, sent = sender.Sender.send, []

    async def send(self, subject, id_, *rest):
        if len(sent) == 2:
            await self.finish()
            raise Killed
        sent.append(id_)
        await own(self, subject, id_, *rest)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(sender.Sender, "send", send)
        go_on(begin="start")
    found = go_on()[1]
    assert found[:4] == ids
    assert len(found) == 8


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_relay_that_has_looked_before_another_one_wrote_writes_nothing_there(
    emptied, data, nats_url, stream, monkeypatch
):
    empty_it, go_on = emptied
    ids = empty_it(purge)
    own, looks = Stream.tail, []

    async def tail(self):
        found = await own(self)
        looks.append(found)
        if len(looks) == 1:
            await asyncio.to_thread(relay, data, nats_url, stream=stream, prefix=f"{stream}.")
        return found

    monkeypatch.setattr(Stream, "tail", tail)
    assert go_on(begin="start")[1] == ids[2:]
    assert len(looks) == 3


def test_what_the_server_takes_for_a_repeat_is_not_taken_for_stored(nats_url, stream):
    async def main():
        async with connected(Address.parse(nats_url)) as connection:
            one = sender.Sender(connection, stream, Tail(2, "b"), "text/plain", stored)
            await one.open()
            await one.send(f"{stream}.x", "a", b"", None)
            await one.finish()

    async def fill_it(jetstream):
        for id_ in "ab":
            await jetstream.publish(f"{stream}.x", b"", headers={"Nats-Msg-Id": id_})

    def stored(_what, _sequence):
        raise AssertionError

    add(nats_url, stream)
    nats_server.run(nats_url, fill_it)
    with pytest.raises(NatsRefused, match="a repeat"):
        asyncio.run(main())


def test_where_nobody_knows_how_far_an_emptied_stream_was_it_is_asked(emptied, data):
    empty_it, go_on = emptied
    ids = empty_it(purge)
    for path in (data / "projections").glob("relay.*"):
        path.unlink()
    with pytest.raises(NatsRefused, match="does not remember how far it was") as caught:
        go_on()
    assert "--from start" in caught.value.hint
    assert go_on(begin="start")[1] == ids


def test_what_was_asked_for_an_emptied_stream_does_not_change_another(emptied):
    empty_it, go_on = emptied
    ids = empty_it(nothing)
    said, found = go_on(begin="start")
    assert found == ids
    assert "goes on after its last event, of record 2" in said[-1]


def test_a_stream_that_is_emptied_while_nothing_happens_is_noticed(
    data, nats_url, stream, monkeypatch
):
    monkeypatch.setattr("orders.adapters.nats.relay.CHECK", 0.1)
    told = threading.Event()
    with bootstrap(data) as app:
        ids = fill(app.store, 2)
        one = Relay(
            app.store, nats_url, stream=stream, prefix=f"{stream}.", warn=lambda _error: told.set()
        )
        thread = threading.Thread(target=one.run)
        thread.start()
        try:
            while one.relayed < 2:
                time.sleep(0.01)
            nats_server.run(nats_url, lambda jetstream: purge(jetstream, stream))
            assert told.wait(30)
            ids += fill(app.store, 1, 2)
            while one.relayed < 3:
                time.sleep(0.01)
        finally:
            one.stop()
            thread.join()
    assert relayed(nats_url, stream) == ids[2:]


@pytest.mark.parametrize(
    ("empty", "limits", "warnings"), [(purge, {}, 1), (nothing, {}, 0), (purge, {"max_msgs": 1}, 0)]
)
@pytest.mark.sample(1)
def test_a_stream_that_is_emptied_between_two_events_is_said_once(
    data, nats_url, stream, monkeypatch, empty, limits, warnings
):
    """One that forgets by itself is as it should be."""
    monkeypatch.setattr("orders.adapters.nats.relay.CHECK", 1e9)
    add(nats_url, stream, **limits)
    own, looks, said = Relay._look, [], []

    async def look(self, *arguments):
        looks.append(await own(self, *arguments))
        return looks[-1]

    monkeypatch.setattr(Relay, "_look", look)
    options = {"stream": stream, "prefix": f"{stream}."}
    with bootstrap(data) as app:
        fill(app.store, 2)
        one = Relay(app.store, nats_url, warn=lambda error: said.append(str(error)), **options)
        thread = threading.Thread(target=one.run)
        thread.start()
        try:
            for number in (2, 3):
                while one.relayed < number:
                    assert thread.is_alive()
                    time.sleep(0.01)
                if number == 2:
                    nats_server.run(nats_url, lambda jetstream: empty(jetstream, stream))
                    fill(app.store, 1, number)
            monkeypatch.setattr("orders.adapters.nats.relay.CHECK", 0.05)
            while len(looks) < 3:
                assert thread.is_alive()
                time.sleep(0.01)
        finally:
            one.stop()
            thread.join()
    assert said == [f"stream {stream} was purged, and has only what came since"] * warnings


# Refusals


def refusal(data, url, stream, **options):
    with pytest.raises(OrdersError) as caught:
        relay(data, url, stream=stream, prefix=f"{stream}.", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.hint


def add(url, stream, **config):
    config = {"subjects": [f"{stream}.>"], **config}
    nats_server.run(url, lambda jetstream: jetstream.add_stream(name=stream, **config))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"retention": RetentionPolicy.WORK_QUEUE}, "(retention: workqueue)"),
        ({"retention": RetentionPolicy.INTEREST}, "forgets what was read"),
        ({"no_ack": True}, "acknowledges nothing"),
        ({"subjects": ["other.>"]}, "does not take"),
        ({"max_msg_size": 20}, "message size exceeds maximum allowed"),
        ({"max_msgs": 1, "discard": "new"}, "maximum messages exceeded"),
        ({"max_bytes": 700, "discard": "new"}, "maximum bytes exceeded"),
    ],
)
@pytest.mark.sample(4)
def test_a_stream_that_cannot_hold_the_events_is_refused(data, nats_url, stream, config, reason):
    if "subjects" in config:
        config = {"subjects": [f"{stream}.other"]}
    add(nats_url, stream, **config)
    with bootstrap(data) as app:
        fill(app.store, 3)
    said, hint = refusal(data, nats_url, stream)
    assert reason in said
    assert hint


def test_a_stream_whose_subjects_another_one_has_is_refused(data, nats_url, stream):
    add(nats_url, stream)
    with pytest.raises(NatsRefused, match="subjects overlap") as caught:
        relay(data, nats_url, stream=f"{stream}2", prefix=f"{stream}.")
    assert "--stream" in caught.value.hint


def test_a_stream_with_the_events_of_another_store_is_refused(data, tmp_path, nats_url, stream):
    for store in (data, tmp_path / "another"):
        with bootstrap(store) as app:
            fill(app.store, 1)
    relay(tmp_path / "another", nats_url, stream=stream, prefix=f"{stream}.")
    said, hint = refusal(data, nats_url, stream)
    assert "has the events of another store" in said
    assert "--stream" in hint


def test_a_store_that_has_lost_events_is_refused(data, tmp_path, nats_url, stream):
    with bootstrap(data) as app:
        fill(app.store, 1)
        shutil.copytree(data, tmp_path / "backup")
        fill(app.store, 1, 1)
    relay(data, nats_url, stream=stream, prefix=f"{stream}.")
    said, hint = refusal(tmp_path / "backup", nats_url, stream)
    assert "does not have" in said
    assert "backup" in hint


EARLY = {"specversion": "1.0", "id": "1", "source": "/orders/1", "type": "OrderShipped"}
EARLY |= {"time": "0001-01-01T00:00:00+14:00", "data": {"order_id": "1"}}  # it is none in UTC


@pytest.mark.parametrize("message", [b"hello", json.dumps(EARLY).encode()])
def test_a_stream_that_somebody_else_writes_to_is_refused(data, nats_url, stream, message):
    with bootstrap(data) as app:
        fill(app.store, 1)
    add(nats_url, stream)
    nats_server.run(nats_url, lambda jetstream: jetstream.publish(f"{stream}.x", message))
    assert "is not from a relay" in refusal(data, nats_url, stream)[0]


def test_a_message_between_ours_is_not_built_upon(data, nats_url, stream, monkeypatch):
    """It would take the place of one of ours, if only the stream's numbers were looked at."""
    with bootstrap(data) as app:
        fill(app.store, 40)
    own, sent = sender.Sender.send, []

    async def send(self, subject, *rest):
        if len(sent) == 20:
            await self._connection.client.publish(f"{stream}.x", b"hello")
        sent.append(subject)
        await own(self, subject, *rest)

    monkeypatch.setattr(sender.Sender, "send", send)
    assert "is not from a relay" in refusal(data, nats_url, stream)[0]
    ids = [
        json.loads(message.data)["id"] for message in nats_server.messages(nats_url, stream)[:-1]
    ]
    assert ids == events_of(data)[:20]


def test_an_event_that_is_too_large_is_refused_by_name(data, start_nats):
    server = start_nats("max_payload: 1000")
    with bootstrap(data) as app:
        ids = fill(app.store, 1)
        app.bus.dependencies["notifier"] = Sales()
        app.bus.send(PlaceOrder(items=("rope",) * 500))
    with pytest.raises(NatsRefused, match="bytes, which is more than it takes") as caught:
        relay(data, server.url())
    assert events_of(data)[1] in str(caught.value)
    assert caught.value.hint == "raise max_payload of the server"
    assert relayed(server.url(), "ORDERS") == ids


def test_an_event_that_nothing_here_defines_is_refused(data, nats_url, stream):
    with bootstrap(data) as app:
        ids = fill(app.store, 1)
        eaten = UnknownMessage(id="e", correlation_id="e", name="OrderEaten", fields={})
        app.store.restore([Record((), 2, TIME, (eaten,), ())])
    said, hint = refusal(data, nats_url, stream)
    assert said == "record 2 has OrderEaten, which nothing here defines"
    assert "--plugin" in hint
    assert relayed(nats_url, stream) == ids


def test_a_user_who_may_not_create_the_stream_is_told_so_and_goes_on_once_it_is_there(
    data, start_nats
):
    may = '"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "orders.>"'
    server = start_nats(
        "authorization { users: [ { user: all, password: p },"
        f" {{ user: me, password: p, permissions: {{ publish: [{may}] }} }} ] }}"
    )
    with bootstrap(data) as app:
        ids = fill(app.store, 3)
    with pytest.raises(NatsRefused, match="there is no stream ORDERS") as caught:
        relay(data, server.url("me:p"))
    assert caught.value.hint.startswith("nats stream add ORDERS --subjects 'orders.>'")
    admin = server.url("all:p")
    nats_server.run(admin, lambda one: one.add_stream(name="ORDERS", subjects=["orders.>"]))
    assert relay(data, server.url("me:p")).relayed == 3
    assert relayed(admin, "ORDERS") == ids


def test_a_missing_permission_to_publish_is_said(data, start_nats):
    server = start_nats(
        'authorization { users: [ { user: me, password: p, permissions: { publish: "$JS.API.>" } }'
        " ] }"
    )
    with bootstrap(data) as app:
        fill(app.store, 3)
    with pytest.raises(NatsRefused, match="no permission for publish") as caught:
        relay(data, server.url("me:p"))
    assert "granted" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("orders.>", "orders.x", True),
        ("orders.>", "orders.x.y", True),
        ("orders.>", "orders", False),
        ("orders.*", "orders.x", True),
        ("orders.*", "orders.x.y", False),
        ("*.x", "orders.x", True),
        (">", "orders", True),
        ("orders.x", "orders.x", True),
        ("orders.x", "orders.y", False),
    ],
)
def test_subjects_match_as_nats_has_it(pattern, subject, expected):
    assert matches(pattern, subject) is expected


# What the store remembers


@pytest.mark.engines
def test_the_store_knows_how_far_each_stream_is(data, send, nats_url, stream):
    send(*[PlaceOrder(items=("rope",))] * 3)
    relay(data, nats_url, stream=stream, prefix=f"{stream}.")
    send(*[PlaceOrder(items=("rope",))] * 2)
    with bootstrap(data) as app:
        (position,) = positions.positions(app.store)
        assert (position.stream, position.sequence) == (stream, 3)
        assert position.event == events_of(data)[2]
        assert positions.behind(app.store, position) == 2


def test_a_store_that_was_copied_goes_on_in_the_same_stream(data, tmp_path, nats_url, stream):
    """Nothing is remembered there; the events are the same."""
    with bootstrap(data) as app:
        ids = fill(app.store, 3)
        relay(data, nats_url, stream=stream, prefix=f"{stream}.")
        ids += fill(app.store, 2, 3)
        with bootstrap(tmp_path / "moved") as moved:
            moved.store.restore([*app.store.read()])
    assert relay(tmp_path / "moved", nats_url, stream=stream, prefix=f"{stream}.").relayed == 2
    assert relayed(nats_url, stream) == ids
    with bootstrap(tmp_path / "moved") as moved:
        (position,) = positions.positions(moved.store)
        assert (position.event, position.sequence) == (ids[-1], 5)


def test_what_is_remembered_is_known_again_once_a_relay_has_looked(data, nats_url, stream):
    with bootstrap(data) as app:
        ids = fill(app.store, 3)
        relay(data, nats_url, stream=stream, prefix=f"{stream}.")
        (path,) = (data / "projections").glob("relay.*")
        path.write_text(path.read_text().replace('"cursor"', '"course"'))
        assert positions.positions(app.store) == []
        assert relay(data, nats_url, stream=stream, prefix=f"{stream}.").relayed == 0
        (position,) = positions.positions(app.store)
        assert (position.event, positions.behind(app.store, position)) == (ids[-1], 0)
