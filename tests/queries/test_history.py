"""Time travel: orders as they were, at a time or at a version, from the log alone."""

import csv
import json
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from functools import reduce

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from screens import plain, width

from orders import CancelOrder, OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.files.line import FORMAT, Line, encode
from orders.adapters.memory import MemoryStore
from orders.application.store import Commit
from orders.cli.times import iso, parse_time
from orders.domain.events import OrderCancelled, OrderShipped
from orders.domain.order import evolve
from orders.queries.history import of_order, orders_at, until

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LOST = ("orders.json", "orders.lock")


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def rows(result):
    return [line.split("\t") for line in done(result).splitlines()]


def refused(result, *words, status=1):
    assert (result.returncode, result.stdout) == (status, "")
    assert re.fullmatch(r"error: .+\ntry: .+\n", result.stderr)
    for word in words:
        assert word in result.stderr


@pytest.fixture
def past(send, data, tool):
    """A lamp was placed, a rope was placed, the lamp was shipped, the rope cancelled.

    Returns the ids of lamp and rope, and when each of the four things happened.
    """
    lamp, rope = send(PlaceOrder(("lamp",), "Ada"), PlaceOrder(("rope",), "Bob", "k"))
    send(ShipOrder(lamp), CancelOrder(rope, "no stock"))
    events = [row for row in rows(tool("log")) if row[2].startswith("Order")]
    return lamp, rope, [row[1] for row in events]


# Listing


@pytest.mark.engines
def test_list_at_shows_every_order_as_it_was(past, tool):
    lamp, rope, times = past
    seen = [[row[:3:2] for row in rows(tool("list", "--at", time))] for time in times]
    assert seen == [
        [[lamp, "placed"]],
        [[rope, "placed"], [lamp, "placed"]],
        [[rope, "placed"], [lamp, "shipped"]],
        [[rope, "cancelled"], [lamp, "shipped"]],
    ]


def test_the_past_is_told_from_the_log_alone(past, tool, data):
    lamp, _, times = past
    commands = [
        *(["list", "--at", time] for time in times),
        *(["show", lamp, "--at", time] for time in times),
        *(["show", lamp, "--version", version] for version in "12"),
    ]
    before = [done(tool(*command)) for command in commands]
    for name in LOST:
        (data / name).unlink(missing_ok=True)
    assert [done(tool(*command)) for command in commands] == before
    (data / "orders.json").write_text("not json")
    after = [tool(*command) for command in commands]
    assert [result.stdout for result in after] == before
    assert {result.returncode for result in after} == {0}


@pytest.mark.engines
def test_list_at_the_present_is_the_list(past, tool):
    for at in ("now", "0s", "2999-01-01", "2999-01-01T00:00:00+02:00"):
        for form in ([], ["--json"], ["--csv"]):
            assert done(tool("list", "--at", at, *form)) == done(tool("list", *form))


@pytest.mark.engines
@pytest.mark.parametrize("at", ["10 minutes ago", "yesterday", "90s", "2 h ago", "1999-12-31"])
@pytest.mark.sample(2)
def test_list_at_a_time_before_everything_is_empty_and_no_error(past, tool, at):
    result = tool("list", "--at", at)
    assert (result.returncode, result.stdout) == (0, "")
    assert json.loads(tool("list", "--at", at, "--json").stdout) == []


@pytest.mark.parametrize("at", ["tomorrow", "", "10", "3 fortnights ago", "ago", "2026-13-01"])
@pytest.mark.parametrize("command", [["list"], ["show", "x"]], ids=" ".join)
def test_a_time_that_is_none_is_wrong_use(tool, data, command, at):
    refused(tool(*command, "--at", at), "--at", "is not a time", status=2)
    assert not data.exists()


@pytest.mark.engines
def test_filters_ask_for_what_was_then(past, tool):
    lamp, rope, times = past

    def found(*filters, at=times[2]):
        result = tool("list", "--at", at, *filters)
        assert result.returncode == 0
        return [line.split("\t")[0] for line in result.stdout.splitlines()]

    assert found("--status", "placed") == [rope]  # it is cancelled now
    assert found("--status", "cancelled") == []
    assert found("--item", "LAMP") == found("--customer", "ada") == [lamp]
    assert found("--item", "lamp", "--status", "placed") == []
    assert found("--item", "lamp", "--status", "placed", at=times[1]) == [lamp]
    assert found("--since", times[1]) == [rope]
    assert found("--until", times[1]) == [lamp]


@pytest.mark.engines
def test_a_shortened_list_of_the_past_says_so(past, tool):
    _, rope, times = past
    result = tool("list", "--at", times[1], "--limit", "1")
    assert result.returncode == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [rope]
    assert "1 of 2 orders" in result.stderr
    assert "1 of" not in tool("list", "--at", times[0], "--limit", "1").stderr


@pytest.mark.engines
def test_csv_of_the_past_has_the_keys(past, tool):
    lamp, rope, times = past
    found = csv.DictReader(done(tool("list", "--at", times[1], "--csv")).splitlines())
    assert [(row["key"], row["id"], row["status"]) for row in found] == [
        ("k", rope, "placed"),
        (lamp, lamp, "placed"),
    ]


