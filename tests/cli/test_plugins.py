"""Plugins on the command line: what they add to it, how they fail, and a store without them."""

import json
import re
from pathlib import Path

import pytest
from command_line import done, ids, refused, rows
from forked import be_the_tool

from orders import PlaceOrder, ShipOrder

REFUND = "orders.demos.refund"
WITH = ("--plugin", REFUND)
NOTICE = "============\nRefund:\n============\nID: {}\nItems: ['too small']\n"


@pytest.fixture
def shipped(send):
    """The id of a shipped order."""
    (order_id,) = send(PlaceOrder(("rope",), "Ada"))
    send(ShipOrder(order_id))
    return order_id


@pytest.fixture
def show(tool):
    """Return what a process without any plugin shows of an order."""
    return lambda order_id: json.loads(done(tool("show", order_id, "--json")))


@pytest.fixture
def killed(tool, shipped):
    """The id of an order whose refund was killed between the commit and its subscriber."""
    fault = {"ORDERS_FAULT": "after-fsync"}
    result = tool(*WITH, "refund", shipped, "--reason", "too small", env=fault)
    assert (result.returncode, result.stdout, result.stderr) == (-9, "", "")
    return shipped


def commands(text):
    """Return the commands that a help names."""
    panels = text.partition("\nOrder:\n")[2].partition("\nEnvironment:\n")[0]
    return re.findall(r"^  (\w+)  ", panels, re.MULTILINE)


# What a plugin adds


@pytest.mark.engines
@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (WITH, {}),
        ([f"--plugin={REFUND}"], {}),
        ([], {"ORDERS_PLUGINS": REFUND}),
        ([], {"ORDERS_PLUGINS": f" {REFUND} ,, {REFUND},"}),
        (WITH * 2, {"ORDERS_PLUGINS": "never.asked.for"}),
    ],
    ids=["option", "one word", "environment", "list", "option before environment"],
)
@pytest.mark.sample(3)
def test_a_plugin_adds_its_command_to_the_line_and_to_its_help(
    tool, shipped, show, options, environment
):
    plain, plugged = done(tool("--help")), done(tool(*options, "--help", env=environment))
    assert commands(plugged) == [*commands(plain), "refund"]
    assert "  refund\n" in done(tool(*options, env=environment))
    help_of_it = done(tool(*options, "refund", "-h", env=environment))
    assert help_of_it.startswith("Usage: orders refund ")
    result = tool(*options, "refund", shipped[:8], "--reason", "too small", env=environment)
    assert (result.returncode, result.stdout) == (0, NOTICE.format(shipped))
    assert f"Refunded order {shipped}." in result.stderr
    assert show(shipped)["status"] == "refunded"


def test_a_command_of_a_plugin_may_say_nothing_of_itself(tool):
    lines = ["import typer", "commands = typer.Typer()", "commands.command('hum')(lambda: None)"]
    Path("silent.py").write_text("\n".join([*lines, "def install(app): pass"]))
    for how in (["--help"], ["help"]):
        assert commands(done(tool("--plugin", "silent", *how)))[-1:] == ["hum"]


@pytest.mark.engines
def test_a_command_of_a_plugin_is_unknown_without_it(tool, shipped, show):
    refused(tool("refund", shipped), "refund", status=2)
    assert show(shipped)["status"] == "shipped"


@pytest.mark.engines
def test_a_plugin_is_seen_in_the_wiring(tool):
    found = {row[0]: row[3] for row in rows(tool(*WITH, "topics"))}
    place = r"\(refund.py:\d+\)"
    assert re.fullmatch(rf"refund_order {place}", found["refund-order"])
    assert re.fullmatch(rf"pay_back {place}, Apology.react {place}", found["order-refunded"])
    assert "refund-order" not in done(tool("topics"))


@pytest.mark.engines
def test_what_a_plugin_folds_is_replayed_and_what_it_reacts_with_is_done(tool, shipped):
    tool(*WITH, "refund", shipped)
    replayed = tool(*WITH, "replay", "--dry-run").stdout
    assert {"refund-reasons", "apology"} <= {row.split("\t")[0] for row in replayed.splitlines()}
    (sorry, _) = json.loads(done(tool("list", "--json")))
    assert (sorry["items"], sorry["customer"]) == (["box of chocolates"], "Ada")


@pytest.mark.engines
def test_a_list_can_be_of_a_status_that_a_plugin_adds(tool, orders, send, shipped):
    send(PlaceOrder(("lamp",)))
    tool(*WITH, "refund", shipped)
    assert ids(tool(*WITH, "list", "--status", "refunded")) == [shipped]
    wrong = "no status 'lost'; there are placed, shipped, cancelled"
    result = orders(*WITH, "list", "--status", "lost")  # no other test has defined statuses there
    refused(result, wrong, ", refunded\n", status=2)
    result = orders("list", "--status", "lost")
    refused(result, wrong, status=2)
    assert "refunded" not in result.stderr


