"""Whatever is wrong with a NATS server is said in one line, with what to try, in good time."""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from nats.js.api import ConsumerConfig, StreamConfig

from orders.adapters.nats import connection, refusals
from orders.adapters.nats.connection import Address, Connection, connected, keep_connected
from orders.adapters.nats.consuming import Puller, find_consumer, find_stream
from orders.adapters.nats.refusals import NatsLost, NatsRefused, NobodyThere
from orders.adapters.nats.sender import Sender
from orders.adapters.nats.stream import Tail

# A key, and its certificate for 127.0.0.1, which no authority has signed; good until 2126.
CERTIFICATE = Path(__file__).with_name("certificate.pem")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    """Have nobody rest between two attempts to connect, nor nats-py before it gives up."""
    monkeypatch.setattr(connection, "PAUSE", 0.01)


def connect(url, then=lambda one: one.check_jetstream()):
    async def main():
        async with connected(Address.parse(url)) as one:
            return await then(one)

    return asyncio.run(main())


def refusal(url, **options):
    """Return what is said, and what to try."""
    with pytest.raises(NatsRefused) as caught:
        connect(url, **options)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    return str(caught.value), caught.value.hint


# Addresses


@pytest.mark.parametrize(
    ("url", "location", "servers", "credentials"),
    [
        ("nats://host", "nats://host", ["nats://host"], {}),
        ("tls://host:1", "tls://host:1", ["tls://host:1"], {}),
        ("nats://me:a%40b@h", "nats://me@h", ["nats://h"], {"user": "me", "password": "a@b"}),
        ("nats://me:a@b@h", "nats://me@h", ["nats://h"], {"user": "me", "password": "a@b"}),
        ("nats://token@h", "nats://h", ["nats://h"], {"token": "token"}),
        ("nats://a,b:2", "nats://a,b:2", ["nats://a", "nats://b:2"], {}),
        ("nats://a,nats://b", "nats://a,nats://b", ["nats://a", "nats://b"], {}),
        ("nats://[::1]:7", "nats://[::1]:7", ["nats://[::1]:7"], {}),
    ],
)
def test_a_url_says_where_servers_are_and_who_asks(url, location, servers, credentials):
    address = Address.parse(url)
    assert (address.location, address.servers) == (location, servers)
    assert address.credentials == credentials
    assert repr(address) == f"Address({location!r})"


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "http://host", "nats://", "nats://h:x", "nats://h:0", "nats://h:99999"),
        *("nats://h/x", "nats://h?x", "nats://h#x", "nats://[::1", "nats://h:1\n", "nats://a,,b"),
        *("nats", "nats:host", "nats://me:secret@", "nats://secret@h:x"),
    ],
)
def test_what_is_no_url_of_a_server_is_refused_without_its_secret(url):
    with pytest.raises(NatsRefused, match="it is no URL of a NATS server") as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)
    assert caught.value.hint.startswith("nats://HOST:4222")


# Refusals


def test_nobody_listening_is_said():
    said, hint = refusal("nats://127.0.0.1:1")
    assert said == "cannot use nats://127.0.0.1:1: connection refused"
    assert "start the server" in hint


def test_a_host_that_there_is_not_is_said():
    said, hint = refusal("nats://nowhere.invalid")
    assert (said.partition(": ")[2], hint) == (
        "there is no such host",
        "correct the host in the URL",
    )


def test_a_server_without_jetstream_is_told_from_one_without_a_stream(start_nats):
    server = start_nats(jetstream=None)
    said, hint = refusal(server.url())
    assert said.endswith("the server has no JetStream")
    assert hint == "start the server with JetStream: nats-server -js"
    said, hint = refusal(
        start_nats().url(), then=lambda one: one.ask(one.jetstream.stream_info("NONE"))
    )
    assert said.endswith("stream not found")
    assert "--stream" in hint


@pytest.mark.parametrize(
    ("config", "right", "wrong"),
    [
        ('authorization { user: me, password: "secret" }', "me:secret", "me:secret2"),
        ('authorization { token: "secret" }', "secret", "secret2"),
    ],
)
def test_wrong_credentials_are_said_and_right_ones_are_let_in(start_nats, config, right, wrong):
    server = start_nats(config)
    connect(server.url(right))
    for user in (wrong, ""):
        said, hint = refusal(server.url(user))
        assert said.endswith("it refuses this user")
        assert hint.startswith("correct user and password")


def test_a_missing_permission_is_said_at_once(start_nats):
    server = start_nats(
        'authorization { users: [{ user: me, password: secret, permissions: { publish: "x" } }] }'
    )
    said, hint = refusal(server.url("me:secret"))
    assert 'no permission for publish to "$js.api.info"' in said
    assert "granted" in hint


def test_people_are_told_within_five_seconds():
    assert refusals.WITHIN <= 4.5  # the rest is for starting


