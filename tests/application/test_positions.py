"""What is remembered of a stream is found again, whoever relays to it and however it is named."""

import pytest

from orders.application.positions import Position


def position(location, stream="ORDERS"):
    return Position(location, stream, "", 0, 0, ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nats://host", "nats://me@host"),
        ("nats://a@host", "nats://b@host"),
        ("nats://host", "nats://HOST:4222"),
        ("nats://host", "tls://host/"),
        ("nats://a,b:5", "nats://me@b:5,nats://a"),
        ("nats://[::1]", "nats://[::1]:4222"),
    ],
)
def test_a_stream_is_the_same_whoever_asks_and_however_its_servers_are_written(one, other):
    assert position(one).name == position(other).name


@pytest.mark.parametrize("other", ["nats://b", "nats://a:5", "nats://a,b"])
def test_streams_of_other_servers_are_others(other):
    assert position("nats://a").name != position(other).name
    assert position("nats://a").name != position("nats://a", "OTHERS").name


@pytest.mark.parametrize(
    ("location", "url"),
    [("nats://host:1", "nats://host:1"), ("nats://me@host", "nats://me:PASSWORD@host")],
)
def test_a_command_is_given_a_user_with_a_password(location, url):
    assert position(location).url == url
