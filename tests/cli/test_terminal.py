"""The command line on a terminal: what a person sees, at every width, with colour and without."""

import json
import os
import re
import subprocess
import sys
from shutil import rmtree

import pexpect
import pytest
from screens import plain, width

from orders import PlaceOrder, ShipOrder

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")
HOSTILE = ("[/]", "[red]x[/red]", "[link=file:///etc/passwd]y", ":smile:")
LONG = [
    PlaceOrder(("100 inch TV", "magic carpet", "soft cheese", "dutch mashrooms"), "Aunt Mae"),
    PlaceOrder(("w" * 500, "a b " * 120), "n" * 200),
    PlaceOrder(("漢字" * 60, "🧞" * 40), "עדה לאבלייס " * 8),
]


def masked(text):
    """Return what was shown without styles, each digit of an id or a time replaced in place."""
    text = re.sub(
        r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?m:^[0-9a-f]{8}\b)",
        lambda match: re.sub(r"[0-9a-f]", "x", match[0]),
        plain(text),
    )
    times = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d)?|T[\d:.]+Z)"
    return re.sub(times, lambda match: re.sub(r"\d", "0", match[0]), text)


def lines(text):
    """Return the lines shown, without what pads them."""
    return re.sub(r" +$", "", text, flags=re.MULTILINE).strip("\n").splitlines()


# Whole outputs


def test_place_shows_the_notice_in_a_panel(screen):
    status, shown = screen("place", "100 inch TV", "magic carpet", env={"NO_COLOR": "1"})
    assert status == 0
    assert masked(shown).strip("\n") == (
        "╭─ New Order ──────────────────────────────╮\n"
        "│ ID: xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx │\n"
        "│ Items: ['100 inch TV', 'magic carpet']   │\n"
        "╰──────────────────────────────────────────╯"
    )


def test_list_shows_a_table_and_how_many_there_are(screen, send):
    first, _ = send(
        PlaceOrder(("100 inch TV", "magic carpet"), "Aunt Mae"), PlaceOrder(("rope",), "Zoë")
    )
    send(ShipOrder(first))
    status, shown = screen("list", env={"NO_COLOR": "1"})
    assert status == 0
    header, rule, *orders, total = lines(masked(shown))
    assert header == "Order     Status     Customer  Items                      Age"
    assert set(rule) == {"─"}
    assert [line.rpartition("  ")[0].rstrip() for line in orders] == [
        "xxxxxxxx  ● placed   Zoë       rope",
        "xxxxxxxx  ✓ shipped  Aunt Mae  100 inch TV, magic carpet",
    ]
    assert all(re.search(r"  (now|\ds ago)$", line) for line in orders)
    assert total == "2 orders."


def test_show_shows_a_page_with_the_history(screen, send):
    (order_id,) = send(PlaceOrder(("100 inch TV", "magic carpet"), "Aunt Mae"))
    send(ShipOrder(order_id))
    status, shown = screen("show", order_id, env={"NO_COLOR": "1"})
    assert status == 0
    assert lines(masked(shown)) == [
        "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        "Status    ✓ shipped",
        "Customer  Aunt Mae",
        "Placed    0000-00-00 00:00:00",
        "Items     100 inch TV",
        "          magic carpet",
        "",
        "#  Time                 Event",
        "────────────────────────────────────",
        "1  0000-00-00 00:00:00  OrderCreated",
        "2  0000-00-00 00:00:00  OrderShipped",
    ]


def test_a_name_without_spaces_is_shown_whole(screen, send):
    (order_id,) = send(PlaceOrder(("o" * 100 + "k",)))
    _, shown = screen("show", order_id)
    assert "o" * 20 + "k" in plain(shown)
    assert plain(shown).count("o") >= 100


def test_a_bestseller_is_drawn_like_every_notice(screen, send):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    _, shown = screen("place", "rope")
    titles = [line[:13] for line in plain(shown).splitlines() if line.startswith("╭")]
    assert titles == ["╭─ New Order ", "╭─ Bestseller"]


