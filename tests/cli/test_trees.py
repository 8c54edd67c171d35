"""A trace on a terminal: when each thing began, every kill, takeover and attempt on its line."""

import json
import re

import pytest
from conftest import Sales
from screens import plain, width

from orders import CancelOrder, OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.application import handlers
from orders.queries.wording import place_of

PLACE, NOTIFY, CREATED = (
    place_of(handler)
    for handler in (handlers.place_order, handlers.notify_sales, handlers.order_created)
)


class Broken:
    """A notifier that fails so many times before it works."""

    def __init__(self, times):
        self.left = times

    def notify(self, notice):
        if self.left:
            self.left -= 1
            raise RuntimeError("the line is dead")


@pytest.fixture
def traced(screen):
    """Return the lines of a trace without colour, each time and number masked."""

    def traced(order_id, columns=80):
        status, shown = screen("trace", order_id, columns=columns, env={"NO_COLOR": "1"})
        assert status == 0
        shown = re.sub(r"(?m)^\+\d+(\.\d)? (ms|s) *", lambda m: "+T".ljust(len(m[0])), plain(shown))
        shown = re.sub(r"\d+\.\d ms", "0.0 ms", shown)
        shown = re.sub(r"process \d+", "process N", shown)
        return [line.rstrip() for line in shown.splitlines()]

    return traced


def test_a_trace_goes_from_the_command_to_the_notice(traced, send):
    (order_id,) = send(PlaceOrder(("umbrella", "rope"), "Ada"))
    title, *lines = traced(order_id)
    assert re.fullmatch(rf"Order {order_id[:8]}  umbrella, rope for Ada +placed, version 1", title)
    assert width(title) == 80
    assert lines == [
        f"+T       ◆ PlaceOrder          → place_order     {PLACE}",
        "+T       └ ● OrderCreated      record 1",
        f"+T         └ ✓ order_created   {CREATED}  0.0 ms",
        f"+T           └ ◆ NotifySales   → notify_sales    {NOTIFY}",
    ]


def test_a_kill_and_a_takeover_are_lines_of_their_own(traced, tool):
    tool("place", "umbrella", env={"ORDERS_FAULT": "after-fsync"})
    order_id = json.loads(tool("log", "--json").stdout)[0]["messages"][1]["order_id"]
    assert traced(order_id)[3:] == [
        "             ✗ process N was killed, 1 delivery pending",
        f"           └ ○ order_created   {CREATED}  has not run: its process died;",
        "               orders checkpoint delivers it",
    ]
    tool("checkpoint")
    assert traced(order_id)[3:] == [
        "             ✗ process N was killed, 1 delivery pending",
        "+T           ↻ taken over by process N",
        f"+T         └ ✓ order_created   {CREATED}  late, 0.0 ms",
        f"+T           └ ◆ NotifySales   → notify_sales    {NOTIFY}",
    ]


def test_the_process_that_was_killed_is_named(screen, data, fork):
    def die():
        with bootstrap(data, notifier=Sales()) as app:
            app.store.close = None  # a process that dies closes nothing
            app.bus.subscribe(OrderCreated, lambda event: __import__("os")._exit(9), name="killer")
            app.bus.send(PlaceOrder(("rope",)))

    child = fork(die)
    assert child.wait() == 9
    with bootstrap(data, notifier=Sales()) as app:
        (order,) = app.orders.list()
    _, shown = screen("trace", order.id)
    assert f"process {child.pid} was killed, 1 delivery pending" in plain(shown)


def test_each_attempt_that_failed_is_a_line_of_its_own(traced, data):
    with bootstrap(data, notifier=Broken(2)) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
    assert traced(order_id)[3:] == [
        "+T         └ ✗ order_created   1st attempt, 0.0 ms: RuntimeError: the line is",
        "               dead",
        "+T         └ ✗ order_created   2nd attempt, 0.0 ms: RuntimeError: the line is",
        "               dead",
        f"+T         └ ✓ order_created   {CREATED}  3rd attempt, 0.0 ms",
        f"+T           └ ◆ NotifySales   → notify_sales    {NOTIFY}",
    ]


def test_what_failed_ends_in_what_to_try(traced, data):
    with bootstrap(data, notifier=Broken(9), on_failure=lambda *_: None) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
    *_, last = traced(order_id, columns=100)
    assert re.search(rf"✗ order_created   {CREATED}  failed; try orders retry [0-9a-f]{{8}}$", last)


def test_each_conversation_begins_at_its_own_time(traced, send):
    (order_id,) = send(PlaceOrder(("rope",)))
    send(CancelOrder(order_id, "out of stock"))
    heading, cancel, cancelled = traced(order_id)[-3:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", heading)
    assert cancel.startswith("+T       ◆ CancelOrder         → cancel_order    handlers.py:")
    assert cancelled == '+T       └ ● OrderCancelled    reason="out of stock"  record 3'


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_trace_fits_the_terminal_and_loses_no_error(screen, data, columns):
    items = ("w" * 100, "漢字" * 60, "עדה לאבלייס")

    class Wordy:
        def notify(self, notice):
            raise RuntimeError("e" * 300)

    with bootstrap(data, notifier=Wordy(), on_failure=lambda *_: None) as app:
        order_id = app.bus.send(PlaceOrder(items, "n" * 100))
        app.bus.send(ShipOrder(order_id))
    status, shown = screen("trace", order_id, columns=columns)
    lines = plain(shown).splitlines()
    assert status == 0
    assert all(width(line) <= columns for line in lines)
    letters = re.sub("[\\s└\u2068\u2069]", "", plain(shown))
    assert letters.count("e" * 300) == 3
    assert order_id[:8] in lines[0]


def test_items_are_said_once(screen, send):
    (order_id,) = send(PlaceOrder(("umbrella",)))
    assert plain(screen("trace", order_id)[1]).count("umbrella") == 1
