"""The command line as its users and their scripts meet it: every test runs the real tool."""

import csv
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orders import OrderCreated, PlaceOrder, ShipOrder, __version__, bootstrap
from orders.cli import app

ROOT = Path(__file__).parents[1]
COMMANDS = list(typer.main.get_command(app).commands)
ORDER_FIELDS = ["id", "items", "customer", "status", "placed_at", "version"]
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
TWO = (PlaceOrder(("rope",), "Ada"), PlaceOrder(("100 inch TV", "lamp"), "Bob"))


@pytest.fixture
def shell(data):
    """Run a line of bash in which `orders` is the tool; a pipe fails if any part of it does."""

    def run(script, **options):
        tool = f'orders() {{ "{sys.executable}" -m orders "$@"; }}\n'
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", tool + script],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "ORDERS_DATA": str(data)},
            timeout=60,
            **options,
        )

    return run


def refused(result, *words, status=1):
    """Check that the tool said in one line, and to people only, why it could not."""
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not RAW.search(result.stderr)
    for word in words:
        assert word in result.stderr
    return True


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def rows(result):
    return [line.split("\t") for line in done(result).splitlines()]


def ids(result):
    return [row[0] for row in rows(result)]


# Starting it


def test_the_notice_is_the_five_lines_of_the_article_and_a_new_process_lists_the_order(orders):
    placed = orders("place", "100 inch TV", "magic carpet")
    notice = re.fullmatch(
        rf"============\nNew Order:\n============\nID: ({UUID})\n"
        r"Items: \['100 inch TV', 'magic carpet'\]\n",
        done(placed),
    )
    assert rows(orders("list"))[0][0] == notice[1]