def test_a_server_that_hangs_is_said_before_and_after_it_has_let_us_in(start_nats, monkeypatch):
    for module in (connection, refusals):
        monkeypatch.setattr(module, "WITHIN", 0.5)
    server = start_nats()

    async def hang(one):
        server.pause()
        return await one.check_jetstream()

    assert "no answer within" in refusal(server.url(), then=hang)[0]
    server.pause()
    said, hint = refusal(server.url())
    assert said.endswith("no answer within 0.5 s")
    assert hint.startswith("look whether")
    server.resume()


def test_a_server_that_dies_while_it_is_asked_is_said(start_nats):
    server = start_nats()

    async def die(one):
        server.kill()
        return await one.check_jetstream()

    assert refusal(server.url(), then=die)[0].endswith("the connection was lost")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100_000])
def test_another_kind_of_server_is_said(said):
    def answer():
        client, _ = listening.accept()
        with client, suppress(OSError):  # nobody reads it to its end
            client.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        refused, _ = refusal(f"nats://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert refused.endswith("it is no NATS server")


def test_an_unknown_certificate_is_said_and_a_known_one_is_trusted(start_nats, monkeypatch):
    server = start_nats(f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{CERTIFICATE}" }}')
    for scheme in ("tls", "nats"):  # a server that wants TLS gets it
        said, hint = refusal(server.url(scheme=scheme))
        assert said.endswith("TLS failed: self-signed certificate")
        assert hint.startswith("have SSL_CERT_FILE name")
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    connect(server.url(scheme="tls"))


def test_a_server_without_tls_is_refused_and_not_told_the_password(start_nats):
    """nats-py would talk to it in plain text."""
    server = start_nats('authorization { user: me, password: "secret" }\ndebug: true\ntrace: true')
    said, hint = refusal(server.url("me:secret", scheme="tls"))
    assert said.endswith("it has no TLS")
    assert hint == "write nats:// in the place of tls://"
    assert "CONNECT" not in server.log
    connect(server.url("me:secret"))
    assert "CONNECT" in server.log


async def delete_under(one, stream):
    """Have a consumer pull, and a relay send, when the stream is deleted."""
    config = StreamConfig(name=stream, subjects=[f"{stream}.>"])
    await find_stream(one, stream, config)
    consumer = await find_consumer(one, stream, ConsumerConfig(durable_name="here"))
    puller = Puller(one, stream, consumer, 1)
    sender = Sender(one, stream, Tail(0), "text/plain", lambda _what, _sequence: None)
    await sender.open()
    assert await puller.next() is None
    await one.ask(one.jetstream.delete_stream(stream))
    return puller, sender


async def pull(puller, _sender):
    while True:
        await puller.next()


async def send(_puller, sender):
    await sender.send(f"{sender._stream}.x", "id", b"", None)
    await sender.finish()


@pytest.mark.parametrize("go_on", [pull, send])
def test_a_stream_that_is_deleted_under_us_is_told_from_a_server_without_jetstream(
    nats_url, stream, go_on
):
    async def use(one):
        await go_on(*await delete_under(one, stream))

    with pytest.raises(NobodyThere) as caught:
        connect(nats_url, use)
    assert "JetStream" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_mistake_of_ours_is_not_taken_for_one_of_the_server(nats_url, is_heard):
    async def mistake(*_message):
        return 1 / 0

    async def make(one):
        if not is_heard:
            await one.ask(mistake())
        await one.client.subscribe("mistake", cb=mistake)
        await one.client.publish("mistake")
        await one.ask(asyncio.Event().wait())

    with pytest.raises(ZeroDivisionError):
        connect(nats_url, make)


def test_an_address_that_is_none_is_not_taken_for_a_server_that_is_not_there():
    async def open_():
        await Connection(Address("nats://h", [None], {})).open()

    with pytest.raises((TypeError, AttributeError)):
        asyncio.run(open_())


# Going on


def test_a_session_whose_server_was_killed_is_begun_anew_once_it_is_there_again(start_nats):
    server = start_nats()
    lost = []

    async def session(one):
        await one.check_jetstream()
        if not lost:
            server.kill()
            await one.check_jetstream()
        return "done"

    def on_lost(error):
        lost.append(error)
        if len(lost) == 2:  # not at once: it cannot be reached for some time
            server.start()

    assert asyncio.run(keep_connected(Address.parse(server.url()), session, on_lost)) == "done"
    assert len(lost) >= 2
    assert all(isinstance(error, NatsLost) for error in lost)


def test_a_server_that_was_never_there_is_not_waited_for():
    lost = []
    with pytest.raises(NatsLost):
        asyncio.run(keep_connected(Address.parse("nats://127.0.0.1:1"), None, lost.append))
    assert lost == []


def test_a_server_that_hangs_from_the_first_question_on_is_not_waited_for(start_nats, monkeypatch):
    for module in (connection, refusals):
        monkeypatch.setattr(module, "WITHIN", 0.5)
    server = start_nats()
    lost = []

    async def session(one):
        server.pause()
        await one.check_jetstream()

    with pytest.raises(NatsLost, match="no answer within"):
        asyncio.run(keep_connected(Address.parse(server.url()), session, lost.append))
    assert lost == []
    server.resume()
