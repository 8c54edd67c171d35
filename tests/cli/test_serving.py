"""`orders serve`: what other services ask for is done once, and answered, whoever is killed."""

import ast
import asyncio
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import forked
import nats_server
import pytest
from command_line import ids, refused, rows
from nats.errors import Error
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig
from other_service import REQUESTS, SUBJECT, ask, asked, talk
from screens import plain

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.adapters.nats.serving import CONSUMER, DEATHS

SOON = 0.3  # seconds after which a request goes to another server, where a test waits for that
ITEMS = {"items": ["rope"]}
TO_THE_END = ["--until-idle", "0"]


@pytest.fixture(scope="module")
def server():
    """A nats-server for this file's tests, one after the other."""
    server = nats_server.Server()
    yield server
    server.close()


@pytest.fixture
def nats(server):
    """The server, as if nobody had ever asked for anything."""
    yield server

    async def forget(client):
        with suppress(Exception):
            await client.jetstream().delete_stream(REQUESTS)

    talk(server.url(), forget)


@pytest.fixture
def serving(fork, data, tmp_path):
    """Start `orders serve` as a process of its own; what it prints is in files named by number."""
    started = []

    def start(url, *arguments, env=()):
        names = [os.devnull, *(str(tmp_path / f"{name}{len(started)}") for name in ("out", "err"))]
        environment = {**os.environ, "ORDERS_DATA": str(data), **dict(env)}
        call = (Path.cwd(), environment, ["serve", url, *arguments], names)
        started.append(fork(forked.called, *call))
        return started[-1]

    return start


def prepare(url, soon=SOON):
    """Have the work queue before any server, its requests going to another server soon."""

    async def make(client):
        jetstream = client.jetstream()
        subjects = [f"{SUBJECT}.*", f"{SUBJECT}.dead.*"]
        retention = RetentionPolicy.WORK_QUEUE
        await jetstream.add_stream(
            StreamConfig(
                name=REQUESTS, subjects=subjects, retention=retention, duplicate_window=0.1
            )
        )
        await jetstream.add_consumer(
            REQUESTS,
            ConsumerConfig(
                name=CONSUMER, durable_name=CONSUMER, ack_wait=soon, filter_subject=subjects[0]
            ),
        )

    talk(url, make)


def placed(data):
    with bootstrap(data) as app:
        return [
            message.key
            for record in app.store.read()
            for message in record.messages
            if isinstance(message, OrderCreated)
        ]


# Once


@pytest.mark.engines
@pytest.mark.parametrize(
    ("requests", "kills"), [(30, 2), pytest.param(1000, 50, marks=pytest.mark.long)]
)
def test_each_order_that_is_asked_for_until_it_is_answered_is_placed_once_whoever_is_killed(
    requests, kills, nats, serving, tool, data
):
    servers = [serving(nats.url()) for _ in range(3)]
    left = list(range(requests))
    answers = {}

    async def customer(client):
        while left:
            number = left.pop()
            answers[number] = await ask(client, "place-order", str(number), items=[str(number)])
            if kills * (len(answers) + 1) // (requests + 1) > len(killed):
                killed.append(random.randrange(3))
                servers[killed[-1]].kill()
                servers[killed[-1]] = serving(nats.url())
                if len(killed) % 10 == 0:
                    await asyncio.to_thread(nats.restart)

    async def customers(client):
        await asyncio.gather(*(customer(client) for _ in range(8)))

    killed = []
    talk(nats.url(), customers)
    assert len(killed) >= kills - 1
    for server in servers:
        server.kill()
        server.wait()
    assert sorted(placed(data)) == sorted(map(str, range(requests)))
    stored = {row[0]: json.loads(row[4]) for row in rows(tool("list", env=WORKERS))}
    answered = {answer["order"]["id"]: answer["order"]["items"] for answer in answers.values()}
    assert answered == stored
    tool("list")  # delivers what those have left that were killed last
    assert Counter(row[2] for row in rows(tool("deliveries"))).keys() == {"done"}


WORKERS = {"ORDERS_DELIVER": "worker"}


def test_a_request_whose_server_dies_in_the_middle_goes_to_another_one_and_is_placed_once(
    nats, serving, data
):
    prepare(nats.url())
    victim = serving(nats.url(), env={"ORDERS_FAULT": "after-fsync"})

    async def ask_once(client):
        answer = asyncio.ensure_future(ask(client, "place-order", "1", again=60, **ITEMS))
        assert await asyncio.to_thread(victim.wait) == -signal.SIGKILL
        serving(nats.url())
        return await answer

    answer = talk(nats.url(), ask_once)
    assert placed(data) == ["1"]
    with bootstrap(data) as app:
        assert answer["order"]["id"] in app.orders