# Its rules


@pytest.mark.engines
def test_an_order_is_refunded_once(tool, shipped, show):
    done_once = tool(*WITH, "refund", shipped)
    assert done_once.returncode == 0
    again = tool(*WITH, "refund", shipped)
    refused(again, f"order {shipped} cannot be refunded: it is refunded", "shipped")
    assert show(shipped)["version"] == 3


@pytest.mark.engines
def test_only_a_shipped_order_is_refunded(tool, send, show):
    (order_id,) = send(PlaceOrder(("rope",)))
    refused(tool(*WITH, "refund", order_id), "cannot be refunded: it is placed")
    assert show(order_id)["version"] == 1


@pytest.fixture
def at_once(fork, data, tmp_path):
    """Run command lines at once, each as a process; returns their exit statuses."""

    def main(number, arguments):
        with (
            (tmp_path / "nothing").open("rb") as typed,
            (tmp_path / f"said-{number}").open("wb") as said,
        ):
            be_the_tool(
                arguments, {"ORDERS_DATA": str(data)}, [typed.fileno(), *[said.fileno()] * 2]
            )

    def run(*lines):
        (tmp_path / "nothing").touch()
        children = [fork(main, number, line) for number, line in enumerate(lines)]
        statuses = [child.wait() for child in children]
        for number in range(len(lines)):
            assert "Traceback" not in (tmp_path / f"said-{number}").read_text()
        return statuses

    return run


@pytest.mark.engines
@pytest.mark.parametrize("rival", ["refund", "ship", "cancel"])
@pytest.mark.sample(2)
def test_of_a_refund_and_its_rival_at_once_one_wins(at_once, send, show, rival):
    for _ in range(2):
        (order_id,) = send(PlaceOrder(("rope",)))
        send(ShipOrder(order_id))
        statuses = at_once((*WITH, rival, order_id), (*WITH, "refund", order_id))
        assert sorted(statuses) == [0, 1]
        assert rival == "refund" or statuses == [1, 0]
        events = [step["event"] for step in show(order_id)["history"]]
        assert events == ["OrderCreated", "OrderShipped", "OrderRefunded"]


@pytest.mark.engines
def test_a_refund_and_a_shipment_at_once_are_in_order_or_the_refund_is_refused(at_once, send, show):
    for _ in range(5):
        (order_id,) = send(PlaceOrder(("rope",)))
        ship, refund = at_once(("ship", order_id), (*WITH, "refund", order_id))
        events = [step["event"] for step in show(order_id)["history"]]
        assert (ship, refund) in {(0, 0), (0, 1)}
        assert events == ["OrderCreated", "OrderShipped", "OrderRefunded"][: 3 - refund]


# Killed between the commit and the plugin's subscriber


def test_the_next_command_with_the_plugin_delivers_once(tool, killed):
    result = tool(*WITH, "list")
    assert result.returncode == 0
    assert killed in result.stdout
    assert NOTICE.format(killed) in result.stderr
    assert "Delivered late: 1" in result.stderr
    again = tool(*WITH, "list")
    assert (again.returncode, again.stderr) == (0, "")
    assert "none is pending or failed" in done(tool("doctor"))


def test_a_command_without_the_plugin_leaves_the_delivery_and_the_doctor_says_so(tool, killed):
    for line in (["list"], ["place", "lamp"], ["retry", "--all"], ["checkpoint"]):
        result = tool(*line)
        assert (result.returncode, "Refund" in result.stdout + result.stderr) == (0, False)
    findings = [row[2] for row in rows(tool("doctor")) if row[1] == "deliveries"]
    assert findings == ["1 to pay_back wait for a process that has this subscriber"]
    assert [row[1] for row in rows(tool("deliveries", "--pending"))] == ["pay_back"]
    found = tool(*WITH, "doctor")
    assert (found.returncode, "1 to pay_back left by processes that died" in found.stdout) == (
        1,
        True,
    )
    assert NOTICE.format(killed) in tool(*WITH, "list").stderr


@pytest.mark.usefixtures("killed")
def test_a_policy_of_the_plugin_reacts_once_to_what_it_has_missed(tool):
    tool("place", "lamp")
    assert "box of chocolates" not in done(tool("list"))
    for _ in range(2):
        assert tool(*WITH, "checkpoint").returncode == 0
        assert done(tool("list")).count("box of chocolates") == 1


# Without the plugin


