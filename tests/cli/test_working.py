"""`orders worker`, --defer and ORDERS_DELIVER: who delivers, what is shown, how it ends."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from command_line import done, ids, refused, rows
from screens import plain

from orders import PlaceOrder, bootstrap
from orders.errors import OrdersError

WORKERS = {"ORDERS_DELIVER": "worker"}
SAMPLE = re.compile(r'(\w+)\{subscriber="((?:[^"\\\n]|\\.)*)"\} (\d+(?:\.\d+)?)')

# A subscriber that says what it is at, and goes on when it is told to.
SLOW = """
from pathlib import Path
from orders import OrderCreated

def slow(event):
    Path("begun").write_text("begun")
    with Path("go").open() as told:
        told.readline()

def install(app):
    app.bus.subscribe(OrderCreated, slow, priority=-1)
"""


def pending(tool):
    listed = tool("deliveries", "--pending")
    assert listed.stderr in {"", "No delivery is pending.\n"}
    return [line.split("\t")[1] for line in listed.stdout.splitlines()]


def status_of(tool):
    return {row[1]: row[2] for row in rows(tool("deliveries"))}


@pytest.fixture
def working(data):
    """Start a worker as a process of its own; it hears Ctrl-C whatever the tests do."""
    started = []

    def start(*arguments):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "orders", *arguments],
                env={**os.environ, "ORDERS_DATA": str(data)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


# Deferring


def test_a_deferred_order_is_stored_and_shown_as_waiting_which_is_no_fault(tool, data):
    placed = tool("place", "rope", "--defer")
    assert (placed.returncode, placed.stdout) == (0, "")
    order_id = ids(tool("list", env=WORKERS))[0]
    said = f"Placed order {order_id}; workers deliver what it calls for.\n"
    assert placed.stderr == said
    assert pending(tool) == ["order_created"]
    assert "has not run yet: it waits for a worker" in done(tool("trace", order_id))
    finding = ["waiting", "deliveries", "1 to order_created wait for a worker"]
    assert finding in [row[:3] for row in rows(tool("doctor"))]
    assert "  1 left to workers: orders worker delivers\n" in done(tool())


def test_every_command_that_stores_can_defer(tool, tmp_path):
    (tmp_path / "orders.csv").write_text("key,item\na,rope\nb,lamp\n")
    imported = tool("import", "orders.csv", "--defer")
    assert (imported.returncode, imported.stderr) == (0, "2 orders imported.\n")
    first, second = ids(tool("list", env=WORKERS))
    assert tool("ship", first, "--defer").returncode == 0
    assert tool("cancel", second, "--defer", "--reason", "late").returncode == 0
    placed = json.loads(tool("place", "tv", "--defer", "--json").stdout)
    assert placed["status"] == "placed"
    assert pending(tool) == ["order_created"] * 3


def test_no_command_delivers_behind_the_back_of_workers(tool):
    fault = {"ORDERS_FAULT": "after-fsync"}
    assert tool("place", "rope", env=fault).returncode == -9
    assert tool("place", "rope", env=fault | WORKERS).returncode == -9
    for command in (["list"], ["place", "tv"], ["show", "{}"], ["ship", "{}"], ["checkpoint"]):
        order_id = ids(tool("list", env=WORKERS))[0]
        arguments = [argument.format(order_id) for argument in command]
        result = tool(*arguments, env=WORKERS)
        assert result.returncode == 0
        assert "late" not in result.stderr
    assert pending(tool) == ["order_created"] * 3
    said = "waiting\tdeliveries\t3 to order_created wait for a worker\torders worker"
    assert said in tool("doctor", env=WORKERS).stdout
    left = ids(tool("list", env=WORKERS))[-1]
    assert "its process died; a worker delivers it" in done(tool("trace", left, env=WORKERS))
    assert "  3 left to workers: orders worker delivers\n" in done(tool(env=WORKERS))


def test_without_workers_the_next_command_delivers_what_was_deferred(tool):
    for item in ("rope", "lamp"):
        assert tool("place", item, "--defer").returncode == 0
    listed = tool("list")
    assert "Delivered late: 2, left to workers; see orders log.\n" in listed.stderr
    assert pending(tool) == []


def test_policies_react_where_a_worker_is_and_not_where_orders_are_deferred(tool, data):
    for _ in range(10):
        assert tool("place", "rope", "--defer").returncode == 0
    assert "BestsellerFound" not in done(tool("log"))
    assert tool("worker", "--until-idle", "0").returncode == 0
    assert done(tool("log")).count("BestsellerFound") == 1


def test_who_delivers_is_here_or_worker(tool):
    assert refused(tool("list", env={"ORDERS_DELIVER": "somebody"}), "'somebody'", "worker")
    with bootstrap(":memory:", deliver="here") as app, pytest.raises(OrdersError):
        app.bus.send(PlaceOrder(()))


# What is shown


def test_a_worker_says_what_it_does_as_watch_does(tool):
    assert tool("place", "rope", "--defer").returncode == 0
    start = len(rows(tool("log")))
    worked = tool("worker", "--until-idle", "0")
    assert worked.returncode == 0
    assert worked.stdout == "".join(done(tool("log")).splitlines(keepends=True)[start:])
    assert worked.stderr.startswith("============\nNew Order:\n")
    assert worked.stderr.endswith("\n1 delivered, 0 failed, 0 waiting.\n")


def test_a_worker_prints_json_lines(tool):
    assert tool("place", "rope", "--defer").returncode == 0
    shown = [
        json.loads(line)
        for line in tool("worker", "--json", "--until-idle", "0").stdout.splitlines()
    ]
    assert [one.get("type", "Delivery") for one in shown] == ["Delivery", "NotifySales", "Delivery"]
    assert [one["delivery"]["status"] for one in shown[::2]] == ["pending", "done"]


def test_on_a_terminal_a_worker_draws_its_lines_above_one_that_stays(tool, screen):
    assert tool("place", "rope", "--defer").returncode == 0
    status, shown = screen("worker", "--until-idle", "0")
    assert status == 0
    shown = plain(shown)
    for part in ("Working on", "✓ delivered", "NotifySales", "New Order", " waiting"):
        assert part in shown


def test_only_the_named_subscribers_are_delivered_to(tool):
    for _ in range(10):
        assert tool("place", "rope", "--defer").returncode == 0
    only = tool("worker", "--subscriber", "bestseller", "--until-idle", "0")
    assert only.stderr == "1 delivered, 0 failed, 11 waiting.\n"
    both = ["--subscriber", "order_created", "--subscriber", "bestseller_found"]
    assert (
        "11 delivered, 0 failed, 0 waiting.\n" in tool("worker", *both, "--until-idle", "0").stderr
    )


def test_an_unknown_subscriber_is_refused_with_the_one_that_was_meant(tool):
    result = tool("worker", "--subscriber", "order_craeted", "--until-idle", "0")
    assert refused(result, "no subscriber 'order_craeted'", status=2)
    assert result.stderr.endswith("try: orders worker --subscriber order_created --until-idle 0\n")


def test_the_metrics_can_be_read_and_are_true(tool, tmp_path):
    plugin = "from orders import OrderCreated\ndef odd(event): raise OSError\n"
    plugin += "def install(app): app.bus.subscribe(OrderCreated, odd, name='odd \"one\\\\')\n"
    (tmp_path / "plugin.py").write_text(plugin)
    for item in ("rope", "lamp"):
        assert tool("--plugin", "plugin", "place", item, "--defer").returncode == 0
    arguments = ["worker", "--until-idle", "0", "--metrics", "worker.prom"]
    assert tool(*arguments).returncode == 0  # who does not know the plugin
    first = read_metrics(tmp_path / "worker.prom")
    assert first["orders_worker_delivered_total", "order_created"] == 2
    assert first["orders_pending", 'odd "one\\'] == 2
    assert first["orders_oldest_pending_seconds", 'odd "one\\'] > 0
    assert tool("--plugin", "plugin", *arguments).returncode == 0
    second = read_metrics(tmp_path / "worker.prom")
    assert second["orders_worker_failed_total", 'odd "one\\'] == 2
    assert second["orders_worker_dead_total", 'odd "one\\'] == 0
    assert second["orders_pending", 'odd "one\\'] == 0
    assert list(tmp_path.glob(".worker.prom*")) == []


def read_metrics(path):
    values, declared = {}, set()
    for line in path.read_text().splitlines():
        if kind := re.fullmatch(r"# TYPE (\w+) (counter|gauge)", line):
            declared.add(kind[1])
        elif not re.fullmatch(r"# HELP \w+ [A-Z].*\.", line):
            name, subscriber, value = SAMPLE.fullmatch(line).groups()
            assert name in declared
            unescaped = re.sub(r"\\(.)", r"\1", subscriber)
            values[name, unescaped] = float(value)
    assert {name for name, _ in values} == declared
    return values


def test_metrics_that_cannot_be_written_are_refused_before_anything_is_delivered(tool):
    assert tool("place", "rope", "--defer").returncode == 0
    assert refused(tool("worker", "--until-idle", "0", "--metrics", "no/where"), "no/where")
    assert pending(tool) == ["order_created"]


# How it ends


def fifo(name):
    """Make a named pipe, and open it so that nobody waits for a reader or a writer."""
    os.mkfifo(name)
    return os.open(name, os.O_RDWR)


@pytest.mark.parametrize(
    ("number", "times", "status", "first"),
    [
        (signal.SIGTERM, 1, 0, "done"),
        (signal.SIGINT, 1, 130, "done"),
        (signal.SIGINT, 2, 130, "pending"),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice"],
)
@pytest.mark.sample(2)
def test_a_worker_that_waits_delivers_at_once_and_ends_when_what_is_in_hand_is_done(
    number, times, status, first, tool, send, working, tmp_path
):
    (tmp_path / "slow.py").write_text(SLOW)
    begun, go = map(fifo, ("begun", "go"))
    process = working("--plugin", "slow", "worker")
    for item in ("rope", "lamp"):
        assert tool("--plugin", "slow", "place", item, "--defer").returncode == 0
    assert select.select([begun], [], [], 60)[0]
    process.send_signal(number)
    if times == 1:
        os.write(go, b"go\n")
    else:
        for _ in range(100):  # two that come at once may be one
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    process.communicate(timeout=60)
    assert process.returncode == status
    found = [(row[1], row[2]) for row in rows(tool("deliveries"))]
    assert found == [
        ("slow", first),
        *[(name, "pending") for name in ("order_created", "slow", "order_created")],
    ]


def test_a_worker_ends_when_nobody_reads_what_it_prints(working):
    process = working("worker")
    process.stdout.close()
    assert process.wait(60) == 0
