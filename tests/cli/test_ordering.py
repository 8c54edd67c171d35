"""Orders on the command line: listed, placed, moved."""

import csv
import json
import re

import pytest
from command_line import ISO, ORDER_FIELDS, TWO, done, ids, refused, rows

from orders import PlaceOrder, ShipOrder

# Listing


@pytest.mark.engines
def test_a_piped_list_is_one_order_a_line_with_every_value_in_full(tool, send):
    customer, items = "A" * 200, ("💡 lamp", 'a "b"', "c" * 300)
    (order_id,) = send(PlaceOrder(items, customer))
    ((number, placed_at, status, who, what),) = rows(tool("list"))
    assert (number, status, who) == (order_id, "placed", customer)
    assert re.fullmatch(ISO, placed_at)
    assert tuple(json.loads(what)) == items


@pytest.mark.engines
def test_a_list_is_newest_first_and_has_all_orders_when_piped(tool, send):
    order_ids = send(*(PlaceOrder((f"item {number}",)) for number in range(25)))
    assert ids(tool("list")) == order_ids[::-1]
    assert [order["id"] for order in json.loads(done(tool("list", "--json")))] == order_ids[::-1]


def test_an_empty_store_lists_nothing_and_creates_nothing(tool, data):
    for what, command in (("orders", "list"), ("records", "log"), ("deliveries", "deliveries")):
        result = tool(command)
        assert (result.returncode, result.stdout) == (0, "")
        assert result.stderr == f'No {what} in {data} yet.\ntry: orders place "100 inch TV"\n'
        assert json.loads(tool(command, "--json").stdout) == []
    assert tool("deliveries", "--failed").stderr == "No delivery is failed or dead.\n"
    assert json.loads(done(tool("export"))) == []
    assert not data.exists()


@pytest.mark.engines
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--status", "placed"], [1]),
        (["--status", "shipped"], [0]),
        (["--status", "cancelled"], []),
        (["--item", "tv"], [1]),
        (["--item", "[red]"], []),
        (["--customer", "ada"], [0]),
        (["--customer", "a", "--item", "ROPE"], [0]),
        (["--since", "1h"], [1, 0]),
        (["--until", "1h"], []),
        (["--since", "2026-11-21"], [1, 0]),
        (["--until", "1999-12-31T23:59"], []),
    ],
)
def test_a_filter_lists_only_what_it_names(tool, send, arguments, found):
    order_ids = send(*TWO)
    send(ShipOrder(order_ids[0]))
    result = tool("list", *arguments)
    assert result.returncode == 0
    listed = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert listed == [order_ids[number] for number in found]


@pytest.mark.engines
def test_since_is_inclusive_and_until_is_not(tool, send):
    first, second = send(*TWO)
    time = rows(tool("list"))[0][1]
    assert ids(tool("list", "--since", time)) == [second]
    assert ids(tool("list", "--until", time)) == [first]


@pytest.mark.engines
@pytest.mark.parametrize("time", ["tomorrow", "", "3 fortnights", "2026-13-01", "999999w", "5ſ"])
def test_a_time_that_is_none_is_wrong_use(tool, time):
    refused(tool("list", "--since", time), "--since", status=2)


@pytest.mark.engines
@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_a_shortened_list_says_so_to_people_only(tool, send, form):
    send(*TWO)
    whole, short = tool("list", *form), tool("list", "--limit", "1", *form)
    assert whole.stderr == ""
    assert "1 of 2" in short.stderr
    assert "1 of 2" not in short.stdout
    assert "rope" not in short.stdout
    assert tool("list", "--limit", "9" * 20, *form).stdout == whole.stdout


@pytest.mark.engines
def test_list_json_is_an_array_of_orders_with_the_documented_fields(tool, send):
    order_id, _ = send(*TWO)
    newest, oldest = json.loads(done(tool("list", "--json")))
    assert list(newest) == ORDER_FIELDS
    assert re.fullmatch(ISO, oldest.pop("placed_at"))
    assert oldest == {
        "id": order_id,
        "items": ["rope"],
        "customer": "Ada",
        "status": "placed",
        "version": 1,
    }


@pytest.mark.engines
def test_a_missing_customer_is_null(tool):
    assert json.loads(tool("place", "rope", "--json").stdout)["customer"] is None


@pytest.mark.engines
def test_list_csv_has_a_header_and_one_item_a_row(tool, send):
    send(*TWO)
    found = list(csv.DictReader(done(tool("list", "--csv")).splitlines()))
    assert [(row["customer"], row["item"]) for row in found] == [
        ("Bob", "100 inch TV"),
        ("Bob", "lamp"),
        ("Ada", "rope"),
    ]


@pytest.mark.engines
def test_json_and_csv_exclude_each_other(tool):
    refused(tool("list", "--json", "--csv"), "--json", "--csv", status=2)