# Width


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.sample(1)
def test_nothing_is_wider_than_the_terminal(screen, send, columns):
    order_ids = send(*LONG)
    commands = [
        ["list"],
        ["topics"],
        ["deliveries"],
        ["list", "-h"],
        *(["show", name] for name in order_ids[1:]),
    ]
    for arguments in commands:
        status, shown = screen(*arguments, columns=columns)
        assert status == 0
        widths = [width(line) for line in plain(shown).splitlines()]
        assert 40 < max(widths) <= columns, arguments


@pytest.mark.parametrize("columns", [80, 120])
def test_a_panel_is_as_wide_as_the_terminal_at_most(screen, columns):
    _, shown = screen("place", "w" * 500, "漢字" * 60, columns=columns)
    assert {width(line) for line in plain(shown).splitlines() if line} == {columns}


def test_a_narrow_terminal_says_what_it_leaves_out(screen, send):
    send(LONG[0])
    _, shown = screen("list", columns=40)
    assert all(width(line) <= 40 for line in plain(shown).splitlines())
    assert re.search(r"… \+3  ", plain(shown))


def test_a_table_shows_twenty_orders_and_says_how_many_there_are(screen, send):
    send(*(PlaceOrder((f"item {number}",)) for number in range(21)))
    _, shown = screen("list")
    assert "item 1 " in f"{plain(shown)} "
    assert "item 0" not in shown
    assert "20 of 21 orders" in shown
    assert "item 0" in screen("list", "--limit", "30")[1]


# Colour


def test_a_terminal_is_shown_colours_and_no_color_takes_them_away(screen, send):
    send(*LONG)
    _, coloured = screen("list")
    _, bare = screen("list", env={"NO_COLOR": "1"})
    assert COLOUR.search(coloured)
    assert not COLOUR.search(bare)
    assert plain(bare) == plain(coloured)
    assert "───" in bare


@pytest.mark.parametrize("arguments", [["show", "nope"], ["bogus"], ["-h"]], ids=" ".join)
def test_no_color_holds_for_errors_and_help(screen, arguments):
    assert COLOUR.search(screen(*arguments)[1])
    assert not COLOUR.search(screen(*arguments, env={"NO_COLOR": "1"})[1])


def test_a_dumb_terminal_is_shown_a_table_without_any_codes(screen, send):
    send(LONG[0])
    _, shown = screen("list", env={"TERM": "dumb"})
    assert "───" in shown
    assert "\x1b" not in shown


def test_force_color_draws_on_a_pipe(tool, send):
    send(LONG[0])
    assert "\x1b" not in tool("list").stdout
    forced = tool("list", env={"FORCE_COLOR": "1"}).stdout
    assert COLOUR.search(forced)
    assert "───" in forced


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_json_and_csv_are_the_same_on_a_terminal_as_piped(tool, screen, send, form):
    send(PlaceOrder(HOSTILE, "Ada"), PlaceOrder(("x" * 200,)))
    assert screen("list", form)[1] == tool("list", form).stdout


# Hostile text


def test_hostile_markup_is_shown_literally(screen, tool):
    _, placed = screen("place", *HOSTILE, "--customer", "[bold]b[/bold]")
    assert str(list(HOSTILE)) in plain(placed)
    (order,) = json.loads(tool("list", "--json").stdout)
    for arguments in (["list"], ["show", order["id"]]):
        _, shown = screen(*arguments, columns=200)
        assert all(item in plain(shown) for item in (*HOSTILE, "[bold]b[/bold]"))
        assert "\x1b]8" not in shown


@pytest.mark.parametrize("arguments", [["ship", "[/]"], ["[red]x[/red]"], ["demo", "[/]"]], ids=str)
def test_hostile_arguments_are_shown_literally(screen, arguments):
    status, shown = screen(*arguments)
    assert status in {1, 2}
    assert arguments[-1] in plain(shown)
    assert "Traceback" not in shown


