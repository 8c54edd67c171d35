"""The command line in a shell: its streams, its pipes, and the completion of ids."""

import json
import os
import subprocess
import sys

import pytest
from command_line import TWO, done, rows

from orders import PlaceOrder


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


# Streams


@pytest.mark.parametrize("command", ["list", "list --json", "export --format csv", "log"])
@pytest.mark.sample(2)
def test_a_broken_pipe_is_quiet(send, shell, command):
    send(PlaceOrder(("x" * 490,) * 400))  # more than a pipe holds
    result = shell(f"orders {command} | head -c 9")
    assert len(result.stdout) == 9
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_standard_output_keeps_the_order_and_says_so(tool, shell):
    result = shell("orders place rope > /dev/full")
    assert result.returncode == 0
    warning, hint = result.stderr.splitlines()
    assert warning.startswith("warning: order_created failed on OrderCreated ")
    assert hint == "try: orders deliveries --failed, then orders retry --all"
    assert [row[4] for row in rows(tool("list"))] == ['["rope"]']
    outcome = rows(tool("log"))[-1]
    assert "failed" in outcome[4]
    assert "No space left" in outcome[4]


@pytest.mark.parametrize("command", ["list", "place rope --json", "-h"])
@pytest.mark.sample(2)
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
@pytest.mark.sample(2)
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
@pytest.mark.sample(2)
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
@pytest.mark.sample(1)
def test_completion_survives_items_with_markup(shell, send, kind):
    order_ids = send(*(PlaceOrder((item,)) for item in ("[/]", "\\[/]", "\\\\[/]", "\\", "[red]x")))
    ask = f"_TYPER_COMPLETE_FISH_ACTION=get-args _ORDERS_COMPLETE=complete_{kind} orders"
    found = done(shell(f"_TYPER_COMPLETE_ARGS='orders show ' {ask}"))
    assert all(order_id in found for order_id in order_ids)


@pytest.mark.parametrize(
    "item", ["$(touch hit)", "\\$(touch hit)", "\\`touch hit\\`", '\\";touch hit;"']
)
@pytest.mark.sample(1)
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
