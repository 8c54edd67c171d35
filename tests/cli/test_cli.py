"""The command line as its users and their scripts meet it: how it starts and refuses."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command_line import RAW, UUID, done, refused, rows

from orders import __version__
from orders.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = list(typer.main.get_command(app).commands)


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


def test_data_names_the_directory_and_wins_over_the_environment(tool, tmp_path, data):
    done(tool("--data", str(tmp_path / "other"), "place", "rope"))
    assert (tmp_path / "other" / "events.jsonl").exists()
    assert not data.exists()


def test_data_is_the_default_directory(tool, tmp_path):
    done(tool("place", "rope", data=""))
    assert (tmp_path / "data" / "events.jsonl").exists()


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
def test_wrong_use_exits_2_and_says_what_to_try(tool, data, arguments):
    refused(tool(*arguments), "try: ", status=2)
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
    refused(result, "try: ", status=2)
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
@pytest.mark.sample(4)
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


def test_an_endless_line_is_refused_and_not_repeated(tool):
    result = tool("place", "-", input="x" * 10_000_000)
    refused(result, "a line", "500 are allowed")
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
