"""Every screen, with the worst of names: nothing is wider than the terminal, no id is broken."""

import re
from pathlib import Path

import pytest
from command_line import RAW, UUID
from conftest import Sales
from screens import plain

from orders import CancelOrder, OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.cli.output import Console
from orders.cli.rendering import cell_len
from orders.demos.stage import Stage
from orders.demos.workspace import Workspace

FAMILY, FLAG = "👨\u200d👩\u200d👧\u200d👦", "🇩🇪"
WORST = [
    PlaceOrder(("N" * 100, "a word and another " * 5), "C" * 100),
    PlaceOrder(("漢字の商品名" * 16, "ไทย"), "山田太郎商店株式会社東京支店" * 7),
    PlaceOrder((FAMILY * 12, FLAG * 20, "🧞" * 40), f"Zoë {FAMILY}"),
    PlaceOrder(("שולחן עבודה גדול " * 6, "rope"), "عدة لابلايس"),
    PlaceOrder(tuple(f"item {number}" for number in range(60)), "[red]Many[/red]"),
]
REASON = "out of stock, and nobody knows until when " * 3
LOOKING = [
    [],
    ["list"],
    ["list", "--item", "nothing like it"],
    ["log"],
    ["watch", "--from", "start", "--until-idle", "0"],
    ["stats"],
    ["topics"],
    ["deliveries"],
    ["deliveries", "--pending"],
    ["retry", "--all"],
    ["replay", "--dry-run"],
    ["doctor"],
    ["demo", "--list"],
    ["explain"],
    ["explain", "outbox"],
    ["--help"],
    ["help", "list"],
    ["help", "bench"],
]
WRONG = [
    ["lst"],
    ["xyzzy" * 30],
    ["list", "--stat"],
    ["list", "--data", "x"],
    ["list", "--since", "soon"],
    ["list", "--limit", "0"],
    ["place"],
    ["place", "a\x1b[31mb"],
    ["show", ""],
    ["show", "nope"],
    ["explain", ""],
    ["import", "bad.csv"],
    ["import", "none.csv"],
    ["--plugin", "no\x1b[2Jwhere", "list"],
    ["demo", "nothing"],
]


def fail(event):
    raise ConnectionError("the mail server at mail.example.com is down, and nobody knows why")


@pytest.fixture
def order_ids(data):
    """A store of orders with the worst of names, some shipped, some failed, one pending."""
    Path("bad.csv").write_text(f"key,item\n,{'x' * 100}\n")
    with bootstrap(data, notifier=Sales(), on_failure=lambda *_: None) as app:
        app.bus.subscribe(OrderCreated, fail, name="mail_to_every_customer")
        order_ids = [app.bus.send(command) for command in WORST]
        app.bus.send(ShipOrder(order_ids[0]))
        app.bus.send(CancelOrder(order_ids[1], REASON))
    return order_ids


def is_whole(shown, columns):
    lines = re.sub("[\u2068\u2069]", "", plain(shown)).splitlines()  # which isolate
    wide = [line for line in lines if cell_len(line) > columns]  # as Rich counts families
    assert [line for line in wide if len(line.split()) > 1] == []  # a path stays whole
    assert [line for line in lines if RAW.search(line)] == []
    joined = "".join(line.strip(" │") for line in lines)  # a broken id is whole here
    assert re.findall(UUID, joined) == re.findall(UUID, "\n".join(lines))
    return bool(lines)


@pytest.mark.parametrize("one_in", [2, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.sample(1)
def test_no_screen_is_wider_than_the_terminal_nor_breaks_an_id(
    screen, tool, order_ids, columns, one_in
):
    tool("place", "lamp", env={"ORDERS_FAULT": "after-fsync"})
    of_one = [[name, one] for one in order_ids for name in ("show", "trace")]
    of_one += [["ship", order_ids[0]], ["cancel", order_ids[2], "--reason", REASON]]
    for arguments in [["place", *WORST[2].items], *LOOKING, *WRONG, *of_one][::one_in]:
        status, shown = screen(*arguments, columns=columns)
        assert status in {0, 1, 2}
        assert is_whole(shown, columns), arguments


def test_what_other_processes_say_in_a_demo_is_wrapped_at_words(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    said = "Refunded order aafc3ad9-417c-484b-8ed7-3960e7241ba8."
    workspace = Workspace()
    Stage(Console(), workspace).show(said)
    workspace.leave()
    assert capsys.readouterr().out.splitlines() == said.rsplit(" ", 1)