async def waiting(client, servers):
    """Return once so many servers wait for a request."""
    info = None
    while info is None or info.num_waiting < servers:
        await asyncio.sleep(0.02)
        with suppress(Error):
            info = await client.jetstream().consumer_info(REQUESTS, CONSUMER)


def test_servers_share_the_work_and_one_delivers_what_another_one_has_left(nats, serving, data):
    prepare(nats.url())
    serving(nats.url())
    talk(nats.url(), lambda client: waiting(client, 1))
    victim = serving(nats.url(), env={"ORDERS_FAULT": "before-delivery"})

    async def order_until_one_dies(client):
        await waiting(client, 2)
        death = asyncio.ensure_future(asyncio.to_thread(victim.wait))
        number = 0
        while not death.done() or number < 10:  # ten make a bestseller
            await ask(client, "place-order", str(number), **ITEMS)
            number += 1
        with bootstrap(data) as app:
            while [*app.store.pending()] or "BestsellerFound" not in names(app):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return number

    number = talk(nats.url(), order_until_one_dies)
    assert victim.wait() == -signal.SIGKILL
    assert sorted(placed(data)) == sorted(map(str, range(number)))


def names(app):
    return {type(m).__name__ for record in app.store.read() for m in record.messages}


def test_a_request_that_ends_every_server_is_answered_in_the_end_and_put_aside(nats, serving, data):
    prepare(nats.url())

    async def poison(client):
        answer = asyncio.ensure_future(ask(client, "place-order", "1", again=60, **ITEMS))
        for _ in range(DEATHS):
            victim = serving(nats.url(), env={"ORDERS_FAULT": "before-append"})
            assert await asyncio.to_thread(victim.wait) == -signal.SIGKILL
        serving(nats.url())
        said = await answer
        aside = await client.jetstream().get_last_msg(REQUESTS, f"{SUBJECT}.dead.place-order")
        return said, aside, await ask(client, "place-order", "1", **ITEMS)

    said, aside, again = talk(nats.url(), poison)
    assert said == {"request": "1", "error": "5 servers began with it, and none could end it"}
    assert json.loads(aside.data) == ITEMS
    assert aside.headers["Nats-Msg-Id"] == "dead 1"
    assert "order" in again
    assert placed(data) == ["1"]


def test_a_store_that_is_busy_is_waited_for(nats, serving, data, tmp_path):
    with bootstrap(data) as app:
        app.bus.send(PlaceOrder(("lamp",)))

        async def ask_while_it_is_busy(client):
            server = serving(nats.url(), env={"ORDERS_LOCK_TIMEOUT": "0.05"})
            await waiting(client, 1)
            with app.store._writing():
                answer = asyncio.ensure_future(ask(client, "place-order", "1", again=60, **ITEMS))
                while "the store was busy" not in read(tmp_path / "err0"):  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.02)
            said = await answer
            os.kill(server.pid, signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
            return said

        assert "order" in talk(nats.url(), ask_while_it_is_busy)


def has_ended(child):
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_store_that_cannot_write_is_waited_for_and_its_server_ends_when_it_is_told_to(
    nats, serving, send, data, tmp_path
):
    prepare(nats.url(), soon=3600)
    send(*[PlaceOrder(("lamp",)) for _ in range(10)])  # a log longer than what the server prints
    server = serving(nats.url())
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)

    async def put_while_it_is_full(client, number):
        await waiting(client, 1)
        full = (data / "events.jsonl").stat().st_size
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (full, most))
        headers = {"Nats-Msg-Id": str(number)}
        subject, body = f"{SUBJECT}.place-order", json.dumps(ITEMS).encode()
        await client.jetstream().publish(subject, body, headers=headers)
        is_held = False
        while not is_held or "warning: could not write" not in read(tmp_path / "err0"):
            assert not has_ended(server)
            await asyncio.sleep(0.02)
            found = await client.jetstream().consumer_info(REQUESTS, CONSUMER)
            is_held = found.num_ack_pending > 0

    talk(nats.url(), lambda client: put_while_it_is_full(client, 1))
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))
    assert "order" in asked(nats.url(), "place-order", "1", **ITEMS)
    talk(nats.url(), lambda client: put_while_it_is_full(client, 2))
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    serving(nats.url())
    assert "order" in asked(nats.url(), "place-order", "2", **ITEMS)
    assert placed(data)[10:] == ["1", "2"]


