"""The doctor names what is wrong with a store, repairs what it can, throws nothing away."""

import re
import subprocess
import sys
from typing import ClassVar

import pytest
from conftest import Sales
from damaged_stores import (
    NOT_REPAIRED,
    REPAIRED,
    TORN,
    append,
    damaged_log,
    damaged_policy,
    damaged_state,
    edited_projection,
    edited_state,
    emptied_state,
    foreign_state,
    forged_state,
    keep_projections,
    left_by_the_dead,
    lost_line,
    missing_line_feed,
    state_of_another_log,
    torn,
)
from tinydb import TinyDB

from orders import NotifySales, OrderCreated, PlaceOrder, Policy, ShipOrder, bootstrap
from orders.application.store import Delivery
from orders.errors import OrdersError
from orders.tools.doctor import examine, repair

SUBJECTS = ["lock", "log", "state", "permissions", "leftovers", "projections", "deliveries"]

HOLD = """
import sys
from pathlib import Path
from orders.adapters.files.lock import FileLock
with FileLock(Path(sys.argv[1]), 5).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(data):
    """A store of two orders, one shipped, all well."""
    with bootstrap(data, notifier=Sales()) as app:
        order_id = app.bus.send(PlaceOrder(items=("rope",)))
        app.bus.send(PlaceOrder(items=("lamp",)))
        app.bus.send(ShipOrder(order_id=order_id))
    return data


def look(data):
    """Return what the doctor finds wrong, by subject."""
    with bootstrap(data, notifier=Sales(), on_warning=lambda _: None) as app:
        return {f.subject: f.text for f in examine(app) if not f.is_well}


def repaired(data, sales=None):
    with bootstrap(data, notifier=sales or Sales(), on_warning=lambda _: None) as app:
        return list(repair(app))


def files(data):
    """Return every file that is the store's, with its bytes and its times."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in data.iterdir()
        if path.is_file()
    }


def copies(data, name):
    return [path.read_bytes() for path in data.glob(f"{name}.*")]


def named(function):
    return function.__name__.replace("_", " ")


