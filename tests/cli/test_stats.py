"""`stats`: what sells, and when; and no answer depends on what happens to be kept of it."""

import json
import os
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from screens import plain, width

from orders import CancelOrder, OrderCreated, PlaceOrder, ShipOrder, cli
from orders.adapters.files.line import FORMAT, Line, encode
from orders.cli.times import iso

FILES = ("item-sales", "orders-a-day")


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def today():
    return datetime.now(UTC).date().isoformat()


@pytest.fixture
def sold(send):
    """Four orders, one of them shipped, one cancelled; returns their ids."""
    order_ids = send(
        PlaceOrder(("rope", "lamp", "rope")),
        PlaceOrder(("rope",)),
        PlaceOrder(("lamp", "tv", "carpet")),
        PlaceOrder(("carpet", "tv", "rope", "rope", "rope", "rope")),
    )
    send(ShipOrder(order_ids[0]), CancelOrder(order_ids[3], "no stock"))
    return order_ids


@pytest.fixture
def stats(tool):
    """Return what `orders stats --json` says."""
    return lambda: json.loads(done(tool("stats", "--json")))


SOLD = [("rope", 3), ("lamp", 2), ("carpet", 1), ("tv", 1)]


def write(data, *events):
    """Write a log of these events, a commit each."""
    data.mkdir(mode=0o700)
    log = data / "events.jsonl"
    lines = [encode(Line(FORMAT, seq, event.time, (event,))) for seq, event in enumerate(events, 1)]
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    log.chmod(0o600)


def created(number, time, *items):
    return OrderCreated(order_id=f"{number}", items=items, time=time, correlation_id=f"c{number}")


# What is counted


@pytest.mark.engines
@pytest.mark.usefixtures("sold")
def test_json_has_every_item_the_most_ordered_first_and_every_day(stats):
    before = today()
    found = stats()
    assert list(found) == ["items", "days"]
    assert found["items"] == [{"item": item, "times": times} for item, times in SOLD]
    assert found["days"] in ([{"day": day, "orders": 4}] for day in (before, today()))


@pytest.mark.engines
@pytest.mark.usefixtures("sold")
def test_piped_it_is_one_record_a_line(tool):
    records = [line.split("\t") for line in done(tool("stats")).splitlines()]
    assert records[:-1] == [["item", item, str(times)] for item, times in SOLD]
    assert (records[-1][0], records[-1][2]) == ("day", "4")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", records[-1][1])


@pytest.mark.engines
def test_a_cancelled_order_is_taken_off_again_and_a_shipped_one_is_not(stats, send):
    shipped, cancelled = send(PlaceOrder(("rope", "lamp")), PlaceOrder(("rope", "tv")))
    assert Counter({row["item"]: row["times"] for row in stats()["items"]}) == Counter(
        ("rope", "lamp", "rope", "tv")
    )
    send(ShipOrder(shipped))
    assert len(stats()["items"]) == 3
    send(CancelOrder(cancelled))
    assert stats()["items"] == [{"item": "lamp", "times": 1}, {"item": "rope", "times": 1}]
    assert [day["orders"] for day in stats()["days"]] in ([2], [1, 1])


@pytest.mark.engines
def test_full_names_are_piped_however_long(tool, send):
    names = ("x" * 500, "漢字" * 60, "[red]x[/red]", '"quoted" \\ name')
    send(PlaceOrder(names))
    rows = [line.split("\t") for line in done(tool("stats")).splitlines()]
    assert {row[1] for row in rows if row[0] == "item"} == set(names)
    assert {row["item"] for row in json.loads(done(tool("stats", "--json")))["items"]} == set(names)


def test_all_items_and_days_are_piped(tool, data, stats):
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    days = [noon - timedelta(days=3 * ago) for ago in range(20)]
    write(data, *(created(n, day, f"item {n}") for n, day in enumerate(days)))
    found = stats()
    assert len(found["items"]) == 20
    assert [row["day"] for row in found["days"]] == sorted(f"{day.date()}" for day in days)
    assert len(done(tool("stats")).splitlines()) == 40


def test_days_are_of_utc(data, stats):
    write(
        data,
        created(1, datetime(2026, 11, 20, 23, 59, 59, 999999, tzinfo=UTC), "rope"),
        created(2, datetime(2026, 11, 21, tzinfo=UTC), "rope"),
    )
    assert stats()["days"] == [
        {"day": "2026-11-20", "orders": 1},
        {"day": "2026-11-21", "orders": 1},
    ]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["records", "json"])