# Showing


@pytest.mark.engines
@pytest.mark.parametrize("order_id", ['12"', "back\\slash", "Ölfaß", "日本"])
def test_an_order_of_whatever_id_has_its_history_and_its_trace(order_id, data, tool):
    event_id = f"e {order_id}"
    with bootstrap(data) as app, app.uow() as uow:
        uow.emit(OrderCreated(order_id=order_id, items=("lamp",), id=event_id))
    assert tool("ship", order_id).returncode == 0
    states = [step.state for step in of_order(app.store, order_id)]
    assert [(state.version, state.status) for state in states] == [(1, "placed"), (2, "shipped")]
    assert app.store.messages([event_id])[event_id].order_id == order_id
    names = [row[1] for row in rows(tool("trace", order_id))]
    assert names == ["OrderCreated", "order_created", "NotifySales", "ShipOrder", "OrderShipped"]


@pytest.mark.engines
def test_show_at_shows_the_order_with_its_history_until_then(past, tool):
    lamp, _, times = past
    then, *history = rows(tool("show", lamp, "--at", times[1]))
    assert then[2] == "placed"
    assert [step[1] for step in history] == ["OrderCreated"]
    now, *history = rows(tool("show", lamp, "--at", times[2]))
    assert now[2] == "shipped"
    assert [step[1] for step in history] == ["OrderCreated", "OrderShipped"]
    assert done(tool("show", lamp, "--at", times[2])) == done(tool("show", lamp))


@pytest.mark.engines
def test_show_version_shows_what_the_first_events_made(past, tool):
    _, rope, times = past
    first, last = (json.loads(done(tool("show", rope, "--version", v, "--json"))) for v in "12")
    assert (first["status"], first["version"], len(first["history"])) == ("placed", 1, 1)
    assert last == json.loads(done(tool("show", rope, "--json")))
    assert [step["event"] for step in last["history"]] == ["OrderCreated", "OrderCancelled"]
    assert last["history"][1]["reason"] == "no stock"
    assert first == json.loads(done(tool("show", rope, "--at", times[1], "--json")))


@pytest.mark.engines
def test_an_order_that_was_placed_later_is_an_error_that_says_so(past, tool):
    _, rope, times = past
    for form in ([], ["--json"]):
        refused(tool("show", rope, "--at", times[0], *form), rope, "was placed later", "orders ")
        refused(tool("show", rope, "--at", "yesterday", *form), rope, "was placed later")


@pytest.mark.engines
@pytest.mark.parametrize("version", ["3", "99999999999999999999"])
def test_a_version_that_never_was_is_an_error_that_names_the_range(past, tool, version):
    lamp, _, _ = past
    refused(tool("show", lamp, "--version", version), lamp, "1 to 2")


@pytest.mark.engines
@pytest.mark.parametrize("version", ["0", "-1", "two"])
def test_a_version_that_is_none_is_wrong_use(past, tool, version):
    lamp, _, _ = past
    refused(tool("show", lamp, f"--version={version}"), "--version", status=2)


@pytest.mark.engines
def test_a_time_and_a_version_exclude_each_other(past, tool):
    lamp, _, times = past
    refused(tool("show", lamp, "--at", times[0], "--version", "1"), "--at", "--version", status=2)


@pytest.mark.engines
def test_show_of_the_past_on_a_terminal_draws_what_was(past, screen):
    lamp, _, _ = past
    status, shown = screen("show", lamp[:8], "--version", "1", env={"NO_COLOR": "1"})
    assert status == 0
    assert "placed" in shown
    assert "shipped" not in shown.lower()
    assert max(map(width, plain(shown).splitlines())) <= 80


# Clocks that go back, and any history at all


def write(path, *commits):
    """Write a log of these commits, each a tuple of events."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [encode(Line(FORMAT, seq, NOON, events)) for seq, events in enumerate(commits, 1)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    path.chmod(0o600)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def test_where_clocks_were_set_back_an_order_is_a_prefix_of_its_history(data, tool):
    write(
        data / "events.jsonl",
        (OrderCreated(order_id="a", items=("lamp",), time=at(100)),),
        (OrderShipped(order_id="a", time=at(10)),),
        (OrderCreated(order_id="b", items=("rope",), time=at(20)),),
        (OrderCancelled(order_id="b", time=at(200)),),
    )
    seen = {
        seconds: [row[:3:2] for row in rows(tool("list", "--at", iso(at(seconds)), "--limit", "9"))]
        for seconds in (20, 99, 100, 200)
    }
    assert seen == {
        20: [["b", "placed"]],  # a was shipped by then, they say, but not yet placed
        99: [["b", "placed"]],
        100: [["b", "placed"], ["a", "shipped"]],
        200: [["b", "cancelled"], ["a", "shipped"]],
    }
    refused(tool("show", "a", "--at", iso(at(50))), "was placed later")
    assert rows(tool("show", "a", "--version", "1"))[0][2] == "placed"


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["place", "place", "ship", "cancel"]),
        st.integers(0, 5),  # which order
        st.integers(0, 30),  # at which second
        st.booleans(),  # whether in a commit of its own
    ),
    max_size=25,
)


def commits_of(moves):
    """Return the commits that these moves make, those that the order's state forbids left out."""
    status: dict[str, str] = {}
    commits: list[list] = []
    for move, number, second, is_alone in moves:
        order_id = f"{number}"
        if move == "place" and order_id not in status:
            event = OrderCreated(order_id=order_id, items=(f"item {number}",), time=at(second))
        elif move == "ship" and status.get(order_id) == "place":
            event = OrderShipped(order_id=order_id, time=at(second))
        elif move == "cancel" and status.get(order_id) == "place":
            event = OrderCancelled(order_id=order_id, time=at(second))
        else:
            continue
        status[order_id] = move
        if is_alone or not commits:
            commits.append([])
        commits[-1].append(event)
    return [tuple(commit) for commit in commits]


