"""`trace`: one tree from each command about an order to every effect, who ran and who did not."""

import inspect
import json
import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Sales
from screens import plain, width

from orders import CancelOrder, Event, OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.application import handlers
from orders.application.deliveries import RETRIES
from orders.cli.rows import trace_rows
from orders.projections.shipped import Bestseller
from orders.queries.trace import trace

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
PLACED = [(0, "PlaceOrder"), (1, "OrderCreated"), (2, "order_created"), (3, "NotifySales")]


class ParcelLost(Event, frozen=True, kw_only=True):
    """An event that the command line does not define."""

    topic = "parcel-lost"

    order_id: str
    where: str = ""


class Row(NamedTuple):
    depth: int
    name: str
    id: str
    time: str
    text: str


class Broken:
    """A notifier that fails so many times before it works."""

    def __init__(self, times):
        self.left = times
        self.notices = []

    def notify(self, notice):
        if self.left:
            self.left -= 1
            raise RuntimeError(f"the line is dead, {self.left} to go")
        self.notices.append(notice)


def place_of(function):
    """Return the file and line where the function begins, as Python knows them."""
    path = Path(inspect.getsourcefile(function))
    lines, first = inspect.getsourcelines(function)
    assert lines
    return f"{path.name}:{first}"


def shape(found):
    return [(row.depth, row.name) for row in found]


def letters(shown):
    """Return what was shown without what a terminal's width makes of it."""
    return re.sub("[\\s└\u2068\u2069]", "", plain(shown))


def texts(found, name):
    return [row.text for row in found if row.name == name]


@pytest.fixture
def traced(tool):
    """Run `orders trace` on an order as a process of its own; returns its records."""

    def traced(order_id):
        result = tool("trace", order_id)
        assert (result.returncode, result.stderr) == (0, "")
        fields = [line.split("\t") for line in result.stdout.splitlines()]
        return [Row(int(depth), *rest) for depth, *rest in fields]

    return traced