# Placing


@pytest.mark.engines
def test_place_json_prints_the_order_and_the_notice_for_people(tool):
    result = tool("place", "rope", "--json", "--customer", " Ada ")
    order = json.loads(result.stdout)
    assert list(order) == ORDER_FIELDS
    assert (order["items"], order["customer"]) == (["rope"], "Ada")
    assert f"ID: {order['id']}\n" in result.stderr
    assert json.loads(done(tool("list", "--json"))) == [order]


@pytest.mark.engines
def test_place_reads_items_from_standard_input(tool):
    done(tool("place", "first", "-", "last", input="100 inch TV\r\n  magic carpet"))
    (order,) = json.loads(done(tool("list", "--json")))
    assert order["items"] == ["first", "100 inch TV", "magic carpet", "last"]


@pytest.mark.engines
def test_the_same_key_again_gives_the_first_order_and_notifies_nobody(tool):
    first = tool("place", "rope", "--key", "k", "--json")
    again = tool("place", "other", "--key", " k ", "--json")
    order = json.loads(first.stdout)
    assert json.loads(again.stdout) == order
    assert "New Order" not in again.stderr
    assert order["id"] in again.stderr
    assert sum(row[2] == "NotifySales" for row in rows(tool("log"))) == 1
    assert tool("place", "rope", "--key", "k").stdout == ""


@pytest.mark.engines
@pytest.mark.parametrize(
    "item", ["[/]", "[red]x[/red]", "[link=file:///etc]x", ":smile:", "%s {0}"]
)
@pytest.mark.sample(2)
def test_an_item_with_markup_is_placed_and_shown_literally(tool, screen, item):
    assert f"Items: {[item]!r}\n" in done(tool("place", item))
    assert json.loads(rows(tool("list"))[0][4]) == [item]
    assert item in screen("list")[1]


@pytest.mark.engines
def test_an_item_may_look_like_an_option_after_two_dashes(tool):
    assert "Items: ['--json', '-x']" in done(tool("place", "--", "--json", "-x"))


# Exporting


@pytest.mark.parametrize("name", ["events.jsonl", "orders.json", "new.csv", "projections/new.json"])
def test_an_export_into_the_store_is_refused_and_leaves_it_alone(tool, send, data, name):
    send(*TWO)
    done(tool("stats"))
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    refused(tool("export", str(data / name)), name, "store", "another directory")
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


# Moving


@pytest.mark.engines
def test_ship_and_cancel_and_show_take_the_beginning_of_an_id(tool, send):
    shipped, cancelled = send(*TWO)
    length = next(n for n in range(1, 37) if shipped[:n] != cancelled[:n])
    moved = [
        tool("ship", shipped[:length]),
        tool("cancel", cancelled[:length], "--reason", "no stock"),
    ]
    assert [(result.returncode, result.stdout) for result in moved] == [(0, ""), (0, "")]
    assert shipped in moved[0].stderr
    assert cancelled in moved[1].stderr
    assert [order["status"] for order in json.loads(done(tool("list", "--json")))] == [
        "cancelled",
        "shipped",
    ]
    assert "no stock" in done(tool("show", cancelled[:length]))


@pytest.mark.engines
def test_show_prints_the_order_and_then_its_history(tool, send):
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    order, *history = rows(tool("show", order_id))
    assert [order] == rows(tool("list"))
    assert [step[1] for step in history] == ["OrderCreated", "OrderShipped"]
    assert all(re.fullmatch(ISO, step[0]) for step in history)


@pytest.mark.engines
def test_show_json_is_the_order_with_its_history(tool, send):
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    order = json.loads(done(tool("show", order_id, "--json")))
    assert list(order) == [*ORDER_FIELDS, "history"]
    history = [(step["version"], step["event"]) for step in order.pop("history")]
    assert history == [(1, "OrderCreated"), (2, "OrderShipped")]
    assert [order] == json.loads(done(tool("list", "--json")))


@pytest.mark.engines
@pytest.mark.parametrize(
    ("move", "order_id"),
    [("show", "nope"), ("ship", "nope"), ("cancel", "nope"), ("show", ""), ("ship", "\x1b[31m")],
)
def test_an_unknown_id_is_refused(tool, send, move, order_id):
    send(*TWO)
    refused(tool(move, order_id), "orders list")


@pytest.mark.engines
def test_a_forbidden_move_is_refused_and_names_the_state(tool, send):
    shipped, _ = send(*TWO)
    send(ShipOrder(shipped))
    refused(tool("cancel", shipped), "cancel", shipped, "shipped")
    refused(tool("ship", shipped), "ship", shipped, "shipped")
    assert json.loads(done(tool("show", shipped, "--json")))["version"] == 2