def test_control_characters_of_an_argument_never_reach_the_terminal(screen):
    status, shown = screen("place", "a\x1b]0;title\x07\u202eb", env={"NO_COLOR": "1"})
    assert status == 1
    assert shown == "error: item 1 contains the control character U+001B\ntry: remove it\n"


def test_help_on_a_terminal_has_every_word_of_the_piped_help(tool, screen):
    for command in ("demo", "export", "place"):
        shown = set(re.findall(r"[\w\[\]-]+", plain(screen(command, "-h", columns=200)[1])))
        assert {"-h", "--help", "Example"} <= shown
        for metavar in re.findall(r"^Usage: (.*)$", tool(command, "-h").stdout, re.MULTILINE):
            assert set(re.findall(r"[\w\[\]-]+", metavar)) <= shown


# Import


@pytest.fixture
def many(tmp_path):
    """A file of 5,000 orders, and how many they are."""
    file = tmp_path / "many.jsonl"
    rows = ({"items": [f"item {number}"], "key": f"k{number}"} for number in range(5000))
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file, 5000


def test_import_shows_a_progress_bar_on_a_terminal(screen, tmp_path):
    file = tmp_path / "few.csv"
    file.write_text("key,item\n" + "".join(f"k{number},rope\n" for number in range(30)))
    status, shown = screen("import", str(file))
    assert status == 0
    assert re.search(r"Importing ━+ +30/30", plain(shown))
    assert "30 orders imported" in shown
    assert "New Order" not in shown
    assert all(width(line) <= 80 for line in re.split(r"[\r\n]+", plain(shown)))


def test_import_shows_no_progress_bar_in_a_pipe(tool, tmp_path):
    file = tmp_path / "few.csv"
    file.write_text("key,item\nk,rope\n")
    assert "Importing" not in tool("import", str(file)).stderr


@pytest.fixture
def interrupted(terminal, many, data):
    """Press Ctrl-C once an import has begun; returns its exit status and what it showed then."""
    file, total = many
    for _ in range(3):  # on a busy machine it may be done before the key is pressed
        child = terminal("import", str(file))
        child.expect(rf"[1-9]\d*/{total}")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
        shown = plain(child.before)
        if f"{total}/{total}" not in shown:
            break
        rmtree(data)
    return child.exitstatus, shown


def test_ctrl_c_during_an_import_says_how_many_and_the_next_run_finishes_it(
    interrupted, many, tool
):
    status, shown = interrupted
    assert status == 130
    assert "Traceback" not in shown
    said = re.search(r"([\d,]+) orders imported", shown)[1]
    file, total = many
    done = len(json.loads(tool("list", "--json").stdout))
    assert int(said.replace(",", "")) == done
    assert 0 < done < total
    finished = tool("import", str(file), "--json")
    assert finished.returncode == 0
    assert json.loads(finished.stdout) == {"imported": total - done, "skipped": done}
    items = [order["items"] for order in json.loads(tool("list", "--json").stdout)]
    assert items == [[f"item {number}"] for number in reversed(range(total))]
    kinds = [line.split("\t")[2] for line in tool("log").stdout.splitlines()]
    assert kinds.count("OrderCreated") == kinds.count("NotifySales") == total


def test_ctrl_c_at_a_prompt_is_130_and_quiet(terminal):
    child = terminal("demo", "--step")
    child.expect_exact("[Enter]")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert re.sub(r"\s", "", plain(child.before)) in {"", "^C"}


def test_a_terminal_for_errors_alone_leaves_the_data_piped(data, send, tmp_path):
    send(LONG[0])
    script = f'exec "{sys.executable}" -m orders list > "{tmp_path}/out"'
    environment = {**os.environ, "ORDERS_DATA": str(data)}
    child = pexpect.spawn("bash", ["-c", script], env=environment, encoding="utf-8")
    child.expect(pexpect.EOF)
    piped = subprocess.run(
        [sys.executable, "-m", "orders", "list"], capture_output=True, text=True, env=environment
    )
    assert (tmp_path / "out").read_text() == piped.stdout