def test_a_well_store_is_described_in_one_line_a_subject(store, tool):
    result = tool("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["ok", subject] for subject in SUBJECTS]
    assert rows[2][2].startswith("2 orders")


@pytest.mark.parametrize("damage", [*REPAIRED, *NOT_REPAIRED], ids=named)
@pytest.mark.sample(8)
def test_the_doctor_names_what_is_wrong_and_changes_nothing(store, tool, damage):
    damage(store)
    before = files(store)
    subject, text = (REPAIRED | NOT_REPAIRED)[damage]
    assert text in look(store)[subject]
    assert files(store) == before
    result = tool("doctor")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"NOT WELL\t{subject}\t" in result.stdout
    assert text in result.stdout
    assert result.stderr.startswith("error: the store is not well")
    assert files(store) == before


@pytest.mark.parametrize("damage", [missing_line_feed, emptied_state], ids=named)
def test_what_a_crash_may_leave_is_well_or_is_repaired(store, damage):
    damage(store)
    repaired(store)
    assert look(store) == {}


@pytest.mark.parametrize("damage", REPAIRED, ids=named)
@pytest.mark.sample(6)
def test_repair_says_what_it_repairs_and_the_store_is_well(store, tool, damage):
    damage(store)
    result = tool("doctor", "--repair")
    assert result.returncode == 0
    assert "Repaired: " in result.stderr
    assert re.findall(r"^NOT WELL", result.stdout, re.MULTILINE) == []
    assert look(store) == {}
    again = tool("doctor", "--repair")
    assert (again.returncode, again.stderr) == (0, "")
    with TinyDB(store / "orders.json") as db, bootstrap(store) as app:
        assert {o["id"] for o in db.table("orders")} == {o.id for o in app.orders.list()}


def test_repair_keeps_what_it_cuts_from_the_log(store):
    whole = (store / "events.jsonl").read_bytes()
    torn(store)
    (done,) = repaired(store)
    assert (store / "events.jsonl").read_bytes() == whole
    assert copies(store, "events.jsonl") == [TORN]
    assert next(store.glob("events.jsonl.*")).name in done
    assert "43 bytes" in done


@pytest.mark.parametrize(
    "damage",
    [damaged_state, edited_state, forged_state, foreign_state, state_of_another_log],
    ids=named,
)
def test_repair_keeps_the_state_that_it_replaces(store, damage):
    damage(store)
    wrong = (store / "orders.json").read_bytes()
    repaired(store)
    assert copies(store, "orders.json") == [wrong]


def test_a_missing_state_is_made_anew_byte_for_byte(store):
    state = (store / "orders.json").read_bytes()
    (store / "orders.json").unlink()
    repaired(store)
    with bootstrap(store, notifier=Sales()) as app:
        app.store.checkpoint()
    assert (store / "orders.json").read_bytes() == state
    assert look(store) == {}


def test_an_older_state_is_well_for_the_log_has_the_rest(store, tool):
    state = (store / "orders.json").read_bytes()
    assert tool("place", "carpet").returncode == 0
    newer = (store / "orders.json").read_bytes()
    (store / "orders.json").write_bytes(state)
    assert look(store) == {}
    assert tool("checkpoint").stderr == "Brought up to date.\n"
    assert (store / "orders.json").read_bytes() == newer
    assert tool("checkpoint").stderr == "It was up to date.\n"


def test_the_help_names_all_that_is_looked_at(tool):
    said = tool("doctor", "-h").stdout.casefold()
    assert [one for one in (*SUBJECTS, "policies", "relays") if one not in said] == []


@pytest.mark.engines
def test_a_checkpoint_of_nothing_makes_nothing_and_says_that_there_are_no_orders(tool, tmp_path):
    said, *hint = tool("checkpoint").stderr.splitlines()
    assert said.startswith("No orders in ")
    assert hint == ['try: orders place "100 inch TV"']
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [damaged_log, lost_line], ids=named)
def test_damage_in_the_middle_of_the_log_is_never_repaired(store, tool, damage):
    damage(store)
    before = files(store)
    with pytest.raises(OrdersError, match="backup"):
        repaired(store)
    result = tool("doctor", "--repair")
    assert result.returncode == 1
    assert "events.jsonl" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(store) == before


def test_a_state_whose_log_is_gone_is_left_alone(store, tool):
    (store / "events.jsonl").unlink()
    before = files(store)
    result = tool("doctor", "--repair")
    assert result.returncode == 1
    assert "orders.json was made of" in result.stderr
    assert files(store) == before


def test_repair_delivers_what_a_dead_process_left(store):
    left_by_the_dead(store)
    sales = Sales()
    assert repaired(store, sales) == ["made 1 delivery that processes left pending when they died"]
    assert sales.order_ids == ["late"]


def test_a_lock_that_is_held_is_named_with_its_holder(store, tool):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store / "orders.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        result = tool("doctor", env={"ORDERS_LOCK_TIMEOUT": "0.1"})
        repaired = tool("doctor", "--repair", env={"ORDERS_LOCK_TIMEOUT": "0.1"})
    assert (result.returncode, repaired.returncode) == (1, 1)
    assert f"NOT WELL\tlock\tthe store was busy for 0.1 s: {store}/orders.lock" in result.stdout
    assert f"is held by process {holder.pid}" in result.stdout
    assert f"is held by process {holder.pid}" in repaired.stderr
    assert tool("doctor").returncode == 0


def test_the_doctor_creates_nothing_where_nothing_is(data, tmp_path, tool):
    assert look(data) == {}
    for arguments in (["doctor"], ["doctor", "--repair"]):
        result = tool(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert "nothing is stored yet" in result.stdout
    data.mkdir()
    assert tool("doctor").returncode == 0
    assert list(data.iterdir()) == []


def test_what_a_living_process_has_yet_to_deliver_is_left_to_it(store):
    with bootstrap(store, notifier=Sales()) as alive:
        event = OrderCreated(order_id="soon", items=("carpet",))
        append(
            store,
            Delivery(event.id, "order_created"),
            owner=alive.store.leases.mine(),
            messages=(event,),
        )
        assert "deliveries" not in look(store)
        assert repaired(store) == []
    assert "deliveries" in look(store)


def test_every_repair_keeps_a_private_copy_of_its_own(store):
    for _ in range(3):
        torn(store)
        assert len(repaired(store)) == 1
    assert copies(store, "events.jsonl") == [TORN] * 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.glob("events.jsonl.*"))