def test_of_an_empty_store_there_is_nothing_to_say_and_nothing_is_created(tool, data, form):
    result = tool("stats", *form)
    assert result.returncode == 0
    assert result.stdout == ('{"items":[],"days":[]}\n' if form else "")
    assert "No orders in " in result.stderr
    assert not data.exists()


# What happens to be kept changes no answer


def removed(path):
    path.unlink()


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def scribbled(path):
    path.write_bytes(b"\xff my notes")


def zeroed(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def edited(path):
    text = path.read_text()
    changed = text.replace('"times":3', '"times":99').replace('"orders":4', '"orders":99')
    assert changed != text
    path.write_text(changed)


def head_edited(path):
    text = path.read_text()
    path.write_text(re.sub(r'"seq":\d+', '"seq":1', text))


def without_head(path):
    tables = json.loads(path.read_text())
    path.write_text(json.dumps({**tables, "log": {}}))


@pytest.mark.parametrize(
    "harm",
    [removed, emptied, cut, scribbled, zeroed, edited, head_edited, without_head],
    ids=lambda harm: harm.__name__,
)
@pytest.mark.usefixtures("sold")
@pytest.mark.sample(4)
def test_a_kept_projection_that_is_gone_or_harmed_changes_no_answer(tool, data, harm):
    answer = done(tool("stats", "--json"))
    for name in FILES:
        harm(data / "projections" / f"{name}.json")
    assert done(tool("stats", "--json")) == answer
    assert done(tool("stats", "--json")) == answer


@pytest.mark.usefixtures("sold")
def test_a_kept_projection_that_lags_behind_changes_no_answer(tool, data, send, stats):
    stats()
    older = {name: (data / "projections" / f"{name}.json").read_bytes() for name in FILES}
    send(PlaceOrder(("rope",)))
    answer = stats()
    assert answer["items"][0] == {"item": "rope", "times": 4}
    for name, content in older.items():
        (data / "projections" / f"{name}.json").write_bytes(content)
    assert stats() == answer


@pytest.mark.usefixtures("sold")
def test_a_projection_kept_of_another_log_changes_no_answer(tool, data, send, tmp_path):
    answer = done(tool("stats", "--json"))
    send(*(PlaceOrder(("theirs",)) for _ in range(9)), data=tmp_path / "other")
    done(tool("stats", data=tmp_path / "other"))
    for name in FILES:
        theirs = tmp_path / "other" / "projections" / f"{name}.json"
        (data / "projections" / f"{name}.json").write_bytes(theirs.read_bytes())
    assert done(tool("stats", "--json")) == answer


@pytest.mark.usefixtures("sold")
@pytest.mark.parametrize(
    "fault", ["before-state-write", "torn-state-write", "before-state-fsync", "before-replace"]
)
@pytest.mark.sample(2)
def test_a_disk_that_refuses_to_keep_a_projection_changes_no_answer(tool, data, fault):
    for error in ("EROFS", "EACCES", "ENOSPC", "EIO"):
        result = tool("stats", "--json", env={"ORDERS_FAULT": f"{fault}={error}"})
        assert result.returncode == 0
        assert [row["times"] for row in json.loads(result.stdout)["items"]] == [3, 2, 1, 1]
        for path in (data / "projections").glob("*.json"):
            path.unlink()


@pytest.mark.usefixtures("sold")
def test_a_projection_that_cannot_be_opened_changes_no_answer(tool, data):
    answer = done(tool("stats", "--json"))
    kept = data / "projections" / "item-sales.json"
    kept.unlink()
    kept.symlink_to(kept.name)
    result = tool("stats", "--json")
    assert (result.returncode, result.stdout) == (0, answer)
    assert str(kept) in result.stderr


@pytest.mark.usefixtures("sold")
@pytest.mark.parametrize("has_kept", [False, True], ids=["nothing kept", "kept"])
def test_a_directory_that_cannot_be_written_changes_no_answer(tool, data, fork, tmp_path, has_kept):
    answer = done(tool("stats", "--json"))
    for path in (data / "projections").iterdir():
        if not has_kept:
            path.unlink()
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def look():
        output = os.open(tmp_path / "shown", os.O_WRONLY | os.O_CREAT)
        os.chdir(data)
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write anywhere
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["orders", "--data", ".", "stats", "--json"]
        cli.main()

    try:
        status = fork(look).wait()
    finally:
        for path in (data, *data.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert (status, (tmp_path / "shown").read_text()) == (0, answer)


# On a terminal


@pytest.mark.engines
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.usefixtures("sold")
def test_the_charts_fill_the_terminal_and_no_more(screen, columns):
    status, shown = screen("stats", columns=columns, env={"NO_COLOR": "1"})
    lines = plain(shown).splitlines()
    assert status == 0
    assert lines[0] == "Most ordered items"
    assert [line.split()[0] for line in lines[1:5]] == [item for item, _ in SOLD]
    assert [line.split()[-1] for line in lines[1:5]] == [str(times) for _, times in SOLD]
    bars = [line.count("█") for line in lines[1:5]]
    assert bars[0] > columns // 2
    assert bars[0] * 2 // 3 - 1 <= bars[1] <= bars[0] * 2 // 3 + 1
    assert bars[2] == bars[3]
    assert lines[6] == "Orders a day (UTC)"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d █+ +4", lines[7])
    assert max(map(width, lines)) == columns


@pytest.mark.engines
@pytest.mark.parametrize("columns", [80, 120, 40])
def test_wide_long_and_hostile_names_fit_the_terminal(screen, send, columns):
    names = ("漢字" * 40, "w" * 500, "🧞 carpet", "e\u0301" * 30, "עדה לאבלייס", "[red]x[/red]")
    send(PlaceOrder(names))
    status, shown = screen("stats", columns=columns)
    lines = plain(shown).splitlines()
    assert status == 0
    assert all(width(line.replace("\u0301", "")) <= columns for line in lines)
    assert len([line for line in lines if line.endswith(" 1")]) == len(names) + 1  # and a day
    assert re.search(r"^w+… ", plain(shown), re.MULTILINE)
    assert "[red]x[/red]" in plain(shown)


def test_ten_items_and_fourteen_days_are_drawn_and_how_many_there_are_is_said(screen, data):
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    write(data, *(created(n, noon - timedelta(days=n * 2), f"item {n}") for n in range(12)))
    status, shown = screen("stats")
    text = plain(shown)
    assert status == 0
    assert len(re.findall(r"^item \d+ ", text, re.MULTILINE)) == 10
    days = re.findall(r"^(\d{4}-\d\d-\d\d) .*(\d+)$", text, re.MULTILINE)
    assert len(days) == 14
    assert days[-1] == ("2026-11-21", "1")
    assert days[-2] == ("2026-11-20", "0")  # a day without orders is drawn, too
    assert "12 items and 12 days in all" in text
    assert "--json" in text


@pytest.mark.engines
def test_an_empty_store_is_said_to_be_so_on_a_terminal(screen, data):
    status, shown = screen("stats")
    assert (status, " ".join(plain(shown).split())) == (
        0,
        f'No orders in {data} yet. try: orders place "100 inch TV"',
    )


@pytest.mark.engines
def test_where_every_order_was_cancelled_the_days_are_drawn_all_the_same(screen, send):
    (order_id,) = send(PlaceOrder(("rope",)))
    send(CancelOrder(order_id))
    status, shown = screen("stats")
    assert status == 0
    assert "rope" not in shown
    assert re.search(r"^\d{4}-\d\d-\d\d .* 1$", plain(shown), re.MULTILINE)


@pytest.mark.engines
@pytest.mark.usefixtures("sold")
def test_json_is_the_same_on_a_terminal_as_piped(screen, tool):
    assert screen("stats", "--json", columns=2000)[1] == done(tool("stats", "--json"))


# Every reading command


@pytest.mark.parametrize("one_in", [2, pytest.param(1, marks=pytest.mark.long)])
def test_deleting_what_is_kept_changes_no_answer_of_any_reading_command(
    sold, send, tool, data, one_in
):
    noon = iso(datetime.now(UTC))
    send(PlaceOrder(("rope", "漢字"), "Ada", "k"))
    commands = [
        ["list"], ["list", "--json"], ["list", "--item", "rope"], ["list", "--at", noon],
        ["show", sold[0]], ["show", sold[3], "--json"], ["show", sold[0], "--version", "1"],
        ["trace", sold[0]], ["trace", sold[3]], ["stats"], ["stats", "--json"], ["log"],
        ["log", "--json"], ["deliveries"], ["deliveries", "--json"], ["export"],
        ["export", "--format", "csv"], ["watch", "--from", "start", "--until-idle", "0.05"],
    ]  # fmt: skip

    def answers():
        return [done(tool(*command)) for command in commands[::one_in]]

    before = answers()
    assert (data / "orders.json").exists()
    assert (data / "projections").exists()
    for kept in (data / "orders.json", *(data / "projections").iterdir()):
        kept.unlink()
    (data / "projections").rmdir()
    assert answers() == before
    for kept in (data / "projections").iterdir():
        kept.write_bytes(kept.read_bytes()[:-9])
    assert answers() == before