@given(moves=MOVES, second=st.integers(-1, 31))
@example(moves=[("place", 0, 5, True), ("ship", 0, 3, True), ("cancel", 1, 0, True)], second=4)
@example(moves=[("place", 1, 0, False), ("place", 0, 0, True), ("ship", 1, 0, False)], second=0)
def test_the_orders_at_a_time_are_the_fold_of_what_had_happened_to_each(moves, second):
    commits = commits_of(moves)
    store = MemoryStore()
    for commit in commits:
        store.commit(Commit(commit))
    by_order: dict[str, list] = {}
    for event in (event for commit in commits for event in commit):
        by_order.setdefault(event.order_id, []).append(event)
    expected = []
    for order_id, events in by_order.items():
        late = [number for number, event in enumerate(events) if event.time > at(second)]
        known = events[: late[0]] if late else events
        steps = until(of_order(store, order_id), at(second))
        assert [step.event for step in steps] == known
        if known:
            expected.append(reduce(evolve, known, None))
            assert steps[-1].state == expected[-1]
    assert sorted(orders_at(store, at(second)), key=lambda o: o.id) == sorted(
        expected, key=lambda o: o.id
    )
    newest_first = [order.id for order in orders_at(store, at(31))]
    assert newest_first == [*by_order][::-1]


# Times as people type them

SPELLINGS = {
    "seconds": ["s", "sec", "secs", "second", "seconds"],
    "minutes": ["m", "min", "mins", "minute", "minutes"],
    "hours": ["h", "hr", "hrs", "hour", "hours"],
    "days": ["d", "day", "days"],
    "weeks": ["w", "week", "weeks"],
}


@given(
    number=st.integers(0, 99_999),
    unit=st.sampled_from([(unit, word) for unit, words in SPELLINGS.items() for word in words]),
    space=st.sampled_from(["", " ", "  "]),
    ago=st.sampled_from(["", " ago", "  AGO"]),
    around=st.sampled_from(["", " ", "\t"]),
    change=st.sampled_from([str.lower, str.upper, str.title]),
)
def test_an_age_however_spelt_is_so_long_before_now(number, unit, space, ago, around, change):
    name, word = unit
    age = timedelta(**{name: number})
    text = f"{around}{number}{space}{change(word)}{ago}{around}"
    assert parse_time(text, NOON) == NOON - age


def test_yesterday_is_a_day_ago():
    assert parse_time("yesterday", NOON) == NOON - timedelta(days=1)
    assert parse_time(" Yesterday ", NOON) == NOON - timedelta(days=1)
    assert parse_time("now", NOON) == NOON


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 - zones are given below
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001 - same
        timezones=st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m))),
    )
)
def test_an_iso_time_means_what_it_says_in_whatever_zone(time):
    parsed = parse_time(time.isoformat(), NOON)
    assert parsed == time
    assert parsed.tzinfo is UTC
    assert parse_time(iso(parsed), NOON) == parsed


def test_an_iso_time_without_a_zone_is_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_time("2026-11-21", NOON) == datetime(2026, 11, 20, 15, tzinfo=UTC)
        assert parse_time("2026-11-21T09:30", NOON) == datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    st.one_of(
        st.text(),
        st.text("0123456789smhdwago -:TZ+.W"),
        st.from_regex(r"\d{1,8} ?(seconds|months|w|d|fortnights)( ago)?", fullmatch=True),
        st.from_regex(r"\d{4}-\d\d-\d\d(T\d\d:\d\d)?([+-]\d\d:\d\d)?", fullmatch=True),
    )
)
@example("9999-12-31T23:59-23:59")
@example("0001-01-01T00:00+23:59")
@example("0001-01-01")
@example("999999w")
@example("٣ minutes ago")
@example("5ſ")
def test_any_text_is_a_time_or_refused_by_name(text):
    try:
        time = parse_time(text, NOON)
    except ValueError as error:
        said = str(error)
    else:
        said = f"{text!r} is not a time"
        assert time.tzinfo is UTC
    assert said == f"{text!r} is not a time"