def test_projections_that_are_kept_and_equal_are_counted(store, tool):
    assert "ok\tprojections\t0 kept, " in tool("doctor").stdout
    keep_projections(store)
    assert "ok\tprojections\t3 kept, equal to the fold of the log" in tool("doctor").stdout


def test_a_projection_that_lags_behind_the_log_is_well(store, send):
    keep_projections(store)
    send(PlaceOrder(items=("carpet",)))
    assert look(store) == {}


def test_what_the_doctor_says_of_a_projection_names_the_command_that_repairs_it(store, tool):
    edited_projection(store)
    assert "\torders replay\n" in tool("doctor").stdout
    assert tool("replay").returncode == 0
    assert look(store) == {}


def test_the_repair_of_a_projection_makes_it_as_it_was(store):
    well = (keep_projections(store) / "item-sales.json").read_bytes()
    edited_projection(store)
    done = repaired(store)
    assert any("item-sales" in text for text in done)
    assert (store / "projections" / "item-sales.json").read_bytes() == well


@pytest.mark.parametrize("name", ["item-sales", "bestseller"])
def test_a_foreign_file_in_the_place_of_a_projection_is_named_and_left_alone(store, tool, name):
    kept = keep_projections(store) / f"{name}.json"
    kept.write_text('{"mine": 1}')
    log = store / "events.jsonl"
    log.chmod(0o644)
    for arguments in (["doctor"], ["doctor", "--repair"]):
        result = tool(*arguments)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert str(kept) in result.stdout + result.stderr
    assert kept.read_text() == '{"mine": 1}'
    assert f"made {log} private" in result.stdout + result.stderr, "the rest is repaired"


class Choking(Policy):
    """Cannot fold what it follows, until it is cured."""

    name = "choking"
    follow = (OrderCreated,)
    columns: ClassVar = {}
    is_cured = False

    def apply(self, event):
        if not self.is_cured:
            raise RuntimeError("choked")

    def react(self, event):
        yield NotifySales(event.order_id, event.items)


def test_a_policy_that_cannot_react_is_named_and_keeps_none_from_being_repaired(
    store, send, monkeypatch
):
    left_by_the_dead(store)
    for _ in range(10):
        send(PlaceOrder(("rope",)))
    warnings = []
    with bootstrap(store, notifier=Sales(), on_warning=warnings.append) as app:
        app.follow(Choking)
        wrong = {f.subject: f.text for f in examine(app) if not f.is_well}
        assert "choking" in wrong["policies"]
        assert list(repair(app)) == [
            "made 1 delivery that processes left pending when they died",
            "had bestseller react to 1 event",
        ]
        assert all("choking" in warning for warning in warnings)
        assert warnings
        monkeypatch.setattr(Choking, "is_cured", True)
        assert list(repair(app)) == ["had choking react to 13 events"]
        assert [f for f in examine(app) if not f.is_well] == []
        assert list(repair(app)) == []


def test_a_policy_that_waits_for_its_turn_is_well_and_reacts_once_whatever_is_repaired(store, send):
    for _ in range(10):
        send(PlaceOrder(("rope",)))
    assert look(store) == {}
    with bootstrap(store, notifier=Sales()) as app:
        (waiting,) = [f for f in examine(app) if f.subject == "policies"]
    assert waiting.state == "waiting"
    assert (waiting.text, waiting.cure) == (
        "bestseller has yet to react to 1 event",
        "orders checkpoint",
    )
    sales = Sales()
    assert repaired(store, sales) == ["had bestseller react to 1 event"]
    damaged_policy(store)
    assert repaired(store, sales)
    assert [notice.title for notice in sales.notices] == ["Bestseller, ordered 10 times"]
    assert look(store) == {}