def snapshot(data):
    return {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


# What went well


@pytest.mark.engines
def test_an_order_is_one_tree_from_the_command_to_the_notice(traced, send):
    (order_id,) = send(PlaceOrder(("100 inch TV", "rope"), "Ada"))
    found = traced(order_id)
    assert shape(found) == PLACED
    command, event, subscriber, notice = found
    items = 'items=["100 inch TV","rope"]'
    by = f"handled by place_order ({place_of(handlers.place_order)})"
    assert command.text == f'{by} {items} customer="Ada"'
    assert event.text == f'{items} customer="Ada"'
    ran = rf"\({re.escape(place_of(handlers.order_created))}\) ran in \d+\.\d ms"
    assert re.fullmatch(ran, subscriber.text)
    assert notice.text == f"handled by notify_sales ({place_of(handlers.notify_sales)}) {items}"


@pytest.mark.engines
def test_a_piped_record_is_depth_name_id_time_and_text_in_full(traced, send, tool):
    (order_id,) = send(PlaceOrder(("x" * 500,), "y" * 500))
    found = traced(order_id)
    log = json.loads(tool("log", "--json").stdout)
    stored = {(m["type"], m["id"], m["time"]) for line in log for m in line["messages"]}
    messages = [row for row in found if row.name[0].isupper()]
    assert {row[1:4] for row in messages} == stored
    assert all(re.fullmatch(UUID, row.id) for row in messages)
    assert all(re.fullmatch(ISO, row.time) for row in found)
    assert "x" * 500 in found[0].text
    assert "y" * 500 in found[0].text


@pytest.mark.engines
def test_every_conversation_about_the_order_is_shown_the_oldest_first(traced, send):
    shipped, cancelled, other = send(*(PlaceOrder((item,)) for item in ("lamp", "rope", "tv")))
    send(ShipOrder(shipped), CancelOrder(cancelled, "no stock"))
    assert shape(traced(shipped)) == [*PLACED, (0, "ShipOrder"), (1, "OrderShipped")]
    found = traced(cancelled)
    assert shape(found) == [*PLACED, (0, "CancelOrder"), (1, "OrderCancelled")]
    assert place_of(handlers.cancel_order) in found[-2].text
    assert found[-1].text == 'reason="no stock"'
    assert shape(traced(other)) == PLACED


@pytest.mark.engines
def test_a_bestseller_stands_below_the_order_that_made_it_one(tool, traced, send):
    nine = send(*(PlaceOrder(("rope",)) for _ in range(9)))
    placed = tool("place", "rope", "--json")
    tenth = json.loads(placed.stdout)["id"]
    found = traced(tenth)
    effects = [(2, "bestseller"), (3, "RecordBestseller"), (4, "BestsellerFound")]
    assert shape(found) == [*PLACED, *effects, (5, "bestseller_found")]
    ran = rf"\({re.escape(place_of(Bestseller.react))}\) ran in \d+\.\d ms"
    assert re.fullmatch(ran, found[-4].text)
    assert found[-3].text.endswith(f'({place_of(handlers.record_bestseller)}) item="rope" times=10')
    assert shape(traced(nine[-1])) == PLACED


@pytest.mark.engines
def test_an_imported_order_has_a_tree_of_its_own(tool, traced, tmp_path):
    file = tmp_path / "orders.jsonl"
    file.write_text(
        '{"items": ["lamp"], "key": "a"}\n'
        '{"items": ["rope"], "key": "b", "status": "shipped"}\n'
        '{"items": ["tv"], "key": "c", "status": "cancelled"}\n'
    )
    assert tool("import", str(file)).returncode == 0
    listed = json.loads(tool("list", "--json").stdout)
    by_item = {order["items"][0]: traced(order["id"]) for order in listed}
    for item, more in (
        ("lamp", []),
        ("rope", [(0, "ShipOrder"), (1, "OrderShipped")]),
        ("tv", [(0, "CancelOrder"), (1, "OrderCancelled")]),
    ):
        assert shape(by_item[item]) == [*PLACED, *more]
        assert f'items=["{item}"]' in by_item[item][0].text
    assert 'key="b"' in by_item["rope"][0].text


@pytest.mark.engines
def test_an_order_is_named_by_the_beginning_of_its_id(traced, send):
    (order_id,) = send(PlaceOrder(("rope",)))
    assert traced(order_id[:4]) == traced(order_id)


@pytest.mark.engines
@pytest.mark.parametrize("order_id", ["nope", "", "\x1b[31m"])
def test_an_unknown_order_is_refused_in_one_line(tool, send, order_id):
    send(PlaceOrder(("rope",)))
    result = tool("trace", order_id)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: no order .*\ntry: orders list\n", result.stderr)


@pytest.mark.engines
def test_an_item_that_is_called_like_an_order_does_not_connect_their_trees(traced, send):
    (first,) = send(PlaceOrder(("rope",)))
    (second,) = send(PlaceOrder((first,), first, first[:8]))
    assert shape(traced(first)) == shape(traced(second)) == PLACED
    assert {row.id for row in traced(first)} & {row.id for row in traced(second)} <= {""}


# What failed


@pytest.mark.engines
def test_a_notice_that_failed_twice_and_then_succeeded_is_shown_as_exactly_that(traced, data):
    notifier = Broken(2)
    with bootstrap(data, notifier=notifier) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
    assert len(notifier.notices) == 1
    found = traced(order_id)
    assert shape(found) == [
        (0, "PlaceOrder"),
        (1, "OrderCreated"),
        (2, "order_created"),
        (3, "attempt 1"),
        (3, "attempt 2"),
        (3, "attempt 3"),
        (3, "NotifySales"),
    ]
    where = re.escape(f"({place_of(handlers.order_created)})")
    ms = r"\d+\.\d ms"
    for row, text in zip(
        found[2:6],
        [
            rf"{where} ran at the 3rd attempt in {ms}",
            rf"failed in {ms}: RuntimeError: the line is dead, 1 to go",
            rf"failed in {ms}: RuntimeError: the line is dead, 0 to go",
            rf"ran in {ms}",
        ],
        strict=True,
    ):
        assert re.fullmatch(text, row.text)


@pytest.mark.engines
def test_a_disk_error_of_the_first_attempt_is_shown_of_a_real_process(traced, orders):
    placed = orders("place", "rope", "--json", env={"ORDERS_FAULT": "before-delivery=EIO"})
    assert placed.returncode == 0
    found = traced(json.loads(placed.stdout)["id"])
    assert [row.name for row in found[3:]] == ["attempt 1", "attempt 2", "NotifySales"]
    assert "at the 2nd attempt" in found[2].text
    assert "OSError" in found[3].text
    assert found[4].text.startswith("ran in ")


@pytest.mark.engines
def test_a_delivery_that_failed_and_was_retried_by_hand_shows_every_attempt(
    traced, data, failures, tool
):
    with bootstrap(data, notifier=Broken(3), on_failure=lambda *all_: failures.append(all_)) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
    assert len(failures) == 1
    found = traced(order_id)
    assert [row.name for row in found[2:]] == [
        "order_created",
        *(f"attempt {n}" for n in (1, 2, 3)),
    ]
    assert "failed; try orders retry " in found[2].text
    assert all("failed in " in row.text for row in found[3:])
    assert tool("retry", "--all").returncode == 0
    found = traced(order_id)
    assert [row.name for row in found[3:]] == [
        *(f"attempt {n}" for n in (1, 2, 3, 4)),
        "NotifySales",
    ]
    assert "ran at the 4th attempt" in found[2].text
    assert found[-2].text.startswith("ran in ")


@pytest.mark.engines
def test_a_dead_letter_is_called_one_and_shows_every_attempt(traced, data):
    with bootstrap(data, notifier=Broken(99), on_failure=lambda *_: None) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
        for _ in range(RETRIES):
            assert app.deliveries.retry() == (0, 1)
    found = traced(order_id)
    assert "dead letter" in found[2].text
    assert "orders retry" in found[2].text
    assert [row.name for row in found[3:]] == [f"attempt {n}" for n in range(1, 3 + RETRIES + 1)]
    assert all("failed in " in row.text for row in found[3:])


# Who did not run, and why


@pytest.mark.parametrize("fault", ["before-delivery", "mid-delivery", "after-fsync"])
@pytest.mark.sample(2)
def test_what_a_dead_process_left_is_shown_until_the_next_command_delivers_it(tool, traced, fault):
    assert tool("place", "rope", env={"ORDERS_FAULT": fault}).returncode == -signal.SIGKILL
    order_id = json.loads(tool("log", "--json").stdout)[0]["messages"][1]["order_id"]
    found = traced(order_id)
    assert shape(found) == PLACED[:3]
    assert found[2].text.endswith("has not run: its process died; orders checkpoint delivers it")
    assert tool("checkpoint").returncode == 0
    found = traced(order_id)
    assert shape(found)[-1] == PLACED[-1]
    assert re.search(r"ran in \d+\.\d ms \(taken over from 1 process that died\)$", found[2].text)
    assert "has not run" not in str(found)


@pytest.mark.engines
def test_a_delivery_that_is_under_way_is_said_to_be(data, tool):
    shown = []

    class Curious:
        def notify(self, notice):
            shown.append(tool("trace", notice.order_id).stdout)

    with bootstrap(data, notifier=Curious()) as app:
        app.bus.send(PlaceOrder(("rope",)))
    assert "order_created" in shown[0]
    assert "has not run yet: a process is at work on it" in shown[0]


@pytest.mark.engines
def test_a_subscriber_that_this_process_does_not_have_is_shown_by_name(traced, data):
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.subscribe(OrderCreated, lambda event: None, name="audit")
        order_id = app.bus.send(PlaceOrder(("rope",)))
    found = traced(order_id)
    assert shape(found) == [*PLACED, (2, "audit")]
    assert re.fullmatch(r"\(not registered in this process\) ran in \d+\.\d ms", found[-1].text)


@pytest.mark.engines
def test_what_waits_for_a_subscriber_that_is_missing_here_says_so(traced, data, fork):
    def die():
        with bootstrap(data, notifier=Sales()) as app:
            app.bus.subscribe(
                OrderCreated, lambda event: os.kill(os.getpid(), signal.SIGKILL), name="audit"
            )
            app.bus.send(PlaceOrder(("rope",)))

    assert fork(die).wait() == -signal.SIGKILL
    with bootstrap(data) as app:
        (order,) = app.orders.list()
    found = traced(order.id)
    assert shape(found) == [*PLACED, (2, "audit")]
    assert "(not registered in this process) has not run" in found[-1].text


@pytest.mark.engines
def test_a_subscriber_that_was_registered_later_is_shown_not_to_have_run(traced, data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delitem(handlers.EVENT_SUBSCRIBERS, OrderCreated)
        with bootstrap(data) as app:
            order_id = app.bus.send(PlaceOrder(("rope",)))
    found = traced(order_id)
    assert shape(found) == PLACED[:3]
    assert found[2].text == (
        f"({place_of(handlers.order_created)})"
        " did not run: it was not registered when the event was stored"
    )
    assert found[2].time == ""


@pytest.mark.engines
def test_one_that_is_subscribed_by_a_glob_later_is_shown_not_to_have_run(app):
    order_id = app.bus.send(PlaceOrder(("rope",)))
    app.bus.subscribe("order-*", lambda event: None, name="late")
    found = {row[1]: row[4] for row in trace_rows(trace(app, order_id))}
    assert "did not run: it was not registered when the event was stored" in found["late"]
    assert (
        place_of(test_one_that_is_subscribed_by_a_glob_later_is_shown_not_to_have_run)[:13]
        in (found["late"])
    )
    later = app.bus.send(PlaceOrder(("rope",)))
    found = {row[1]: row[4] for row in trace_rows(trace(app, later))}
    assert ") ran in " in found["late"]


# Messages that this process does not know; long chains


@pytest.mark.engines
def test_a_message_of_an_unknown_class_is_shown_by_its_name(data, tool):
    with bootstrap(data, notifier=Sales()) as app:

        def lose(event, *, uow):
            uow.emit(ParcelLost(order_id=event.order_id, where="Oslo"))

        app.bus.subscribe(OrderCreated, lose, name="carrier")
        app.bus.subscribe(ParcelLost, lambda event: None, name="insurance")
        order_id = app.bus.send(PlaceOrder(("rope",)))
        app.uow().emit(ParcelLost(order_id=order_id, where="Rome"))
    result = tool("trace", order_id)
    assert (result.returncode, result.stderr) == (0, "")
    found = [Row(int(d), *rest) for d, *rest in (x.split("\t") for x in result.stdout.splitlines())]
    assert shape(found) == [
        *PLACED,
        (2, "carrier"),
        (3, "ParcelLost"),
        (4, "insurance"),
        (0, "ParcelLost"),
        (1, "insurance"),
    ]
    assert texts(found, "ParcelLost") == ['where="Oslo"', 'where="Rome"']
    assert all("not registered in this process" in text for text in texts(found, "insurance"))


@pytest.fixture
def chained(data):
    """An order whose parcel is lost twenty times, each loss the cause of the next."""
    with bootstrap(data, notifier=Sales()) as app:

        def lose(event, *, uow):
            where = getattr(event, "where", "")
            if len(where) < 20:
                uow.emit(ParcelLost(order_id=event.order_id, where=f"{where}x"))

        app.bus.subscribe(OrderCreated, lose, name="carrier")
        app.bus.subscribe(ParcelLost, lose, name="again")
        return app.bus.send(PlaceOrder(("rope",)))


@pytest.mark.engines
def test_a_long_chain_is_shown_to_its_end(traced, chained):
    found = traced(chained)
    assert [row.depth for row in found if row.name == "ParcelLost"] == [*range(3, 43, 2)]


@pytest.mark.engines
def test_a_long_chain_is_shown_to_its_end_on_a_terminal(screen, chained):
    status, shown = screen("trace", chained)
    assert status == 0
    assert all(width(line) <= 80 for line in plain(shown).splitlines())
    assert f'where="{"x" * 20}"' in letters(shown)


# On a terminal


@pytest.mark.engines
@pytest.mark.parametrize("columns", [80, 120])
def test_a_tree_on_a_terminal_fits_it_and_loses_nothing(screen, data, columns):
    wide = ("w" * 500, "漢字" * 60, "a b " * 100)

    class Wordy:
        def notify(self, notice):
            raise RuntimeError("e" * 400)

    with bootstrap(data, notifier=Wordy(), on_failure=lambda *_: None) as app:
        order_id = app.bus.send(PlaceOrder(wide, "n" * 200))
    status, shown = screen("trace", order_id, columns=columns)
    lines = plain(shown).splitlines()
    assert status == 0
    assert columns - 10 < max(map(width, lines)) <= columns
    assert order_id[:8] in lines[0]
    assert letters(shown).count("e" * 400) == 3
    assert "3rdattempt" in letters(shown)


@pytest.mark.engines
def test_a_tree_on_a_terminal_says_what_the_records_say(screen, send, traced):
    (order_id,) = send(PlaceOrder(("rope",)))
    send(ShipOrder(order_id))
    status, shown = screen("trace", order_id, columns=200, env={"NO_COLOR": "1"})
    title, *lines = plain(shown).splitlines()
    assert status == 0
    assert re.fullmatch(rf"Order {order_id[:8]}  rope +shipped, version 2", title)
    lines = [line for line in lines if line.startswith("+")]  # but the second heading
    found = traced(order_id)
    assert len(lines) == len(found)
    for line, row in zip(lines, found, strict=True):
        indent, name = re.fullmatch(
            r"\+\d+ ms +?(?<= )((?:  )*(?:└ )?)[◆●✓] (\w+).*", line
        ).groups()
        assert name == row.name
        assert indent.endswith("└ ") is bool(row.depth)


# What it is made of


def test_a_trace_changes_nothing(send, tool, traced, data):
    (order_id,) = send(PlaceOrder(("rope",)))
    tool("place", "lamp", env={"ORDERS_FAULT": "before-delivery"})
    before = snapshot(data)
    traced(order_id)
    assert snapshot(data) == before


def test_a_trace_is_the_same_without_the_state_file(send, traced, data):
    (order_id,) = send(PlaceOrder(("rope",)))
    send(ShipOrder(order_id))
    before = traced(order_id)
    (data / "orders.json").unlink()
    assert traced(order_id) == before
