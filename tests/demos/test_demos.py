"""The demos: each shows what it says, checks it, and leaves nothing behind."""

import ast
import os
import re
import signal
import subprocess
import sys

import pexpect
import pytest

from orders import Notice, OrderCreated
from orders.application.handlers import EVENT_SUBSCRIBERS
from orders.cli.output import Console
from orders.demos import SCENARIOS
from orders.demos.playing import play
from orders.demos.simple import SOURCE
from orders.domain.commands import RecordBestseller
from orders.projections.shipped import Bestseller, ItemSales

NOTICE = r"============\nNew Order:\n============\nID: (\S+)\nItems: (.*)\n"
ARTICLE = ["['100 inch TV', 'magic carpet']", "['soft cheese', 'dutch mashrooms']"]
SHOWS = {
    "article": ["two orders, two notices, in order", "the list has both"],
    "simple": ["two orders, two notices, in order"],
    "unit-of-work": [
        "PlaceOrder returned ",
        "inside the unit: no notice, no event",
        "after the unit: the notice and the event",
        "still two orders, two notices",
        "audit heard OrderRejected",
        "those before and after it ran",
        "its failure was reported",
        "the order is stored",
    ],
    "system": [
        "dinosaurs 1, trucks 1, internet 1",
        "dinosaurs 2, trucks 2, internet 1",
        "dinosaurs 3, trucks 2, internet 1",
        "it has counted three orders",
        "the other one resumes, and counts nothing twice",
        "sales were notified of it, once",
    ],
    "plugin": [
        "the order is refunded",
        "its subscriber has notified",
        "the order is as it was",
        "its policy has placed an order for each refund",
    ],
    "tour": ["the notice came late, but came", "sales were notified of each order, once"],
    "subscriber": ["it does the same as the other", "place_order names no subscriber"],
    "poison": ["the next order has its label", "it is a dead letter", "it is delivered"],
    "replay": ["the difference is found", "two items were sold", "nobody was notified again"],
    "key": ["there is one order", "sales were notified once"],
    "session": [
        "the notice went there",
        "Added, then Committed",
        "the order in memory is restored",
        "the stored order is untouched",
        "Added, then RolledBack",
    ],
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.sample(5)
def test_every_scenario_shows_what_it_says_and_leaves_nothing_behind(
    tool, tmp_path, empty, scenario
):
    (tmp_path / "data").mkdir()
    result = tool("demo", scenario, "--step", env={"TMPDIR": str(empty)}, data="")
    assert result.returncode == 0
    claims = re.findall(r"^  ok: (.*)$", result.stderr, re.MULTILINE)
    for claim in SHOWS.get(scenario, []):
        assert any(shown.startswith(claim) for shown in claims), claim
    assert claims
    assert "NOT SO" not in result.stderr
    assert "Traceback" not in result.stderr
    assert [*empty.iterdir()] == [*(tmp_path / "data").iterdir()] == []


def test_the_article_shows_two_notices_in_order_and_then_the_list(orders):
    result = orders("demo", "article")
    first, second = re.findall(NOTICE, result.stdout)
    assert [first[1], second[1]] == ARTICLE
    *_, newest, oldest = result.stdout.splitlines()
    assert [line.split("\t")[0] for line in (newest, oldest)] == [second[0], first[0]]
    assert len(result.stdout.splitlines()) == 12


def test_the_simple_scenario_shows_the_same_two_notices(tool):
    assert [items for _, items in re.findall(NOTICE, tool("demo", "simple").stdout)] == ARTICLE


def test_the_article_is_drawn_on_a_terminal(screen):
    status, shown = screen("demo", "article", env={"NO_COLOR": "1"})
    assert status == 0
    assert shown.count("╭─ New Order ─") == 2
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).count("Order     Status") == 1


def notify_the_first_only(event, *, notifier):
    """Do half of what `order_created` has done."""
    if not notifier.notices:
        notifier.notify(Notice(event.order_id, event.items))


def interrupt(event):
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def test_a_demo_whose_claim_is_broken_exits_1(monkeypatch, capsys, empty):
    monkeypatch.setitem(EVENT_SUBSCRIBERS, OrderCreated, (notify_the_first_only,))
    console = Console()
    assert console.run(lambda: play("article", console)) == 1
    shown = capsys.readouterr().err
    assert "NOT SO: two orders, two notices, in order" in shown
    assert "error: the demo did not show what it says: two orders, two notices" in shown
    assert [*empty.iterdir()] == []