def test_a_refunded_order_stays_refunded_without_the_plugin(tool, data, shipped, show):
    tool(*WITH, "refund", shipped, "--reason", "too small")
    for keeps_state in (True, False):
        if not keeps_state:
            (data / "orders.json").unlink(missing_ok=True)
        assert [row[2] for row in rows(tool("list")) if row[0] == shipped] == ["refunded"]
        assert show(shipped)["status"] == "refunded"
        for move in ("ship", "cancel"):
            refused(tool(move, shipped), f"order {shipped} cannot be", "it is refunded")
    *_, last = show(shipped)["history"]
    assert (last["version"], last["event"], last["reason"]) == (3, "OrderRefunded", "too small")


@pytest.mark.engines
def test_a_store_of_a_plugin_is_well_without_it(tool, shipped):
    tool(*WITH, "refund", shipped)
    tool(*WITH, "checkpoint")
    for options in ((), WITH):
        found = rows(tool(*options, "doctor"))
        assert {row[0] for row in found} == {"ok"}
    for line in (["log"], ["log", "--json"], ["trace", shipped], ["export"], ["replay"], ["stats"]):
        result = tool(*line)
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), line


# A plugin that cannot be used

BROKEN = {
    "raises": "raise ValueError('on purpose')",
    "raises_lines": "raise ValueError('on\\npurpose \\x1b[31m')",
    "exits": "raise SystemExit(3)",
    "is_cancelled": "import asyncio\nraise asyncio.CancelledError",
    "no_python": "def install(:",
    "needs_another": "import no_such_module_at_all",
    "no_install": "commands = None",
    "install_is_no_function": "install = 'me'",
    "takes_a_name": (
        "import typer\ncommands = typer.Typer()\ncommands.command('ship')(lambda: None)\n"
        "def install(app): pass"
    ),
    "no_commands": "commands = 'me'\ndef install(app): pass",
}
NOT_INSTALLED = {
    "install_raises": "raise ValueError('on purpose')",
    "install_exits": "raise SystemExit(3)",
    "install_raises_anything": "raise GeneratorExit",
    "install_follows_nothing": "app.follow(int)",
    "install_registers_twice": (
        "from orders import PlaceOrder; app.bus.register(PlaceOrder, lambda command: None)"
    ),
}


@pytest.mark.parametrize("line", [["place", "rope"], ["--help"]], ids=str)
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.sample(6)
def test_a_plugin_that_cannot_be_imported_is_one_line(tool, data, name, line):
    Path(f"{name}.py").write_text(f"{BROKEN[name]}\n")
    refused(tool("--plugin", name, *line), f"plugin {name} cannot be used: ")
    refused(
        tool(*line, env={"ORDERS_PLUGINS": f"{REFUND},{name}"}), f"plugin {name} cannot be used"
    )
    assert not data.exists()


@pytest.mark.parametrize("line", [["list"], ["place", "rope"]], ids=str)
@pytest.mark.parametrize("name", NOT_INSTALLED)
def test_a_plugin_that_cannot_be_installed_is_one_line(tool, data, name, line):
    Path(f"{name}.py").write_text(f"def install(app):\n    {NOT_INSTALLED[name]}\n")
    refused(tool("--plugin", name, *line), f"plugin {name} cannot be used: ")
    assert not data.exists()


@pytest.mark.engines
@pytest.mark.parametrize(
    "name", ["nowhere", "orders.nowhere", ".refund", "a..b", "../x", "\x1b[31mx", "[/]", "x" * 5000]
)
def test_a_plugin_that_is_not_there_is_one_line(tool, name):
    refused(tool("--plugin", name, "list"), "plugin ", "cannot be used: ")


@pytest.mark.engines
def test_a_plugin_without_its_name_is_wrong_use(tool):
    refused(tool("--plugin"), "--plugin", status=2)


@pytest.mark.engines
def test_a_plugin_of_the_current_directory_is_found(tool):
    Path("mine.py").write_text("def install(app):\n    app.warn('mine is here')\n")
    result = tool("--plugin", "mine", "place", "rope")
    assert (result.returncode, result.stderr) == (0, "warning: mine is here\n")


@pytest.mark.engines
def test_completion_is_silent_about_a_plugin_that_cannot_be_used(tool):
    ask = {"_ORDERS_COMPLETE": "complete_bash", "COMP_WORDS": "orders --plugin nowhere ca"}
    assert done(tool(env=ask | {"COMP_CWORD": "3"})).split() == ["cancel"]


@pytest.mark.engines
def test_completion_knows_the_commands_of_a_plugin(tool):
    ask = {"_ORDERS_COMPLETE": "complete_bash", "COMP_WORDS": f"orders --plugin {REFUND} ref"}
    assert done(tool(env=ask | {"COMP_CWORD": "3"})).split() == ["refund"]
