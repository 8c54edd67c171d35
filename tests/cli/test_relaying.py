"""`orders relay`: what is said, how it ends, and what `orders doctor` says of it."""

import os
import re
import signal
import subprocess
import sys
import time

import nats_server
import pytest
from command_line import rows

from orders import PlaceOrder

TO_THE_END = ["--until-idle", "0"]


@pytest.fixture
def relay(data, nats_url, stream):
    """The arguments that relay to a stream of this test's own."""
    return ["relay", nats_url, "--stream", stream, "--subject-prefix", f"{stream}."]


@pytest.fixture
def relaying(data):
    """Start a relay as a process of its own; it hears Ctrl-C whatever the tests do."""
    started = []

    def start(*arguments):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            command = [sys.executable, "-m", "orders", "relay", *arguments]
            env = {**os.environ, "ORDERS_DATA": str(data)}
            started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        finally:
            signal.signal(signal.SIGINT, before)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def count(url, stream):
    async def ask(jetstream):
        return (await jetstream.stream_info(stream)).state.messages

    return nats_server.run(url, ask, missing=0)


def test_it_says_what_it_has_made_and_how_many_events_it_has_sent(tool, send, relay, stream):
    send(*[PlaceOrder(items=("rope",))] * 2)
    ran = tool(*relay, "--until-idle", "0")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == (
        f"Created the stream {stream}, for {stream}.>.\n2 events relayed to {stream}.\n"
    )
    send(PlaceOrder(items=("rope",)))
    assert tool(*relay, "--until-idle", "0").stderr == f"1 event relayed to {stream}.\n"


@pytest.mark.engines
def test_doctor_says_how_far_a_relay_is_behind_and_asks_no_server(tool, send, start_nats, data):
    users = "{ user: me, password: secret }, { user: other, password: secret }"
    server = start_nats(f"authorization {{ users: [{users}] }}")
    assert "relays" not in {row[1] for row in rows(tool("doctor"))}
    for user in ("other", "me"):  # who is one relay
        send(PlaceOrder(items=("rope",)))
        assert tool("relay", server.url(f"{user}:secret"), *TO_THE_END).returncode == 0
    server.kill()
    where = f"stream ORDERS of {server.url('me')}"
    said = [row for row in rows(tool("doctor")) if row[1] == "relays"]
    assert said == [["ok", "relays", f"{where} has every event", ""]]
    send(*[PlaceOrder(items=("rope",))] * 3)
    (said,) = [row for row in rows(tool("doctor")) if row[1] == "relays"]
    assert (said[0], said[3]) == (
        "waiting",
        f"orders relay {server.url('me:PASSWORD')} --stream ORDERS",
    )
    assert said[2].startswith(f"{where} is 3 events behind; if that relay is not wanted any more,")


def test_what_is_to_be_typed_for_everything_again_has_a_word_for_the_password(
    tool, send, start_nats
):
    server = start_nats("authorization { user: me, password: secret }")
    url = server.url("me:secret")
    send(PlaceOrder(items=("rope",)))
    tool("relay", url, *TO_THE_END)
    nats_server.run(url, lambda jetstream: jetstream.purge_stream("ORDERS"))
    said = tool("relay", url, *TO_THE_END).stderr
    assert f"orders relay {server.url('me:PASSWORD')} --stream ORDERS --from start" in said


def test_a_relay_that_is_not_wanted_any_more_is_forgotten_as_doctor_says(tool, send, relay, data):
    send(PlaceOrder(items=("rope",)))
    assert tool(*relay, *TO_THE_END).returncode == 0
    send(PlaceOrder(items=("rope",)))
    (said,) = [row for row in rows(tool("doctor")) if row[1] == "relays"]
    name = said[2].rpartition("remove the snapshot ")[2]
    (data / "projections" / f"{name}.json").unlink()
    assert "relays" not in {row[1] for row in rows(tool("doctor"))}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.sample(1)
def test_a_signal_ends_it_in_good_order(send, relaying, relay, nats_url, stream, number):
    send(PlaceOrder(items=("rope",)))
    process = relaying(*relay[1:])
    while not count(nats_url, stream):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 0)
    assert re.search(r"^[01] events? relayed to \w+\.\n\Z", said, re.MULTILINE)  # as it has heard


def test_a_server_that_is_lost_is_waited_for_and_a_signal_ends_the_waiting(
    send, relaying, start_nats
):
    server = start_nats()
    send(PlaceOrder(items=("rope",)))
    process = relaying(server.url())
    while not count(server.url(), "ORDERS"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    server.restart()
    send(PlaceOrder(items=("rope",)))
    while count(server.url(), "ORDERS") < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    server.kill()
    process.stderr.readline()  # that the stream was made
    for _ in range(2):
        assert process.stderr.readline().startswith(f"warning: cannot use {server.url()}: ")
        assert process.stderr.readline().startswith("try: ")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]  # of an event that is there, it may not have heard
    assert said in {"2 events relayed to ORDERS.\n", "1 event relayed to ORDERS.\n"}
    assert process.returncode == 0


def test_a_terminal_shows_how_many_how_fast_and_how_far_behind(screen, send, relay):
    send(*[PlaceOrder(items=("rope",))] * 2)
    status, shown = screen(*relay, "--until-idle", "0.5")
    assert status == 0
    assert "2 events relayed, " in shown
    assert "a second, up to date" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://host"], "cannot use http://host: it is no URL of a NATS server"),
        (["nats://me:secret@127.0.0.1:1"], "nats://me@127.0.0.1:1: connection refused"),
    ],
)
def test_what_cannot_be_reached_is_said_without_the_password(tool, arguments, said):
    ran = tool("relay", *arguments)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "try: " in ran.stderr
    assert "secret" not in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--stream", "a.b"],
        ["--stream", ""],
        ["--stream", "a*"],
        ["--subject-prefix", "orders"],
        ["--subject-prefix", ""],
        ["--subject-prefix", "orders.>."],
        ["--subject-prefix", "a b."],
        ["--from", "yesterday"],
        ["--until-idle", "nan"],
    ],
    ids=" ".join,
)
def test_what_is_no_name_is_wrong_use(tool, arguments):
    assert tool("relay", "nats://127.0.0.1:1", *arguments).returncode == 2


def test_without_the_library_what_to_install_is_said(data):
    script = (
        "import sys; sys.modules['nats'] = None; from orders import cli;"
        " sys.argv = ['orders', 'relay', 'nats://127.0.0.1:1']; cli.main()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: a relay needs nats-py: ")
    assert ran.stderr.endswith('try: pip install "orders[nats]"\n')
