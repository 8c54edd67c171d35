"""The lines of `log` and `watch` on a terminal: the same columns, whatever stands in them."""

import re
from pathlib import Path

import pytest
from conftest import Sales
from screens import linked, plain, width

from orders import OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.application import handlers
from orders.application.store import Delivery, Record
from orders.cli.lines import lines_of
from orders.cli.rendering import _drawn_line
from orders.messaging.message import UnknownMessage, now
from orders.queries.wording import place_of

HEBREW = "עדה לאבלייס"
WIDE = [
    PlaceOrder(("w" * 100, "a b " * 50), "n" * 100),
    PlaceOrder(("漢字" * 60, "🧞" * 40), "漢字"),
    PlaceOrder((HEBREW * 8, "rope"), HEBREW),
]


def refuse(event):
    raise RuntimeError("the mail server is down")


@pytest.fixture
def lively(data, tool):
    """A store where all sorts of things have happened; returns the orders' ids, oldest first."""
    with bootstrap(data, notifier=Sales(), on_failure=lambda *_: None) as app:
        first = app.bus.send(PlaceOrder(("100 inch TV", "magic carpet"), "Ada"))
        app.bus.subscribe(OrderCreated, refuse, name="mail_customer")
        second = app.bus.send(PlaceOrder(("umbrella",)))
        app.bus.send(ShipOrder(second))
    tool("place", "rope", env={"ORDERS_FAULT": "after-fsync"})
    assert tool("checkpoint").returncode == 0
    return [first, second]


def shown_lines(shown):
    return [line.rstrip() for line in plain(shown).splitlines()]


def test_each_line_has_number_topic_mark_message_handler_and_place(screen, lively):
    status, shown = screen("log", env={"NO_COLOR": "1"})
    first, second = (order_id[:8] for order_id in lively)
    place, notify, created, ship = (
        place_of(handler)
        for handler in (
            handlers.place_order,
            handlers.notify_sales,
            handlers.order_created,
            handlers.ship_order,
        )
    )
    third = shown_lines(shown)[-5].split()[-2]
    assert status == 0
    assert shown_lines(shown) == [
        f"   1 place-order       ◆ PlaceOrder     → place_order    {place}",
        f"   1 order-created     ● OrderCreated   {first} 100 inch TV, magic carpet",
        "   1                     pending        → order_created",
        f"   2 notify-sales      ◆ NotifySales    → notify_sales   {notify}",
        f"   2                   ✓ delivered      → order_created  {created}",
        f"   3 place-order       ◆ PlaceOrder     → place_order    {place}",
        f"   3 order-created     ● OrderCreated   {second} umbrella",
        "   3                     pending        → order_created",
        "   3                     pending        → mail_customer",
        f"   4 notify-sales      ◆ NotifySales    → notify_sales   {notify}",
        f"   4                   ✓ delivered      → order_created  {created}",
        "   5                   ✗ failed         → mail_customer  the mail server is down",
        f"   6 ship-order        ◆ ShipOrder      → ship_order     {ship}",
        f"   6 order-shipped     ● OrderShipped   {second}",
        f"   7 place-order       ◆ PlaceOrder     → place_order    {place}",
        f"   7 order-created     ● OrderCreated   {third} rope",
        "   7                     pending        → order_created",
        "   8                     pending        → order_created  taken over",
        f"   9 notify-sales      ◆ NotifySales    → notify_sales   {notify}",
        f"   9                   ✓ delivered      → order_created  {created}  late",
    ]


def test_watch_and_log_draw_a_record_alike(screen, lively):
    assert lively
    _, logged = screen("log", env={"NO_COLOR": "1"})
    _, watched = screen("watch", "--from", "start", "--until-idle", "0", env={"NO_COLOR": "1"})
    lines = shown_lines(logged)
    assert shown_lines(watched)[-len(lines) :] == lines  # after what is said first


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_what_happened_is_one_line_each_however_narrow(screen, send, columns):
    send(*WIDE)
    status, shown = screen("log", columns=columns)
    lines = plain(shown).splitlines()
    assert status == 0
    assert len(lines) == 5 * len(WIDE)
    assert all(width(line) <= columns for line in lines)
    assert all(re.match(r" +\d+ ", line) for line in lines)


def test_a_narrow_line_keeps_what_happened_to_whom(screen, lively):
    assert lively
    _, shown = screen("log", columns=40, env={"NO_COLOR": "1"})
    assert "   9 ✓ delivered  → order_created late" in shown_lines(shown)
    assert "   6 ● OrderShipped" in shown_lines(shown)


def test_a_place_in_the_source_gives_way_to_what_there_is_to_say(app):
    delivery = Delivery("3f2a", "order_created", "done", attempts=14)
    (line,) = lines_of(Record((1,), 1, now(), (), (delivery,)), app)
    narrow, wide = (_drawn_line(line, columns).plain for columns in (80, 90))
    assert narrow.endswith("→ order_created  14th attempt")
    assert wide.endswith(f"→ order_created  {line.place}  14th attempt")


def test_a_wide_line_has_time_and_id_as_well(screen, lively):
    first, _ = lively
    _, shown = screen("log", columns=120)
    assert re.match(
        rf"   1 \d\d:\d\d:\d\d\.\d{{3}} {first[:8]} order-created ", shown_lines(shown)[1]
    )


def test_the_place_in_the_source_is_a_link(screen, lively):
    assert lively
    _, shown = screen("log")
    source = Path(handlers.__file__).as_uri()
    line = handlers.order_created.__code__.co_firstlineno
    assert f"{source}#{line}" in linked(shown)


def test_colour_tells_what_the_mark_tells(screen, lively):
    assert lively
    _, shown = screen("log")
    for coloured in ("35m◆", "36m●", "32m✓", "33mpending", "31m✗"):
        assert f"\x1b[{coloured}" in shown


def test_text_from_right_to_left_is_isolated(screen, send):
    send(PlaceOrder((HEBREW,)))
    assert f"\u2068{HEBREW}\u2069" in plain(screen("log")[1])
    assert "\u2068" not in screen("log", "--json")[1]


def test_a_message_that_is_unknown_here_is_a_line_too(app):
    message = UnknownMessage(name="ParcelLost", fields={"order_id": "abc", "where": "Oslo"})
    record = Record((1,), 1, now(), (message,), (Delivery(message.id, "insurance", "done"),))
    lost, delivered = lines_of(record, app)
    assert (lost.name, lost.id, lost.text) == ("ParcelLost", "abc", 'where="Oslo"')
    assert (delivered.handler, delivered.place) == ("insurance", "")