def test_a_demo_that_is_interrupted_leaves_nothing_behind(monkeypatch, empty):
    monkeypatch.setitem(EVENT_SUBSCRIBERS, OrderCreated, (interrupt,))
    console = Console()
    assert console.run(lambda: play("article", console)) == 130
    assert [*empty.iterdir()] == []


def test_demo_list_names_every_scenario(tool):
    listed = tool("demo", "--list").stdout
    assert [line.split("\t") for line in listed.splitlines()] == [
        [name, text] for name, text in SCENARIOS.items()
    ]


def test_an_unknown_scenario_is_wrong_use_and_says_how_to_list_the_known_ones(tool):
    result = tool("demo", "nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: no scenario 'nonsense'\ntry: orders demo --list\n"


def test_step_waits_for_enter_before_each_step(terminal):
    child = terminal("demo", "article", "--step")
    child.expect_exact("[Enter]")
    assert "New Order" not in child.before
    child.sendline()
    child.expect_exact("New Order")
    child.expect_exact("[Enter]")
    assert "cheese" in child.before
    assert "New Order" not in child.before
    child.sendline()
    child.expect_exact("New Order")
    child.expect_exact("[Enter]")
    assert "Status" not in child.before
    child.sendline()
    child.expect_exact("Status")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_at_a_step_leaves_nothing_behind(terminal, empty):
    child = terminal("demo", "--step", env={"TMPDIR": str(empty)})
    child.expect_exact("[Enter]")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert [*empty.iterdir()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [[], [signal.SIGINT]], ids=["alone", "started with &"])
@pytest.mark.sample(1)
def test_a_demo_that_is_ended_leaves_nothing_behind(empty, number, ignored):
    restore = [(one, signal.signal(one, signal.SIG_IGN)) for one in ignored]
    demo = subprocess.Popen(
        [sys.executable, "-m", "orders", "demo", "--step"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(empty)},
    )
    for one, handler in restore:
        signal.signal(one, handler)
    while demo.stderr.read(1) != b"[":  # Enter is waited for
        assert demo.poll() is None
    assert [*empty.iterdir()] != []
    demo.send_signal(number)
    _, said = demo.communicate()
    assert (demo.returncode, b"Traceback" in said) == (130, False)
    assert [*empty.iterdir()] == []


def test_the_twenty_lines_are_about_twenty_and_know_nothing_of_this_package():
    tree = ast.parse(SOURCE.read_text())
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    code = [
        line
        for number, line in enumerate(SOURCE.read_text().splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#") and number not in docstrings
    ]
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert len(code) <= 20
    assert imported == {"uuid", "pubsub"}


def test_the_twenty_lines_run_alone():
    run = subprocess.run([sys.executable, str(SOURCE)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert [items for _, items in re.findall(NOTICE, run.stdout)] == ARTICLE
    assert re.fullmatch(f"(?:{NOTICE})+", run.stdout)


def test_the_system_plays_under_both_runners(tool):
    said = tool("demo", "system").stderr
    single, multi, late = (
        said.index(text) for text in ("SingleThreadedRunner:", "MultiThreadedRunner:", "comes late")
    )
    assert single < multi < late
    assert said[single:multi].count("ok:") == said[multi:late].count("ok:") == 3


def forget(self, event):
    """Fold nothing in."""


def repeat(self, event):
    """React to every order."""
    yield RecordBestseller(event.order_id, "dinosaurs", 1)


@pytest.mark.parametrize(
    ("kind", "method", "replacement", "claim"),
    [
        (ItemSales, "apply", forget, "dinosaurs 0, trucks 0, internet 0"),
        (Bestseller, "react", repeat, "sales were notified of it, once"),
        (Bestseller, "apply", forget, "sales were notified of it, once"),
    ],
    ids=["uncounted", "notified too often", "never notified"],
)
def test_the_system_exits_1_when_its_followers_do_not_do_what_is_shown(
    monkeypatch, capsys, empty, kind, method, replacement, claim
):
    monkeypatch.setattr(kind, method, replacement)
    if replacement is forget and kind is Bestseller:
        monkeypatch.setattr(kind, "react", lambda self, event: [])
    console = Console()
    assert console.run(lambda: play("system", console)) == 1
    shown = capsys.readouterr().err
    assert f"NOT SO: {claim}" in shown
    assert "error: the demo did not show what it says: " in shown
    assert [*empty.iterdir()] == []