def test_a_server_goes_on_when_nats_does_and_ends_when_it_is_told_to_meanwhile(
    start_nats, serving, data, tmp_path
):
    nats = start_nats()
    server = serving(nats.url())
    assert "order" in asked(nats.url(), "place-order", "1", **ITEMS)
    nats.restart()
    assert "order" in asked(nats.url(), "place-order", "2", **ITEMS)
    nats.kill()
    said_by = time.monotonic() + 60
    while "try: start the server" not in read(tmp_path / "err0"):
        assert time.monotonic() < said_by
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert placed(data) == ["1", "2"]


def test_the_queue_that_a_server_makes_drops_no_request_and_answers_repeats_soon(nats, tool):
    assert tool("serve", nats.url(), *TO_THE_END).returncode == 0

    async def look(client):
        jetstream = client.jetstream()
        made = (await jetstream.stream_info(REQUESTS)).config
        return made, (await jetstream.consumer_info(REQUESTS, CONSUMER)).config

    stream, consumer = talk(nats.url(), look)
    assert (stream.retention, stream.discard, stream.duplicate_window) == ("workqueue", "new", 0.1)
    assert consumer.max_deliver > DEATHS


def read(path):
    return path.read_text() if path.exists() else ""


def test_a_server_whose_store_is_damaged_leaves_the_request_to_another_one(
    nats, serving, send, data, tmp_path
):
    prepare(nats.url(), soon=3600)
    send(PlaceOrder(("lamp",)))
    first = serving(nats.url())
    log = data / "events.jsonl"
    sound = log.read_bytes()

    async def ask_meanwhile(client):
        await waiting(client, 1)
        log.write_text("my notes\n")
        answer = asyncio.ensure_future(ask(client, "place-order", "1", again=60, **ITEMS))
        assert await asyncio.to_thread(first.wait) == 1
        log.write_bytes(sound)
        serving(nats.url())
        return await answer

    assert "order" in talk(nats.url(), ask_meanwhile)
    assert "events.jsonl" in read(tmp_path / "err0")


# Answers


def put(url, *requests):
    """Ask for things and do not wait for the answers."""

    async def publish(client):
        for number, (topic, fields) in enumerate(requests):
            await client.jetstream().publish(
                f"{SUBJECT}.{topic}",
                json.dumps(fields).encode(),
                headers={"Nats-Msg-Id": str(number)},
            )

    prepare(url)
    talk(url, publish)


def test_each_request_is_shown_with_what_came_of_it(nats, tool):
    put(nats.url(), ("place-order", ITEMS), ("ship-order", {"order_id": "x"}), ("odd", {}))
    served = tool("serve", nats.url(), *TO_THE_END)
    assert served.returncode == 0
    shown = [line.split("\t") for line in served.stdout.splitlines()]
    (order_id,) = ids(tool("list"))
    assert shown == [
        ["0", "place-order", order_id, "placed"],
        ["1", "ship-order", "", "no order 'x'"],
        [
            "2",
            "odd",
            "",
            "nobody is asked for 'odd'; ask for place-order, ship-order, cancel-order",
        ],
    ]
    assert "New Order:" in served.stderr
    assert served.stderr.endswith("\n1 request fulfilled, 2 refused.\n")


def test_as_json_the_answers_are_shown(nats, tool):
    put(nats.url(), ("place-order", ITEMS), ("odd", {}))
    shown = tool("serve", nats.url(), "--json", *TO_THE_END).stdout
    fulfilled, refused = map(json.loads, shown.splitlines())
    assert fulfilled["order"]["items"] == ["rope"]
    assert set(refused) == {"request", "error"}


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.sample(1)
def test_on_a_terminal_requests_are_drawn(nats, screen, columns):
    put(nats.url(), ("place-order", ITEMS), ("odd\x1b[1m", {}))
    status, shown = screen("serve", nats.url(), *TO_THE_END, columns=columns)
    assert status == 0
    for part in ("Serving nats://", "◆ PlaceOrder", "✗", "New Order", "1 request fulfilled"):
        assert part in plain(shown)
    assert "\x1b[1m" not in shown.partition("odd")[2].partition("\n")[0]


