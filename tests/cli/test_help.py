"""The start page and the help: all there is, said where people look for it, and true."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from screens import plain, width

from orders import OrderCreated, PlaceOrder, Settings, __version__, bootstrap
from orders.adapters.files.faults import POINTS
from orders.adapters.files.store import FilesStore
from orders.application.deliveries import RETRIES
from orders.cli import app
from orders.cli.help import ENVIRONMENT, FAULTS, GUIDE, MANY
from orders.demos import SCENARIOS

SAMPLE = Path(__file__).parents[2] / "data" / "sample-orders.csv"
COMMANDS = typer.main.get_command(app).commands
ORDER = "3f2a0000-0000-4000-8000-000000000000"

each_command = pytest.mark.parametrize("command", list(COMMANDS))


def start_page(*store):
    return "\n".join(
        [
            f"orders {__version__}: the order system you can kill at any line",
            "",
            "Start here",
            "  orders demo                 see it at work, killed and recovered",
            '  orders place "100 inch TV"  place an order',
            "  orders explain outbox       what a word of the field means",
            "  orders help place           what a command does, and what to do next",
            "",
            "Commands",
            "  Order  place, list, show, ship, cancel, import, export",
            "  Look   watch, log, trace, stats, topics, deliveries, listen",
            "  Keep   retry, worker, serve, doctor, checkpoint, replay, relay, copy, bench",
            "  Learn  demo, explain, help",
            "",
            "The store here",
            *(f"  {line}" for line in store),
            "",
        ]
    )


@pytest.fixture
def store_here(patched_tool, tmp_path):
    """Return what the start page says of the store ./data."""

    def store_here(**options):
        page = patched_tool(data="", **options)
        assert (page.returncode, page.stderr) == (0, "")
        *before, here = page.stdout.partition("The store here\n")
        assert "".join(before).startswith(f"orders {__version__}: ")
        return here

    return store_here


# The start page


def test_orders_alone_shows_where_to_start_the_commands_and_the_store(tool, data):
    page = tool()
    assert (page.returncode, page.stdout, page.stderr) == (
        0,
        start_page(str(data), "0 orders"),
        "",
    )
    assert not data.exists()


def test_the_start_page_looks_the_same_on_a_terminal(screen, data):
    status, shown = screen(columns=200)
    assert (status, plain(shown)) == (0, start_page(str(data), "0 orders"))
    assert "\x1b[1mStart here" in shown
    assert "\x1b" not in screen(env={"NO_COLOR": "1"})[1]


def test_the_start_page_says_what_is_there_by_an_absolute_path(store_here, send, tmp_path):
    send(PlaceOrder(("rope",)), PlaceOrder(("lamp",)), data="data")
    assert store_here() == f"  {tmp_path / 'data'}\n  2 orders\n"


def test_the_start_page_says_what_is_pending_and_what_has_failed(tool, store_here, tmp_path):
    class Broken:
        def notify(self, notice):
            raise ConnectionError

    with bootstrap("data", notifier=Broken(), on_failure=lambda *_: None) as system:
        system.bus.send(PlaceOrder(("rope",)))
    killed = tool("place", "lamp", data="", env={"ORDERS_FAULT": "after-fsync"})
    assert killed.returncode < 0
    for _ in range(2):  # to look delivers nothing
        assert store_here().splitlines() == [
            f"  {tmp_path / 'data'}",
            "  2 orders",
            "  1 pending: orders list delivers what a killed process left",
            "  1 failed: orders retry --all delivers again",
        ]
    for _ in range(RETRIES):
        tool("retry", "--all", data="", stdout="/dev/full")
    assert store_here().splitlines()[-1] == "  1 dead letter: orders doctor says how to try again"


def test_the_start_page_of_a_large_store_reads_what_a_list_reads(store_here, send, monkeypatch):
    send(*(PlaceOrder(("rope",)) for _ in range(MANY + 1)), data="data")
    monkeypatch.setattr(FilesStore, "deliveries", None)
    monkeypatch.setattr(FilesStore, "read", None)
    assert "101 orders" in store_here()
    assert "orders deliveries --failed shows what has failed, if anything has" in store_here()


def test_a_store_that_cannot_be_read_is_said_on_the_start_page(tool, data):
    data.write_text("my notes")
    page = tool()
    assert (page.returncode, page.stderr) == (0, "")
    here = " ".join(page.stdout.partition("The store here\n")[2].split())
    assert here.startswith(f"{data} cannot be used: cannot use {data}/")
    assert "try: choose another directory with --data" in here


@pytest.mark.parametrize(
    ("name", "value"),
    [("ORDERS_DATA", "mysql://x"), ("ORDERS_LOCK_TIMEOUT", "soon"), ("ORDERS_NOTIFY", "x:y")],
)
def test_a_setting_that_cannot_be_used_is_said_on_the_start_page(tool, name, value):
    page = tool(env={name: value})
    assert (page.returncode, page.stderr) == (0, "")
    assert " cannot be used: " in " ".join(page.stdout.split())


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.sample(2)
def test_the_start_page_and_the_help_fit_the_terminal(screen, columns, tmp_path):
    for arguments in ([], ["-h"], ["help", "list"]):
        status, shown = screen(*arguments, columns=columns, data=":memory:")
        assert status == 0
        assert max(map(width, plain(shown).splitlines())) <= columns


# Help


def test_every_command_has_its_place_in_the_help_and_something_to_do_next():
    assert list(GUIDE) == list(typer.main.get_command(app).list_commands(None))
    assert GUIDE.keys() == COMMANDS.keys()


@each_command
@pytest.mark.sample(8)
def test_the_help_of_a_command_says_what_it_does_with_an_example_and_what_is_next(tool, command):
    shown = tool(command, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert tool("help", command).stdout == shown.stdout
    assert not set("{}") & set(shown.stdout)  # nobody is to type any
    text = " ".join(shown.stdout.split())
    assert f"Example: orders {command}" in text
    assert f"Next: {GUIDE[command].next} " in text
    assert COMMANDS[command].help.split("\n")[0] in text


@each_command
def test_every_option_and_argument_is_documented(tool, command):
    text = " ".join(tool("help", command).stdout.split())
    for parameter in COMMANDS[command].params:
        assert parameter.help
        assert " ".join(parameter.help.split()) in text
        assert parameter.opts[0] in text or parameter.metavar in text


def test_the_help_of_all_has_every_command_in_its_panel(tool, screen):
    text = tool("--help").stdout
    assert tool("help").stdout == tool("-h").stdout == text
    for panel in ("Order", "Look", "Keep", "Learn"):
        section = text.partition(f"\n{panel}:\n")[2].partition("\n\n")[0]
        names = [line.split()[0] for line in section.splitlines() if line[2] != " "]
        assert names == [name for name, guide in GUIDE.items() if guide.panel == panel]
    titles = re.findall(r"^╭─ (.*?) ─", plain(screen("-h")[1]), re.MULTILINE)
    assert titles == ["Options", "Order", "Look", "Keep", "Learn", "Environment"]


def test_the_commands_of_a_plugin_stand_by_themselves(tool):
    for arguments, title in (([], "  Plugins  "), (["-h"], "\nPlugins:\n  ")):
        shown = tool("--plugin", "orders.demos.refund", *arguments).stdout
        assert f"{title}refund" in re.sub(" {3,}", "  ", shown)


def test_every_variable_is_documented(tool, screen):
    assert {f"ORDERS_{field.upper()}" for field in Settings.__struct_fields__} < ENVIRONMENT.keys()
    assert tuple(FAULTS.split()) == POINTS
    for text in (tool("-h").stdout, plain(screen("-h", columns=120)[1])):
        missing = [word for word in (*ENVIRONMENT, *POINTS) if word not in text]
        assert missing == []
        assert [word for word in ENVIRONMENT if text.count(word) > 1] == []


@pytest.mark.parametrize("command", ["relay", "listen", "serve"])
def test_every_command_that_takes_a_url_says_what_one_looks_like(tool, command):
    assert "nats://[USER:PASSWORD@]HOST[:PORT], or tls://..." in tool(command, "-h").stdout


def test_the_help_of_list_names_the_statuses(tool):
    said = " ".join(tool("list", "-h").stdout.split())
    assert "Only orders with this status: placed, shipped, cancelled." in said


def test_help_completes_commands(tool):
    env = {"_ORDERS_COMPLETE": "complete_bash", "COMP_WORDS": "orders help re", "COMP_CWORD": "2"}
    assert tool(env=env).stdout.split() == ["retry", "replay", "relay"]


# Examples


def examples():
    for name, guide in GUIDE.items():
        example, _, _ = COMMANDS[name].epilog.partition("\n")
        yield example.removeprefix("Example: ")
        yield guide.next
    yield from re.findall(r"(orders [a-z].*?)  ", start_page())


@pytest.mark.parametrize("example", dict.fromkeys(examples()))
@pytest.mark.sample(4)
def test_every_example_in_a_help_runs(tool, send, data, example):
    with bootstrap(data) as system, system.uow() as uow:
        uow.emit(OrderCreated(order_id=ORDER, items=("rope",)))
    shutil.copytree(data, "data")
    shutil.copy(SAMPLE, "data")
    program, command, *arguments = shlex.split(example.replace("ORDER", ORDER))
    assert program == "orders"
    if command == "demo" and "--list" not in arguments:  # each is played in tests/demos
        named = [argument for argument in arguments if not argument.startswith("-")]
        assert [name for name in named if name not in SCENARIOS] == []
        return
    if command in {"relay", "listen", "serve"}:  # each is run beside a server in tests/cli
        return
    shorter = {"bench": ["--orders", "10"], "watch": ["--from", "start", "--until-idle", "0"]}
    if command in shorter:  # these take their time
        assert [word for word in arguments if word.startswith("-")] == shorter[command][0::2]
        arguments = shorter[command]
    run = tool(command, *arguments)
    assert run.returncode == 0, run.stderr
    assert run.stdout or run.stderr or "--failed" in example