def test_python_cli_py_works_in_a_checkout(orders, data):
    order_id = orders("place", "rope", "--json").stdout
    result = subprocess.run(
        [sys.executable, "cli.py", "--data", str(data), "list", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert json.loads(done(result)) == [json.loads(order_id)]


def test_the_console_command_is_the_same_tool(data):
    command = Path(sys.executable).with_name("orders")
    result = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done(result) == f"orders {__version__}\n"


def test_version_is_printed(orders):
    assert done(orders("--version")) == f"orders {__version__}\n"


def test_orders_alone_shows_the_help(orders, data):
    alone = done(orders())
    assert alone == done(orders("--help"))
    assert alone.startswith("Usage: orders ")
    assert all(f"  {command}  " in alone for command in COMMANDS)
    assert not data.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_an_example(tool, command):
    text = done(tool(command, "-h"))
    assert text.startswith(f"Usage: orders {command} ")
    assert f"\n  Example: orders {command}" in text


def test_data_names_the_directory_and_wins_over_the_environment(tool, tmp_path, data):
    done(tool("--data", str(tmp_path / "other"), "place", "rope"))
    assert (tmp_path / "other" / "events.jsonl").exists()
    assert not data.exists()


def test_data_is_the_default_directory(tool, tmp_path):
    done(tool("place", "rope", data=""))
    assert (tmp_path / "data" / "events.jsonl").exists()


# Listing


def test_a_piped_list_is_one_order_a_line_with_every_value_in_full(tool, send):
    customer, items = "A" * 200, ("💡 lamp", 'a "b"', "c" * 300)
    (order_id,) = send(PlaceOrder(items, customer))
    ((number, placed_at, status, who, what),) = rows(tool("list"))
    assert (number, status, who) == (order_id, "placed", customer)
    assert re.fullmatch(ISO, placed_at)
    assert tuple(json.loads(what)) == items


def test_a_list_is_newest_first_and_has_all_orders_when_piped(tool, send):
    order_ids = send(*(PlaceOrder((f"item {number}",)) for number in range(25)))
    assert ids(tool("list")) == order_ids[::-1]
    assert [order["id"] for order in json.loads(done(tool("list", "--json")))] == order_ids[::-1]


def test_an_empty_store_lists_nothing_and_creates_nothing(tool, data):
    result = tool("list")
    assert (result.returncode, result.stdout) == (0, "")
    assert "orders place" in result.stderr
    assert json.loads(done(tool("export"))) == []
    assert json.loads(done(tool("log", "--json"))) == []
    assert not data.exists()


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


def test_since_is_inclusive_and_until_is_not(tool, send):
    first, second = send(*TWO)
    time = rows(tool("list"))[0][1]
    assert ids(tool("list", "--since", time)) == [second]
    assert ids(tool("list", "--until", time)) == [first]


@pytest.mark.parametrize("time", ["tomorrow", "", "3 fortnights", "2026-13-01", "999999w", "5ſ"])
def test_a_time_that_is_none_is_wrong_use(tool, time):
    refused(tool("list", "--since", time), "--since", status=2)


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_a_shortened_list_says_so_to_people_only(tool, send, form):
    send(*TWO)
    whole, short = tool("list", *form), tool("list", "--limit", "1", *form)
    assert whole.stderr == ""
    assert "1 of 2" in short.stderr
    assert "1 of 2" not in short.stdout
    assert "rope" not in short.stdout
    assert tool("list", "--limit", "9" * 20, *form).stdout == whole.stdout


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


def test_a_missing_customer_is_null(tool):
    assert json.loads(tool("place", "rope", "--json").stdout)["customer"] is None


def test_list_csv_has_a_header_and_one_item_a_row(tool, send):
    send(*TWO)
    found = list(csv.DictReader(done(tool("list", "--csv")).splitlines()))
    assert [(row["customer"], row["item"]) for row in found] == [
        ("Bob", "100 inch TV"),
        ("Bob", "lamp"),
        ("Ada", "rope"),
    ]


def test_json_and_csv_exclude_each_other(tool):
    refused(tool("list", "--json", "--csv"), "--json", "--csv", status=2)


# Placing


def test_place_json_prints_the_order_and_tells_the_notice_to_people(tool):
    result = tool("place", "rope", "--json", "--customer", " Ada ")
    order = json.loads(result.stdout)
    assert list(order) == ORDER_FIELDS
    assert (order["items"], order["customer"]) == (["rope"], "Ada")
    assert f"ID: {order['id']}\n" in result.stderr
    assert json.loads(done(tool("list", "--json"))) == [order]


def test_place_reads_items_from_standard_input(tool):
    done(tool("place", "first", "-", "last", input="100 inch TV\r\n  magic carpet"))
    (order,) = json.loads(done(tool("list", "--json")))
    assert order["items"] == ["first", "100 inch TV", "magic carpet", "last"]


def test_the_same_key_again_gives_the_first_order_and_notifies_nobody(tool):
    first = tool("place", "rope", "--key", "k", "--json")
    again = tool("place", "other", "--key", " k ", "--json")
    order = json.loads(first.stdout)
    assert json.loads(again.stdout) == order
    assert "New Order" not in again.stderr
    assert order["id"] in again.stderr
    assert sum(row[2] == "NotifySales" for row in rows(tool("log"))) == 1
    assert tool("place", "rope", "--key", "k").stdout == ""


@pytest.mark.parametrize(
    "item", ["[/]", "[red]x[/red]", "[link=file:///etc]x", ":smile:", "%s {0}"]
)
def test_an_item_with_markup_is_placed_and_shown_literally(tool, screen, item):
    assert f"Items: {[item]!r}\n" in done(tool("place", item))
    assert json.loads(rows(tool("list"))[0][4]) == [item]
    assert item in screen("list")[1]


def test_an_item_may_look_like_an_option_after_two_dashes(tool):
    assert "Items: ['--json', '-x']" in done(tool("place", "--", "--json", "-x"))


# Moving


def test_ship_and_cancel_and_show_take_the_beginning_of_an_id(tool, send):
    shipped, cancelled = send(*TWO)
    length = next(n for n in range(1, 37) if shipped[:n] != cancelled[:n])
    told = [
        tool("ship", shipped[:length]),
        tool("cancel", cancelled[:length], "--reason", "no stock"),
    ]
    assert [(result.returncode, result.stdout) for result in told] == [(0, ""), (0, "")]
    assert shipped in told[0].stderr
    assert cancelled in told[1].stderr
    assert [order["status"] for order in json.loads(done(tool("list", "--json")))] == [
        "cancelled",
        "shipped",
    ]
    assert "no stock" in done(tool("show", cancelled[:length]))


def test_show_prints_the_order_and_then_its_history(tool, send):
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    order, *history = rows(tool("show", order_id))
    assert [order] == rows(tool("list"))
    assert [step[1] for step in history] == ["OrderCreated", "OrderShipped"]
    assert all(re.fullmatch(ISO, step[0]) for step in history)


def test_show_json_is_the_order_with_its_history(tool, send):
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    order = json.loads(done(tool("show", order_id, "--json")))
    assert list(order) == [*ORDER_FIELDS, "history"]
    history = [(step["version"], step["event"]) for step in order.pop("history")]
    assert history == [(1, "OrderCreated"), (2, "OrderShipped")]
    assert [order] == json.loads(done(tool("list", "--json")))


@pytest.mark.parametrize("move", ["show", "ship", "cancel"])
def test_an_ambiguous_id_is_answered_with_the_candidates(tool, data, move):
    order_ids = [f"aaaa{number:04}-0000-4000-8000-000000000000" for number in range(2)]
    with bootstrap(data) as app, app.uow() as uow:
        for order_id in order_ids:
            uow.emit(OrderCreated(order_id=order_id, items=("rope",)))
    refused(tool(move, "aaaa"), *order_ids)


@pytest.mark.parametrize(
    ("move", "order_id"),
    [("show", "nope"), ("ship", "nope"), ("cancel", "nope"), ("show", ""), ("ship", "\x1b[31m")],
)
def test_an_unknown_id_is_refused(tool, send, move, order_id):
    send(*TWO)
    refused(tool(move, order_id), "orders list")


def test_a_forbidden_move_is_refused_and_names_the_state(tool, send):
    shipped, _ = send(*TWO)
    send(ShipOrder(shipped))
    refused(tool("cancel", shipped), "cancel", shipped, "shipped")
    refused(tool("ship", shipped), "ship", shipped, "shipped")
    assert json.loads(done(tool("show", shipped, "--json")))["version"] == 2


# Log and topics


def test_log_json_is_an_array_of_lines_with_the_documented_fields(tool, send):
    send(*TWO)
    lines = json.loads(done(tool("log", "--json")))
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    fields = ["format", "seq", "time", "messages", "deliveries", "owner", "settled", "crc"]
    for line in lines:
        assert list(line) == [field for field in fields if field in line]
    assert [message["type"] for message in lines[0]["messages"]] == ["PlaceOrder", "OrderCreated"]
    assert [line["seq"] for line in json.loads(done(tool("log", "--after", "3", "--json")))] == [4]


def test_a_piped_log_tells_each_message_and_delivery_with_its_number_and_time(tool, send):
    send(TWO[0])
    found = rows(tool("log"))
    assert [(row[0], row[2]) for row in found] == [
        ("1", "PlaceOrder"),
        ("1", "OrderCreated"),
        ("1", "Delivery"),
        ("2", "NotifySales"),
        ("2", "Delivery"),
    ]
    assert all(re.fullmatch(ISO, row[1]) for row in found)


def test_topics_shows_who_handles_what(tool, data):
    wiring = {row[0]: row[1:] for row in rows(tool("topics"))}
    assert wiring["place-order"][:2] == ["PlaceOrder", "command"]
    assert wiring["place-order"][2].startswith("place_order (handlers.py:")
    created = r"order_created \(handlers.py:\d+\), Bestseller.react \(policies.py:\d+\)"
    assert re.fullmatch(created, wiring["order-created"][2])
    assert not data.exists()


# Wrong use


@pytest.mark.parametrize(
    "arguments",
    [
        ["place"],
        ["show"],
        ["ship", "a", "b"],
        ["import"],
        ["list", "--limit", "0"],
        ["list", "--limit", "many"],
        ["list", "--status", "lost"],
        ["log", "--after", "-1"],
        ["export", "--format", "xml"],
        ["--data"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2_in_one_line(tool, data, arguments):
    refused(tool(*arguments), "--help", status=2)
    assert not data.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["\x1b[31mx"],
        ["[red]x[/red]"],
        ["--[/]"],
        ["--\udcff"],
        ["demo", "a\u202eb"],
        ["demo", "[/]"],
        ["list", "--\x1b[31mx"],
        ["list", "--status", "\x9b31m"],
        ["list", "--since", "\x1b]0;x\x07"],
    ],
    ids=ascii,
)
def test_hostile_wrong_use_is_never_echoed_raw(tool, arguments):
    result = tool(*arguments)
    refused(result, "--help", status=2)
    if not RAW.search(arguments[-1]):
        assert arguments[-1] in result.stderr


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("a\x1b[31m", "U+001B"),
        ("a\u202eb", "U+202E"),
        ("\udcff", "U+DCFF"),
        ("a\nb", "U+000A"),
        ("\x9b31m", "U+009B"),
        ("a\u2028b", "U+2028"),
        ("  ", "blank"),
        ("", "blank"),
        ("x" * 501, "501"),
    ],
)
def test_an_item_that_is_no_name_is_refused_with_the_reason(tool, item, named):
    refused(tool("place", "rope", item), "item 2", named)
    assert tool("list").stdout == ""


def test_a_customer_and_a_key_are_held_to_the_same_rule(tool):
    refused(tool("place", "rope", "--customer", "\x1b"), "customer", "U+001B")
    refused(tool("place", "rope", "--key", " "), "key", "blank")
    refused(tool("place", "rope", "--key", "\udcff"), "key", "U+DCFF")


def test_more_than_a_thousand_items_are_refused(tool):
    refused(tool("place", "-", input="x\n" * 1001), "1,000")
    refused(tool("place", "-", input=""), "at least one item")


def test_an_endless_item_is_refused_and_not_repeated(tool):
    result = tool("place", "-", input="x" * 10_000_000)
    refused(result, "10,000,000 characters")
    assert len(result.stderr) < 200


def test_standard_input_that_is_no_text_is_refused(orders):
    refused(orders("place", "-", input="rope\n\udcff\n"))


def test_a_refused_order_is_in_the_log(tool):
    tool("place", "\x1b[31mred")
    ((_, _, event, _, reason), *_) = [row for row in rows(tool("log")) if "Rejected" in row[2]]
    assert (event, "U+001B" in reason) == ("OrderRejected", True)


@pytest.mark.parametrize("timeout", ["soon", "nan", "1e10"])
def test_a_lock_timeout_that_is_no_number_of_seconds_is_a_clear_error(tool, timeout):
    refused(tool("list", env={"ORDERS_LOCK_TIMEOUT": timeout}), "ORDERS_LOCK_TIMEOUT", "seconds")


# What stands where the store should be


def test_a_directory_that_cannot_be_made_is_refused(tool):
    refused(tool("place", "rope", data="/proc/x"), "/proc/x", "--data")
    assert tool("list", data="/proc/x").stdout == ""


@pytest.mark.parametrize("command", [["place", "rope"], ["list"]], ids=str)
def test_a_file_where_the_directory_should_be_is_refused_and_untouched(tool, data, command):
    data.write_text("my notes")
    refused(tool(*command), str(data), "--data")
    refused(tool(*command, data=data / "deeper"), str(data), "--data")
    assert data.read_text() == "my notes"


@pytest.mark.parametrize("command", [["place", "rope"], ["list"]], ids=str)
@pytest.mark.parametrize(
    "content",
    ['{"_default": {"1": {"name": "mine"}}}', '{"log": "my diary"}', "my notes"],
)
def test_a_foreign_orders_json_is_refused_and_untouched(tool, data, command, content):
    data.mkdir()
    state = data / "orders.json"
    state.write_text(content)
    refused(tool(*command), str(state))
    assert state.read_text() == content
    assert [path.name for path in data.glob("orders.json*")] == ["orders.json"]


@pytest.mark.parametrize("command", [["place", "rope"], ["list"]], ids=str)
def test_a_foreign_log_is_refused_by_line_and_untouched(tool, data, command):
    data.mkdir()
    log = data / "events.jsonl"
    log.write_text('{"event": "login"}\n')
    refused(tool(*command), f"{log}:1: ")
    assert log.read_text() == '{"event": "login"}\n'


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("events.jsonl", Path.mkdir),
        ("orders.json", Path.mkdir),
        ("orders.lock", Path.mkdir),
        ("events.jsonl", os.mkfifo),
        ("orders.json", os.mkfifo),
        ("orders.lock", os.mkfifo),
        (".running", Path.touch),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_no_file_in_the_place_of_a_file_is_refused(tool, data, name, make):
    data.mkdir()
    make(data / name)
    kind = stat.S_IFMT((data / name).stat().st_mode)
    refused(tool("place", "rope"), str(data / name))
    result = tool("list")
    assert (result.stdout, "Traceback" in result.stderr) == ("", False)
    assert stat.S_IFMT((data / name).stat().st_mode) == kind


# Streams


@pytest.mark.parametrize("command", ["list", "list --json", "export --format csv", "log"])
def test_a_broken_pipe_is_quiet(send, shell, command):
    send(PlaceOrder(("x" * 490,) * 400))  # more than a pipe holds
    result = shell(f"orders {command} | head -c 9")
    assert len(result.stdout) == 9
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_standard_output_keeps_the_order_and_says_so(tool, shell):
    result = shell("orders place rope > /dev/full")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: order_created failed on OrderCreated ")
    assert result.stderr.count("\n") == 1
    assert [row[4] for row in rows(tool("list"))] == ['["rope"]']
    outcome = rows(tool("log"))[-1]
    assert "failed" in outcome[4]
    assert "No space left" in outcome[4]


@pytest.mark.parametrize("command", ["list", "place rope --json", "-h"])
def test_data_that_cannot_be_written_is_an_error_without_a_traceback(send, shell, command):
    send(*TWO)
    result = shell(f"orders {command} > /dev/full")
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "o space left" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "script",
    ["orders place rope <&-", "orders place rope >&-", "orders place rope 2>&-"],
    ids=["input", "output", "errors"],
)
def test_a_closed_stream_does_not_lose_the_order(tool, shell, script):
    result = shell(script)
    assert "Traceback" not in result.stderr
    assert [row[4] for row in rows(tool("list"))] == ['["rope"]']


