"""Tables on a terminal: one line a record at any width, ids whole, text in its own cell."""

import re
from datetime import timedelta

import pytest
from conftest import Sales
from screens import plain, width

from orders import OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.cli.lines import short_length
from orders.cli.times import age
from orders.messaging.message import now

HEBREW = "עדה לאבלייס"
ORDERS = [
    PlaceOrder(("100 inch TV", "magic carpet", "soft cheese"), "Aunt Mae"),
    PlaceOrder(("w" * 100, "a b " * 50), "n" * 100),
    PlaceOrder(("漢字" * 60, "🧞" * 40), "漢字の名前"),
    PlaceOrder((HEBREW * 8, "rope"), HEBREW),
]


def refuse(event):
    raise RuntimeError("the mail server is down, and nobody knows when it will be up again")


@pytest.fixture
def order_ids(data):
    with bootstrap(data, notifier=Sales(), on_failure=lambda *_: None) as app:
        app.bus.subscribe(OrderCreated, refuse, name="mail_customer")
        order_ids = [app.bus.send(command) for command in ORDERS]
        app.bus.send(ShipOrder(order_ids[0]))
    return order_ids


def shown_lines(shown):
    return [line.rstrip() for line in plain(shown).splitlines()]


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("command", ["list", "deliveries", "topics"])
@pytest.mark.sample(3)
def test_a_table_has_one_line_a_record(screen, patched_tool, order_ids, command, columns):
    status, shown = screen(command, columns=columns)
    assert status == 0
    header, rule, *lines = plain(shown).splitlines()
    if command == "list":
        assert lines.pop() == "4 orders."
        assert {line[:8] for line in lines} == {order_id[:8] for order_id in order_ids}
    elif command == "deliveries":
        assert (lines.pop(), lines.pop()) == ("try: orders retry --all", "8 deliveries.")
    assert len(lines) == len(patched_tool(command).stdout.splitlines()) >= 4
    assert set(rule) == {"─"}
    assert all(width(line) <= columns for line in (header, rule, *lines))


@pytest.mark.parametrize("columns", [40, 80])
def test_an_error_that_does_not_fit_ends_in_an_ellipsis(screen, order_ids, columns):
    failed = screen("deliveries", "--failed", columns=columns)[1]
    ends = [line[-1] for line in shown_lines(failed)[2:-2]]
    assert ends == ["…"] * len(order_ids)


def test_a_long_name_of_a_subscriber_leaves_room_for_the_error(screen, data):
    with bootstrap(data, notifier=Sales(), on_failure=lambda *_: None) as app:
        app.bus.subscribe(OrderCreated, refuse, name="mail_" * 20)
        app.bus.send(PlaceOrder(("rope",)))
    for columns in (40, 80):
        assert re.search("mail_.*…  .*th", screen("deliveries", "--failed", columns=columns)[1])


def test_twenty_orders_fit_a_screen(screen, send):
    send(*(PlaceOrder((f"item {number}", "rope" * 20), "n" * 50) for number in range(25)))
    assert len(screen("list")[1].splitlines()) < 24


def test_a_row_says_how_many_items_do_not_fit(screen, order_ids):
    assert order_ids
    wide = shown_lines(screen("list", columns=200)[1])
    assert any("100 inch TV, magic carpet, soft cheese" in line for line in wide)
    narrow = shown_lines(screen("list", columns=50)[1])
    assert any(re.search(r"100 inch TV \+2|100 i.*… \+2", line) for line in narrow)


def test_a_status_is_told_by_its_mark_where_there_is_no_room_for_the_word(screen, order_ids):
    (line,) = [x for x in shown_lines(screen("list")[1]) if x.startswith(order_ids[0][:8])]
    assert re.match(r"[0-9a-f]{8}  ✓ shipped  Aunt Mae .*  (now|\d+s ago)$", line)
    narrow = shown_lines(screen("list", columns=40)[1])
    (line,) = [x for x in narrow if x.startswith(order_ids[0][:8])]
    assert re.match(r"[0-9a-f]{8}  ✓  Aunt Mae", line)


@pytest.mark.parametrize("columns", [40, 80])
def test_a_cell_from_right_to_left_is_isolated_whole_or_shortened(screen, order_ids, columns):
    assert order_ids
    for command in ("list", "stats"):
        shown = plain(screen(command, columns=columns)[1])
        isolated = re.findall("\u2068([^\u2068\u2069\n]+)\u2069", shown)
        assert any(text.startswith(HEBREW[:6]) for text in isolated)
        assert shown.count("\u2068") == shown.count("\u2069") == len(isolated)


def test_show_has_the_whole_id_even_on_a_narrow_terminal(screen, order_ids):
    _, shown = screen("show", order_ids[0], columns=40)
    assert shown_lines(shown)[0] == order_ids[0]
    assert all(width(line) <= 40 for line in shown_lines(shown))


def test_narrow_bars_leave_room_for_their_numbers(screen, order_ids):
    assert order_ids
    _, shown = screen("stats", columns=40)
    lines = shown_lines(shown)
    assert all(width(line) <= 40 for line in lines)
    assert sum(line.endswith(" 1") for line in lines) == 9


def test_a_list_to_read_is_wrapped_at_words_and_loses_none(screen, tool):
    for command in (["explain"], ["demo", "--list"]):
        drawn, piped = screen(*command, columns=40)[1], tool(*command).stdout
        assert "…" not in drawn
        assert set(piped.split()) <= set(plain(drawn).split())


def test_ids_are_as_short_as_tells_them_apart():
    assert short_length([]) == short_length(["a" * 36]) == 8
    assert short_length(["a" * 36, "b" * 36]) == 8
    assert short_length(["a" * 12 + "x" * 24, "a" * 12 + "y" * 24]) == 13


def test_the_topics_tell_commands_from_events_without_colour(screen):
    lines = shown_lines(screen("topics", columns=40, env={"NO_COLOR": "1"})[1])
    assert "◆ place-order        place_order" in lines
    assert "● order-shipped      nobody" in lines


def test_an_age_is_told_in_few_letters_where_there_is_no_room(screen, data):
    with bootstrap(data, notifier=Sales()) as app, app.uow() as uow:
        placed = now() - timedelta(days=3, minutes=5)
        uow.emit(OrderCreated(order_id="3f2a", items=("rope",), time=placed))
    ends = [screen("list", columns=columns)[1].splitlines()[2][-12:] for columns in (40, 80)]
    assert [plain(end).split()[-1] for end in ends] == ["3d", "ago"]


def test_an_age_is_told_in_its_largest_unit():
    time = now()
    ages = [timedelta(seconds=5), timedelta(minutes=10), timedelta(hours=2), timedelta(days=3)]
    shown = [age(time - each, time) for each in ages]
    assert shown == ["5s ago", "10m ago", "2h ago", "3d ago"]