def test_deliveries_are_left_to_workers_where_these_deliver(nats, tool):
    put(nats.url(), ("place-order", ITEMS))
    served = tool("serve", nats.url(), *TO_THE_END, env=WORKERS)
    assert served.stderr == "1 request fulfilled, 0 refused.\n"
    assert [row[2] for row in rows(tool("deliveries", "--pending"))] == ["pending"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.sample(1)
def test_a_server_ends_when_it_is_told_to(number, status, terminal, nats):
    prepare(nats.url())
    child = terminal("serve", nats.url())
    talk(nats.url(), lambda client: waiting(client, 1))
    child.kill(number)
    child.expect_exact("0 requests fulfilled, 0 refused.")
    child.wait()
    assert child.exitstatus == status


# Hostile


def raw(nats, headers, payload=b"{}", subject=f"{SUBJECT}.place-order"):
    """Publish what no client library would."""
    head = b"NATS/1.0" + headers + b"\r\n\r\n"
    sizes = f"{len(head)} {len(head) + len(payload)}"
    with socket.create_connection(("127.0.0.1", nats.port)) as connection:
        connection.sendall(b'CONNECT {"headers": true, "verbose": false}\r\n')
        connection.sendall(f"HPUB {subject} {sizes}\r\n".encode() + head + payload)
        connection.sendall(b"\r\nPING\r\n")
        said = connection.makefile("rb")
        assert b"PONG" in said.readline() + said.readline()


@pytest.mark.parametrize(
    "headers",
    [
        b"\r\nStatus: 503",
        b"\r\nStatus: 404\r\nDescription: x",
        b"\r\nStatus: 100",
        b" 503 gone",
        b" \xff\xff\xff",
        b"\r\n\xff: \xff\r\nNats-Msg-Id: \xff\xfe",
        b"\r\nNats-Msg-Id: \x1b[1m\r\nReply-To: _INBOX.a b",
        *(
            b"\r\nNats-Msg-Id: 1\r\nReply-To: " + subject
            for subject in (b"private.thing", b"order-requests.ship-order", b"$JS.API.INFO")
        ),
        *(b"\r\nReply-To: " + subject for subject in (b"_INBOX.*", b"_INBOX.>", b"_INBOX..a", b"")),
    ],
)
@pytest.mark.sample(2)
def test_no_header_ends_a_server_or_has_it_publish_elsewhere(headers, nats, serving):
    prepare(nats.url())
    server = serving(nats.url())

    async def attack(client):
        heard = await client.subscribe("private.>")
        others = await client.subscribe("order-requests.ship-order")
        await waiting(client, 1)
        await asyncio.to_thread(raw, nats, headers, json.dumps(ITEMS).encode())
        answer = await ask(client, "place-order", "good", again=5, items=["lamp"])
        await client.flush()
        assert heard.pending_msgs == others.pending_msgs == 0
        return answer

    assert "order" in talk(nats.url(), attack)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0


def test_an_answer_that_may_not_be_sent_is_survived(start_nats, serving, tmp_path):
    may = 'permissions: { publish: { deny: ["_INBOX.private.>"] } }'
    config = f"authorization {{ users: [{{ user: me, password: secret, {may} }}] }}"
    limited = start_nats(config)
    server = serving(limited.url("me:secret"))

    async def attack(client):
        headers = {"Nats-Msg-Id": "1", "Reply-To": "_INBOX.private.x"}
        await ask(client, "place-order", "0", **ITEMS)
        for number in range(3):
            headers["Nats-Msg-Id"] = f"bad {number}"
            await client.jetstream().publish(f"{SUBJECT}.place-order", b"{}", headers=headers)
        return await ask(client, "place-order", "1", **ITEMS)

    assert "order" in talk(limited.url("me:secret"), attack)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert "no permission for publish to" in read(tmp_path / "err0").lower()


# Refused


def test_what_keeps_a_server_from_serving_is_said(nats, tool):
    assert refused(tool("serve", "nats://127.0.0.1:1"), "connection refused")
    assert refused(tool("serve", nats.url(), "--stream", "a b"), "'a b'", "letters", status=2)
    assert refused(tool("serve", nats.url(), "--subject", "a.>"), "'>'", "letters", status=2)

    async def other(client):
        await client.jetstream().add_stream(name=REQUESTS, subjects=[f"{SUBJECT}.*"])

    talk(nats.url(), other)
    assert refused(tool("serve", nats.url()), "no work queue of order-requests.*", "--stream")
    overlapping = tool("serve", nats.url(), "--stream", "OTHER")
    assert refused(overlapping, "subjects overlap with an existing stream")


def test_the_example_of_the_readme_asks_for_an_order_before_anybody_has_served(
    start_nats, serving, data
):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(
        r"```python\n(import asyncio, json, nats\n.*?order-requests.*?)```", readme, re.DOTALL
    )
    server = start_nats("trace: true")
    script = example.replace("nats://127.0.0.1:4222", server.url())
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asker:
        try:
            while "order-requests.place-order" not in server.log and asker.poll() is None:
                time.sleep(0.01)
            serving(server.url())
            out, errors = asker.communicate(timeout=60)
        finally:
            asker.kill()
    assert errors == ""
    assert ast.literal_eval(out)["order"]["customer"] == "Ada"
    assert placed(data) == ["shop 4711"]