def test_a_closed_standard_output_is_no_crash(send, shell):
    send(*TWO)
    assert "Traceback" not in shell("orders list >&-").stderr


def test_json_is_json_whatever_the_encoding_of_the_output(orders, send):
    send(PlaceOrder(("🧞 carpet", "Zoë"), "עדה"))
    result = orders("list", "--json", env={"PYTHONIOENCODING": "ascii"})
    (order,) = json.loads(done(result))
    assert (order["items"], order["customer"]) == (["🧞 carpet", "Zoë"], "עדה")


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_an_export_loses_no_letter_whatever_the_encoding_of_the_output(
    orders, tool, send, tmp_path, form
):
    send(PlaceOrder(("🧞 carpet", "Zoë"), "עדה"))
    result = orders("export", "--format", form, env={"PYTHONIOENCODING": "ascii"})
    (tmp_path / f"o.{form}").write_text(done(result), "utf-8")
    tool("import", f"o.{form}", data=tmp_path / "other")
    (copied,) = json.loads(done(tool("list", "--json", data=tmp_path / "other")))
    assert (copied["items"], copied["customer"]) == (["🧞 carpet", "Zoë"], "עדה")


@pytest.mark.parametrize("move", ["ship", "cancel"])
def test_a_move_talks_to_people_only(tool, send, move):
    (order_id,) = send(PlaceOrder(("rope",)))
    result = tool(move, order_id)
    assert (result.returncode, result.stdout) == (0, "")
    assert order_id in result.stderr


