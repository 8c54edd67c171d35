"""The doctor on a terminal, and the commands that it names: each of them cures."""

import re

import pytest
from conftest import Sales
from damaged_stores import (
    NOT_REPAIRED,
    REPAIRED,
    append,
    damaged_log,
    dead_letter,
    failed_delivery,
    torn,
)
from screens import plain, width

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.application.store import Delivery
from orders.tools.doctor import examine


@pytest.fixture
def store(data):
    """A store of two orders, all well."""
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        app.bus.send(PlaceOrder(items=("lamp",)))
    return data


def named(function):
    return function.__name__.replace("_", " ")


def findings(data):
    with bootstrap(data, notifier=Sales(), on_warning=lambda _: None) as app:
        return examine(app)


def wrong(data):
    return [finding for finding in findings(data) if not finding.is_well]


def shown_lines(shown):
    return [line.rstrip() for line in plain(shown).splitlines()]


@pytest.mark.parametrize("damage", [*REPAIRED, *NOT_REPAIRED], ids=named)
def test_every_command_that_is_named_cures_what_it_is_named_for(store, tool, damage):
    damage(store)
    for finding in wrong(store):
        if finding.cure.startswith("orders "):
            cured = tool(*finding.cure.split()[1:])
            assert cured.returncode == 0, cured.stderr
    assert not any(finding.cure.startswith("orders ") for finding in wrong(store))


@pytest.mark.parametrize("damage", [*REPAIRED, *NOT_REPAIRED], ids=named)
def test_what_is_wrong_is_said_once(store, damage):
    damage(store)
    subjects = [finding.subject for finding in wrong(store)]
    assert len(subjects) == len(set(subjects)) == 1


def test_a_well_store_is_one_line_a_subject_in_colour(screen, store):
    status, shown = screen("doctor")
    assert status == 0
    assert shown_lines(shown) == [
        "✓ lock         free",
        "✓ log          4 lines, numbered without a gap, every checksum fits",
        "✓ state        2 orders, equal to the fold of the log",
        "✓ permissions  the files are private",
        "✓ leftovers    none",
        "✓ projections  0 kept, equal to the fold of the log",
        "✓ deliveries   none is pending or failed",
    ]
    assert "\x1b[32m✓" in shown


def test_what_there_is_one_of_is_said_of_one(tool, data):
    tool("place", "rope", "--defer")
    assert "ok\tlog\t1 line, numbered" in tool("doctor").stdout
    with (data / "events.jsonl").open("ab") as log:
        log.write(b"{")
    assert "1 whole line, then 1 byte that a crash left" in tool("doctor").stdout
    assert "cut 1 byte that a crash left" in tool("doctor", "--repair").stderr


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_what_is_wrong_is_said_to_its_end_however_narrow(screen, store, columns):
    failed_delivery(store)
    torn(store)
    status, shown = screen("doctor", columns=columns, env={"NO_COLOR": "1"})
    assert status == 1
    assert all(width(line) <= columns for line in shown_lines(shown))
    said = re.sub(r"\s+", " ", plain(shown))
    assert "5 whole lines, then 43 bytes that a crash left → orders doctor --repair" in said
    assert "error: the store is not well try: orders doctor --repair" in said


def test_whoever_sees_dead_letters_on_a_terminal_is_sent_to_the_doctor(screen, store):
    dead_letter(store)
    for command in (["deliveries"], ["deliveries", "--failed"], ["retry", "--all"]):
        assert shown_lines(screen(*command)[1])[-1] == "try: orders doctor"
    assert shown_lines(screen("doctor")[1])[-1].startswith("try: orders retry ")


def test_repair_is_advised_only_where_it_helps(tool, store):
    failed_delivery(store)
    assert tool("doctor").stderr == "error: the store is not well\ntry: orders retry --all\n"
    torn(store)
    assert "--repair" in tool("doctor").stderr


def test_a_damaged_log_is_said_once(tool, store):
    damaged_log(store)
    result = tool("doctor")
    assert result.stdout.count("checksum does not match") == 1
    assert "checksum" not in result.stderr


def test_what_waits_for_a_plugin_is_neither_ok_nor_wrong(store, tool, screen):
    event = OrderCreated(order_id="late", items=("carpet",))
    append(store, Delivery(event.id, "of_a_plugin"), owner="dead", messages=(event,))
    (waiting,) = [finding for finding in findings(store) if finding.state == "waiting"]
    assert waiting.is_well
    assert waiting.cure == "orders --plugin NAME checkpoint"
    result = tool("doctor")
    assert result.returncode == 0
    assert "waiting\tdeliveries\t1 to of_a_plugin wait for a process" in result.stdout
    assert "\x1b[33m●" in screen("doctor")[1]
