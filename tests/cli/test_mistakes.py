"""Whoever mistypes is told what is wrong and, on a line of its own, what to try."""

import re

import pytest
from screens import plain, width

from orders import OrderCreated, bootstrap
from orders.cli.mistakes import nearest
from orders.cli.output import wrapped

ORDER = "3f2a0000-0000-4000-8000-000000000000"


def wrong(result, what, hint, status=2):
    """Check that this, and nothing else, was said."""
    said = f"error: {what}\ntry: {hint}\n"
    assert (result.returncode, result.stdout, result.stderr) == (status, "", said)


# Wrong use


@pytest.mark.parametrize(
    ("typed", "what", "hint"),
    [
        # Names that are nearly right
        (["lst", "--limit", "3"], "no command 'lst'", "orders list --limit 3"),
        (["LIST"], "no command 'LIST'", "orders list"),
        (["xyzzy"], "no command 'xyzzy'", "orders --help"),
        (["help", "nothing"], "no command 'nothing'", "orders help"),
        (["help", "plcae"], "no command 'plcae'", "orders help place"),
        (["list", "--staus", "x"], "orders list has no option --staus", "orders list --status x"),
        (["list", "--staus=x"], "orders list has no option --staus", "orders list --status=x"),
        (["list", "-x"], "orders list has no option -x", "orders list --help"),
        (["--dat", "x", "list"], "orders has no option --dat", "orders --data x list"),
        (["list", "--status", "shiped"], "no status 'shiped'", "orders list --status shipped"),
        (["list", "--status=Shipped"], "no status 'Shipped'", "orders list --status=shipped"),
        (["explain", "outbx"], "no word 'outbx'", "orders explain outbox"),
        (["explain", "xyzzy"], "no word 'xyzzy'", "orders explain"),
        (
            ["export", "--format", "jsnl"],
            "--format is one of json, jsonl, csv, not 'jsnl'",
            "orders export --format jsonl",
        ),
        # Options in the wrong place, or without their value
        (
            ["list", "--data", "my shop", "--json"],
            "--data is an option of orders, not of orders list",
            "orders --data 'my shop' list --json",
        ),
        (
            ["list", "--data=shop"],
            "--data is an option of orders, not of orders list",
            "orders --data=shop list",
        ),
        (
            ["list", "--data"],
            "--data is an option of orders, not of orders list",
            "orders --data STORE list",
        ),
        (
            ["list", "--version"],
            "--version is an option of orders, not of orders list",
            "orders --version list",
        ),
        (["--data"], "orders --data needs a value, STORE", "orders --data STORE COMMAND"),
        (
            ["list", "--limit"],
            "orders list --limit needs a value, N",
            "orders list --limit N",
        ),
        (["list", "--json=yes"], "orders list --json takes no value", "orders list --help"),
        # Arguments
        (
            ["place"],
            "orders place needs ITEM...",
            'orders place "100 inch TV" "magic carpet" --customer "Aunt Mae"',
        ),
        (["ship"], "orders ship needs ORDER", "orders list"),
        (["ship", "a", "b"], "orders ship takes ORDER only; 'b' is too much", "orders ship --help"),
        (["list", "x"], "orders list takes options only; 'x' is too much", "orders list --help"),
        # Values
        (
            ["list", "--limit", "many"],
            "--limit wants a whole number, 1 or more, not 'many'",
            "orders list --limit 1",
        ),
        (
            ["list", "--limit=0"],
            "--limit wants a whole number, 1 or more, not '0'",
            "orders list --limit=1",
        ),
        (
            ["bench", "--orders", "10000001"],
            "--orders wants a whole number from 0 to 10000000, not '10000001'",
            "orders bench --orders 10000000",
        ),
        (
            ["watch", "--until-idle", "soon"],
            "--until-idle wants a number, 0 or more, not 'soon'",
            "orders watch --until-idle 1",
        ),
        (
            ["worker", "--until-idle", "-1"],
            "--until-idle wants a number, 0 or more, not '-1'",
            "orders worker --until-idle 1",
        ),
        (
            ["list", "--since", "tomorow"],
            "--since: 'tomorow' is not a time",
            'write 2026-11-21, 2026-11-21T09:30, 10m, 3d, "10 minutes ago" or yesterday',
        ),
        (["list", "--json", "--csv"], "--json and --csv exclude each other", "orders list --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.sample(12)
def test_wrong_use_is_said_in_two_lines(tool, data, typed, what, hint):
    wrong(tool(*typed), what, hint)
    assert not data.exists()


def test_a_name_like_no_other_is_answered_with_all_if_these_are_few(tool):
    error, hint = tool("list", "--status", "lost").stderr.splitlines()
    assert error == "error: no status 'lost'; there are placed, shipped, cancelled"
    assert hint == "try: orders list --help"


@pytest.mark.parametrize(
    "command", ["", "list", "show", "place", "retry", "watch", "demo", "explain"]
)
@pytest.mark.sample(4)
def test_nothing_of_how_click_puts_it_is_heard(tool, command):
    wordings = r"(?i)invalid|no such|missing|got unexpected|requires an|argument|range|see orders"
    for mistake in (["--x"], ["--limit", "x"], ["--until-idle", "x"], ["a", "b", "c", "--y"]):
        said = tool(*filter(None, [command]), *mistake).stderr
        assert said.startswith("error: ")
        assert "\ntry: " in said
        assert not re.search(wordings, said)


def test_a_plugin_is_helped_as_well(tool):
    refund = ["--plugin", "orders.demos.refund", "refund"]
    wrong(
        tool(*refund, ORDER, "--resaon", "x"),
        "orders refund has no option --resaon",
        f"orders --plugin orders.demos.refund refund {ORDER} --reason x",
    )


def test_a_long_line_is_not_repeated(tool):
    said = tool("place", *["rope"] * 100, "--custmer", "Ada")
    wrong(said, "orders place has no option --custmer", "orders place --help")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lst", "list"),
        ("ship", "shipped"),
        ("sh", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_the_nearest_name_is_the_one_that_begins_so_or_looks_so(given, meant):
    assert nearest(given, ["list", "shipped", "shown"]) == meant


# What cannot be done


def place(data, *ids, items=("rope",)):
    with bootstrap(data) as system, system.uow() as uow:
        for order_id in ids:
            uow.emit(OrderCreated(order_id=order_id, items=items))


@pytest.mark.parametrize("command", ["show", "ship", "cancel", "trace"])
def test_an_ambiguous_id_is_answered_with_short_ids_ages_and_items_in_columns(tool, data, command):
    ids = [f"aaaa{number:05}-0000-4000-8000-000000000000" for number in range(12)]
    place(data, *ids, items=("100 inch TV", "rope"))
    said = tool(command, "aaaa")
    assert (said.returncode, said.stdout) == (1, "")
    *candidates, more, error, hint = said.stderr.splitlines()
    shown = [f"aaaa{number:05}  100 inch TV, rope" for number in range(10)]
    assert [re.sub(r"  (now    |\ds ago )", "", line) for line in candidates] == shown
    assert [more, error, hint] == [
        "and 2 more",
        "error: 'aaaa' fits 12 orders",
        "try: type more of the id, as listed",
    ]


def test_an_ambiguous_id_is_answered_in_a_line_each_however_narrow(screen, data):
    ids = [f"aaaa{number:05}-0000-4000-8000-000000000000" for number in range(3)]
    place(data, *ids, items=("a word and " * 9 + "one",))
    lines = plain(screen("show", "aaaa", columns=40)[1]).splitlines()
    assert [line[:9] for line in lines[:-2]] == [order_id[:9] for order_id in ids]


def test_an_unknown_id_names_the_command_that_lists_them(tool, data):
    place(data, ORDER)
    wrong(tool("show", "nope"), "no order 'nope'", "orders list", status=1)


def test_what_to_try_is_tried_on_the_same_store(tool, tmp_path):
    other = str(tmp_path / "my shop")
    there = f"orders --data '{other}'"
    wrong(tool("--data", other, "show", "x"), "no order 'x'", f"{there} list", status=1)
    wrong(tool("--data", other, "lst"), "no command 'lst'", f"{there} list")
    full = tool("--data", other, "place", "rope", stdout="/dev/full").stderr.splitlines()
    assert full[1] == f"try: {there} deliveries --failed, then {there} retry --all"


def test_a_forbidden_move_names_the_state_and_the_command_that_shows_it(tool, data):
    place(data, ORDER)
    assert tool("ship", "3f").returncode == 0
    wrong(
        tool("cancel", "3f"),
        f"order {ORDER} cannot be cancelled: it is shipped, not placed",
        f"orders show {ORDER}",
        status=1,
    )


def test_a_foreign_log_is_named_and_another_directory_proposed(tool, data):
    data.mkdir()
    (data / "events.jsonl").write_text('{"event": "login"}\n')
    said = tool("list")
    error, hint = said.stderr.splitlines()
    assert error.startswith(f"error: {data}/events.jsonl:1: ")
    assert hint.startswith("try: choose another --data if it is no log of orders, else ")


def test_a_file_in_the_place_of_the_store_is_named(tool, data):
    data.write_text("my notes")
    error, hint = tool("place", "rope").stderr.splitlines()
    assert error.startswith(f"error: cannot use {data}")
    assert hint == "try: choose another directory with --data"


def test_where_a_file_cannot_be_written_another_place_is_proposed_first(tool, data):
    place(data, ORDER)
    written = tool("export", "nowhere/orders.json")
    wrong(
        written,
        "could not write nowhere/orders.json: no such file or directory; the file is as it was",
        "choose another place, or make room",
        status=1,
    )


def test_an_empty_store_says_its_absolute_path(tool, tmp_path):
    said = tool("list", data="")
    assert said.stderr == (
        f'No orders in {tmp_path / "data"} yet.\ntry: orders place "100 inch TV"\n'
    )


def test_a_failed_notice_is_a_warning_with_the_commands_that_show_and_repeat_it(tool):
    warning, hint = tool("place", "rope", stdout="/dev/full").stderr.splitlines()
    assert warning.startswith("warning: order_created failed on OrderCreated ")
    assert hint == "try: orders deliveries --failed, then orders retry --all"


# Terminals


@pytest.mark.parametrize("columns", [40, 80])
def test_talk_wraps_at_words_on_a_terminal_and_is_one_line_elsewhere(tool, screen, columns):
    typed = ["list", "--since", "the day on which all of it began, the carpet 魔法の絨毯 included"]
    status, shown = screen(*typed, columns=columns)
    lines = plain(shown).splitlines()
    piped = tool(*typed).stderr
    assert status == 2
    assert piped.count("\n") == 2
    assert " ".join(lines) == " ".join(piped.splitlines())
    assert len(lines) > 2
    assert max(map(width, lines)) <= columns


def test_a_word_that_is_wider_than_the_terminal_is_left_to_it():
    assert wrapped("see orders/cli/output.py now", 10) == "see\norders/cli/output.py\nnow"
    assert wrapped("", 10) == ""
    assert wrapped("a  b", 10) == "a  b"


def test_the_marks_are_coloured_on_a_terminal_only(screen, tool):
    _, shown = screen("lst")
    assert "\x1b[31m\x1b[1merror:\x1b[0m no command 'lst'\n" in shown
    assert "\x1b[36m\x1b[1mtry:\x1b[0m orders list\n" in shown
    assert "\x1b" not in screen("lst", env={"NO_COLOR": "1"})[1]
    assert "\x1b" not in tool("lst").stderr