# Completion


@pytest.mark.parametrize("command", ["show", "ship", "cancel"])
def test_a_shell_completes_order_ids(shell, send, command):
    order_ids = send(*TWO)
    ask = f"_ORDERS_COMPLETE=complete_bash COMP_WORDS='orders {command} {{}}' COMP_CWORD=2 orders"
    assert set(done(shell(ask.format(""))).split()) == set(order_ids)
    length = next(n for n in range(1, 37) if order_ids[0][:n] != order_ids[1][:n])
    assert done(shell(ask.format(order_ids[0][:length]))).split() == [order_ids[0]]


def test_completion_heeds_the_data_option(shell, send, tmp_path):
    order_ids = send(*TWO, data=tmp_path / "other")
    words = f"orders --data {tmp_path / 'other'} show "
    found = shell(f"_ORDERS_COMPLETE=complete_bash COMP_WORDS='{words}' COMP_CWORD=4 orders")
    assert set(done(found).split()) == set(order_ids)


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_completion_survives_items_with_markup(shell, send, kind):
    order_ids = send(*(PlaceOrder((item,)) for item in ("[/]", "\\[/]", "\\\\[/]", "\\", "[red]x")))
    ask = f"_TYPER_COMPLETE_FISH_ACTION=get-args _ORDERS_COMPLETE=complete_{kind} orders"
    found = done(shell(f"_TYPER_COMPLETE_ARGS='orders show ' {ask}"))
    assert all(order_id in found for order_id in order_ids)


@pytest.mark.parametrize(
    "item", ["$(touch hit)", "\\$(touch hit)", "\\`touch hit\\`", '\\";touch hit;"']
)
def test_completion_never_runs_what_an_item_says(shell, send, tmp_path, item):
    (order_id,) = send(PlaceOrder((item,)))
    # zsh evaluates what the tool answers, and then, in its _arguments, what stands in ((...)).
    found = shell(
        '_arguments() { inner=${1#*((}; eval "ws=( ${inner%))} )"; echo "$ws"; }\n'
        "eval \"$(_TYPER_COMPLETE_ARGS='orders show ' _ORDERS_COMPLETE=complete_zsh orders)\""
    )
    assert found.stdout.startswith(order_id)
    assert not (tmp_path / "hit").exists()


def test_completion_of_a_damaged_store_is_silent(shell, send, data):
    ask = "_ORDERS_COMPLETE=complete_bash COMP_WORDS='orders show ' COMP_CWORD=2 orders"
    order_ids = send(*TWO)
    (data / "orders.json").write_text("[")
    found = shell(ask)
    assert (set(done(found).split()), found.stderr) == (set(order_ids), "")
    (data / "events.jsonl").write_text("my notes")
    assert done(shell(ask)).strip() == ""
